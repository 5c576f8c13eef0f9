"""What decoding tells of each medium, once: readable or not, size, contrast, motion.

Facts are columns without any threshold, so that rules can be tuned without decoding again. They
are kept in shards named by the files' names, sizes and times: an interrupted pass goes on from the
last whole shard, and a file that was replaced is looked at anew.

Sizes, durations and visual tokens of media, read from file headers: nothing is decoded.
"""

# Shapes: M media, T frames, S side of a thumbnail.
# Shapes: N media.

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
    "MediaStats",
    "MediaHeader",
    "distinct_media",
    "mark_media",
    "measure_media",
    "media_of",
    "read_header",
]


SIDE = 32  # S: contrast and motion are measured on thumbnails
FRAMES = 8  # T: of a video
SHARD = 4096  # media
_TASK = 64  # media per task of a worker
_COLUMNS = {"height": np.int32, "width": np.int32, "contrast": np.float32, "motion": np.float32}


class MediaStats(NamedTuple):
    """Columns of M media; where `cause` is not empty the numbers are 0."""

    kinds: list[str]  # "image" or "video"
    paths: list[str]
    cause: list[str]  # why it cannot be read, "" if it can
    height: np.ndarray  # [M] int32 pixels
    width: np.ndarray  # [M] int32
    contrast: np.ndarray  # [M] float32, see `_contrast`
    motion: np.ndarray  # [M] float32, see `_motion`; 0 for images

    @property
    def readable(self) -> np.ndarray:
        """bool [M]."""
        return np.array([not cause for cause in self.cause], bool)


def distinct_media(rows: Iterable[Mapping]) -> list[tuple[str, str]]:
    """(kind, path) of every file that records name, each once, in order of appearance."""
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
    """Decode each medium once and note what rules ask for; unreadable ones are noted, no error.

    Args
        media    (kind, path) below `root`, as `distinct_media` gives
        folder   where shards are kept, so that a second call reads instead of decoding
        workers  processes that share the work; 0 does it here
    Videos are judged by 8 frames, evenly spread: motion between them only is not seen.
    """
    shards = [media[start : start + SHARD] for start in range(0, len(media), SHARD)]
    parts = []
    with _mapper(workers) as run:
        for shard in shards:
            path = Path(folder, f"{_shard_key(shard, root)}.npz") if folder else None
            known = _read(path, shard) if path else None
            parts.append(known or _new(shard, root, run, path))
    return _join(parts)


def mark_media(reasons: Reasons, rows: Iterable[Mapping],
             faults: Mapping[tuple[str, str], Sequence[str]]) -> None:  # fmt: skip
    """Mark the records with a medium that `faults` names, {(kind, path): reasons}."""
    for number, row in enumerate(rows):
        for item in _items(row):
            for medium in media_of(item) if len(item) > ("text" in item) else ():
                for reason in faults.get(medium, ()):
                    reasons.mark(reason, np.array([number]))


def _items(row: Mapping) -> Iterator[Mapping]:
    yield row["query"]
    yield row["candidate"]
    negatives = row.get("negative") or ()
    yield from [negatives] if isinstance(negatives, Mapping) else negatives


def _new(shard, root, run, path: Path | None) -> MediaStats:
    tasks = [shard[start : start + _TASK] for start in range(0, len(shard), _TASK)]
    seen = [fact for facts in run(partial(_look, root=str(root)), tasks) for fact in facts]
    kinds, paths = ([medium[place] for medium in shard] for place in (0, 1))
    cause, *values = zip(*seen, strict=True)
    columns = [np.array(v, kind) for v, kind in zip(values, _COLUMNS.values(), strict=True)]
    facts = MediaStats(kinds, paths, list(cause), *columns)
    if path:
        _write(path, facts)
    return facts


def _look(media: Sequence[tuple[str, str]], root: str) -> list[tuple]:
    """(cause, height, width, contrast, motion) of each."""
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
    """The largest standard deviation, 0 to .5, of a frame's pixels around its mean colour."""
    around = frames - frames.mean((1, 2), keepdims=True)
    return float(np.sqrt((around**2).mean((1, 2, 3))).max())


def _motion(frames: np.ndarray) -> float:
    """The largest root mean square difference, 0 to 1, of a frame from the first."""
    return float(np.sqrt(((frames - frames[:1]) ** 2).mean((1, 2, 3))).max())


class _mapper:
    """map, shared by processes if there are to be any."""

    def __init__(self, workers: int):
        self.pool = ProcessPoolExecutor(workers, get_context("spawn")) if workers else None

    def __enter__(self):
        return self.pool.map if self.pool else map

    def __exit__(self, *error) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)


def _shard_key(shard: Sequence[tuple[str, str]], root: str | Path) -> str:
    digest = hashlib.sha256(f"facts 1 {FRAMES} {SIDE}".encode())
    for kind, path in shard:
        try:
            state = os.stat(Path(root, path))
            stamp = f"{state.st_size} {state.st_mtime_ns}"
        except (OSError, ValueError):
            stamp = "missing"
        digest.update(f"{kind}\0{path}\0{stamp}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _write(path: Path, facts: MediaStats) -> None:
    values = {name: getattr(facts, name) for name in _COLUMNS}
    with replacing(path) as partial_path, partial_path.open("wb") as file:
        np.savez(file, cause=np.array(facts.cause, str), **values)


def _read(path: Path, shard: Sequence[tuple[str, str]]) -> MediaStats | None:
    if not path.is_file():
        return None
    kinds, paths = ([medium[place] for medium in shard] for place in (0, 1))
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
