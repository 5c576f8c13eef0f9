"""Many JSON values in little memory: one block of text instead of millions of objects."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import Any

__all__ = ["PackedRows"]


class PackedRows(Sequence):
    """A sequence of JSON values that are parsed when asked for; takes about their size on disk.

    Args
        sort_keys  write keys in sorted order, so that equal values have equal bytes; otherwise
                   they keep their order, which decides the words of an item's prompt

    >>> rows = PackedRows()
    >>> rows.append({"text": "a cat"})
    >>> rows[0], len(rows), rows.packed(0)
    ({'text': 'a cat'}, 1, b'{"text":"a cat"}')
    """

    def __init__(self, sort_keys: bool = False):
        self._encode = json.JSONEncoder(
            ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys
        ).encode
        self._text, self._ends = bytearray(), array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Any:
        return json.loads(self.packed(index))

    def packed(self, index: int) -> bytes:
        """The JSON of a row, without blanks."""
        index = range(len(self))[index]
        start = self._ends[index - 1] if index else 0
        return bytes(self._text[start : self._ends[index]])

    def append(self, value: Any) -> None:
        """Add a value that JSON can hold: media must be paths."""
        self._text += self._encode(value).encode()
        self._ends.append(len(self._text))
