"""Write the valid records of a source to files, in parts that are atomic and can be resumed.

FOLDER/part-00000.jsonl          valid records
FOLDER/part-00000.rejects.jsonl  rejects {where, cause, message}
FOLDER/part-00000.json           counts of the part, written last: the part is complete
FOLDER/source.json               source and settings; other ones are refused
FOLDER/report.json               counts of all parts, written at the end
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import lru_cache, partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from ..data.json_stream import RecordError
from ..files import read_json, replacing, write_json
from .adapters import Adapter
from .recipe import Source
from .validate import MediaCheck, Reject, Report, check_bad_share, check_rows

__all__ = ["ingest_source", "iter_ingested"]


_MIN_ROWS = 1000  # before a bad share can stop a run early
_AHEAD = 2  # parts per worker that are read ahead


def ingest_source(
    source: Source,
    folder: str | Path,
    data: str | Path = ".",
    media_root: str | Path = ".",
    depth: str = "file",
    max_bad_share: float = 0.01,
    workers: int = 0,
    part_rows: int = 20_000,
) -> Report:
    """Write the valid records and the rejects of a source into `folder`; returns the counts.

    Args
        data           folder that the source's path is relative to
        media_root     folder that contains `source.media`
        depth          how thoroughly media are checked, see `MediaCheck`
        max_bad_share  share of rows that may be rejected; more raises BadRowsError, at the end or
                       once 1000 rows have been read
        workers        number of processes, 0 for none; the files written are the same. Adapters
                       registered in a notebook cell need 0
        part_rows      rows per part
    Complete parts are not checked again, so an interrupted run resumes. Raises RecordError if the
    folder was made from other files or with other settings.
    """
    folder = Path(folder)
    media = (os.path.join(media_root, source.media), depth)
    MediaCheck(*media)  # like the next line, refuses bad settings before anything is written
    convert = source.converter()
    _media_check.cache_clear()  # files may have changed since the last call
    about = {"media_root": str(media_root), "depth": depth, "part_rows": part_rows}
    _check_same_source(dataclasses.asdict(source) | about | {"files": source.stamp(data)}, folder)
    report = Report()
    parts = _parts(source.iter_rows(data, media_root), part_rows)
    check = partial(_check_part, convert, folder, media)
    for part in _done(check, parts, folder, workers):
        report.add(part)
        check_bad_share(report, max_bad_share, _MIN_ROWS)
    check_bad_share(report, max_bad_share)
    write_json(folder / "report.json", _as_json(report), indent=2)
    return report


def iter_ingested(folder: str | Path) -> Iterator[dict]:
    """Yield the valid records of a finished `ingest_source`, in order, without validation."""
    folder = Path(folder)
    if not (folder / "report.json").is_file():
        raise RecordError(f"{folder}: no report.json, so it is not complete; run ingest again")
    load = _fast_load()
    for part in sorted(folder.glob("part-*.jsonl")):
        if not part.name.endswith(".rejects.jsonl"):
            with part.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        yield load(line)
                    except ValueError as error:
                        raise RecordError(
                            f"{part}, line {number}: damaged ({error}); remove {folder} and run "
                            "ingest again"
                        ) from None


def _fast_load() -> Callable[[bytes], dict]:
    try:
        import orjson
    except ImportError:
        return json.loads
    return orjson.loads


def _check_same_source(asked: dict, folder: Path) -> None:
    """Record what the folder is made of, or check that it is the same as before."""
    asked = json.loads(json.dumps(asked))
    noted = folder / "source.json"
    if not noted.is_file():
        write_json(noted, asked, indent=2)
    elif (before := _object(noted)) != asked:
        changed = ", ".join(key for key in asked if before.get(key) != asked[key])
        raise RecordError(
            f"{folder}: was made with other {changed}; remove the folder or name another"
        )


def _parts(rows: Iterable, size: int) -> Iterator[tuple[int, list]]:
    rows, number = iter(rows), 0
    while part := list(islice(rows, size)):
        yield number, part
        number += 1


def _done(check: Callable, parts: Iterable, folder: Path, workers: int) -> Iterator[Report]:
    """Reports of all parts in order, from files for parts that are complete."""
    if not workers:
        for number, rows in parts:
            yield _known(folder, number) or check(number, rows)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        waiting: list[Future | Report] = []
        try:
            for number, rows in parts:
                waiting.append(_known(folder, number) or pool.submit(check, number, rows))
                if len(waiting) > workers * _AHEAD:
                    yield _result(waiting.pop(0))
            yield from map(_result, waiting)
        finally:
            pool.shutdown(cancel_futures=True)


def _result(part: Future | Report) -> Report:
    return part.result() if isinstance(part, Future) else part


def _known(folder: Path, number: int) -> Report | None:
    counts = _name(folder, number, ".json")
    if not counts.is_file():
        return None
    saved = _object(counts)
    try:
        examples = [Reject(*example) for example in saved["examples"]]
        return Report(saved["rows"], saved["records"], Counter(saved["causes"]), examples)
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"{counts}: no counts of a part ({type(error).__name__}: {error}); remove the file, "
            "and ingest makes the part again"
        ) from None


def _object(path: Path) -> dict:
    value = read_json(path)
    if not isinstance(value, dict):
        raise RecordError(f"{path}: no JSON object; remove {path.parent} and run ingest again")
    return value


def _check_part(convert: Adapter, folder: Path, media, number: int, rows: list) -> Report:
    report, good, bad = Report(), [], []
    for result in check_rows(rows, convert, _media_check(*media), report):
        (bad if isinstance(result, Reject) else good).append(result)
    _write_lines(_name(folder, number, ".jsonl"), map(_record_line, good))
    _write_lines(_name(folder, number, ".rejects.jsonl"), (_dump(r._asdict()) for r in bad))
    write_json(_name(folder, number, ".json"), _as_json(report))
    return report


@lru_cache(1)
def _media_check(root: str, depth: str) -> MediaCheck:
    """One check per process, because parts share media files."""
    return MediaCheck(root, depth)


def _record_line(record: dict) -> str:
    try:
        return _dump(record)
    except TypeError:
        raise RecordError(
            "media in memory cannot be written; save them as files and give their paths"
        ) from None


def _dump(value) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with replacing(path) as partial_file, partial_file.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def _name(folder: Path, number: int, suffix: str) -> Path:
    return folder / f"part-{number:05d}{suffix}"


def _as_json(report: Report) -> dict:
    """The report as JSON values; examples are [where, cause, message]."""
    counts = {"rows": report.rows, "records": report.records, "rejects": report.rejects}
    return counts | {"causes": dict(report.causes), "examples": list(map(list, report.examples))}
