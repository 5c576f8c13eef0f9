"""Media that stand inside a table, as in `Image` columns of the hub: written once, as files.

A cell {"bytes": ..., "path": ...} becomes the path `embedded/ab/ab12….jpg` below the media root,
named after the content. From there on it is a file like any other: it is validated, decoded lazily
by workers, compared by content, kept out of memory, and found again by the next run, which writes
nothing. A cell without bytes becomes its path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePath

from ..files import replacing
from .json_stream import RecordError

__all__ = ["FOLDER", "as_files", "is_cell", "media_columns"]


FOLDER = "embedded"
_CELL = {"bytes", "path"}
_SUFFIXES = {
    b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp",
    b"RIFF": ".webp", b"\x1a\x45\xdf\xa3": ".webm", b"II*\0": ".tif", b"MM\0*": ".tif",
}  # fmt: skip
_KNOWN = {*_SUFFIXES.values(), ".jpeg", ".tiff", ".mp4", ".mov", ".mkv", ".avi", ".m4v", ".mpg"}


def media_columns(schema) -> list[str]:
    """Names of the columns of an Arrow schema that hold media, also within structs and lists."""
    return [field.name for field in schema if _holds_media(field.type)]


def is_cell(value) -> bool:
    """Whether a value is media as a table has them, {"bytes": bytes or None, "path": ...}."""
    return (
        isinstance(value, Mapping)
        and set(value) == _CELL
        and isinstance(value["bytes"], bytes | None)
    )


def as_files(value, root: str | Path):
    """The value with the path of a file below `root` in the place of each media cell."""
    if isinstance(value, list):
        return [as_files(entry, root) for entry in value]
    if not isinstance(value, Mapping):
        return value
    if not is_cell(value):
        return {key: as_files(entry, root) for key, entry in value.items()}
    if value["bytes"] is None or not (value["bytes"] or value["path"] is None):
        return value["path"]
    return _written(value["bytes"], str(value["path"] or ""), Path(root))


def _holds_media(kind) -> bool:
    names = {kind.field(place).name for place in range(kind.num_fields)}
    if names == _CELL:
        return "binary" in str(kind.field(kind.get_field_index("bytes")).type)
    return any(_holds_media(kind.field(place).type) for place in range(kind.num_fields))


def _written(content: bytes, name: str, root: Path) -> str:
    digest = hashlib.sha256(content).hexdigest()[:32]
    path = f"{FOLDER}/{digest[:2]}/{digest}{_suffix(content, name)}"
    file = root / path
    try:
        if not (file.is_file() and file.stat().st_size == len(content)):
            with replacing(file, durable=False) as partial:
                partial.write_bytes(content)
    except OSError as error:
        raise RecordError(
            f"{file}: media of a table cannot be written there ({error.strerror}); make room, or "
            "name a media root that can be written"
        ) from None
    return path


def _suffix(content: bytes, name: str) -> str:
    """That of the name if it is one of media, else by the first bytes, "" if unknown."""
    suffix = PurePath(name).suffix.lower()
    if suffix in _KNOWN:
        return suffix
    if content[4:8] == b"ftyp":
        return ".mp4"
    return next((end for head, end in _SUFFIXES.items() if content.startswith(head)), "")
