"""Plain folders: a medium and beside it a text file of the same name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..jsonrows import RecordError
from ..readers import Row

__all__ = ["folder_files", "folder_rows"]

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".webm", ".mkv", ".avi", ".mov", ".gif", ".m4v"}
_MAX_TEXT = 1 << 20  # bytes of a caption file


def folder_rows(root: str | Path) -> Iterator[Row]:
    """Rows {"image" or "video": path below `root`, "caption": text} in the order of the names.

    `.webp` is taken for a video if it moves. Every line that is not blank is a caption. A medium
    without text is a row with an error, a text without medium too; other files are passed over.
    Links are not followed.
    """
    root = Path(root)
    if not root.is_dir():
        raise RecordError(f"{root}: no folder; name the folder of the media and their texts")
    for folder, names in _folders(root):
        for stem in sorted({Path(name).stem for name in names}):
            yield from _pairs(root, folder, stem, names)


def folder_files(root: str | Path) -> Iterator[Path]:
    """All files that `folder_rows` looks at, in the order of the names."""
    return (folder / name for folder, names in _folders(Path(root)) for name in sorted(names))


def _folders(root: Path) -> Iterator[tuple[Path, set[str]]]:
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        yield Path(folder), {name for name in names if Path(folder, name).is_file()}


def _pairs(root: Path, folder: Path, stem: str, files: set[str]) -> Iterator[Row]:
    suffixes = sorted(Path(name).suffix for name in files if Path(name).stem == stem)
    media = [suffix for suffix in suffixes if suffix.lower() in IMAGES | VIDEOS | {".webp"}]
    has_text = ".txt" in suffixes
    if has_text and not media:
        yield Row(str(folder / f"{stem}.txt"), None, "a text without a medium of the same name")
    for suffix in media:
        path = folder / f"{stem}{suffix}"
        if has_text:
            yield _row(root, path, folder / f"{stem}.txt")
        else:
            yield Row(str(path), None, f"no text file {stem}.txt beside it")


def _row(root: Path, path: Path, text: Path) -> Row:
    if text.is_symlink() or path.is_symlink():
        return Row(str(path), None, "a link; put the file itself into the folder")
    try:
        with text.open("rb") as file:
            content = file.read(_MAX_TEXT + 1)
        captions = content.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return Row(str(path), None, f"{text.name} cannot be read as UTF-8 text ({error})")
    if len(content) > _MAX_TEXT:
        return Row(str(path), None, f"{text.name} is longer than {_MAX_TEXT} bytes")
    captions = [line.strip() for line in captions if line.strip()]
    kind = "video" if _moves(path) else "image"
    return Row(str(path), {kind: path.relative_to(root).as_posix(), "caption": captions or ""})


def _moves(path: Path) -> bool:
    if path.suffix.lower() != ".webp":
        return path.suffix.lower() in VIDEOS
    with path.open("rb") as file:
        head = file.read(21)
    return head[12:16] == b"VP8X" and bool(head[20] & 2)  # the animation flag of the header
