"""Data as a user has them, on the command line: columns by name, media found, records written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import click

from ..curate.own_data import OwnData, find_data, own_items, own_pairs
from ..curate.validate import Reject, Report
from ..data.embedded import FOLDER as EMBEDDED
from ..data.embedded import is_cell
from ..data.items import ITEM_KEYS, files_of
from ..data.json_stream import RecordError
from ..data.readers import HUB, Row, iter_rows, raw_rows
from ..data.records import write_records
from ..files import read_json, replacing, write_json

__all__ = [
    "check_names", "column_options", "find_sources", "group_option", "note_root", "report_rows",
    "root_option", "say", "tasks_root", "watched", "with_data", "write_items_of", "write_pairs",
    "write_rejects",
]  # fmt: skip


_NOTE = "media.json"  # beside records: the folder of their media
_LOOKED_AT = 8  # rows, for media inside a table
_HERE = Path(".unite")  # for media of a table whose own folder cannot be written


def column_options() -> list[click.Option]:
    """`--text`, `--image`, `--video`: which columns of a table are meant."""
    return [
        click.Option([f"--{key}"], metavar="COLUMN", default="",
                     help=f"Column of the {words}; guessed, and said, where it is not given.{more}")
        for key, words, more in (
            ("text", "texts", " Of a folder of media: filename, the words of each file's name."),
            ("image", "pictures' files", ""), ("video", "videos' files", ""),
        )
    ]  # fmt: skip


def group_option() -> click.Option:
    """`--group`: which column says what belongs together."""
    return click.Option(
        ["--group"], metavar="COLUMN", default="",
        help="Column whose equal values belong together, such as a product: split keeps them on "
        "one side, mining and training take none as a negative of another. It becomes the "
        "records' group.",
    )  # fmt: skip


def root_option() -> click.Option:
    return click.Option(
        ["--media-root"], type=click.Path(file_okay=False),
        help="Folder that media paths are relative to; default: that of the data.",
    )  # fmt: skip


def say(words: str) -> None:
    """Tell the user something beside the result."""
    click.echo(words, err=True)


def check_names(*models: str | None) -> None:
    """FileNotFoundError for a name that can be no model, before anything slow."""
    from ..model.shipped import check_model

    for model in filter(None, models):
        check_model(model)


def find_sources(
    paths: Sequence[str], columns: Mapping[str, str] | None = None, media_root: str | None = None,
) -> list[OwnData]:  # fmt: skip
    """Look at the head of each data path, and say what was found; all share one media root."""
    found = []
    for path in paths:
        root = media_root or _noted_root(path)
        data = find_data(path, **(columns or {}), media_root=root)
        packed = _is_packed(data)
        if packed and root is None and not os.access(data.media_root, os.W_OK):
            data = replace(data, media_root=_HERE.absolute())
        say(data.words())
        if packed:
            folder = data.media_root / EMBEDDED
            say(f"media inside it become files below {folder} (another: --media-root)")
        found.append(data)
    roots = {data.media_root.resolve() for data in found}
    if len(roots) > 1:
        raise RecordError(
            f"{', '.join(paths)}: media below different folders; give one that all lie below as "
            "--media-root, and paths relative to it"
        )
    return found


def _is_packed(data: OwnData) -> bool:
    """Whether media stand inside the table, and so are written to files where they are read."""
    if not data.columns:
        return False
    rows = islice(raw_rows(data.source.path, data.source.split), _LOOKED_AT)
    return any(_has_cell(row.value) for row in rows if isinstance(row, Row))


def _has_cell(value) -> bool:
    if is_cell(value):
        return value["bytes"] is not None
    parts = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, Mapping | list) and any(map(_has_cell, parts))


def watched(rows: Iterable, what: str) -> Iterable:
    """The rows with a progress bar, once they take seconds."""
    from tqdm import tqdm

    return tqdm(rows, what, delay=3, unit="row", leave=False)


def write_pairs(
    paths: Sequence[str], found: Sequence[OwnData], folder: str | Path
) -> tuple[str, ...]:
    """Files of records for each source: its own file, or one written into a folder."""
    return tuple(
        _records_file(path, data, Path(folder)) for path, data in zip(paths, found, strict=True)
    )


def _records_file(path: str, data: OwnData, folder: Path) -> str:
    if data.layout == "records":
        same = path.startswith(HUB) or Path(path).resolve() == Path(data.source.path).resolve()
        return path if same else data.source.path
    report = Report()
    file = folder / f"{_stem(data)}.jsonl"
    rows = watched(own_pairs(data, report), "read")
    write_records(file, _good(rows, file))
    report_rows(data, report, file)
    return str(file)


def write_items_of(data: OwnData, folder: Path) -> str:
    """A file in a folder of the items of a source, for a corpus."""
    report, file = Report(), folder / f"{_stem(data)}.jsonl"
    with replacing(file) as partial, partial.open("w", encoding="utf-8") as lines:
        for item in _good(watched(own_items(data, report), "read"), file):
            lines.write(json.dumps(item, ensure_ascii=False) + "\n")
    report_rows(data, report, file, "items")
    return str(file)


def _good(results: Iterable[dict | Reject], file: Path) -> Iterator[dict]:
    """The records or items; rejects go to a file beside theirs."""
    rejects = []
    for result in results:
        if isinstance(result, Reject):
            rejects.append(result)
        else:
            yield result
    write_rejects(file.with_suffix(".rejects.jsonl"), rejects)


def write_rejects(file: Path, rejects: Sequence[Reject]) -> None:
    """List what was left out and why; no file where nothing was."""
    if not rejects:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as partial, partial.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(result._asdict()) + "\n" for result in rejects)


def report_rows(data: OwnData, report: Report, file: Path, what: str = "pairs") -> None:
    """Say how many rows gave what; RecordError, with the first cause, where none did."""
    if not report.records:
        first = report.examples[0].message if report.examples else "it has no rows"
        raise RecordError(f"{data.source.path}: no {what} in {report.rows} rows; {first}")
    causes = ", ".join(f"{count} {cause}" for cause, count in report.causes.most_common())
    left = f"; {report.rejects} left out ({causes}), see {file.with_suffix('.rejects.jsonl')}"
    say(f"{report.records} {what} of {report.rows} rows{left if report.rejects else ''}")


def note_root(folder: str | Path, media_root: str | Path) -> None:
    """Note beside records where their media are, so that no command has to be told."""
    write_json(Path(folder, _NOTE), {"media_root": str(Path(media_root).resolve())}, indent=1)


def tasks_root(path: str, items: Iterable[Mapping], media_root: str | None = None) -> str:
    """The media folder of a file of tasks: given, noted beside it, here, or the file's own."""
    first = next((file for item in items for file in files_of(item)), "")
    here = "." if Path(first).exists() else str(Path(path).parent)
    root = media_root or _noted_root(path) or here
    say(f"{Path(path).name}: tasks, media below {root}")
    return root


def _noted_root(path: str) -> str | None:
    note = Path(path).parent / _NOTE
    if not note.is_file() or Path(path).is_dir():
        return None
    root = read_json(note).get("media_root")
    return root if isinstance(root, str) and Path(root).is_dir() else None


def with_data(
    given: Mapping[str, Any], values: Mapping[str, Any], columns: Mapping[str, str],
    write: Callable[[Sequence[str], list[OwnData], Any], tuple[str, ...]] | None = None,
    items: bool = False,
) -> Callable[[Any], Any]:  # fmt: skip
    """What turns a configuration whose `data` may be anybody's into one of files of records.

    Args
        given, values, columns  options, the values of a configuration file, the column options
        write                   (paths, sources, configuration) -> files; default: pairs below
                                `output`
        items                   files of items are taken as they are
    Where neither says it, the media root is the folder of the data, or that noted beside them.
    """

    def finish(config):
        check_names(config.model)
        root = given.get("media_root") or values.get("media_root")
        if items and not any(columns.values()) and all(map(_is_items, config.data)):
            return replace(config, media_root=root or _items_root(config.data))
        if not config.data:
            return config
        found = find_sources(config.data, columns, root)
        config = replace(config, media_root=root or str(found[0].media_root))
        files = (write or _pairs_below)(config.data, found, config)
        return replace(config, data=files)

    return finish


def _is_items(path: str) -> bool:
    """Whether a file of JSON begins with an item {id?, text?, image?, video?}, no record."""
    suffixes = [suffix for suffix in Path(path).suffixes if suffix.startswith((".json", ".ndjson"))]
    if not suffixes or not Path(path).is_file():
        return False
    row = next(iter(iter_rows(path)), None)
    return row is not None and isinstance(row.value, dict) and set(row.value) <= {"id", *ITEM_KEYS}


def _items_root(paths: Sequence[str]) -> str:
    """The folder of the media of files of items: here, or that of the first file."""
    noted = _noted_root(paths[0])
    if noted:
        return noted
    values = (row.value for row in iter_rows(paths[0]) if isinstance(row.value, dict))
    files = (file for item in values for file in files_of(item))
    return "." if Path(next(files, "")).exists() else str(Path(paths[0]).parent)


def _pairs_below(paths: Sequence[str], found: Sequence[OwnData], config) -> tuple[str, ...]:
    return write_pairs(paths, found, Path(config.output or ".unite", "pairs"))


def _stem(data: OwnData) -> str:
    return Path(data.source.path.removeprefix(HUB).replace(":", "-")).stem
