"""Files that are whole or absent, whatever happens while they are written, and locks on outputs.

JSON files: written atomically, read into dataclasses with errors that name the place.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from pathlib import Path

__all__ = [
    "InUseError", "file_hash", "flush", "from_row", "read_json", "replacing", "replacing_folder",
    "whole_folder", "working_in", "write_json",
]  # fmt: skip

_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # of a lock that another process holds
_held: set[int] = set()  # handles of locks; a forked process must not keep them


class InUseError(OSError):
    """Another process works on the output."""


@contextmanager
def working_in(path: str | Path) -> Iterator[None]:
    """Keep other processes from an output, a file or folder, until the context ends.

    The lock is a hidden file beside it, `.NAME.lock`, so the output itself may be absent, renamed
    or replaced. It is free again when its process ends, however it ends. InUseError names the
    process that works there. It holds against a second use in this process, too.
    """
    path = Path(path).resolve()
    handle, file = _lock(path)
    _held.add(handle)
    try:
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        if handle in _held:
            with suppress(OSError):  # Windows removes no open files; an empty one locks nothing
                file.unlink()
            _release(handle)


def _lock(path: Path) -> tuple[int, Path]:
    """Open and lock the lock file of an output: its handle and name."""
    file = path.with_name(f".{path.name}.lock") if path.name else path / ".lock"
    _make_folder(file.parent)
    if path.is_dir() and not os.access(path.parent, os.W_OK):
        file = path / ".lock"
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _take(handle)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), file.stat()):
                    return handle, file
        except OSError as error:
            os.lseek(handle, 0, os.SEEK_SET)
            holder = os.read(handle, 200).decode(errors="replace").strip()
            os.close(handle)
            if error.errno not in _TAKEN:
                raise
            raise InUseError(
                f"{path}: another process works here ({holder or 'unknown'}): wait until it ends, "
                "or choose another output"
            ) from None
        os.close(handle)  # of a file that its holder removed in between: take the new one


def _take(handle: int) -> None:
    """Lock an open file; OSError of `_TAKEN` if another process has."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(handle, 1 << 20, os.SEEK_SET)  # a byte that nobody reads or writes
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise
        warnings.warn(
            f"this file system has no locks ({error}): see to it that one process works on an "
            "output at a time",
            stacklevel=5,
        )


def _release(handle: int) -> None:
    _held.remove(handle)
    os.close(handle)


def _release_in_fork() -> None:
    for handle in tuple(_held):
        _release(handle)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_fork)


@contextmanager
def replacing(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """A file beside `path` to write, which takes its place when the context ends without error.

    `durable` holds out against a power cut, too, and takes milliseconds: not for thousands of small
    files that can be made again. Folders are made; the suffix is ".partial", so name formats. No
    other process writes the same partial file; what killed ones left is removed.
    OSError names `path`, as for a full disk.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; give the name of a file")
    _make_folder(path.parent)
    if durable:
        _remove_left(path)
    partial = _partial(path)
    try:
        yield partial
        if durable:
            flush(partial)
        partial.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC and not error.filename:
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """A new folder beside `path`, which takes its place when the context ends without error.

    Its contents are flushed before. A kill leaves the old folder or the new one whole: see
    `whole_folder`. Hold `working_in(path)` meanwhile.
    """
    path = Path(path).resolve()
    _make_folder(path.parent)
    old = _aside(path)
    if old.exists():  # of a kill: before the second rename, or after it
        shutil.rmtree(old) if path.exists() else old.rename(path)
    _remove_left(path)
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
        flush(partial)
        if path.exists():
            path.rename(old)
        partial.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)


def whole_folder(path: str | Path) -> Path:
    """`path`, or where its former contents are if a kill came between two renames."""
    path = Path(path)
    old = _aside(path.resolve())
    return old if old.exists() and not path.exists() else path


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f"{path}: is a file, or lies in one, where a folder is needed; choose another output"
        ) from None


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.{_machine()}-{os.getpid()}.partial")


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _remove_left(path: Path) -> None:
    """Remove what processes of this machine left beside `path` when they were killed."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.{_machine()}-*.partial"):
        number = left.name.removesuffix(".partial").rpartition("-")[2]
        if os.name != "nt" and number.isdecimal() and not _alive(int(number)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


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
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
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
