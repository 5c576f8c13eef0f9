"""From an item to the text that the model reads: the authors' prompt with its vision blocks.

    <system turn> <user turn: {text} newline Summary above {modalities} in one word:>
    <assistant header> <|endoftext|>

The last token is pooled. `{modalities}` follows the order of the item's keys, as in the released
code: {"text", "image"} is "sentence and image", {"image", "text"} is "image and sentence".
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from .modality import KEYS

__all__ = [
    "IMAGE_PLACEHOLDER", "VIDEO_BLOCK", "VIDEO_PLACEHOLDER", "ItemError", "as_item",
    "build_prompt", "files_of", "images_of", "media_first", "videos_of",
]  # fmt: skip

IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER = "<|IMAGE|>", "<|VIDEO|>"
_PLACEHOLDERS = {"image": IMAGE_PLACEHOLDER, "video": VIDEO_PLACEHOLDER}
VIDEO_BLOCK = "<|vision_start|><|video_pad|><|vision_end|>"
_BLOCKS = {"image": VIDEO_BLOCK.replace("video", "image"), "video": VIDEO_BLOCK}
_WORDS = {"text": "sentence", "image": "image", "video": "video"}
_RESERVED = re.compile(r"<\|(?:image_pad|video_pad|vision_start|vision_end|vision_pad)\|>")
_TURN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
)
_STILL_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm"}


class ItemError(ValueError):
    """An item that cannot be read; the message says why and what to do."""


def as_item(thing: Any) -> dict:
    """A dict of text, image and video from a dict, a bare PIL image, or a HWC or THWC array.

    Keys whose value is None are left out; unknown keys and empty items are an ItemError.
    """
    if not isinstance(thing, Mapping):
        thing = {_bare_modality(thing): thing}
    unknown = sorted(str(key) for key in thing if key not in KEYS)
    if unknown:
        raise ItemError(f"unknown modality {', '.join(unknown)}: an item has {', '.join(KEYS)}")
    item = {key: value for key, value in thing.items() if value is not None}
    if not item:
        raise ItemError(f"the item is empty: give at least one of {', '.join(KEYS)}")
    if "text" in item:
        _check_text(item["text"])
    return item


def images_of(item: Mapping) -> list:
    """The item's images: paths, PIL images or arrays, one entry per image."""
    value = item.get("image")
    if value is None:
        return []
    return _filled(list(value), "image") if isinstance(value, (list, tuple)) else [value]


def videos_of(item: Mapping) -> list:
    """The item's videos, one entry per video: a path, a THWC array, or a list of frames.

    A flat list of stills (paths ending like a still image, PIL images, HWC arrays) is one video.
    GIF, WebP and APNG count as video files; as frames of one video they need a nested list.
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
    return [_filled(list(v), "video") if isinstance(v, (list, tuple)) else v for v in value]


def files_of(item: Mapping) -> Iterator[str]:
    """The paths of an item's images, videos and frames; media in memory have none."""
    for medium in images_of(item) + videos_of(item):
        parts = medium if isinstance(medium, list | tuple) else [medium]
        yield from (str(part) for part in parts if isinstance(part, str | PurePath))


def media_first(item: Mapping) -> str:
    """The item's text behind a placeholder for each of its media, in the order of its keys."""
    counts = {"image": len(images_of(item)), "video": len(videos_of(item))}
    marks = [f"{_PLACEHOLDERS[key]}\n" * counts[key] for key in item if key in counts]
    return "".join(marks) + item.get("text", "")


def build_prompt(item: Mapping, template: str = "unite") -> str:
    """The prompt of an item, with one image_pad or video_pad token per image or video.

    Args
        item      text, image, video; the text may hold <|IMAGE|> and <|VIDEO|> placeholders
        template  "unite" with the summary line, "raw" without it
    Text without any placeholder gets the media in front of it, with a warning: the released code
    encodes them and then drops them silently. A wrong number of placeholders is an ItemError.
    """
    item = as_item(item)
    counts = {"image": len(images_of(item)), "video": len(videos_of(item))}
    text = _place_media(item, counts).strip()
    if template == "unite":
        text += f"\nSummary above {' and '.join(_WORDS[key] for key in item)} in one word:"
    elif template != "raw":
        raise ValueError(f"template must be one of unite, raw; not {template!r}")
    return _TURN.format(text)


def _place_media(item: Mapping, counts: Mapping[str, int]) -> str:
    text = item.get("text", "")
    found = {key: text.count(mark) for key, mark in _PLACEHOLDERS.items()}
    if not any(found.values()) and any(counts.values()):
        if text:
            warnings.warn(
                "a text without <|IMAGE|> or <|VIDEO|> came with media: the media are put before "
                "it. Write the placeholders where the media belong to choose their place.",
                stacklevel=3,
            )
        text = media_first(item)
    elif found != dict(counts):
        raise ItemError(
            f"the text has {found['image']} {IMAGE_PLACEHOLDER} and {found['video']} "
            f"{VIDEO_PLACEHOLDER}, the item {counts['image']} image and {counts['video']} video: "
            "write one placeholder for each, or none"
        )
    for key, mark in _PLACEHOLDERS.items():
        text = text.replace(mark, _BLOCKS[key])
    return text


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise ItemError(f"text must be a string, not {type(text).__name__}")
    if not text.strip():
        raise ItemError("text is empty: write something or leave the key out")
    if reserved := _RESERVED.search(text):
        raise ItemError(
            f"text contains the reserved token {reserved.group()}: "
            f"mark the place of media with {IMAGE_PLACEHOLDER} or {VIDEO_PLACEHOLDER}"
        )


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
