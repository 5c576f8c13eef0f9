"""Many records in little memory, and how sources become records below one media root."""

# Shapes: N records.

from __future__ import annotations

import json
import posixpath
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..jsonfile import read_json
from ..records import RecordError, validate_record
from .adapters import adapter
from .judge import pair_type
from .recipe import Source
from .sources import iter_rows

__all__ = ["PackedRows", "Reject", "below", "load_source", "load_tests"]

_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


class Reject(NamedTuple):
    """A row that is no valid record."""

    where: str
    cause: str  # the same words for the same kind of defect
    message: str


class PackedRows(Sequence):
    """Records as one block of JSON, parsed when they are asked for: about their size on disk."""

    def __init__(self):
        self.text, self.ends = bytearray(), array("q")

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> dict:
        return json.loads(self.packed(index))

    def packed(self, index: int) -> bytes:
        """The JSON of a record, keys sorted, without blanks: equal records have equal bytes."""
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return bytes(self.text[start : self.ends[index]])

    def append(self, record: Mapping) -> None:
        """Add a record; its media must be paths."""
        self.text += _compact(record).encode()
        self.ends.append(len(self.text))


def load_source(
    source: Source, data: Path, rows: PackedRows, max_bad_share: float, reject: Callable
) -> dict:
    """Append a source's valid records to `rows`, media paths relative to the common media root.

    Args
        data           folder that the source's path is relative to
        max_bad_share  of its rows that may be rejected; more is a RecordError
        reject         is called with each `Reject`
    Returns
        counts: `rows` read, `records` made, `rejected`, `left_out` by the source's own filters,
        `causes` of rejects.
    """
    convert = adapter(source.adapter, **source.options)
    path = source.path if source.path.startswith("hub:") else data / source.path
    counts = {"rows": 0, "records": 0, "rejected": 0, "left_out": 0, "causes": {}}
    for row in iter_rows(path, source.split):
        counts["rows"] += 1
        try:
            records = list(_valid(row, convert, source))
        except RecordError as error:
            bad = Reject(row.where, _cause(str(error)), str(error))
            counts["rejected"] += 1
            counts["causes"][bad.cause] = counts["causes"].get(bad.cause, 0) + 1
            reject(bad)
            continue
        for record in records:
            wanted = _is_wanted(record, source)
            counts["records" if wanted else "left_out"] += 1
            if wanted:
                rows.append(record)
    if counts["rejected"] > max_bad_share * counts["rows"]:
        causes = ", ".join(f"{cause} ({n})" for cause, n in counts["causes"].items())
        raise RecordError(
            f"source {source.name}: {counts['rejected']} of {counts['rows']} rows are no records: "
            f"{causes}; correct them, the adapter {source.adapter!r}, or raise max_bad_share"
        )
    return counts


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
    convert = adapter(source.adapter, **source.options)
    for row in iter_rows(path, source.split):
        yield from _valid(row, convert, source)


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


def _valid(row, convert, source: Source) -> Iterator[dict]:
    if row.error:
        raise RecordError(row.error)
    for record in convert(row.value):
        validate_record(record, row.where, source.media or ".")
        moved = below(record, source.media)
        yield moved if moved.get("source") else moved | {"source": source.name}


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
        not source.pair_types or pair_type(record) in source.pair_types
    )


def _cause(message: str) -> str:
    """`"file, line 3, field query: missing; ..."` to `"field query: missing"`."""
    parts = message.split(";")[0].split(", field ", 1)
    text = f"field {parts[1]}" if len(parts) > 1 else parts[0].split(": ", 1)[-1]
    return text.split(" (")[0][:80]
