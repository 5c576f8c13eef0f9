"""Streaming JSON: values of JSON lists and JSON Lines one by one, with a limit on their size.

A file whose first character is `[` is a JSON list, any other is JSON Lines. A key that stands twice
in an object is an error.
"""

from __future__ import annotations

import codecs
import json
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "RecordError", "check_regular", "iter_lines", "iter_list", "open_file", "parse_line",
    "refuse_bomb", "starts_list",
]  # fmt: skip


MAX_VALUE = 1 << 26  # bytes of one line, characters of one value of a list
MAX_UNPACKED = 1 << 30  # bytes that any file may unpack to, and larger ones MAX_RATIO times theirs
MAX_RATIO = 200
_CHUNK = 1 << 20  # bytes read at a time from a JSON list
_CUT = 16  # a value cut by the end of a chunk fails to parse within this many characters of it
_BOM = b"\xef\xbb\xbf"


class RecordError(ValueError):
    """A record, or a file of them, that cannot be used; names place, field and remedy."""


def open_file(path: str | Path) -> BinaryIO:
    """Open a file for reading bytes; a RecordError if that fails or it is no regular file."""
    check_regular(path)
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; check the path of the records") from None


def check_regular(path: str | Path) -> None:
    """Refuse what is no regular file: a pipe or a device may never end."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL or half a surrogate in the name
        cause = getattr(error, "strerror", None) or error
        raise RecordError(f"{path}: {cause}; check the path of the records") from None
    if not stat.S_ISREG(mode):
        raise RecordError(f"{path}: no regular file; save the rows in one and name it")


def refuse_bomb(path: str | Path, unpacked: int, packed: int) -> None:
    """Refuse a file that unpacks to more than a gigabyte and more than 200 times its size."""
    if unpacked > max(MAX_UNPACKED, MAX_RATIO * packed):
        raise RecordError(
            f"{path}: unpacks to more than {MAX_RATIO} times its {packed} bytes; if that is meant, "
            "unpack it and write it without repetitions"
        )


def starts_list(head: bytes, name: str | Path) -> bool:
    """Whether a file that begins with `head` is a JSON list; a RecordError for an empty file."""
    head = head.removeprefix(_BOM).lstrip()
    if not head:
        raise RecordError(f"{name}: empty file; write one record per line or a JSON list")
    return head.startswith(b"[")


def iter_lines(stream: BinaryIO, name: str | Path) -> Iterator[tuple[str, bytes]]:
    """Yield (place, line) of every line that is not blank, not parsed yet."""
    number = 0
    while line := stream.readline(MAX_VALUE):
        number += 1
        where = f"{name}, line {number}"
        if len(line) == MAX_VALUE:
            raise RecordError(
                f"{where}: longer than {MAX_VALUE} bytes; put one record on a line, and media in "
                f"files"
            )
        if number == 1:
            line = line.removeprefix(_BOM)
        if not line.isspace() and line:
            yield where, line


def parse_line(line: bytes, where: str):
    """Parse one line; a RecordError if it is not one JSON value in UTF-8."""
    try:
        return _DECODER.decode(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: {_not_json(error)}; put one whole record on a line") from None


def iter_list(stream: BinaryIO, name: str | Path) -> Iterator[tuple[str, object]]:
    """Yield (place, value) of a JSON list, decoded one by one from a sliding buffer."""
    row = 0
    try:
        buffer = _Buffer(stream)
        buffer.take("[")
        ended = buffer.take("]")
        while not ended:
            row += 1
            yield f"{name}, row {row}", buffer.value()
            ended = buffer.closes()
        if buffer.peek():
            raise ValueError("text after the closing ] of the list")
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"{name}, row {max(row, 1)}: {_not_json(error)}; correct the JSON there"
        ) from None


class _Buffer:
    """A sliding window over a file's text; holds at least the value being decoded."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.text, self.at, self.chunk = stream, "", 0, _CHUNK
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def peek(self) -> str:
        """The next character that is not a space, "" at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at].isspace():
                self.at += 1
            if self.at < len(self.text) or not self.grow():
                return self.text[self.at : self.at + 1]

    def take(self, character: str) -> bool:
        """Step over `character` if it is next, and say whether it was."""
        found = self.peek() == character
        self.at += found
        return found

    def closes(self) -> bool:
        """Step over the comma (False) or bracket (True) after a value."""
        if self.take("]"):
            return True
        if not self.take(","):
            raise ValueError("expected , or ] after the record")
        return False

    def value(self):
        """Decode the next value, reading on where the window cuts it."""
        self.peek()
        while True:
            try:
                value, self.at = _DECODER.raw_decode(self.text, self.at)
                return value
            except json.JSONDecodeError as error:
                is_cut = "Unterminated" in error.msg or error.pos >= len(self.text) - _CUT
                if not (is_cut and self.grow()):
                    raise

    def grow(self) -> bool:
        """Drop what was decoded and read on; False at the end of the file."""
        if len(self.text) - self.at > MAX_VALUE:
            raise ValueError(f"a value longer than {MAX_VALUE} characters")
        more = self.read()
        self.text, self.at = self.text[self.at :] + more, 0
        self.chunk = max(_CHUNK, len(self.text))
        return bool(more)

    def read(self) -> str:
        """More text; "" only at the end of the file."""
        while data := self.stream.read(self.chunk):
            if text := self.decoder.decode(data):
                return text
        return self.decoder.decode(b"", final=True)


def _unique_keys(pairs):
    values = dict(pairs)
    if len(values) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = sorted(name for name, count in counts.items() if count > 1)
        more = f" and {len(twice) - 3} more" if len(twice) > 3 else ""
        names = ", ".join(name[:60] for name in twice[:3])
        raise ValueError(f"field {names}{more} given twice in one object")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys)


def _not_json(error: Exception) -> str:
    cause = getattr(error, "msg", None) or getattr(error, "reason", None) or error
    return f"not valid JSON in UTF-8 ({cause})"
