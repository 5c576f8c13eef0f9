"""An item as a reader sees it: its text, its name, a picture of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from .items import PLACEHOLDERS, files_of, images_of, videos_of
from .media import load_image
from .videos import load_video

__all__ = ["item_name", "item_picture", "item_text"]


_COLUMNS = 2  # of a sheet of frames


def item_text(item: Mapping) -> str:
    """The item's text on one line, without placeholders; "" of an item without text.

    >>> item_text({"text": "<|IMAGE|>\\nthe same  in blue", "image": "a.png"})
    'the same in blue'
    """
    text = item.get("text") or ""
    for mark in PLACEHOLDERS.values():
        text = text.replace(mark, " ")
    return " ".join(text.split())


def item_name(item: Mapping) -> str:
    """The item's text, else its first file's name without suffix, else "picture".

    >>> item_name({"image": "far/cat.png"})
    'cat'
    """
    return item_text(item) or next((Path(path).stem for path in files_of(item)), "picture")


def item_picture(
    item: Mapping, media_root: str | Path = ".", frames: int = 1
) -> Image.Image | None:
    """The item's first image, or frames of its first video; None of a text.

    One frame is the middle one; more are spread over the video, as a sheet of two columns. Raises
    MediaError for what cannot be read.
    """
    if images := images_of(item):
        return load_image(images[0], media_root).convert("RGB")
    if videos := videos_of(item):
        return _sheet(load_video(videos[0], media_root), frames)
    return None


def _sheet(video, frames: int) -> Image.Image:
    if frames == 1:
        return Image.fromarray(np.asarray(video[len(video) // 2]))
    chosen = np.linspace(0, len(video) - 1, min(frames, len(video))).round().astype(int)
    stills = [Image.fromarray(np.asarray(video[place])) for place in chosen.tolist()]
    wide, high = stills[0].size
    rows = -(-len(stills) // _COLUMNS)
    sheet = Image.new("RGB", (wide * min(_COLUMNS, len(stills)), high * rows), "white")
    for place, still in enumerate(stills):
        row, column = divmod(place, _COLUMNS)
        sheet.paste(still, (column * wide, row * high))
    return sheet
