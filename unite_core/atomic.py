"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["flush", "replacing"]


@contextmanager
def replacing(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """A file beside `path` to write, which takes its place when the context ends without error.

    `durable` holds out against a power cut, too, and takes milliseconds: not for thousands of small
    files that can be made again. Folders are made; the suffix is ".partial", so name formats.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        if durable:
            flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def flush(path: str | Path) -> None:
    """Write a file, or a folder with all that it holds, through to the disk.

    A rename can reach the disk before the contents do, so flush before renaming.
    """
    path = Path(path)
    for each in (*(path.rglob("*") if path.is_dir() else ()), path):
        if os.name == "nt" and each.is_dir():
            continue  # Windows opens no folders and orders renames itself
        handle = os.open(each, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
