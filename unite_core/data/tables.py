"""Rows of Parquet files and Arrow tables, with an error for each row that cannot be read.

Memory is bounded by the bytes of a batch rather than by its rows: a picture counts as much as a
thousand captions, and a value that stands once in the file and a million times in the rows is
unpacked for a few rows at a time.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from .embedded import as_files, media_columns
from .json_stream import RecordError, check_regular, refuse_bomb

__all__ = ["Row", "import_reader", "parquet_rows", "table_rows"]


_ROWS = 1024  # rows decoded together at most
_BYTES = 1 << 26  # of a batch, about
_PROBED = _BYTES // _ROWS  # bytes of a row group above which its dictionaries are looked at
_VALUE = 64  # bytes of a Python object in a list


class Row(NamedTuple):
    """One row as it stands in its file."""

    where: str
    value: object = None  # None where `error` is given
    error: str = ""


def import_reader(module: str):
    """Import a package that reads a format; a RecordError says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise RecordError(
            f"reading this source needs {package}: pip install 'unite-workbook[curate]'"
        ) from None


def table_rows(
    batches: Iterable, where: str, media_root: str | Path | None = None
) -> Iterator[Row]:
    """Yield the rows of Arrow batches or tables; a bad cell is the error of its own row.

    Args
        where       how errors name the rows before their number, such as "train.parquet, row"
        media_root  where media that stand in the table become files; None leaves them
    """
    number = 0
    for batch in batches:
        media = media_columns(batch.schema) if media_root is not None else ()
        _check_offsets(batch)
        try:
            values = batch.to_pylist()
        except Exception:  # a bad string is a UnicodeDecodeError, a bad date a ValueError, ...
            values = []
        if values and not media:
            for place, value in enumerate(values, number + 1):
                yield Row(f"{where} {place}", value)
            number += len(values)
            continue
        for place, value in enumerate(values or [None] * batch.num_rows):
            number += 1
            row = Row(f"{where} {number}", value)
            if value is None:
                row = _row(batch.slice(place, 1), row.where)
            if media and not row.error:
                row.value.update({name: as_files(row.value[name], media_root) for name in media})
            yield row


def _check_offsets(batch) -> None:
    """Raise ArrowInvalid for damage that makes reading a value unsafe; bad UTF-8 is not such."""
    try:
        batch.validate(full=True)
    except import_reader("pyarrow").ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise


def _row(batch, where: str) -> Row:
    value = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            (value[name],) = column.to_pylist()
        except Exception as error:
            cause = " ".join(str(error).split())[:200]
            return Row(
                where, None, f"{where}, column {name}: unreadable cell ({cause}); correct it"
            )
    return Row(where, value)


def parquet_rows(path: Path, media_root: str | Path | None = None) -> Iterator[Row]:
    """Yield the rows of a Parquet file."""
    arrow, parquet = import_reader("pyarrow"), import_reader("pyarrow.parquet")
    check_regular(path)
    row, packed = Row(f"{path}, row 0"), path.stat().st_size
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                raise RecordError(f"{path}: a column name comes twice in {names[:20]}; rename one")
            for row in table_rows(_batches(file, path, packed), f"{path}, row", media_root):
                yield row
    except (arrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, RecordError):
            raise
        after = row.where.removeprefix(f"{path}, ")
        cause = " ".join(str(error).split())[:200]
        raise RecordError(
            f"{path}: no readable Parquet after {after} ({cause}); fetch the file again"
        ) from None


def _batches(file, path: Path, packed: int) -> Iterator:
    """Batches of about `_BYTES` each; a file that unpacks to far more than its size is refused."""
    unpacked = 0
    groups = range(file.metadata.num_row_groups)
    for rows, run in groupby(groups, lambda group: _batch_rows(file, path, group)):
        for batch in file.iter_batches(rows, row_groups=list(run)):
            unpacked += sum(map(_unpacked_bytes, batch.columns))
            refuse_bomb(path, unpacked, packed)
            yield batch


def _batch_rows(file, path: Path, number: int) -> int:
    """How many rows of a row group are decoded together: a power of two.

    Its columns' metadata are not asked: pyarrow ends the process where these are damaged.
    """
    group = file.metadata.row_group(number)
    refuse_bomb(path, group.total_byte_size, path.stat().st_size)
    each = max(group.total_byte_size, 0) // max(group.num_rows, 1)
    if group.total_byte_size > _PROBED:
        each += _longest(path, number)
    return min(_ROWS, 1 << (_BYTES // max(each, 1)).bit_length() >> 1 or 1)


def _longest(path: Path, group: int) -> int:
    """Bytes of the longest values that the dictionaries of a row group hold, added up."""
    parquet = import_reader("pyarrow.parquet")
    with parquet.ParquetFile(path) as file:
        leaves = [file.schema.column(place) for place in range(len(file.schema))]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        first = next(file.iter_batches(1, row_groups=[group]), None)
        columns = first.columns if first else ()
        return sum(_length(column) for column in columns)


def _length(array) -> int:
    compute = import_reader("pyarrow.compute")
    longest = 0
    for leaf in _dictionaries(array):
        longest += compute.max(compute.binary_length(leaf.dictionary)).as_py() or 0
    return longest


def _unpacked_bytes(array) -> int:
    """Bytes of an array with repeated values counted each time, and lists as Python has them."""
    types, compute = import_reader("pyarrow").types, import_reader("pyarrow.compute")
    if types.is_struct(array.type):
        return sum(map(_unpacked_bytes, array.flatten()))
    if types.is_list(array.type) or types.is_large_list(array.type):
        values = array.flatten()
        return _VALUE * len(values) + _unpacked_bytes(values)
    count = array.nbytes
    for leaf in _dictionaries(array):
        lengths = compute.binary_length(leaf.dictionary)
        count += compute.sum(lengths.take(leaf.indices)).as_py() or 0
    return count


def _dictionaries(array) -> Iterator:
    """The dictionary arrays of texts or bytes in an array, also within structs and lists."""
    types = import_reader("pyarrow").types
    if types.is_dictionary(array.type):
        if str(array.type.value_type) in ("string", "binary", "large_string", "large_binary"):
            yield array
    elif types.is_struct(array.type):
        for part in array.flatten():
            yield from _dictionaries(part)
    elif types.is_list(array.type) or types.is_large_list(array.type):
        yield from _dictionaries(array.flatten())
