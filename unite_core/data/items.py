"""Items: what one query or candidate is, a dict of text, image and video.

An image is a path, a PIL image or an array [H, W, 3], or a list of these. A video is a file, a list
of frames or an array [T, H, W, 3], or a list of videos. Text says where media belong by the
placeholders <|IMAGE|> and <|VIDEO|>. An instruction says what the vector is for, such as "Find a
picture of this."; where it is put is the model's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from .modality import KEYS

__all__ = [
    "IMAGE_PLACEHOLDER", "ITEM_KEYS", "PLACEHOLDERS", "VIDEO_PLACEHOLDER", "ItemError", "as_item",
    "files_of", "images_of", "instructed", "instruction_fault", "media_first", "path_fault",
    "text_fault", "unicode_fault", "videos_of",
]  # fmt: skip


IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER = "<|IMAGE|>", "<|VIDEO|>"
PLACEHOLDERS = {"image": IMAGE_PLACEHOLDER, "video": VIDEO_PLACEHOLDER}
ITEM_KEYS = (*KEYS, "instruction")
_RESERVED = re.compile(r"<\|(?:image_pad|video_pad|vision_start|vision_end|vision_pad)\|>")
_STILL_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm"}


class ItemError(ValueError):
    """An item that cannot be read; the message says why and what to do."""


def as_item(thing: Any) -> dict:
    """Make an item of a dict, a PIL image, or an array [H, W, 3] or [T, H, W, 3].

    Keys whose value is None are left out and the order of the others is kept: it decides the words
    of the prompt. `instruction` is no modality and has no place in it. Unknown keys, empty items,
    blank text and what `text_fault` or `path_fault` find are an ItemError.

    >>> as_item({"text": "a cat", "image": None})
    {'text': 'a cat'}
    >>> as_item({"text": "a cat", "audio": "cat.wav"})
    Traceback (most recent call last):
    unite_core.data.items.ItemError: unknown modality audio: an item has text, image, video
    """
    if not isinstance(thing, Mapping):
        thing = {_bare_modality(thing): thing}
    unknown = sorted(str(key) for key in thing if key not in ITEM_KEYS)
    if unknown:
        raise ItemError(f"unknown modality {', '.join(unknown)}: an item has {', '.join(KEYS)}")
    item = {key: value for key, value in thing.items() if value is not None}
    if not any(key in item for key in KEYS):
        raise ItemError(f"the item is empty: give at least one of {', '.join(KEYS)}")
    if "text" in item:
        _check_text(item["text"])
    if fault := instruction_fault(item.get("instruction")):
        raise ItemError(f"instruction: {fault}")
    for path in files_of(item) if "image" in item or "video" in item else ():
        if fault := path_fault(path):
            raise ItemError(f"path {path[:200]!a}: {fault}")
    return item


def instructed(thing: Any, instruction: str) -> dict:
    """The item with an instruction, unless it has its own.

    >>> instructed({"text": "a cat"}, "Find its picture.")
    {'text': 'a cat', 'instruction': 'Find its picture.'}
    """
    item = dict(thing) if isinstance(thing, Mapping) else {_bare_modality(thing): thing}
    if item.get("instruction") is None:
        item["instruction"] = instruction
    return item


def text_fault(text: str) -> str:
    """Why a text cannot be part of a prompt, and what to do; "" if it can."""
    if reserved := _RESERVED.search(text):
        return (
            f"text contains the reserved token {reserved.group()}; mark the place of media with "
            f"{IMAGE_PLACEHOLDER} or {VIDEO_PLACEHOLDER}"
        )
    return unicode_fault(text)


def instruction_fault(instruction: Any) -> str:
    """Why this cannot be an item's instruction, and what to do; "" if it can, or is None."""
    if instruction is None:
        return ""
    if not isinstance(instruction, str) or not instruction.strip():
        return f"{instruction!r} is no text; write what the vector is for, or leave it out"
    if any(mark in instruction for mark in PLACEHOLDERS.values()):
        return "places of media belong in the text; write the placeholder there"
    return text_fault(instruction)


def path_fault(path: str) -> str:
    """Why no file can have this path, and what to do; "" if one can."""
    if not path.strip() or "\0" in path:
        return "this is no path; give the name of a file"
    return unicode_fault(path)


def unicode_fault(text: str) -> str:
    """Why a string cannot be written as UTF-8, and what to do; "" if it can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a surrogate pair; write the character whole, in UTF-8"
    return ""


def images_of(item: Mapping) -> list:
    """List the item's images: paths, PIL images or arrays."""
    value = item.get("image")
    if value is None:
        return []
    return _filled(list(value), "image") if isinstance(value, (list, tuple)) else [value]


def videos_of(item: Mapping) -> list:
    """List the item's videos: each a path, an array [T, H, W, 3], or a list of frames.

    A flat list of stills (paths that end like a still image, PIL images, arrays [H, W, 3]) is one
    video. GIF, WebP and APNG count as video files: as frames of one video, nest them in a list.
    """
    value = item.get("video")
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        return [value]
    frames = [_is_frame(entry) for entry in _filled(list(value), "video")]
    if all(frames):
        return [list(value)]
    if any(frames):
        raise ItemError(
            "video mixes frames with whole videos: nest the frames of each video in a list, "
            '[["a0.png", "a1.png"], "b.mp4"]'
        )
    return [
        _filled(list(entry), "video") if isinstance(entry, (list, tuple)) else entry
        for entry in value
    ]


def files_of(item: Mapping) -> Iterator[str]:
    """Paths of the item's images, videos and frames; media in memory have none."""
    for media in images_of(item) + videos_of(item):
        parts = media if isinstance(media, list | tuple) else [media]
        yield from (str(part) for part in parts if isinstance(part, str | PurePath))


def media_first(item: Mapping) -> str:
    """The item's text after one placeholder per media file, in the order of its keys."""
    counts = {"image": len(images_of(item)), "video": len(videos_of(item))}
    marks = [f"{PLACEHOLDERS[key]}\n" * counts[key] for key in item if key in counts]
    return "".join(marks) + item.get("text", "")


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise ItemError(f"text must be a string, not {type(text).__name__}")
    if not text.strip():
        raise ItemError("text is empty: write something or leave the key out")
    if fault := text_fault(text):
        raise ItemError(fault)


def _bare_modality(thing: Any) -> str:
    rank = getattr(thing, "ndim", None)
    if hasattr(thing, "convert") or rank in (2, 3):
        return "image"
    if rank == 4:
        return "video"
    raise ItemError(
        f"an item is a dict with {', '.join(KEYS)}, a PIL image, or a uint8 array [H, W, 3] or "
        f"[T, H, W, 3]; not {type(thing).__name__}"
    )


def _is_frame(entry: Any) -> bool:
    if isinstance(entry, (str, PurePath)):
        return Path(entry).suffix.lower() in _STILL_SUFFIXES
    return hasattr(entry, "convert") or getattr(entry, "ndim", None) in (2, 3)


def _filled(entries: list, key: str) -> list:
    if not entries:
        raise ItemError(f"{key} is an empty list: give at least one or leave the key out")
    return entries
