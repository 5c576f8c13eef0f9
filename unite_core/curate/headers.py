"""Sizes, durations and visual tokens of media, read from file headers: nothing is decoded."""

# Shapes: N media.

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..config import EmbedConfig
from ..media import MediaError, choose_frames, clip_header, image_shape
from ..pixels import Layout, frame_sizes, grid_of, image_sizes
from ..prompts import images_of, videos_of

__all__ = ["MediaHeader", "media_of", "read_header"]


class MediaHeader(NamedTuple):
    """What a file's header says, and the visual tokens that a model makes of it."""

    height: int
    width: int
    frames: int  # 1 for an image
    seconds: float  # 0 for an image
    tokens: int

    @property
    def aspect(self) -> float:
        """Width / height."""
        return self.width / self.height


def media_of(item: Mapping) -> list[tuple[str, str]]:
    """(kind, path) of each image file, video file and frame file of an item; kind as in KEYS.

    Frames of a video given as a list of stills are images here: each is a file of its own.
    """
    found = [("image", medium) for medium in images_of(item)]
    for video in videos_of(item):
        frames = isinstance(video, list | tuple)
        found += [("image", frame) for frame in video] if frames else [("video", video)]
    return [(kind, os.fspath(m)) for kind, m in found if isinstance(m, str | os.PathLike)]


def read_header(kind: str, path: str, root: str | Path, config: EmbedConfig,
                layout: Layout | None = None) -> MediaHeader | MediaError:  # fmt: skip
    """Header of an image or video below `root`; what cannot be read gives its MediaError.

    Tokens follow `config`'s pixel and frame limits, as `Processor.estimate_tokens` does, and for a
    container file from its announced duration. A readable header does not make a readable file.
    """
    layout = layout or Layout()
    try:
        if kind == "image":
            height, width = image_shape(path, root)
            size = image_sizes(height, width, config, layout)[-1]
            return MediaHeader(height, width, 1, 0.0, _tokens(1, size, layout))
        frames, height, width, seconds = clip_header(path, root)
        limits = config.fps, config.min_frames, config.max_frames
        taken = len(choose_frames(max(frames, 1), seconds, *limits))
        size = frame_sizes(height, width, config, layout, True)[-1]
        return MediaHeader(height, width, frames, seconds, _tokens(taken, size, layout))
    except MediaError as error:
        return error
    except ValueError as error:  # a shape that no model takes
        return MediaError(f"{path}: {error}")


def _tokens(frames: int, size: Sequence[int], layout: Layout) -> int:
    t, h, w = grid_of(frames, size, layout)
    return t * h * w // layout.merge**2
