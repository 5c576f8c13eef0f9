"""From pictures to the rows of `pixel_values`: size rules, resizing, patches.

# Shapes: T frames, H x W pixels, P patch side, t x h x w grid of patches, N = t h w patches.

Sizes follow the authors' chain (PAPER §1): media are first resized to multiples of patch x merge
under their own limits, then once more under the image limits. A step that changes nothing costs
nothing. `video_pixels="effective"` leaves out the second step for videos, which otherwise undoes
their limits.

Media in the size that the vision tower wants; without a model, so it travels to processes.
"""

# Shapes: T frames, H x W pixels.

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
from ..data.media import image_shape, load_image
from ..data.videos import read_clip, video_shape
from .config import EmbedConfig

__all__ = [
    "Layout",
    "MediaReader",
    "Pixels",
    "Read",
    "Source",
    "frame_sizes",
    "grid_of",
    "image_sizes",
    "media_of",
    "patches_of",
    "patchify",
    "reads_here",
    "resized",
    "smart_resize",
    "to_patches",
]


Size = tuple[int, int]  # height, width in pixels
Grid = tuple[int, int, int]  # t, h, w in patches
_MAX_RATIO = 200


@dataclass(frozen=True)
class Layout:
    """What the vision tower expects of pixels; part of a checkpoint."""

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
        """Of the float32 patches that become one token."""
        return 4 * 3 * self.temporal * self.factor**2


def smart_resize(height: int, width: int, factor: int = 28, min_pixels: int = 4 * 28 * 28,
                 max_pixels: int = 16384 * 28 * 28) -> Size:  # fmt: skip
    """The size with sides that are multiples of `factor` and an area within the limits.

    Args
        height, width           > 0, at most 200 : 1
        min_pixels, max_pixels  limits of the area; going up, the upper one is not looked at again
    Returns
        height, width, each at least `factor`. The rule is Qwen2-VL's.
    """
    if min(height, width) < 1 or max(height, width) > _MAX_RATIO * min(height, width):
        raise ValueError(
            f"{width} x {height} pixels: the sides must be at most {_MAX_RATIO} : 1; crop it"
        )
    rows, columns = (max(1, round(side / factor)) for side in (height, width))
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / factor)) for side in (height, width))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / factor) for side in (height, width))
    return rows * factor, columns * factor


def image_sizes(height: int, width: int, config: EmbedConfig, layout: Layout) -> tuple[Size, Size]:
    """The two sizes that an image is resized to, one after the other."""
    first = smart_resize(height, width, layout.factor, *_loose_limits(layout))
    limits = config.image_min_pixels, config.image_max_pixels
    return first, smart_resize(*first, layout.factor, *limits)


def frame_sizes(height: int, width: int, config: EmbedConfig, layout: Layout,
                from_file: bool) -> tuple[Size, ...]:  # fmt: skip
    """The sizes that a video's frames are resized to, one after the other.

    "effective": one step; `video_max_pixels` always holds, also above `video_min_pixels`.
    "released": the lower limit of a list of frames is 4 tokens, and the image limits follow.
    """
    least, most = config.video_min_pixels, config.video_max_pixels
    if config.video_pixels == "effective":
        size = smart_resize(height, width, layout.factor, min(least, most), most)
        return (smart_resize(*size, layout.factor, 1, most),)
    least = least if from_file else _loose_limits(layout)[0]
    first = smart_resize(height, width, layout.factor, least, most)
    limits = config.image_min_pixels, config.image_max_pixels
    return first, smart_resize(*first, layout.factor, *limits)


def grid_of(frames: int, size: Size, layout: Layout) -> Grid:
    """Patches along time, height and width; an incomplete last group of frames counts."""
    return -(-frames // layout.temporal), size[0] // layout.patch, size[1] // layout.patch


def to_patches(frames: Sequence[Image.Image], sizes: Sequence[Size],
               layout: Layout) -> tuple[torch.Tensor, Grid]:  # fmt: skip
    """RGB frames of one size -> float32 patches [N, 3 x temporal x P x P] and their grid.

    Each frame goes through `sizes` with Pillow's bicubic filter, as in the released code.
    """
    return patches_of(torch.from_numpy(resized(frames, sizes)), layout)


def resized(frames: Sequence[Image.Image], sizes: Sequence[Size]) -> np.ndarray:
    """RGB frames of one size -> uint8 [T, H, W, 3]: all that `patches_of` needs of a medium."""
    return np.stack([_resize(frame, sizes) for frame in frames])


def patches_of(frames: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, Grid]:
    """uint8 [T, H, W, 3] -> float32 patches [N, 3 x temporal x P x P] and their grid."""
    patches, grid = patchify(frames.permute(0, 3, 1, 2), layout)
    channels = patches.unflatten(1, (3, -1)).float()  # [N, 3, temporal P P]
    mean, std = (
        torch.tensor(values, device=frames.device)[:, None] for values in (layout.mean, layout.std)
    )
    return channels.div_(255).sub_(mean).div_(std).flatten(1), grid  # in place: no copies


def patchify(frames: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, Grid]:
    """[T, 3, H, W] -> [N, 3 x temporal x P x P] and the grid (t, h, w); any dtype or device.

    Patches are ordered so that each merge x merge block is contiguous. H and W are multiples of
    patch x merge; missing frames of the last temporal patch repeat the last frame.
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
    """4 to 16384 tokens: what the first step uses where no limits are given."""
    return 4 * layout.factor**2, 16384 * layout.factor**2


def _resize(frame: Image.Image, sizes: Sequence[Size]) -> np.ndarray:
    for height, width in sizes:
        frame = frame.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(frame)


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
