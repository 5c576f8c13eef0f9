"""From media files to patches: read, size rules, resizing, patches. Needs no model.

Sizes follow the released code (docs/method.md): media are resized to multiples of patch x merge
under their own limits, then once more under the image limits, which undoes the limits of videos;
`video_pixels="effective"` leaves that second step out for them.
"""

# Shapes: T frames, H x W pixels, P patch side, t x h x w grid of patches, N = t h w patches.

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ..data.items import images_of, videos_of
from ..data.media import MAX_RATIO, image_shape, load_image
from ..data.videos import read_clip, video_shape
from .config import EmbedConfig

__all__ = [
    "Layout", "MediaReader", "MediaSource", "Pixels", "Read", "frame_sizes", "grid_of",
    "image_sizes", "media_of", "normalised", "patches_of", "patchify", "reads_here", "resized",
    "smart_resize",
]  # fmt: skip


Size = tuple[int, int]  # height, width in pixels
Grid = tuple[int, int, int]  # t, h, w in patches


@dataclass(frozen=True)
class Layout:
    """Patch sizes and colour normalisation of a checkpoint's vision tower."""

    patch: int = 14  # side in pixels
    merge: int = 2  # merge x merge patches become one token
    temporal: int = 2  # frames per patch
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @property
    def factor(self) -> int:
        return self.patch * self.merge

    @property
    def bytes_per_token(self) -> int:
        """Size of the uint8 patches that become one token."""
        return 3 * self.temporal * self.factor**2


def smart_resize(height: int, width: int, factor: int = 28, min_pixels: int = 4 * 28 * 28,
                 max_pixels: int = 16384 * 28 * 28) -> Size:  # fmt: skip
    """Round a size to multiples of `factor` with an area within the limits, as Qwen2-VL does.

    Args
        height, width           > 0, at most 200 : 1
        min_pixels, max_pixels  limits of the area; enlarging can exceed the upper one
    Returns
        height, width, each at least `factor`.
    """
    if min(height, width) < 1 or max(height, width) > MAX_RATIO * min(height, width):
        raise ValueError(
            f"{width} x {height} pixels: the sides must be at most {MAX_RATIO} : 1; crop it"
        )
    return _fitted(height, width, factor, min_pixels, max_pixels)


def _fitted(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> Size:
    """`smart_resize` for any ratio: rounding 41 x 8200 to 28 x 8204 must not make it unfit."""
    rows, columns = (max(1, round(side / factor)) for side in (height, width))
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / factor)) for side in (height, width))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / factor) for side in (height, width))
    return rows * factor, columns * factor


def _largest(height: int, width: int, factor: int, max_pixels: int) -> Size:
    """The largest size of a shape, in multiples of `factor`, as in Gemma 4; small ones grow."""
    scale = math.sqrt(max_pixels / (height * width))
    rows, columns = (math.floor(scale * side / factor) for side in (height, width))
    longest = max_pixels // factor**2
    if not rows:
        rows, columns = 1, min(width // height, longest)
    elif not columns:
        rows, columns = min(height // width, longest), 1
    return rows * factor, columns * factor


def image_sizes(height: int, width: int, config: EmbedConfig, layout: Layout) -> tuple[Size, ...]:
    """The sizes to which an image is resized in turn: two, or one."""
    limits = config.image_min_pixels, config.image_max_pixels
    if config.image_pixels == "largest":
        return (_largest(height, width, layout.factor, limits[1]),)
    if config.image_pixels == "once":
        return (smart_resize(height, width, layout.factor, *limits),)
    first = smart_resize(height, width, layout.factor, *_loose_limits(layout))
    return first, _fitted(*first, layout.factor, *limits)


def frame_sizes(height: int, width: int, config: EmbedConfig, layout: Layout,
                from_file: bool) -> tuple[Size, ...]:  # fmt: skip
    """The sizes to which a video's frames are resized in turn.

    "effective": one step, and `video_max_pixels` always holds.
    "released": for a list of frames the lower limit is 4 tokens; then come the image limits.
    "largest": one step, whatever the lower limit.
    """
    low, high = config.video_min_pixels, config.video_max_pixels
    if config.video_pixels == "largest":
        return (_largest(height, width, layout.factor, high),)
    if config.video_pixels == "effective":
        size = smart_resize(height, width, layout.factor, min(low, high), high)
        return (_fitted(*size, layout.factor, 1, high),)
    low = low if from_file else _loose_limits(layout)[0]
    first = smart_resize(height, width, layout.factor, low, high)
    limits = config.image_min_pixels, config.image_max_pixels
    return first, _fitted(*first, layout.factor, *limits)


def grid_of(frames: int, size: Size, layout: Layout) -> Grid:
    """Number of patches along time, height and width; a last group of frames may be short."""
    return -(-frames // layout.temporal), size[0] // layout.patch, size[1] // layout.patch


def resized(frames: Sequence[Image.Image], sizes: Sequence[Size]) -> np.ndarray:
    """Resize RGB frames through `sizes` with Pillow's bicubic filter: uint8 [T, H, W, 3]."""
    return np.stack([_resize(frame, sizes) for frame in frames])


def patches_of(frames: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, Grid]:
    """Cut frames, uint8 [T, H, W, 3], into patches, uint8 [N, 3 temporal P P]; also the grid.

    They stay bytes until the model's device has them, a quarter of the memory and of the traffic.
    """
    return patchify(frames.permute(0, 3, 1, 2), layout)


def normalised(patches: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Colours for the vision tower: uint8 patches [N, 3 temporal P P] to float32; others as are."""
    if patches.dtype != torch.uint8:
        return patches
    channels = patches.unflatten(1, (3, -1)).float()  # [N, 3, temporal P P]
    mean, std = (
        torch.tensor(values, device=patches.device)[:, None] for values in (layout.mean, layout.std)
    )
    return channels.div_(255).sub_(mean).div_(std).flatten(1)  # in place: no copies


def patchify(frames: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, Grid]:
    """Cut frames [T, 3, H, W] of any dtype into patches [N, 3 temporal P P]; also gives the grid.

    H and W are multiples of patch x merge. Patches of a merge x merge block are contiguous. The
    last frame is repeated to fill the last temporal patch.
    """
    frame_count, channels, height, width = frames.shape
    if height % layout.factor or width % layout.factor:
        raise ValueError(f"{width} x {height} pixels are no multiples of {layout.factor}")
    missing = -frame_count % layout.temporal
    frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    t, h, w = grid_of(frame_count, (height, width), layout)
    p, m = layout.patch, layout.merge
    blocks = frames.reshape(t, layout.temporal, channels, h // m, m, p, w // m, m, p)
    blocks = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)  # [t, h/m, w/m, m, m, C, temporal, P, P]
    return blocks.reshape(t * h * w, -1), (t, h, w)


def _loose_limits(layout: Layout) -> tuple[int, int]:
    """Limits of the first step where none are given: 4 to 16384 tokens."""
    return 4 * layout.factor**2, 16384 * layout.factor**2


def _resize(frame: Image.Image, sizes: Sequence[Size]) -> np.ndarray:
    for height, width in sizes:
        frame = frame.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(frame)


class MediaSource(NamedTuple):
    """Where an image or video comes from."""

    kind: str  # "image" or "video"
    media: Any  # a path, an image or array in memory, or a list of frames

    @property
    def key(self) -> tuple:
        """Equal for equal paths and for the same object in memory."""
        frames = self.media if isinstance(self.media, list | tuple) else [self.media]
        names = (os.fspath(frame) if _is_file(frame) else id(frame) for frame in frames)
        return self.kind, isinstance(self.media, list | tuple), *names


class Pixels(NamedTuple):
    """An image or video, decoded and resized, before it is cut into patches."""

    frames: np.ndarray  # uint8 [T, H, W, 3]
    seconds: list[float]  # when each frame of a video is shown; empty for an image


@dataclass(frozen=True)
class MediaReader:
    """Reads media in the sizes that a configuration and a vision tower ask for; picklable."""

    config: EmbedConfig
    layout: Layout

    def read(self, source: MediaSource, media_root: str | Path = ".") -> Pixels:
        """Decode and resize an image or video; MediaError or ValueError for a bad one."""
        config = self.config
        if source.kind == "image":
            image = load_image(source.media, media_root, config.parity == "released")
            sizes = image_sizes(image.height, image.width, config, self.layout)
            return Pixels(resized([image], sizes), [])
        frames, seconds = read_clip(
            source.media, media_root, config.fps, config.min_frames, config.max_frames
        )
        height, width = frames[0].height, frames[0].width
        sizes = frame_sizes(height, width, config, self.layout, _is_file(source.media))
        return Pixels(resized(frames, sizes), seconds)

    def try_read(self, source: MediaSource, media_root: str | Path = ".") -> Pixels | ValueError:
        """As `read`, but return the error."""
        try:
            return self.read(source, media_root)
        except ValueError as error:
            return error

    def shape(self, source: MediaSource, media_root: str | Path = ".") -> tuple[int, Grid]:
        """Frames and grid from the header alone; an upper limit for a video file."""
        if source.kind == "image":
            shape = image_shape(source.media, media_root, self.config.parity == "released")
            return 1, grid_of(1, image_sizes(*shape, self.config, self.layout)[-1], self.layout)
        frames, *shape = video_shape(source.media, media_root)
        if _is_file(source.media):
            limit = self.config.max_frames
            frames = limit if frames is None else min(frames, limit)
        size = frame_sizes(*shape, self.config, self.layout, _is_file(source.media))[-1]
        return frames, grid_of(frames, size, self.layout)


Read = Callable[[], Pixels | ValueError]
"""Gives an image or video, or the error."""


def reads_here(
    reader: MediaReader, sources: Iterable[MediaSource], media_root: str | Path = "."
) -> Iterator[Read]:
    """A function for each source that reads it in the thread that calls it."""
    return (partial(reader.try_read, source, media_root) for source in sources)


def media_of(item: Mapping) -> list[MediaSource]:
    """List an item's images, then its videos."""
    images = [MediaSource("image", image) for image in images_of(item)]
    return images + [MediaSource("video", video) for video in videos_of(item)]


def _is_file(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike))
