"""A corpus of items with ids, streamed from files or from memory, as often as needed."""

# Shapes: N items.

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.items import files_of, instructed
from ..data.readers import HUB, iter_values, row_files
from ..data.records import (
    RecordError,
    content_id,
    instructed_query,
    validate_item,
    validate_record,
)
from ..files import file_hash

__all__ = ["Corpus", "item_key", "iter_items", "rows_hash"]


class Corpus:
    """Items of files, or items given, streamed without keeping them in memory.

    Args
        files        of items or records, see `iter_items`
        given        (id, item) in place of files; iterated more than once, so no generator
        take         sides of records that are items
        media_root   folder that paths in files must not leave
        instruction  what the vectors are for, of items that have none of their own
    Iterating yields (id, item, how errors name it).
    """

    def __init__(self, files: Sequence[str], given: Iterable[tuple[str, Mapping]] | None = None,
                 take: Sequence[str] = ("candidate",), media_root: str | Path = ".",
                 instruction: str | None = None):  # fmt: skip
        if (given is None) == (not files):
            raise ValueError("a corpus is files or items given, one of the two")
        if isinstance(given, Iterator):
            raise TypeError("items are iterated twice: give a list, not a generator")
        self.files, self.given, self.take, self.media_root = files, given, take, media_root
        self.instruction = instruction

    def __iter__(self) -> Iterator[tuple[str, Mapping, str]]:
        for name, item, where in self._rows():
            told = item if self.instruction is None else instructed(item, self.instruction)
            yield name, told, where

    def _rows(self) -> Iterator[tuple[str, Mapping, str]]:
        if self.given is not None:
            yield from ((name, item, f"item {name!r}") for name, item in self.given)
        for file in self.files:
            prefix = f"{Path(file).name}:" if len(self.files) > 1 else ""
            yield from iter_items(file, self.take, self.media_root, prefix)

    def survey(self) -> tuple[int, str]:
        """Count the items and digest all ids and contents: (N, 32 hex digits).

        ValueError if an id occurs twice or there are no items. Takes 16 bytes of memory per item.
        """
        hashes, digest = array("q"), hashlib.sha256()
        for name, item, _ in self:
            digest.update(json.dumps([name, *_seen(item)]).encode())
            hashes.append(_id_hash(name))
        if not hashes:
            raise ValueError("the corpus has no items: check its files")
        ordered = np.sort(np.asarray(hashes))
        repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        for name, _, where in self if repeated else ():
            if _id_hash(name) in repeated:
                raise ValueError(f"{where}: the id {name!r} is given twice; ids must differ")
        return len(hashes), digest.hexdigest()[:32]


def iter_items(path: str | Path, take: Sequence[str] = ("candidate",),
               media_root: str | Path = ".", prefix: str = "",
               ) -> Iterator[tuple[str, dict, str]]:  # fmt: skip
    """Stream and validate the items of a file that `readers` can read: (id, item, place).

    A row is an item, whose id is its `id` or else its number, or a record, whose sides in `take`
    are items with ids such as "7:candidate". `prefix` goes before ids that are row numbers.
    """
    for number, (where, row) in enumerate(iter_values(path, media_root=media_root), 1):
        if isinstance(row, Mapping) and "query" in row:
            validate_record(row, where, media_root)
            for side in take:
                item = instructed_query(row) if side == "query" else row[side]
                yield f"{prefix}{number}:{side}", item, f"{where}, {side}"
            continue
        name = row.pop("id", None) if isinstance(row, dict) else None
        if name is not None and not isinstance(name, str | int):
            raise RecordError(f"{where}, field id: {name!r} is neither a string nor a number")
        if isinstance(name, str) and not _is_unicode(name):
            raise RecordError(f"{where}, field id: {name!r} is no Unicode text: give another id")
        validate_item(row, where, media_root)
        yield f"{prefix}{number}" if name is None else str(name), row, where


def item_key(item: Mapping, root: str | Path = ".") -> str:
    """Key of everything an item's vector depends on: 32 hex digits of fields, order and files.

    Files count by size and modification time, so equal bytes written again give another key.
    """
    stamps = []
    for path in files_of(item):
        try:
            stat = Path(root, path).stat()
            stamps.append([stat.st_size, stat.st_mtime_ns])
        except OSError:
            stamps.append([])
    text = json.dumps([*_seen(item), stamps])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _seen(item: Mapping) -> list:
    """What a vector depends on besides the media files' bytes: content, order and instruction."""
    instruction = item.get("instruction")
    return [content_id(item), list(item), *([] if instruction is None else [instruction])]


def rows_hash(source: str | Path) -> str:
    """Hash of the files of rows that a path stands for; "" for a data set on the hub."""
    path = Path(source)
    if str(source).startswith(HUB):
        return ""
    if not path.is_dir():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted({*row_files(path), *path.rglob("*.arrow")}):
        digest.update(f"{file.relative_to(path)} {file_hash(file)}".encode())
    return digest.hexdigest()


def _is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8, which half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _id_hash(name: str) -> int:
    """64-bit hash of an id; among a million ids the chance of any collision is 3e-8."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
