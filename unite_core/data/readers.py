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
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from . import json_stream
from .json_stream import RecordError, iter_lines, iter_list, open_file, parse_line, starts_list
from .tables import Row, import_reader, parquet_rows, table_rows

__all__ = [
    "HUB", "RawLine", "Row", "decode_line", "iter_rows", "iter_values", "raw_rows", "row_files",
]  # fmt: skip


HUB = "hub:"
_JSON = (".json", ".jsonl", ".jsonlines", ".ndjson")
_TABLES = {".csv": ",", ".tsv": "\t"}
_PACKED = (".gz", ".zst")
_SAVED = ("state.json", "dataset_dict.json")  # written by `save_to_disk` of `datasets`
_FOREIGN = (".bz2", ".xz", ".lzma", ".lz4", ".br", ".zip", ".7z", ".z", ".snappy")
_BATCH = 64  # rows of a saved or streamed set decoded together
_HEAD = 4096
_PACKET = 1024  # compressed bytes at a time: zstandard makes at most 32 MiB of them
_BUFFER = 1 << 16  # bytes unpacked at a time
_MAX_CELL = 1 << 26  # characters of a CSV cell


def iter_rows(
    source: str | Path, split: str = "train", media_root: str | Path | None = None
) -> Iterator[Row]:
    """Read the rows of a file, folder or hub dataset in order.

    Args
        source      a path or "hub:OWNER/NAME[:SUBSET]"; files of a folder ordered by name
        split       of a hub or saved dataset
        media_root  folder below which media in tables become files, see `data.embedded`
    """
    for row in raw_rows(source, split, media_root):
        yield decode_line(row) if isinstance(row, RawLine) else row


def iter_values(
    source: str | Path, split: str = "train", media_root: str | Path | None = None
) -> Iterator[tuple[str, object]]:
    """Yield (place, value) of all rows; the first that cannot be decoded is a RecordError."""
    for row in iter_rows(source, split, media_root):
        if row.error:
            raise RecordError(row.error)
        yield row.where, row.value


class RawLine(NamedTuple):
    """A line of JSON Lines before it is decoded."""

    where: str
    line: bytes


def raw_rows(
    source: str | Path, split: str = "train", media_root: str | Path | None = None
) -> Iterator[Row | RawLine]:
    """As `iter_rows`, but lines of JSON Lines stay undecoded, so that workers can decode them."""
    if str(source).startswith(HUB):
        yield from _hub_rows(str(source), split, media_root)
    elif os.path.isdir(source) and _is_saved(Path(source)):
        yield from _saved_rows(Path(source), split, media_root)
    else:
        for file in row_files(source):
            yield from _file_rows(file, media_root)


def row_files(source: str | Path) -> list[Path]:
    """List the files that a path stands for, in reading order.

    A file of rows in a folder that cannot be read (a dangling link, a packing that is not known, a
    pipe) is a RecordError rather than left out; links to folders are not followed.
    """
    path = Path(source)
    if not os.path.isdir(path):
        return [path]
    files = sorted(file for file in _below(path) if _holds_rows(file))
    if not files:
        raise RecordError(
            f"{path}: holds no {', '.join((*_JSON, *_TABLES))} or .parquet file; name the file or "
            f"the folder of the rows"
        )
    return files


def _below(folder: Path) -> Iterator[Path]:
    """All files below a folder; one that cannot be listed is a RecordError."""

    def fail(error: OSError):
        raise RecordError(
            f"{error.filename}: {error.strerror}; let it be read, or name the folder of the rows"
        )

    for parent, _, names in os.walk(folder, onerror=fail):
        yield from (Path(parent, name) for name in names)


def _holds_rows(path: Path) -> bool:
    if path.suffix.lower() in _FOREIGN and _kind(path.with_suffix("")):
        raise RecordError(
            f"{path}: packed in a way that is not read; unpack it, or use .gz or .zst"
        )
    if not _kind(path):
        return False
    json_stream.check_regular(path)
    return True


def _kind(path: Path) -> str:
    """The suffix that decides how a file is read, "" if unknown."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    return last if last in (*_JSON, *_TABLES, ".parquet") else ""


def _file_rows(path: Path, media_root: str | Path | None) -> Iterator[Row | RawLine]:
    kind = _kind(path)
    if not kind:
        raise RecordError(
            f"{path}: its name does not say what it holds; let it end in "
            f"{', '.join((*_JSON, *_TABLES))} (also with .gz or .zst) or .parquet"
        )
    if kind == ".parquet":
        yield from parquet_rows(path, media_root)
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
        return io.BufferedReader(_Unpacked(gzip.GzipFile(fileobj=file), path), _BUFFER)
    if path.suffix.lower() == ".zst":
        return io.BufferedReader(_Unpacked(_ZstdFile(file), path), _BUFFER)
    return file


class _Unpacked(io.RawIOBase):
    """What a packed file holds; one that unpacks to far more than its size is a RecordError."""

    def __init__(self, stream: BinaryIO, path: Path):
        self.stream, self.path = stream, path
        self.count, self.packed = 0, path.stat().st_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = self.stream.readinto(buffer)
        self.count += count
        json_stream.refuse_bomb(self.path, self.count, self.packed)
        return count


class _ZstdFile(io.RawIOBase):
    """Decompresses zstandard in small steps; unlike its own readers, fails on a cut frame."""

    def __init__(self, file: BinaryIO):
        self.file, self.left, self.at = file, b"", 0
        self.zstd = import_reader("zstandard")
        self.frame = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while self.at == len(self.left) and (data := self._packed()):
            try:
                self.left, self.at = memoryview(self.frame.decompress(data)), 0
            except self.zstd.ZstdError as error:
                raise OSError(str(error)) from None
        part = self.left[self.at : self.at + len(buffer)]
        buffer[: len(part)] = part
        self.at += len(part)
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
        lines = _Lines(text, path)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        names = next(rows, None)
        if not names:
            raise RecordError(f"{path}: empty file; write a line of column names and the rows")
        if len(set(names)) < len(names):
            shown = ", ".join(names[:20])[:200]
            raise RecordError(f"{path}: a column name comes twice in {shown}; rename one")
        for cells in rows:
            lines.taken = 0
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


class _Lines:
    """Lines of a text for `csv`; a row of more than `MAX_VALUE` characters is a RecordError."""

    def __init__(self, text: io.TextIOWrapper, path: Path):
        self.text, self.path, self.number = text, path, 0
        self.taken = 0  # characters of the current row; the user sets it to 0 after a row

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.text.readline(json_stream.MAX_VALUE)
        if not line:
            raise StopIteration
        self.number += 1
        self.taken += len(line)
        if self.taken >= json_stream.MAX_VALUE:
            raise RecordError(
                f"{self.path}, line {self.number}: a row longer than {json_stream.MAX_VALUE} "
                "characters; end its line, and close the quotes of its cells"
            )
        return line


def _is_saved(path: Path) -> bool:
    return any((path / name).is_file() for name in _SAVED)


def _saved_rows(path: Path, split: str, media_root) -> Iterator[Row]:
    datasets = import_reader("datasets")
    try:
        rows = datasets.load_from_disk(str(path))
    except Exception as error:  # pyarrow, json, OSError, ValueError: whatever is damaged
        raise RecordError(f"{path}: cannot be loaded ({error}); save the set again") from None
    yield from _set_rows(_take_split(rows, split, path), f"{path}, {split} row", media_root)


def _hub_rows(source: str, split: str, media_root) -> Iterator[Row]:
    name, _, subset = source.removeprefix(HUB).partition(":")
    datasets = import_reader("datasets")
    try:
        rows = datasets.load_dataset(name, subset or None, split=split, streaming=True)
    except Exception as error:  # the hub's own errors, network, unknown subset or split
        raise RecordError(
            f"{source}: cannot be opened ({error}); check name, subset, split and network"
        ) from None
    yield from _set_rows(rows, f"{source}, {split} row", media_root)


def _take_split(rows, split: str, name: str | Path):
    """The split of a saved dataset that has several."""
    if not hasattr(rows, "keys"):
        return rows
    if split not in rows:
        raise RecordError(f"{name}: no split {split!r}; it has {', '.join(rows)}")
    return rows[split]


def _set_rows(rows, where: str, media_root) -> Iterator[Row]:
    """Rows of a set of `datasets`, taken as Arrow tables so that it decodes no media."""
    row = Row(f"{where} 0")
    try:
        for row in table_rows(rows.with_format("arrow").iter(_BATCH), where, media_root):
            yield row
    except RecordError:
        raise
    except Exception as error:  # a table that `datasets` cannot load
        raise RecordError(
            f"{row.where}: what follows cannot be read ({error}); repair the set or leave it out"
        ) from None
