"""Anybody's data as pairs or items: a folder, CSV, JSON Lines or Parquet, its columns by name.

    pictures/  metadata.csv  a table with a column of media files and one of texts
    pictures/  a.png a.txt   media with a text of the same name beside each
    pictures/  red_bike1.png media whose names are their texts, if `text` is "filename"
    pairs.csv                two columns of texts, such as query and positive
    pairs.jsonl              records as `data.records` has them, taken as they are

Columns that are not named are guessed from their names and from the first rows. Media are looked
for below the folder of the table, or in one of its folders.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from statistics import fmean

from ..data.embedded import FOLDER as EMBEDDED
from ..data.embedded import is_cell
from ..data.json_stream import RecordError
from ..data.readers import HUB, RawLine, decode_line, raw_rows, row_files
from .media_folders import FILENAME, IMAGES, VIDEOS, folder_files, folder_rows
from .recipe import FOLDER, Source
from .validate import MediaCheck, Reject, Report, check_rows

__all__ = ["OwnData", "check_pairs", "find_data", "own_items", "own_pairs"]


_HEAD = 50  # rows that are looked at
_TEXTS = (
    "caption", "captions", "text", "sentence", "sentences", "description", "title", "alt",
    "alt_text", "prompt", "label", "name",
)  # fmt: skip
_MEDIA = (
    "image", "image_path", "file_name", "filename", "file", "path", "picture", "photo", "img",
    "video", "video_path", "video_name", "clip",
)  # fmt: skip
_SIDES = (
    ("query", "positive"), ("anchor", "positive"), ("question", "answer"), ("query", "pos"),
    ("sentence1", "sentence2"), ("sent0", "sent1"),
)  # fmt: skip
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of the hub's image folders
_FILES = {*IMAGES, *VIDEOS, ".webp"}


@dataclass(frozen=True)
class OwnData:
    """What a path holds and how its rows become records.

    source      its rows and their adapter; the path is absolute, or that of a hub data set
    media_root  folder that media paths are relative to
    layout      records, media (files with texts, or files alone) or texts
    text        column of the texts, "" without
    media       column of the media, "" without
    kind        image or video, "" where the file's name tells
    columns     all of a table
    """

    source: Source
    media_root: Path
    layout: str
    text: str = ""
    media: str = ""
    kind: str = ""
    columns: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Column of the groups, "" without."""
        return self.source.options.get("group", "")

    def words(self) -> str:
        """What was found, in a line: "pictures.csv: text from title, media from file (...)"."""
        name = Path(self.source.path).name
        grouped = [f"group from {self.group}"] if self.group else []
        if self.layout == "records":
            words = ["records of query and candidate", *grouped, f"media below {self.media_root}"]
            return f"{name}: {', '.join(words)}"
        if self.source.adapter == FOLDER:
            named = {"": "without texts", FILENAME: "with the words of their names"}
            texts = named.get(self.text, "with the text file of the same name")
            return f"{name}: media {texts}"
        taken = [f"text from {self.text}"] if self.text else []
        if self.layout == "texts":
            taken = [f"query from {self.text}, candidate from {self.media}"]
        elif self.media:
            folder = self.source.options.get("folder")
            below = self.media_root / folder if folder else self.media_root
            taken.append(f"{self.kind or 'media'} from {self.media}, below {below}")
        used = (self.text, self.media, self.group)
        others = [name for name in self.columns if name not in used]
        rest = f" (other columns: {', '.join(others[:8])})" if others else ""
        return f"{name}: {', '.join([*taken, *grouped])}{rest}"


def find_data(
    path: str | Path, text: str = "", image: str = "", video: str = "",
    media_root: str | Path | None = None, split: str = "train", instruction: str = "",
    group: str = "",
) -> OwnData:  # fmt: skip
    """Look at the first rows of a path and decide how they are read.

    Args
        path          folder, file or hub:OWNER/NAME
        text          column of the texts; "": guessed; of a folder of media: "filename"
        image, video  column of the media, at most one; "": guessed
        media_root    folder that media paths are relative to; None: see the head of this module
        split         of a hub or saved data set
        instruction   put before the text of every query
        group         column whose equal values belong together, the records' `group`; "": none
    Raises RecordError naming the columns that there are, where one is missing or none fits.
    """
    if image and video:
        raise RecordError(f"{path}: --image {image} and --video {video}: name one column of media")
    named = {"text": text, "image": image, "video": video}
    told = {"instruction": instruction, "group": group}
    told = {name: value for name, value in told.items() if value}
    table, root = _table_of(path, media_root)
    if table is None:
        from_names = named["text"] == FILENAME
        others = named | {"text": ""} if from_names else named
        _refuse_columns(path, others | {"group": group}, "a folder of media has none")
        return _folder(Path(path), root, told, from_names)
    rows = _head(table, split)
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    if any(isinstance(row.get("query"), Mapping) and "candidate" in row for row in rows):
        _refuse_columns(path, named, "these are records of query and candidate")
        first = _first_media(rows)
        root = root or (Path() if first is None or Path(first).exists() else _parent(table))
        _check_names(table, columns, {"group": group})
        return OwnData(_source(table, "native", split, told), root, "records", columns=columns)
    _check_names(table, columns, named | {"group": group})
    return _columns(table, rows, columns, named, root, split, told)


def own_pairs(data: OwnData, report: Report, depth: str = "file") -> Iterator[dict | Reject]:
    """Yield records or rejects, in order.

    Args
        report  counts rows, records and causes of rejects
        depth   how thoroughly media are checked, see `MediaCheck`
    Media that stand in a table become files below the media root.
    """
    check_pairs(data)
    media, convert = MediaCheck(data.media_root, depth), data.source.converter()
    yield from check_rows(data.source.iter_rows(".", data.media_root), convert, media, report)


def check_pairs(data: OwnData) -> None:
    """RecordError for data of one side only, which are no pairs."""
    if data.layout == "records" or (data.text and data.media):
        return
    if data.source.adapter == FOLDER:
        raise RecordError(
            f"{data.source.path}: pictures without texts are no pairs; put a text file of the same "
            "name beside each, or a table with a column of files and one of texts, or, where file "
            "names are words, add --text filename"
        )
    option = "text" if data.media else "image"
    raise RecordError(
        f"{data.source.path}: pairs need two columns, and none of {option}s was found; name it "
        f"with --{option}; it has {', '.join(data.columns)}"
    )


def own_items(data: OwnData, report: Report) -> Iterator[dict | Reject]:
    """Yield items {id, image | video | text}, each content once, or rejects.

    A medium's id is its path, a text's the number of its row. Of media with texts the media.
    """
    if data.layout == "records":
        raise RecordError(f"{data.source.path}: holds records: name their sides with --take")
    check, known = MediaCheck(data.media_root), set()
    for number, (where, content) in enumerate(_contents(data), 1):
        report.rows += 1
        ((kind, value),) = content.items()
        missing = "" if isinstance(value, str) and value.strip() else f"{where}: no {kind} here"
        fault = missing or check.fault({"query": content, "candidate": content})
        if fault:
            reject = Reject(where, "no file" if kind != "text" else "blank text", fault)
            report.reject(reject)
            yield reject
        elif value not in known:
            known.add(value)
            report.records += 1
            yield {"id": str(number) if kind == "text" else value, **content}


def _contents(data: OwnData) -> Iterator[tuple[str, dict]]:
    if data.source.adapter == FOLDER:
        for file in folder_files(data.source.path):
            if file.suffix.lower() in _FILES:
                path = file.relative_to(data.source.path).as_posix()
                yield str(file), {_kind_of(path): path}
        return
    folder = data.source.options.get("folder", "")
    for row in data.source.iter_rows(".", data.media_root):
        row = decode_line(row) if isinstance(row, RawLine) else row
        value = {} if row.error else row.value
        if data.layout == "media" and data.media:
            path = value.get(data.media)
            path = f"{folder}/{path}" if folder and path else path
            yield row.where, {data.kind or _kind_of(str(path)): path}
        else:
            yield row.where, {"text": value.get(data.text)}


def _table_of(path: str | Path, media_root) -> tuple[str | Path | None, Path | None]:
    """The table of a path, None for a folder of media alone, and the media root if it is known."""
    root = None if media_root is None else Path(media_root)
    if str(path).startswith(HUB):
        return str(path), root
    path = Path(path)
    if not path.exists():
        raise RecordError(f"{path}: no such file or folder; correct the path")
    if not path.is_dir() or any((path / n).is_file() for n in ("state.json", "dataset_dict.json")):
        return path, root
    for name in _METADATA:
        if (path / name).is_file():
            return path / name, root or path
    if _has_media(path):
        tables = [file for file in _rows_at(path) if file.parent == path]
        if len(tables) > 1:
            names = ", ".join(table.name for table in tables[:8])
            raise RecordError(f"{path}: holds several tables, {names}; name one")
        return (tables[0], root or path) if tables else (None, path)
    return path, root


def _has_media(path: Path) -> bool:
    """Whether a folder holds media of its own, not only those that were inside a table."""
    return any(
        file.suffix.lower() in _FILES and file.relative_to(path).parts[0] != EMBEDDED
        for file in folder_files(path)
    )


def _rows_at(path: Path) -> list[Path]:
    try:
        return row_files(path)
    except RecordError:
        return []


def _folder(path: Path, root: Path | None, told: Mapping, from_names: bool) -> OwnData:
    if root is not None and root != path:
        raise RecordError(
            f"{path}: a folder of media is its own media root; leave --media-root out"
        )
    named = {"caption": FILENAME} if from_names else {}
    source = _source(path, FOLDER, "train", named | told)
    if from_names:
        return OwnData(source, path, "media", FILENAME, "file")
    has_text = any(row.error == "" for row in islice(folder_rows(path), _HEAD))
    return OwnData(source, path, "media", "text file" if has_text else "", "file")


def _columns(table, rows, columns, named, root, split, told) -> OwnData:
    media = named["image"] or named["video"] or _guess(rows, columns, _MEDIA, _is_media)
    texts = [name for name in columns if name != media]
    if not media and not named["text"]:
        for query, positive in _SIDES:
            if query in columns and positive in columns:
                options = {"query": query, "positive": positive} | told
                source = _source(table, "text-pairs", split, options)
                return OwnData(source, root or _parent(table), "texts", query, positive,
                               columns=columns)  # fmt: skip
    text = named["text"] or _guess(rows, texts, _TEXTS, _is_text)
    kind = next((name for name in ("image", "video") if named[name]), "")
    root = root or _parent(table)
    if not media:
        return OwnData(_source(table, "captions", split), root, "media", text, columns=columns)
    options = {"image": media} | ({"caption": text} if text else {}) | told
    options |= {"media": kind} if kind else {}
    options |= _subfolder(table, root, [row.get(media) for row in rows])
    return OwnData(
        _source(table, "captions", split, options), root, "media", text, media, kind, columns
    )


def _source(path, adapter: str, split: str, options: Mapping | None = None) -> Source:
    place = str(path) if str(path).startswith(HUB) else os.path.abspath(path)
    name = str(path).removeprefix(HUB) if str(path).startswith(HUB) else Path(place).stem
    return Source(name, place, adapter=adapter, options=dict(options or {}), split=split)


def _head(table, split: str) -> list[dict]:
    rows, fault = [], ""
    for row in islice(raw_rows(table, split), _HEAD):
        row = decode_line(row) if isinstance(row, RawLine) else row
        fault = fault or row.error
        if isinstance(row.value, dict):
            rows.append(row.value)
    if not rows:
        raise RecordError(fault or f"{table}: holds no rows")
    return rows


def _check_names(table, columns: Sequence[str], named: Mapping[str, str]) -> None:
    for option, name in named.items():
        if name and name not in columns:
            near = difflib.get_close_matches(name, columns, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise RecordError(
                f"{table}: no column {name!r} for --{option}{hint}; it has {', '.join(columns)}"
            )


def _refuse_columns(path, named: Mapping[str, str], why: str) -> None:
    if given := [f"--{option} {name}" for option, name in named.items() if name]:
        raise RecordError(f"{path}: {' '.join(given)} names a column, and {why}; leave it out")


def _guess(rows: Sequence[Mapping], columns: Sequence[str], known: Sequence[str], fits) -> str:
    """The first column with a known name whose values fit, else that of the longest values."""
    lengths = {}
    for name in columns:
        values = [row.get(name) for row in rows if row.get(name) not in (None, "")]
        if values and fmean(map(fits, values)) > 0.5:
            lengths[name] = fmean(len(str(value)[:1000]) for value in values)
    by_name = [name for word in known for name in lengths if name.lower() == word]
    return by_name[0] if by_name else max(lengths, key=lengths.get, default="")


def _is_media(value) -> bool:
    return is_cell(value) or (
        isinstance(value, str) and PurePosixPath(value).suffix.lower() in _FILES
    )


def _is_text(value) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_text, value))
    if isinstance(value, Mapping):
        return "raw" in value
    has_letters = isinstance(value, str) and any(map(str.isalpha, value))
    return has_letters and not _is_media(value) and "://" not in value


def _subfolder(table, root: Path, values: Sequence) -> dict:
    """{"folder": name} where the first media lie in a folder below the root; RecordError if not."""
    path = next((value for value in values if isinstance(value, str) and value), None)
    if path is None or "://" in path or (root / path).is_file():
        return {}
    folders = [f for f in sorted(root.iterdir()) if f.is_dir()] if root.is_dir() else []
    for folder in folders:
        if (folder / path).is_file():
            return {"folder": folder.name}
    shown = path if Path(path).is_absolute() else root / path
    raise RecordError(
        f"{table}: no file {shown}; give the folder that its paths are relative to as --media-root"
    )


def _kind_of(path: str) -> str:
    return "video" if PurePosixPath(path).suffix.lower() in VIDEOS else "image"


def _first_media(rows: Sequence[Mapping]) -> str | None:
    for row in rows:
        for side in ("query", "candidate"):
            item = row.get(side)
            for key in ("image", "video") if isinstance(item, Mapping) else ():
                value = item.get(key)
                value = value[0] if isinstance(value, list) and value else value
                if isinstance(value, str):
                    return value
    return None


def _parent(table) -> Path:
    if str(table).startswith(HUB):
        return Path()
    return table if Path(table).is_dir() else Path(table).parent
