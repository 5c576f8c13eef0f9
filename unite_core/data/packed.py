"""Many JSON values in little memory: one block of text instead of millions of objects."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

__all__ = ["PackedRows"]


class PackedRows(Sequence):
    """A sequence of JSON values that are parsed when asked for; takes about their size on disk.

    Args
        sort_keys  write keys in sorted order, so that equal values have equal bytes; otherwise
                   they keep their order, which decides the words of an item's prompt
        file       where the text goes instead of memory; rows can be read by `of` afterwards

    >>> rows = PackedRows()
    >>> rows.append({"text": "a cat"})
    >>> rows[0], len(rows), rows.packed(0)
    ({'text': 'a cat'}, 1, b'{"text":"a cat"}')
    """

    def __init__(self, sort_keys: bool = False, file: BinaryIO | None = None):
        self._encode = json.JSONEncoder(
            ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys
        ).encode
        self._file, self._size = file, 0
        self.text: bytearray | np.ndarray = bytearray()  # of all rows, unless `file` takes it
        self.ends = array("q")  # where each row ends in the text

    @classmethod
    def of(cls, text: np.ndarray, ends: np.ndarray) -> PackedRows:
        """Rows to be read: of the bytes that `file` took, [uint8], and of their `ends`, [int64]."""
        rows = cls()
        rows.text, rows.ends = text, ends
        return rows

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Any:
        return json.loads(self.packed(index))

    def packed(self, index: int) -> bytes:
        """The JSON of a row, without blanks."""
        index = range(len(self))[index]
        start = self.ends[index - 1] if index else 0
        return bytes(self.text[start : self.ends[index]])

    def append(self, value: Any) -> None:
        """Add a value that JSON can hold: media must be paths."""
        row = self._encode(value).encode()
        if self._file is None:
            self.text += row
        else:
            self._file.write(row)
        self._size += len(row)
        self.ends.append(self._size)
