"""Statistics of media files: size, contrast and motion after decoding, or size from headers alone.

Decoded statistics are columns without any threshold, so that rules can be tuned without decoding
again. They are cached in shards named after the files' names, sizes and times: an interrupted pass
continues after the last whole shard, and a file that changed is decoded again.
"""

# Shapes: M media files, T frames, S side of a thumbnail.

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.items import images_of, videos_of
from ..data.media import MediaError, image_shape, load_image
from ..data.videos import choose_frames, clip_header, read_clip
from ..files import replacing
from ..model.config import EmbedConfig
from ..model.preprocessing import Layout, frame_sizes, grid_of, image_sizes
from .reasons import Reasons

__all__ = [
    "MediaHeader", "MediaStats", "distinct_media", "mark_media", "measure_media", "media_of",
    "read_header",
]  # fmt: skip


SIDE = 32  # S: contrast and motion are measured on thumbnails
FRAMES = 8  # T: of a video
SHARD = 4096  # files
_TASK = 64  # files per task of a worker
_COLUMNS = {"height": np.int32, "width": np.int32, "contrast": np.float32, "motion": np.float32}


class MediaStats(NamedTuple):
    """Columns of M media files; numbers are 0 where `cause` is not empty."""

    kinds: list[str]  # "image" or "video"
    paths: list[str]
    cause: list[str]  # why the file cannot be read, "" if it can
    height: np.ndarray  # [M] int32 pixels
    width: np.ndarray  # [M] int32
    contrast: np.ndarray  # [M] float32, see `_contrast`
    motion: np.ndarray  # [M] float32, see `_motion`; 0 for images

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
        folder   cache of shards; without it nothing is kept
        workers  number of processes, 0 for none
    Videos are measured on 8 evenly spaced frames: motion between these frames is missed.
    """
    shards = [media[start : start + SHARD] for start in range(0, len(media), SHARD)]
    parts = []
    with _Mapper(workers) as run:
        for shard in shards:
            path = Path(folder, f"{_shard_key(shard, root)}.npz") if folder else None
            known = _read(path, shard) if path else None
            parts.append(known or _new(shard, root, run, path))
    return _join(parts)


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


def _new(shard, root, run, path: Path | None) -> MediaStats:
    tasks = [shard[start : start + _TASK] for start in range(0, len(shard), _TASK)]
    found = [file for task in run(partial(_measure_task, root=str(root)), tasks) for file in task]
    kinds, paths = ([file[place] for file in shard] for place in (0, 1))
    cause, *values = zip(*found, strict=True)
    columns = [np.array(v, kind) for v, kind in zip(values, _COLUMNS.values(), strict=True)]
    stats = MediaStats(kinds, paths, list(cause), *columns)
    if path:
        _write(path, stats)
    return stats


def _measure_task(media: Sequence[tuple[str, str]], root: str) -> list[tuple]:
    """(cause, height, width, contrast, motion) of each file."""
    return [_measure_one(kind, path, root) for kind, path in media]


def _measure_one(kind: str, path: str, root: str) -> tuple:
    try:
        if kind == "image":
            frames = [load_image(path, root)]
        else:
            frames = read_clip(path, root, min_frames=FRAMES, max_frames=FRAMES).frames
    except MediaError as error:
        return str(error), 0, 0, 0.0, 0.0
    small = np.stack([np.asarray(frame.resize((SIDE, SIDE), 4), np.float32) for frame in frames])
    small /= 255  # [T, S, S, 3]
    return "", frames[0].height, frames[0].width, _contrast(small), _motion(small)


def _contrast(frames: np.ndarray) -> float:
    """Largest standard deviation, 0 to .5, of a frame's pixels from its mean colour."""
    around = frames - frames.mean((1, 2), keepdims=True)
    return float(np.sqrt((around**2).mean((1, 2, 3))).max())


def _motion(frames: np.ndarray) -> float:
    """Largest RMS difference, 0 to 1, of a frame from the first frame."""
    return float(np.sqrt(((frames - frames[:1]) ** 2).mean((1, 2, 3))).max())


class _Mapper:
    """`map`, run in processes if there are workers."""

    def __init__(self, workers: int):
        self.pool = ProcessPoolExecutor(workers, get_context("spawn")) if workers else None

    def __enter__(self):
        return self.pool.map if self.pool else map

    def __exit__(self, *error) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)


def _shard_key(shard: Sequence[tuple[str, str]], root: str | Path) -> str:
    digest = hashlib.sha256(f"facts 2 {FRAMES} {SIDE}".encode())  # 2: clips upright, by time
    for kind, path in shard:
        try:
            state = os.stat(Path(root, path))
            stamp = f"{state.st_size} {state.st_mtime_ns}"
        except (OSError, ValueError):
            stamp = "missing"
        digest.update(f"{kind}\0{path}\0{stamp}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _write(path: Path, stats: MediaStats) -> None:
    values = {name: getattr(stats, name) for name in _COLUMNS}
    with replacing(path) as partial_path, partial_path.open("wb") as file:
        np.savez(file, cause=np.array(stats.cause, str), **values)


def _read(path: Path, shard: Sequence[tuple[str, str]]) -> MediaStats | None:
    if not path.is_file():
        return None
    kinds, paths = ([file[place] for file in shard] for place in (0, 1))
    with np.load(path, allow_pickle=False) as kept:
        return MediaStats(kinds, paths, kept["cause"].tolist(), *(kept[n] for n in _COLUMNS))


def _join(parts: Sequence[MediaStats]) -> MediaStats:
    lists = [[value for part in parts for value in part[place]] for place in range(3)]
    columns = [
        np.concatenate([getattr(part, name) for part in parts] or [np.zeros(0, kind)])
        for name, kind in _COLUMNS.items()
    ]
    return MediaStats(*lists, *columns)


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
