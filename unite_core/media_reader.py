"""Media in the size that the vision tower wants; without a model, so it travels to processes."""

# Shapes: T frames, H x W pixels.

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .config import EmbedConfig
from .media import image_shape, load_image, read_clip, video_shape
from .pixels import Grid, Layout, frame_sizes, grid_of, image_sizes, resized
from .prompts import images_of, videos_of

__all__ = ["MediaReader", "Pixels", "Read", "Source", "media_of", "reads_here"]


class Source(NamedTuple):
    """Where a medium comes from."""

    kind: str  # "image" or "video"
    medium: Any  # a path, something in memory, or a list of frames

    @property
    def key(self) -> tuple:
        """Equal for equal paths and for one and the same object in memory."""
        frames = self.medium if isinstance(self.medium, list | tuple) else [self.medium]
        names = (os.fspath(one) if _is_file(one) else id(one) for one in frames)
        return self.kind, isinstance(self.medium, list | tuple), *names


class Pixels(NamedTuple):
    """A medium decoded and resized, before it is cut into patches."""

    frames: np.ndarray  # uint8 [T, H, W, 3]
    seconds: list[float]  # when each frame of a video is shown; empty for an image


@dataclass(frozen=True)
class MediaReader:
    """Reads media under the limits of a configuration, for the layout of a vision tower."""

    config: EmbedConfig
    layout: Layout

    def read(self, source: Source, media_root: str | Path = ".") -> Pixels:
        """A medium decoded and resized; a bad one is a MediaError or ValueError."""
        c = self.config
        if source.kind == "image":
            image = load_image(source.medium, media_root)
            sizes = image_sizes(image.height, image.width, c, self.layout)
            return Pixels(resized([image], sizes), [])
        frames, seconds = read_clip(source.medium, media_root, c.fps, c.min_frames, c.max_frames)
        height, width = frames[0].height, frames[0].width
        sizes = frame_sizes(height, width, c, self.layout, _is_file(source.medium))
        return Pixels(resized(frames, sizes), seconds)

    def try_read(self, source: Source, media_root: str | Path = ".") -> Pixels | ValueError:
        """`read`, or what was wrong with the medium."""
        try:
            return self.read(source, media_root)
        except ValueError as error:
            return error

    def shape(self, source: Source, media_root: str | Path = ".") -> tuple[int, Grid]:
        """Number of frames and grid of a medium from its header; a video file's may be too high."""
        if source.kind == "image":
            shape = image_shape(source.medium, media_root)
            return 1, grid_of(1, image_sizes(*shape, self.config, self.layout)[-1], self.layout)
        frames, *shape = video_shape(source.medium, media_root)
        if _is_file(source.medium):
            most = self.config.max_frames
            frames = most if frames is None else min(frames, most)
        size = frame_sizes(*shape, self.config, self.layout, _is_file(source.medium))[-1]
        return frames, grid_of(frames, size, self.layout)


Read = Callable[[], Pixels | ValueError]
"""Gives a medium, or what was wrong with it."""


def reads_here(
    reader: MediaReader, sources: Iterable[Source], media_root: str | Path = "."
) -> Iterator[Read]:
    """What reads each source when it is called, in the thread that calls it."""
    return (partial(reader.try_read, source, media_root) for source in sources)


def media_of(item: Mapping) -> list[Source]:
    """An item's images, then its videos."""
    images = [Source("image", medium) for medium in images_of(item)]
    return images + [Source("video", medium) for medium in videos_of(item)]


def _is_file(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike))
