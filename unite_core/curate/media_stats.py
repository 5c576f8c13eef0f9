"""Statistics of media files: size, contrast, ink and motion after decoding, or size from headers.

Decoded statistics are columns without any threshold, so that rules can be tuned without decoding
again (`media_facts` keeps them).
"""

# Shapes: M media files.

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.items import images_of, videos_of
from ..data.media import MediaError, image_shape
from ..data.videos import choose_frames, clip_header
from ..model.config import EmbedConfig
from ..model.preprocessing import Layout, frame_sizes, grid_of, image_sizes
from .media_facts import media_facts
from .reasons import Reasons

__all__ = [
    "MediaHeader", "MediaStats", "distinct_media", "mark_media", "measure_media", "media_of",
    "read_header",
]  # fmt: skip


_COLUMNS = {
    "height": np.int32, "width": np.int32, "contrast": np.float32, "motion": np.float32,
    "ink": np.float32, "black_page": bool,
}  # fmt: skip


class MediaStats(NamedTuple):
    """Columns of M media files; numbers are 0 where `cause` is not empty."""

    kinds: list[str]  # "image" or "video"
    paths: list[str]
    cause: list[str]  # why the file cannot be read, "" if it can
    height: np.ndarray  # [M] int32 pixels
    width: np.ndarray  # [M] int32
    contrast: np.ndarray  # [M] float32, 0 to .5
    motion: np.ndarray  # [M] float32, 0 to 1; 0 for images
    ink: np.ndarray  # [M] float32, share of pixels that are not background
    black_page: np.ndarray  # bool [M]: drawn on nothing in white, so it is shown on black

    @property
    def readable(self) -> np.ndarray:
        """bool [M]: whether a file was decoded."""
        return np.array([not cause for cause in self.cause], bool)


def distinct_media(rows: Iterable[Mapping]) -> list[tuple[str, str]]:
    """(kind, path) of all files in records, without repetitions, in order of appearance."""
    found: dict[tuple[str, str], None] = {}
    for row in rows:
        for item in _items(row):
            if len(item) > ("text" in item):
                found.update(dict.fromkeys(media_of(item)))
    return list(found)


def measure_media(
    media: Sequence[tuple[str, str]],
    root: str | Path = ".",
    folder: str | Path | None = None,
    workers: int = 0,
) -> MediaStats:
    """Decode each media file once and measure it; an unreadable file has a cause and is no error.

    Args
        media    (kind, path) below `root`, from `distinct_media`
        folder   of the cache of media facts; without it nothing is kept
        workers  number of processes, 0 for none
    Videos are measured on 8 evenly spaced frames: motion between these frames is missed.
    """
    kinds, paths = ([file[place] for file in media] for place in (0, 1))
    cause = [""] * len(media)
    columns = {name: np.zeros(len(media), kind) for name, kind in _COLUMNS.items()}
    for kind in ("image", "video"):
        places = [n for n, each in enumerate(kinds) if each == kind]
        facts = media_facts(kind, [paths[n] for n in places], root, folder, workers)
        for place, found in zip(places, facts.cause, strict=True):
            cause[place] = found
        for name, column in columns.items():
            column[places] = facts.values[name]
    return MediaStats(kinds, paths, cause, *columns.values())


def mark_media(reasons: Reasons, rows: Iterable[Mapping],
             faults: Mapping[tuple[str, str], Sequence[str]]) -> None:  # fmt: skip
    """Mark records whose media have faults {(kind, path): reasons}."""
    for number, row in enumerate(rows):
        for item in _items(row):
            for file in media_of(item) if len(item) > ("text" in item) else ():
                for reason in faults.get(file, ()):
                    reasons.mark(reason, np.array([number]))


def _items(row: Mapping) -> Iterator[Mapping]:
    yield row["query"]
    yield row["candidate"]
    negatives = row.get("negative") or ()
    yield from [negatives] if isinstance(negatives, Mapping) else negatives


class MediaHeader(NamedTuple):
    """What a file's header says, and the number of visual tokens a model makes of the file."""

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
    """(kind, path) of all image files, video files and frame files of an item.

    Frames of a video given as a list of files count as images.
    """
    found = [("image", image) for image in images_of(item)]
    for video in videos_of(item):
        frames = isinstance(video, list | tuple)
        found += [("image", frame) for frame in video] if frames else [("video", video)]
    return [(kind, os.fspath(file)) for kind, file in found if isinstance(file, str | os.PathLike)]


def read_header(kind: str, path: str, root: str | Path, config: EmbedConfig,
                layout: Layout | None = None) -> MediaHeader | MediaError:  # fmt: skip
    """Read the header of an image or video below `root`; returns a MediaError if that fails.

    The number of tokens follows the pixel and frame limits of `config`, and for a container file
    its announced duration. A file with a readable header can still fail to decode.
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
    except ValueError as error:  # a shape that the model does not accept
        return MediaError(f"{path}: {error}")


def _tokens(frames: int, size: Sequence[int], layout: Layout) -> int:
    t, h, w = grid_of(frames, size, layout)
    return t * h * w // layout.merge**2
