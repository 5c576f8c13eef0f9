"""Read rows one by one from JSON, JSON Lines, CSV, Parquet, saved datasets and the hub.

    path                    .json .jsonl .jsonlines .ndjson .csv .tsv (also .gz, .zst)  .parquet
                            a folder of such files, or one that `datasets` has saved
    hub:OWNER/NAME[:SUBSET] a dataset on the Hugging Face hub, streamed

A row that cannot be decoded becomes a Row with an error and reading goes on. A file that cannot be
read further raises a RecordError: it never just ends early.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .json_stream import RecordError, iter_lines, iter_list, open_file, parse_line, starts_list

__all__ = [
    "HUB",
    "RawLine",
    "Row",
    "decode_line",
    "iter_rows",
    "iter_values",
    "raw_rows",
    "row_files",
]


HUB = "hub:"
_JSON = (".json", ".jsonl", ".jsonlines", ".ndjson")
_TABLES = {".csv": ",", ".tsv": "\t"}
_PACKED = (".gz", ".zst")
_SAVED = ("state.json", "dataset_dict.json")  # written by `save_to_disk` of `datasets`
_BATCH = 1024  # rows of a Parquet file decoded together
_HEAD = 4096
_PACKET = 1024  # compressed bytes at a time: zstandard makes at most 32 MiB of them
_MAX_CELL = 1 << 26  # characters of a CSV cell


class Row(NamedTuple):
    """One row as it stands in its file."""

    where: str
    value: object = None  # None where `error` is given
    error: str = ""


def iter_rows(source: str | Path, split: str = "train") -> Iterator[Row]:
    """Read the rows of a file, folder or hub dataset in order.

    Args
        source  a path or "hub:OWNER/NAME[:SUBSET]"; files of a folder in the order of their names
        split   of a hub or saved dataset
    """
    for row in raw_rows(source, split):
        yield decode_line(row) if isinstance(row, RawLine) else row


def iter_values(source: str | Path, split: str = "train") -> Iterator[tuple[str, object]]:
    """Yield (place, value) of all rows; the first that cannot be decoded is a RecordError."""
    for row in iter_rows(source, split):
        if row.error:
            raise RecordError(row.error)
        yield row.where, row.value


class RawLine(NamedTuple):
    """A line of JSON Lines before it is decoded."""

    where: str
    line: bytes


def raw_rows(source: str | Path, split: str = "train") -> Iterator[Row | RawLine]:
    """As `iter_rows`, but lines of JSON Lines stay undecoded, so that workers can decode them."""
    if str(source).startswith(HUB):
        yield from _hub_rows(str(source), split)
    elif Path(source).is_dir() and _is_saved(Path(source)):
        yield from _saved_rows(Path(source), split)
    else:
        for file in row_files(source):
            yield from _file_rows(file)


def row_files(source: str | Path) -> list[Path]:
    """List the files that a path stands for, in reading order."""
    path = Path(source)
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if _kind(file) and file.is_file())
    if not files:
        raise RecordError(
            f"{path}: holds no {', '.join((*_JSON, *_TABLES))} or .parquet file; name the file or "
            f"the folder of the rows"
        )
    return files


def _kind(path: Path) -> str:
    """The suffix that decides how a file is read, "" if unknown."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return last if last in (*_JSON, *_TABLES, ".parquet") else ""


def _file_rows(path: Path) -> Iterator[Row | RawLine]:
    kind = _kind(path)
    if not kind:
        raise RecordError(
            f"{path}: its name does not say what it holds; let it end in "
            f"{', '.join((*_JSON, *_TABLES))} (also with .gz or .zst) or .parquet"
        )
    if kind == ".parquet":
        yield from _parquet_rows(path)
        return
    with _opened(path) as stream:
        if kind in _TABLES:
            yield from _table_rows(stream, path, _TABLES[kind])
        elif starts_list(stream.peek(_HEAD), path):
            yield from (Row(*row) for row in iter_list(stream, path))
        else:
            yield from (RawLine(*line) for line in iter_lines(stream, path))


def decode_line(row: RawLine) -> Row:
    """Decode a line, or say in `error` why that fails."""
    where, line = row
    try:
        return Row(where, parse_line(line, where))
    except RecordError as error:
        return Row(where, None, str(error))


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, decompressed on the way; every read error becomes a RecordError."""
    with open_file(path) as file:
        try:
            yield _unpacked(file, path)
        except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
            raise RecordError(
                f"{path}: cannot be read to its end ({error}); fetch the file again"
            ) from None


def _unpacked(file: BinaryIO, path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    if path.suffix.lower() == ".zst":
        return io.BufferedReader(_ZstdFile(file))
    return file


class _ZstdFile(io.RawIOBase):
    """Decompresses zstandard in small steps; unlike its own readers, fails on a cut frame."""

    def __init__(self, file: BinaryIO):
        self.file, self.left = file, b""
        self.zstd = _import("zstandard")
        self.frame = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self.left and (data := self._packed()):
            try:
                self.left = self.frame.decompress(data)
            except self.zstd.ZstdError as error:
                raise OSError(str(error)) from None
        part, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def _packed(self) -> bytes:
        """Compressed bytes for `frame`, which is renewed at each frame's end."""
        over = self.frame is None or self.frame.eof
        data = (self.frame.unused_data if self.frame and over else b"") or self.file.read(_PACKET)
        if not data and not over:
            raise EOFError("the last frame is cut")
        if data and over:
            self.frame = self.zstd.ZstdDecompressor().decompressobj()
        return data


def _table_rows(stream: BinaryIO, path: Path, delimiter: str) -> Iterator[Row]:
    """Rows of CSV as objects; a row with too many or too few cells becomes an error."""
    csv.field_size_limit(_MAX_CELL)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        names = next(rows, None)
        if not names:
            raise RecordError(f"{path}: empty file; write a line of column names and the rows")
        if len(set(names)) < len(names):
            raise RecordError(f"{path}: a column name comes twice in {names}; rename one")
        for cells in rows:
            where = f"{path}, line {rows.line_num}"
            if len(cells) == len(names):
                yield Row(where, dict(zip(names, cells, strict=True)))
            elif cells:
                error = f"{where}: {len(cells)} cells for {len(names)} columns; quote the texts"
                yield Row(where, None, error)
    except csv.Error as error:
        raise RecordError(f"{path}: no CSV ({error}); correct the quotes there") from None
    finally:
        text.detach()


def _parquet_rows(path: Path) -> Iterator[Row]:
    arrow = _import("pyarrow")
    parquet = _import("pyarrow.parquet")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", value)
    except (arrow.ArrowException, OSError) as error:
        raise RecordError(
            f"{path}: no readable Parquet after row {number} ({error}); fetch the file again"
        ) from None


def _is_saved(path: Path) -> bool:
    return any((path / name).is_file() for name in _SAVED)


def _saved_rows(path: Path, split: str) -> Iterator[Row]:
    datasets = _import("datasets")
    try:
        rows = datasets.load_from_disk(str(path))
    except Exception as error:  # pyarrow, json, OSError, ValueError: whatever is damaged
        raise RecordError(f"{path}: cannot be loaded ({error}); save the set again") from None
    yield from _set_rows(_take_split(rows, split, path), f"{path}, {split} row")


def _hub_rows(source: str, split: str) -> Iterator[Row]:
    name, _, subset = source.removeprefix(HUB).partition(":")
    datasets = _import("datasets")
    try:
        rows = datasets.load_dataset(name, subset or None, split=split, streaming=True)
    except Exception as error:  # the hub's own errors, network, unknown subset or split
        raise RecordError(
            f"{source}: cannot be opened ({error}); check name, subset, split and network"
        ) from None
    yield from _set_rows(rows, f"{source}, {split} row")


def _take_split(rows, split: str, name: str | Path):
    """The split of a saved dataset that has several."""
    if not hasattr(rows, "keys"):
        return rows
    if split not in rows:
        raise RecordError(f"{name}: no split {split!r}; it has {', '.join(rows)}")
    return rows[split]


def _set_rows(rows: Iterable, where: str) -> Iterator[Row]:
    number = 0
    try:
        for number, value in enumerate(rows, 1):
            yield Row(f"{where} {number}", value)
    except RecordError:
        raise
    except Exception as error:  # a media file or table that `datasets` cannot decode
        raise RecordError(
            f"{where} {number + 1}: cannot be read ({error}); repair the set or leave it out"
        ) from None


def _import(module: str):
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise RecordError(
            f"reading this source needs {package}: pip install 'unite-workbook[curate]'"
        ) from None
