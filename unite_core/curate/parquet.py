"""Records and tables as Parquet files, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from ..atomic import replacing
from ..records import GROUPS, RecordError

__all__ = ["write_columns", "write_rows"]

_BATCH = 8192  # records per row group
_LABELS = ("target_modal", "task", "source", *GROUPS)


def write_rows(path: str | Path, records: Iterable[Mapping], about: Mapping[str, str]) -> int:
    """Write records as Parquet, `about` as the file's metadata; returns how many.

    Columns are query, candidate {text, image, video}, negative (a list of these), target_modal,
    task, source, query_group, candidate_group. An image or video column is a list of paths, so
    `"a.png"` comes back as `["a.png"]`, which means the same. Videos of several frame lists do not
    fit: RecordError.
    """
    arrow, parquet = _arrow()
    paths = arrow.list_(arrow.string())
    item = arrow.struct([("text", arrow.string()), ("image", paths), ("video", paths)])
    columns = {"query": item, "candidate": item, "negative": arrow.list_(item)}
    columns |= dict.fromkeys(_LABELS, arrow.string())
    schema = arrow.schema(list(columns.items()), metadata=dict(about))
    count = 0
    with (
        replacing(path) as partial,
        parquet.ParquetWriter(partial, schema, compression="zstd") as file,
    ):
        for rows in _batches(map(_flat, records)):
            file.write_table(arrow.Table.from_pylist(rows, schema))
            count += len(rows)
    return count


def write_columns(path: str | Path, columns: Mapping) -> None:
    """Write columns of equal length (arrays or lists) as a Parquet table."""
    arrow, parquet = _arrow()
    with replacing(path) as partial:
        parquet.write_table(arrow.table(dict(columns)), partial, compression="zstd")


def _flat(record: Mapping) -> dict:
    negative = record.get("negative") or []
    negatives = [negative] if isinstance(negative, Mapping) else negative
    row = {side: _item(record[side]) for side in ("query", "candidate")}
    row["negative"] = [_item(each) for each in negatives] or None
    return row | {key: record.get(key) for key in _LABELS}


def _item(item: Mapping) -> dict:
    paths = {key: _paths(item.get(key)) for key in ("image", "video")}
    return {"text": item.get("text")} | paths


def _paths(value) -> list[str] | None:
    if value is None or isinstance(value, str):
        return None if value is None else [value]
    if not all(isinstance(each, str) for each in value):
        raise RecordError(
            f"{value!r}: several videos of frames do not fit a Parquet column of paths; save each "
            "as one video file, or leave the record out"
        )
    return list(value)


def _batches(rows: Iterable) -> Iterator[list]:
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH)):
        yield batch


def _arrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'unite-workbook[curate]'") from None
    return pyarrow, pyarrow.parquet
