"""Plain folders of media: each has a text file of the same name beside it, or a speaking name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from ..data.json_stream import RecordError
from ..data.readers import Row

__all__ = ["FILENAME", "IMAGES", "VIDEOS", "folder_files", "folder_rows", "name_words"]

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".webm", ".mkv", ".avi", ".mov", ".gif", ".m4v", ".mpg", ".mpeg"}
FILENAME = "filename"
"""The column of a file name's words."""
_APART = re.compile(r"(?:[\s_,;:+~#@=&()\[\]{}–—-]|(?<!\d)\.|\.(?!\d))+")  # separators of a name
_RUNNING = re.compile(  # a number at the end that only tells files apart: (2), bike2, 012, 20240131
    r"(\s*\(\d+\)|(?<=[^\W\d_])\d+|(?<=[\s_.-])(0\d*|\d{5,}))$"
)
_MAX_TEXT = 1 << 20  # bytes of a caption file


def folder_rows(root: str | Path, from_names: bool = False) -> Iterator[Row]:
    """Yield rows {"image" or "video": path below `root`, "caption": texts}, ordered by name.

    A `.webp` file is a video if it is animated. Every line that is not blank is a caption. A media
    file without text, a text without media file, a link, and a folder that cannot be listed become
    rows with an error; other files and hidden folders are ignored. Links are not followed.

    `from_names`: rows {"image" or "video": path, "filename": words of its name}; no text is read.
    """
    root = Path(root)
    if not os.path.isdir(root):
        raise RecordError(f"{root}: no folder; name the folder of the media and their texts")
    closed: list[OSError] = []
    for folder, names in _folders(root, closed.append):
        for stem in sorted({Path(name).stem for name in names}):
            yield from _pairs(root, folder, stem, names, from_names)
    for error in closed:
        yield Row(str(error.filename), None, f"folder cannot be listed ({error.strerror})")


def folder_files(root: str | Path) -> Iterator[Path]:
    """All files that `folder_rows` considers, ordered by name."""
    for folder, names in _folders(Path(root)):
        yield from (folder / name for name in sorted(names) if (folder / name).is_file())


def _folders(root: Path, fail: Callable | None = None) -> Iterator[tuple[Path, set[str]]]:
    for folder, subfolders, names in os.walk(root, onerror=fail):
        subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
        yield Path(folder), set(names)


def name_words(stem: str) -> str:
    """The words of a file's name, without its separators and running number; "" where it has none.

    Numbers among the words stay, as does one of up to four digits at the end: it may say something.

    >>> name_words("red-bicycle_012"), name_words("route_66"), name_words("bike (2)")
    ('red bicycle', 'route 66', 'bike')
    >>> name_words("2 dogs, 3.5 m"), name_words("IMG_1200"), name_words("0001")
    ('2 dogs 3.5 m', 'IMG 1200', '')
    """
    name = _RUNNING.sub("", unicodedata.normalize("NFC", stem))
    words = " ".join(filter(None, _APART.split(name)))
    return words if re.search(r"[^\W\d_]", words) else ""


def _pairs(root: Path, folder: Path, stem: str, files: set[str], from_names) -> Iterator[Row]:
    suffixes = sorted(Path(name).suffix for name in files if Path(name).stem == stem)
    media = [suffix for suffix in suffixes if suffix.lower() in IMAGES | VIDEOS | {".webp"}]
    has_text = ".txt" in suffixes
    if from_names:
        yield from (_named_row(root, folder / f"{stem}{suffix}") for suffix in media)
        return
    if has_text and not media:
        yield Row(str(folder / f"{stem}.txt"), None, "a text without a media file of the same name")
    for suffix in media:
        path = folder / f"{stem}{suffix}"
        if has_text:
            yield _row(root, path, folder / f"{stem}.txt")
        else:
            yield Row(str(path), None, f"no text file {stem}.txt beside it")


def _named_row(root: Path, path: Path) -> Row:
    words = name_words(path.stem)
    if not words:
        return Row(str(path), None, "no text file or words: its name is numbers and separators")
    try:
        kind = "video" if _moves(path) else "image"
    except OSError as error:
        return Row(str(path), None, f"no regular file, or it cannot be read ({error.strerror})")
    return Row(str(path), {kind: path.relative_to(root).as_posix(), FILENAME: words})


def _row(root: Path, path: Path, text: Path) -> Row:
    if text.is_symlink() or path.is_symlink():
        return Row(str(path), None, "a link; put the file itself into the folder")
    if not (text.is_file() and path.is_file()):
        return Row(str(path), None, "no regular file, or its text is none; save it as a file")
    try:
        with text.open("rb") as file:
            content = file.read(_MAX_TEXT + 1)
        captions = content.decode("utf-8-sig").splitlines()
        kind = "video" if _moves(path) else "image"
    except (OSError, UnicodeDecodeError) as error:
        return Row(str(path), None, f"it or {text.name} cannot be read as UTF-8 text ({error})")
    if len(content) > _MAX_TEXT:
        return Row(str(path), None, f"{text.name} is longer than {_MAX_TEXT} bytes")
    captions = [line.strip() for line in captions if line.strip()]
    return Row(str(path), {kind: path.relative_to(root).as_posix(), "caption": captions or ""})


def _moves(path: Path) -> bool:
    if path.suffix.lower() != ".webp":
        return path.suffix.lower() in VIDEOS
    with path.open("rb") as file:
        head = file.read(21)
    return head[12:16] == b"VP8X" and bool(head[20] & 2)  # the animation flag of the header
