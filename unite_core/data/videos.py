"""Decode videos to RGB frames; every failure is a MediaError that names the file.

Pillow reads animated GIF, WebP and APNG, PyAV all other video files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .media import (
    MAX_PIXELS,
    MediaError,
    image_shape,
    load_image,
    naming_file,
    opened,
    resolve,
    to_rgb,
)

__all__ = [
    "Clip",
    "ClipHeader",
    "choose_frames",
    "clip_header",
    "load_video",
    "read_clip",
    "video_shape",
]


MAX_ANIMATION = 2**29  # pixels in all frames of an animated image, 2 GB decoded
_FRAME_STEP = 2  # frame counts are even, as in the released code
_ANIMATED = (b"GIF8", b"RIFF", b"\x89PNG")
_NESTED = {"hls", "concat", "dash", "webvtt", "sdp", "rtsp", "imf"}  # formats that open others


class Clip(NamedTuple):
    """Decoded frames of a video."""

    frames: list[Image.Image]  # RGB, one size
    seconds: list[float]  # when each frame is shown


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
    Frames that are given one by one are all taken, and count as 1 / fps seconds apart.
    """
    if isinstance(source, (str, os.PathLike)):
        path = resolve(source, root)
        read = _read_animation if _is_animation(path) else _read_container
        return read(path, fps, min_frames, max_frames)
    frames = [load_image(frame, root) for frame in source]
    if len({frame.size for frame in frames}) != 1:
        raise MediaError(
            f"the frames of one video must have one size, not {sorted({f.size for f in frames})}: "
            "resize them, or give them as images"
        )
    return Clip(frames, [index / fps for index in range(len(frames))])


def choose_frames(total: int, duration: float, fps: float, min_frames: int,
                  max_frames: int) -> list[int]:  # fmt: skip
    """Indices of `duration * fps` frames, evenly spaced from the first to the last.

    Their number is even, within [min_frames, max_frames], and at most `total`: then all are taken.
    """
    low = math.ceil(min_frames / _FRAME_STEP) * _FRAME_STEP
    high = max(max_frames // _FRAME_STEP * _FRAME_STEP, 1)
    count = min(max(duration * fps, low), high)
    count = min(max(round(count / _FRAME_STEP) * _FRAME_STEP, 1), high, total)
    return np.linspace(0, total - 1, count).round().astype(int).tolist()


def video_shape(source: Any, root: str | Path = ".") -> tuple[int | None, int, int]:
    """Number of frames (None for a container file), height and width, from the header alone."""
    if not isinstance(source, (str, os.PathLike)):
        return len(source), *image_shape(source[0], root)
    path = resolve(source, root)
    if _is_animation(path):
        with opened(path) as image:
            return getattr(image, "n_frames", 1), image.height, image.width
    with _container(path) as (_, stream):
        return None, stream.height, stream.width


def clip_header(source: str | os.PathLike, root: str | Path = ".") -> ClipHeader:
    """Frames, size and duration of a video file from headers alone, nothing decoded.

    Where a container states no number of frames, it is duration x rate. All frames of a GIF or
    APNG are taken to last as long as the first.
    """
    path = resolve(source, root)
    if not _is_animation(path):
        with _container(path) as (container, stream):
            rate = float(stream.average_rate or stream.guessed_rate or 1)
            seconds = (container.duration or 0) / 1e6
            frames = stream.frames or round(seconds * rate)
            return ClipHeader(frames, stream.height, stream.width, seconds)
    with opened(path) as image, naming_file(path):
        frames = getattr(image, "n_frames", 1)
        if image.format == "WEBP":
            seconds = _webp_milliseconds(path) / 1000
        else:
            seconds = frames * image.info.get("duration", 0) / 1000
        return ClipHeader(frames, image.height, image.width, seconds)


def _webp_milliseconds(path: Path) -> int:
    """Sum of the durations in a WebP's ANMF chunks; 0 for a still."""
    total = 0
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"ANMF":
                total += int.from_bytes(file.read(16)[12:15], "little")
                size -= 16
            file.seek(size + size % 2, os.SEEK_CUR)
    return total


def _is_animation(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith(_ANIMATED) and (head[:4] != b"RIFF" or head[8:] == b"WEBP")


def _read_animation(path: Path, fps: float, min_frames: int, max_frames: int) -> Clip:
    with opened(path) as image, naming_file(path):
        total = getattr(image, "n_frames", 1)
        if total * image.width * image.height > MAX_ANIMATION:
            raise MediaError(
                f"{path}: {total} frames of {image.width} x {image.height} pixels are too much for "
                "an animated image; convert it to a video file"
            )
        frames, starts, clock = [], [], 0.0
        for index in range(total):
            image.seek(index)
            image.load()
            frames.append(image.copy())
            starts.append(clock)
            clock += image.info.get("duration", 0) / 1000
        chosen = choose_frames(total, clock, fps, min_frames, max_frames)
        return Clip([to_rgb(frames[i], path) for i in chosen], [starts[i] for i in chosen])


@contextmanager
def _container(path: Path) -> Iterator[tuple]:
    import av

    only_files = {"protocol_whitelist": "file"}
    with naming_file(path), av.open(str(path), options=only_files) as container:
        if _NESTED.intersection(container.format.name.split(",")):
            raise MediaError(f"{path}: a playlist may name other files; give the video file itself")
        if not container.streams.video:
            raise MediaError(f"{path}: has no video stream; leave its row out")
        stream = container.streams.video[0]
        if stream.width * stream.height > MAX_PIXELS:
            raise MediaError(f"{path}: more than {MAX_PIXELS} pixels per frame; shrink it")
        yield container, stream


def _read_container(path: Path, fps: float, min_frames: int, max_frames: int) -> Clip:
    with _container(path) as (container, stream):
        rate = float(stream.average_rate or stream.guessed_rate or 1)
        total = _count_packets(container, stream, rate, path)
        for _ in range(2):  # some packets hold no frame: the second pass knows the number
            chosen = choose_frames(total, total / rate, fps, min_frames, max_frames)
            container.seek(0)
            clip, decoded = _decode(container, stream, chosen, rate)
            if decoded >= total:
                return clip
            total = decoded or _no_frames(path)
        raise MediaError(f"{path}: decodes to another number of frames each time; replace it")


def _decode(container, stream, chosen: Sequence[int], rate: float) -> tuple[Clip, int]:
    stream.thread_type = "AUTO"
    wanted, clip, index = set(chosen), Clip([], []), -1
    for index, frame in enumerate(container.decode(stream)):
        if index in wanted:
            clip.frames.append(frame.to_image())
            clip.seconds.append(index / rate)
    return clip, index + 1


def _count_packets(container, stream, rate: float, path: Path) -> int:
    """Count video packets; a MediaError if the file is shorter than its header states."""
    count, end = 0, 0.0
    for packet in container.demux():
        count += packet.size > 0 and packet.stream.index == stream.index
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    announced = (container.duration or 0) / 1e6
    if stream.frames > count or end < 0.98 * announced - 2 / rate:
        raise MediaError(
            f"{path}: ends after {count} frames ({end:.1f} of {announced:.1f} s); "
            "it is truncated: replace it, or leave its row out"
        )
    return count or _no_frames(path)


def _no_frames(path: Path) -> int:
    raise MediaError(f"{path}: has no frames; leave its row out")
