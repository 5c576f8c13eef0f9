"""Animated GIF, WebP and APNG, read by Pillow frame by frame."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from .media import MediaError, check_sides, opened, to_rgb
from .timeline import choose_by_time

__all__ = ["animation_header", "is_animation", "read_animation"]


MAX_ANIMATION = 2**29  # pixels in all frames: a few seconds of decoding
MAX_HELD = 2**27  # pixels in frames that are held at once, .5 GB
_FEWEST = 4  # frames that a model takes at least, where there are so many
_ANIMATED = (b"GIF8", b"RIFF", b"\x89PNG")


def is_animation(path: Path) -> bool:
    """Whether a file starts like a GIF, WebP or PNG."""
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith(_ANIMATED) and (head[:4] != b"RIFF" or head[8:] == b"WEBP")


def read_animation(path: Path, fps: float, min_frames: int,
                   max_frames: int) -> tuple[list[Image.Image], list[float]]:  # fmt: skip
    """RGB frames and the seconds when they are shown; MediaError for a bad or too large file.

    A large animation is decoded twice instead of being held whole.
    """
    with opened(path) as image:
        total = _frames_of(image, path)
        held, seconds, clock = {}, [], 0.0
        holds_all = total * image.width * image.height <= MAX_HELD
        limit = (MAX_HELD if holds_all else MAX_ANIMATION) // total
        for index in range(total):
            _show(image, index, limit, path)
            if holds_all:
                held[index] = image.copy()
            seconds.append(clock)
            clock += image.info.get("duration", 0) / 1000
        chosen = choose_by_time(seconds, clock, fps, min_frames, max_frames)
        if len(chosen) * image.width * image.height > MAX_HELD:
            raise _too_large(path, len(chosen), image)
    if not holds_all:
        with opened(path) as image:
            for index in range(chosen[-1] + 1):
                _show(image, index, limit, path)
                if index in chosen:
                    held[index] = image.copy()
    return [to_rgb(held[index], path) for index in chosen], [seconds[index] for index in chosen]


def animation_header(path: Path) -> tuple[int, int, int, float]:
    """Number of frames, height, width and seconds, nothing decoded.

    All frames of a GIF or APNG are taken to last as long as the first.
    """
    with opened(path) as image:
        frames = _frames_of(image, path)
        if image.format == "WEBP":
            seconds = _webp_milliseconds(path) / 1000
        else:
            seconds = frames * image.info.get("duration", 0) / 1000
        return frames, image.height, image.width, seconds


def _show(image: Image.Image, index: int, limit: int, path: Path) -> None:
    """Decode a frame; some files grow on the way, but to `limit` pixels only."""
    image.seek(index)
    if image.width * image.height > limit:
        raise _too_large(path, image.n_frames, image)
    image.load()


def _frames_of(image: Image.Image, path: Path) -> int:
    """Number of frames; a MediaError where they are too large, together or each."""
    total, area = getattr(image, "n_frames", 1), image.width * image.height
    check_sides(image.height, image.width, path)
    if total * area > MAX_ANIMATION or (total > 1 and min(total, _FEWEST) * area > MAX_HELD):
        raise _too_large(path, total, image)
    return total


def _too_large(path: Path, total: int, image: Image.Image) -> MediaError:
    return MediaError(
        f"{path}: {total} frames of {image.width} x {image.height} pixels are too much for an "
        "animated image; convert it to a video file"
    )


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
