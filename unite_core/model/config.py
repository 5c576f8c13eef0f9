"""What an embedder sees of an item: prompt, pixels, frames and length."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, WithJsonSchema

from ..settings import Count, Positive, settings
from .backbones import TEMPLATES

__all__ = ["EmbedConfig"]


def _known(name: str) -> str:
    TEMPLATES[name]
    return name


Prompt = Annotated[
    str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": list(TEMPLATES)})
]


@settings
class EmbedConfig:
    """How items become tokens; saved as `unite.json` beside the weights.

    Pixel limits are areas in square pixels, *after* resizing to multiples of patch x merge.
    """

    positions: Literal["sequential", "mrope"] = "sequential"
    """Position ids: sequential (UNITE weights) or M-RoPE (plain Qwen-VL weights)."""
    prompt: Prompt = "unite"
    """Whose prompt: UNITE's with its line that asks for a one-word summary, raw for the chat turn
    alone, or that of another embedder, with its place for an instruction."""
    image_pixels: Literal["twice", "once", "largest"] = "twice"
    """twice: resize images by Qwen-VL's own limits and then by those below, as UNITE does; once: by
    these alone; largest: to the largest size of their shape, as EmbeddingGemma 2."""
    image_min_pixels: Count = 256 * 28 * 28
    """Smallest area of an image; smaller ones are enlarged."""
    image_max_pixels: Count = 1280 * 28 * 28
    """Largest area of an image; larger ones are shrunk."""
    video_min_pixels: Count = 128 * 28 * 28
    """Smallest area of a frame."""
    video_max_pixels: Count = 240 * 320
    """Largest area of a frame."""
    video_pixels: Literal["effective", "released", "largest"] = "effective"
    """effective: resize frames once; released: twice, as UNITE's released code; largest: to the
    largest size of their shape, as EmbeddingGemma 2."""
    parity: Literal["corrected", "released"] = "corrected"
    """corrected turns pictures by their EXIF note, shows transparent ones on white, keeps the order
    of an item's keys, and takes video times from the frames. released does none of it, for equal
    numbers to the authors' code: images precede videos, and times follow from fps."""
    fps: Positive = 1.0
    """Frames per second taken from a video file."""
    min_frames: Count = 4
    """Fewest frames of a video."""
    max_frames: Count = 12
    """Most frames of a video."""
    max_length: Count = 2048
    """Tokens of an item; its text is shortened to fit, its visual tokens never."""

    def __post_init__(self):
        for low, high in (("image_min_pixels", "image_max_pixels"), ("min_frames", "max_frames")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} {getattr(self, low)} must be at most {high} {getattr(self, high)}"
                )
