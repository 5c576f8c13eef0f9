"""Facts of media files, all from one decoding, in one cache that recipes share.

The cache is a SQLite file. A file is known by its name, size and time of change; one that changed
is decoded again, and an interrupted pass goes on after the last thousand files.
"""

# Shapes: M media files, F frames that are kept (1 of an image, 4 of a video), E ends (1 or 2).

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.media import MediaError, load_image
from ..data.videos import read_clip
from .frame_codes import (
    THUMB,
    colours_and_edges,
    contrast,
    ink,
    motion,
    small,
    stretched_codes,
)

__all__ = ["FACTS_FILE", "FRAMES", "Facts", "fact_type", "media_facts", "shared_cache"]


FACTS_FILE = "media_facts.sqlite"
FRAMES = {"image": 1, "video": 4}  # F
_LOOKED_AT = 8  # frames of a video that are decoded
_TASK = 64  # files per task of a worker
_WRITTEN = 16  # tasks per transaction
_VERSION = 2  # raised when a fact is measured otherwise
Media = str | tuple[str, ...]  # a file, or the frame files of a video


class Facts(NamedTuple):
    """Facts of M media; numbers are 0 where `cause` is not empty."""

    cause: list[str]  # why a file cannot be read, "" if it can
    values: np.ndarray  # [M] of `fact_type`


def fact_type(kind: str) -> np.dtype:
    """Fields of a fact: numbers, codes and thumbnails of F frames, features of E frames."""
    frames, ends = FRAMES[kind], min(FRAMES[kind], 2)
    return np.dtype([
        ("height", "<i4"), ("width", "<i4"), ("contrast", "<f4"), ("motion", "<f4"),
        ("ink", "<f4"), ("black_page", "?"), ("codes", "<u8", (2 * frames,)),
        ("thumbs", "u1", (frames, THUMB, THUMB, 3)), ("colours", "<f2", (ends, 64)),
        ("edges", "<f2", (ends, 17)),
    ])  # fmt: skip


def media_facts(
    kind: str,
    media: Sequence[Media],
    root: str | Path = ".",
    folder: str | Path | None = None,
    workers: int = 0,
) -> Facts:
    """Decode each image or video once and measure it; an unreadable one has a cause.

    Args
        kind     "image" or "video"
        media    paths below `root`; of a video also a tuple of frame files
        folder   of the cache; without it nothing is kept
        workers  number of processes, 0 for none
    Videos are measured on 8 evenly spaced frames: motion between these frames is missed.
    """
    with _opened(folder) as cache:
        keys = [_key(kind, each, root) for each in media] if cache else []
        known = _read(cache, keys) if cache else {}
        places = [n for n in range(len(media)) if not (cache and keys[n] in known)]
        found = _measured(kind, [media[n] for n in places], str(root), workers)
        rows: list[tuple[str, bytes]] = [known.get(key, ("", b"")) for key in keys]
        rows = rows or [("", b"")] * len(media)
        for start in range(0, len(places), _TASK * _WRITTEN):
            part = places[start : start + _TASK * _WRITTEN]
            for place in part:
                rows[place] = next(found)
            if cache:
                _write(cache, [(keys[place], *rows[place]) for place in part])
        for _ in found:  # closes the bar
            pass
    size = fact_type(kind).itemsize
    packed = b"".join(value or bytes(size) for _, value in rows)
    return Facts([cause for cause, _ in rows], np.frombuffer(packed, fact_type(kind)))


def shared_cache(root: str | Path, otherwise: str | Path) -> Path:
    """The folder of the cache that recipes of one media root share: `root/.unite`.

    `otherwise` where the root cannot be written.
    """
    shared = Path(root, ".unite")
    try:
        shared.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(otherwise)
    return shared if os.access(shared, os.W_OK) else Path(otherwise)


def _measured(kind: str, media: list, root: str, workers: int) -> Iterator[tuple[str, bytes]]:
    from tqdm import tqdm

    tasks = [media[start : start + _TASK] for start in range(0, len(media), _TASK)]
    measure = partial(_measure_task, kind, root=root)
    bar = tqdm(total=len(media), desc=f"decoding {kind}s", unit="file", mininterval=2, delay=1)
    with bar, _mapper(workers) as run:
        for task in run(measure, tasks):
            bar.update(len(task))
            yield from task


@contextmanager
def _mapper(workers: int):
    """`map`, run in processes if there are workers."""
    if not workers:
        yield map
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _measure_task(kind: str, media: Sequence[Media], root: str) -> list[tuple[str, bytes]]:
    return [_measure_one(kind, each, root) for each in media]


def _measure_one(kind: str, media: Media, root: str) -> tuple[str, bytes]:
    """Cause, and the bytes of a fact."""
    try:
        if kind == "image":
            frames = [load_image(media, root)]
        else:
            source = list(media) if isinstance(media, tuple) else media
            frames = read_clip(source, root, min_frames=_LOOKED_AT, max_frames=_LOOKED_AT).frames
    except MediaError as error:
        return str(error), b""
    pixels = np.stack([small(frame) for frame in frames])
    chosen = np.linspace(0, len(frames) - 1, FRAMES[kind]).round().astype(int)
    codes, thumbs = stretched_codes(pixels[chosen])
    ends = [frames[0], frames[-1]][: min(FRAMES[kind], 2)]
    colours, edges = zip(*map(colours_and_edges, ends), strict=True)
    fact = np.zeros((), fact_type(kind))
    fact["height"], fact["width"] = frames[0].height, frames[0].width
    fact["contrast"], fact["motion"] = contrast(pixels), motion(pixels)
    fact["ink"] = max(map(ink, frames))
    fact["black_page"] = frames[0].info.get("page") == "black"
    fact["codes"], fact["thumbs"] = codes, thumbs
    fact["colours"], fact["edges"] = colours, edges
    return "", fact.tobytes()


def _key(kind: str, media: Media, root: str | Path) -> bytes:
    digest = hashlib.blake2b(f"facts {_VERSION} {kind}".encode(), digest_size=16)
    for path in media if isinstance(media, tuple) else (media,):
        try:
            state = os.stat(Path(root, path))
            stamp = f"{state.st_size} {state.st_mtime_ns}"
        except (OSError, ValueError):
            stamp = "missing"
        digest.update(f"\0{path}\0{stamp}".encode("utf-8", "surrogatepass"))
    return digest.digest()


@contextmanager
def _opened(folder: str | Path | None) -> Iterator[sqlite3.Connection | None]:
    if folder is None:
        yield None
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(Path(folder, FACTS_FILE), timeout=60)) as cache:
        with cache:
            cache.execute(
                "CREATE TABLE IF NOT EXISTS facts (key BLOB PRIMARY KEY, cause TEXT, value BLOB)"
            )
        yield cache


def _read(cache: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, tuple[str, bytes]]:
    found = {}
    for start in range(0, len(keys), 500):
        part = keys[start : start + 500]
        marks = ",".join("?" * len(part))
        rows = cache.execute(f"SELECT key, cause, value FROM facts WHERE key IN ({marks})", part)
        found.update((key, (cause, value)) for key, cause, value in rows)
    return found


def _write(cache: sqlite3.Connection, rows: list[tuple[bytes, str, bytes]]) -> None:
    with cache:
        cache.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows)
