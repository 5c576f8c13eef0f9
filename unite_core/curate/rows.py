"""Many records in little memory, and how sources become records below one media root."""

# Shapes: N records.

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..data.json_stream import RecordError
from ..data.packed import PackedRows
from ..files import read_json
from .filter import directed_pair_type
from .recipe import Source
from .validate import MediaCheck, Reject, Report, check_bad_share, check_rows

__all__ = ["below", "load_source", "load_tests"]


def load_source(
    source: Source, data: Path, rows: PackedRows, max_bad_share: float, reject: Callable
) -> dict:
    """Append a source's valid records to `rows`, media paths relative to the common media root.

    Args
        data           folder that the source's path is relative to
        max_bad_share  of its rows that may be rejected; more is a BadRowsError
        reject         is called with each `check.Reject`
    Returns
        counts: `rows` read, `records` made, `rejected`, `left_out` by the source's own filters,
        `causes` of rejects.
    """
    report, left_out = Report(), 0
    for result in _checked(source, data, report):
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


def load_tests(source: Source, data: Path) -> Iterator[dict]:
    """Evaluation pairs of a tasks.json, one per right answer, or of a file of records."""
    path = data / source.path
    value = read_json(path) if path.suffix == ".json" else None
    if isinstance(value, list) and value and isinstance(value[0], dict) and "queries" in value[0]:
        for task in value:
            for query, right in zip(task["queries"], task["positives"], strict=True):
                for place in right:
                    pair = {"query": query, "candidate": task["candidates"][place]}
                    yield below(pair, source.media)
        return
    for result in _checked(source, data, Report()):
        if isinstance(result, Reject):
            raise RecordError(result.message)
        yield result


def below(record: Mapping, folder: str) -> dict:
    """The record with its media paths put below a folder."""
    if not folder:
        return dict(record)
    moved = dict(record)
    for side in ("query", "candidate"):
        moved[side] = _item_below(record[side], folder)
    negative = record.get("negative")
    if negative is not None:
        many = isinstance(negative, list)
        items = [_item_below(item, folder) for item in (negative if many else [negative])]
        moved["negative"] = items if many else items[0]
    return moved


def _checked(source: Source, data: Path, report: Report) -> Iterator[dict | Reject]:
    """Records below the common media root; whether their media can be used is for the rules."""
    media = MediaCheck(source.media or ".", "name")
    for result in check_rows(source.iter_rows(data), source.converter(), media, report):
        if not isinstance(result, Reject):
            result = below(result, source.media)
            result = result if result.get("source") else result | {"source": source.name}
        yield result


def _item_below(item: Mapping, folder: str) -> dict:
    return {
        key: value if key == "text" else _path_below(value, folder) for key, value in item.items()
    }


def _path_below(value, folder: str):
    if isinstance(value, list):
        return [_path_below(each, folder) for each in value]
    return value if value is None else posixpath.join(folder, value)


def _is_wanted(record: Mapping, source: Source) -> bool:
    return (not source.tasks or record.get("task") in source.tasks) and (
        not source.pair_types or directed_pair_type(record) in source.pair_types
    )
