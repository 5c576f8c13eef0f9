"""Records packed in memory, and loading sources into records below a common media root."""

# Shapes: N records.

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..data.json_stream import RecordError
from ..data.packed import PackedRows
from ..data.records import validate_record
from ..files import read_json
from .filter import directed_pair_type
from .recipe import Source
from .repair import Repair
from .validate import MediaCheck, Reject, Report, check_bad_share, check_rows

__all__ = ["below", "load_source", "load_tests"]


def load_source(
    source: Source,
    data: Path,
    rows: PackedRows,
    max_bad_share: float,
    reject: Callable,
    media_root: str | Path = ".",
    repair: Repair | None = None,
) -> dict:
    """Append the valid records of a source to `rows`, media relative to the common media root.

    Args
        data           folder that the source's path is relative to
        max_bad_share  share of rows that may be rejected; more raises BadRowsError
        reject         called with each `Reject`
        media_root     the common media root; media that stand in tables become files below it
        repair         what is put right in texts and media, if anything
    Returns
        counts: `rows` read, `records` appended, `rejected`, `left_out` by the source's `tasks` and
        `pair_types`, and `causes` of rejects.
    """
    from tqdm import tqdm

    report, left_out = Report(), 0
    found = _checked(source, data, report, media_root, repair)
    for result in tqdm(found, f"reading {source.name}", unit="record", mininterval=2, delay=1):
        if isinstance(result, Reject):
            reject(result)
        elif _is_wanted(result, source):
            rows.append(result)
        else:
            left_out += 1
    check_bad_share(report, max_bad_share)
    return {
        "rows": report.rows,
        "records": report.records - left_out,
        "rejected": report.rejects,
        "left_out": left_out,
        "causes": dict(report.causes),
    }


def load_tests(source: Source, data: Path, media_root: str | Path = ".") -> Iterator[dict]:
    """Yield evaluation pairs of a tasks.json, one per positive, or of a file of records."""
    path = data / source.path
    value = read_json(path) if path.suffix == ".json" else None
    if isinstance(value, list) and value and isinstance(value[0], dict) and "queries" in value[0]:
        for number, task in enumerate(value, 1):
            for pair in _pairs_of(task, f"{path}, task {number}"):
                yield below(pair, source.media)
        return
    for result in _checked(source, data, Report(), media_root):
        if isinstance(result, Reject):
            raise RecordError(result.message)
        yield result


def _pairs_of(task: Mapping, where: str) -> Iterator[dict]:
    """The pairs of a retrieval task, one per positive."""
    try:
        queries, positives, candidates = (
            task[name] for name in ("queries", "positives", "candidates")
        )
        pairs = [
            {"query": query, "candidate": candidates[place]}
            for query, places in zip(queries, positives, strict=True)
            for place in places
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RecordError(
            f"{where}: no retrieval task ({type(error).__name__}: {error}); it has queries, "
            "candidates, and positives, which are lists of places among the candidates"
        ) from None
    for number, pair in enumerate(pairs, 1):
        validate_record(pair, f"{where}, pair {number}")
        yield pair


def below(record: Mapping, folder: str) -> dict:
    """The record with its media paths prefixed by a folder."""
    if not folder:
        return dict(record)
    moved = dict(record)
    for side in ("query", "candidate"):
        moved[side] = _item_below(record[side], folder)
    negative = record.get("negative")
    if negative is not None:
        if isinstance(negative, list):
            moved["negative"] = [_item_below(item, folder) for item in negative]
        else:
            moved["negative"] = _item_below(negative, folder)
    return moved


def _checked(
    source: Source, data: Path, report: Report, media_root: str | Path,
    repair: Repair | None = None,
) -> Iterator[dict | Reject]:  # fmt: skip
    """Validated records and rejects of a source; media files are left to the filter."""
    media, convert = MediaCheck(source.media or ".", "name"), source.converter()
    rows = source.iter_rows(data, media_root)
    for result in check_rows(rows, repair.texts(convert) if repair else convert, media, report):
        if not isinstance(result, Reject):
            result = below(result, source.media)
            result = repair.media(result) if repair else result
            result = result if result.get("source") else result | {"source": source.name}
        yield result


def _item_below(item: Mapping, folder: str) -> dict:
    return {
        key: value if key == "text" else _path_below(value, folder) for key, value in item.items()
    }


def _path_below(value, folder: str):
    if isinstance(value, list):
        return [_path_below(path, folder) for path in value]
    return value if value is None else posixpath.join(folder, value)


def _is_wanted(record: Mapping, source: Source) -> bool:
    return (not source.tasks or record.get("task") in source.tasks) and (
        not source.pair_types or directed_pair_type(record) in source.pair_types
    )
