"""Files that are whole or absent, whatever happens while they are written.

JSON files: written atomically, read into dataclasses with errors that name the place.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path

__all__ = ["file_hash", "flush", "from_row", "read_json", "replacing", "write_json"]


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


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: str | Path, strict: bool = False):
    """Read the value that a JSON file holds.

    Args
        strict  refuse an object with the same key twice, and NaN or Infinity, which JSON has not
    ValueError names the file if it holds no JSON.
    """
    hooks = {"object_pairs_hook": _distinct, "parse_constant": _refuse} if strict else {}
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), **hooks)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON in UTF-8 ({error}); write the file again") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply; write the file again") from None


def _distinct(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in an object: keep one")
    return found


def _refuse(constant: str):
    raise ValueError(f"{constant} is no JSON number: give a finite one, or null")


def write_json(path: str | Path, value, indent: int | None = None) -> None:
    """Write a value as JSON, atomically; paths become strings, NaN is a ValueError."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=os.fspath, indent=indent)
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def from_row(kind, row, where: str):
    """A dataclass `kind` from a JSON object; ValueError names the place and the bad fields."""
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {type(row).__name__} instead of an object {{...}}")
    known = {
        each.name: each.default is MISSING and each.default_factory is MISSING
        for each in fields(kind)
    }
    wrong = [f"unknown field {name}; rename or remove it" for name in row if name not in known]
    wrong += [f"no field {name}; add it" for name in known if known[name] and name not in row]
    if wrong:
        raise ValueError(f"{where}: {wrong[0]} (fields: {', '.join(known)})")
    try:
        return kind(**row)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
