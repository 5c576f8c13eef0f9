"""Folders that are known to be whole: every file noted when written, checked when read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..files import read_json, write_json

__all__ = ["check_manifest", "write_manifest"]


_MANIFEST = "manifest.json"


def write_manifest(folder: str | Path) -> None:
    """Note size and SHA-256 of every file in the folder, for `check_manifest`."""
    files = {path: _digest(Path(folder, path)) for path in _files(Path(folder))}
    write_json(Path(folder, _MANIFEST), files, indent=2)


def check_manifest(folder: str | Path) -> None:
    """ValueError naming the file if one is missing, cut, changed or new since `write_manifest`."""
    folder = Path(folder)
    remedy = "remove that folder, then training goes on from the one before it"
    if not (folder / _MANIFEST).is_file():
        raise ValueError(f"{folder}: no {_MANIFEST}, so it is not known to be whole; {remedy}")
    noted = read_json(folder / _MANIFEST)
    found = _files(folder)
    for path in sorted({*noted, *found}):
        if path not in found:
            raise ValueError(f"{folder / path} is missing; {remedy}")
        if path not in noted:
            raise ValueError(f"{folder / path} was added after the folder was whole; {remedy}")
        size = (folder / path).stat().st_size
        if size != noted[path]["bytes"]:
            raise ValueError(
                f"{folder / path} has {size} bytes instead of {noted[path]['bytes']}; {remedy}"
            )
        if _digest(folder / path) != noted[path]:
            raise ValueError(f"{folder / path} has other contents than were written; {remedy}")


def _files(folder: Path) -> list[str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [each.relative_to(folder).as_posix() for each in paths if each.name != _MANIFEST]


def _digest(path: Path) -> dict[str, int | str]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
