"""The pairs of a run in a folder: made once by one process, mapped by all, at every later start.

The folder holds the text and columns of `PackedPairs` and `store.json`: what was read, and from
which files. It is made again where a file of records has another size or time, or where a media
file that was missing is there now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..files import read_json, replacing_folder, whole_folder, write_json
from .packed_pairs import PackedPairs
from .readers import HUB, row_files

__all__ = ["open_pairs", "record_files"]


_FORMAT = 2


def open_pairs(folder: str | Path, files: Sequence[str | Path], media_root: str | Path,
               read: Callable[[BinaryIO], tuple[PackedPairs, dict[str, Any]]],
               is_absent: Callable[[str], bool]) -> tuple[PackedPairs, dict[str, Any]]:  # fmt: skip
    """Map the pairs of a folder, after making it where it is not there or not of these files.

    Args
        read       reads the pairs, their text into a file, and gives notes for JSON; `absent` in
                   them lists the media files that were not usable
        is_absent  whether a media file is still not usable
    Returns the pairs and the notes.
    """
    folder, origin = whole_folder(folder), _origin(files, media_root)
    notes = read_json(folder / "store.json") if (folder / "store.json").is_file() else {}
    if notes.get("origin") != origin or not all(map(is_absent, notes["absent"])):
        with replacing_folder(folder) as partial:
            with (partial / "text.json").open("wb") as text:
                pairs, notes = read(text)
            pairs.save(partial)
            write_json(partial / "store.json", {**notes, "origin": origin})
        folder = whole_folder(folder)
    return PackedPairs.open(folder), notes


def record_files(path: Path) -> list[Path]:
    """A file of records, or all files of a folder that have rows."""
    return [*row_files(path), *path.rglob("*.arrow")] if path.is_dir() else [path]


def _origin(files: Sequence[str | Path], media_root: str | Path) -> Mapping[str, Any]:
    """What decides a folder's contents; of a set on the hub its name alone."""
    states = []
    for file in map(str, files):
        found = [] if file.startswith(HUB) else _states(Path(file))
        states.append([file, found])
    return {"format": _FORMAT, "media_root": str(Path(media_root).resolve()), "files": states}


def _states(path: Path) -> list[list]:
    files = record_files(path)
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
