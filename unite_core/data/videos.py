"""Decode videos to RGB frames; every failure is a MediaError that names the file.

Pillow reads animated GIF, WebP and APNG (`data.animations`), PyAV all other video files
(`data.containers`). Frames are upright: a turn that the file states is applied, as for pictures.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from .animations import animation_header, is_animation, read_animation
from .containers import container_header, read_container
from .media import MediaError, image_shape, load_image, naming_file, resolve
from .timeline import choose_frames

__all__ = [
    "Clip", "ClipHeader", "choose_frames", "clip_header", "load_video", "read_clip", "video_shape",
]  # fmt: skip


class Clip(NamedTuple):
    """Decoded frames of a video."""

    frames: list[Image.Image]  # RGB, one size
    seconds: list[float]  # when each frame is shown, from the first one on


class ClipHeader(NamedTuple):
    """Number of frames, size in pixels and duration of a video file."""

    frames: int
    height: int
    width: int
    seconds: float


def load_video(source: Any, root: str | Path = ".", fps: float = 1.0, min_frames: int = 4,
               max_frames: int = 12) -> list[Image.Image]:  # fmt: skip
    """Load a video's frames: `read_clip` without times."""
    return read_clip(source, root, fps, min_frames, max_frames).frames


def read_clip(source: Any, root: str | Path = ".", fps: float = 1.0, min_frames: int = 4,
              max_frames: int = 12) -> Clip:  # fmt: skip
    """Load a video's frames as RGB, with times.

    Args
        source  a path under `root`, a list of frames, or a uint8 array [T, H, W, 3]
        fps     frames per second taken from a file, between `min_frames` and `max_frames` in all
    The frames of a file are evenly spaced in time, by their time stamps; where it has none, they
    count as evenly spaced, with a warning. Frames that are given one by one are all taken, and
    count as 1 / fps seconds apart.
    """
    if not isinstance(source, (str, os.PathLike)):
        frames = [load_image(frame, root) for frame in _frames_given(source)]
        _check_sizes({frame.size for frame in frames})
        return Clip(frames, [index / fps for index in range(len(frames))])
    path = resolve(source, root)
    with naming_file(path):
        if is_animation(path):
            return Clip(*read_animation(path, fps, min_frames, max_frames))
        frames, seconds, stamped = read_container(path, fps, min_frames, max_frames)
    if not stamped:
        warnings.warn(
            f"{path}: its frames have no time stamps in order; they count as evenly spaced",
            stacklevel=2,
        )
    return Clip(frames, seconds)


def video_shape(source: Any, root: str | Path = ".") -> tuple[int | None, int, int]:
    """Number of frames (None for a container file), height and width, from the header alone."""
    if not isinstance(source, (str, os.PathLike)):
        frames = _frames_given(source)
        shapes = {image_shape(frame, root) for frame in frames}
        _check_sizes({shape[::-1] for shape in shapes})
        return len(frames), *shapes.pop()
    path = resolve(source, root)
    with naming_file(path):
        if is_animation(path):
            return animation_header(path)[:3]
        return None, *container_header(path)[1:3]


def clip_header(source: str | os.PathLike, root: str | Path = ".") -> ClipHeader:
    """Frames, size and duration of a video file from headers alone."""
    path = resolve(source, root)
    with naming_file(path):
        return ClipHeader(*(animation_header if is_animation(path) else container_header)(path))


def _check_sizes(sizes: set[tuple[int, int]]) -> None:
    if len(sizes) > 1:
        raise MediaError(
            f"the frames of one video must have one size, not {sorted(sizes)}: resize them, or "
            "give them as images"
        )


def _frames_given(source: Any) -> Any:
    """A list of frames or an array of them, with at least one."""
    with naming_file("video in memory"):
        if len(source) and source[0] is not None:
            return source
    raise MediaError("video in memory: it has no frames; leave its row out")
