"""Perceptual hashes of images and videos, and the groups of those that look the same.

A picture becomes 128 bits (which of its lowest frequencies of brightness and colour stand out, and
with which sign) and a 16 x 16 thumbnail. The bits find candidates quickly, the thumbnails confirm
them region by region, so that a small thing in another place or colour makes another picture.

The signs of all frequencies around their median, the usual pHash, are chance in flat drawings,
where most frequencies are nearly 0: 10 % of its bits flipped in JPEG copies of the shapes corpus.

All pairs of 64-bit codes that differ in few bits, found by multi-index hashing.

Codes that differ in at most d bits differ in at most d // m bits of one of m chunks (pigeonhole),
so each chunk is looked up with all of its values that near. Cost grows with N, not its square, as
long as codes spread over the values of a chunk.
"""

# Shapes: N media of W pictures each (W = 1 for images), P pairs.
# Shapes: N codes of W words, P pairs.

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import combinations
from math import comb
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..data.media import MediaError, load_image
from ..data.videos import read_clip
from .item_groups import connect, renumber

__all__ = [
    "MediaHashes",
    "distance",
    "image_hashes",
    "join_hashes",
    "near_groups",
    "near_pairs",
    "video_hashes",
]


MAX_DISTANCE = 4  # bits of 128; see `near_groups`
MAX_DIFFERENCE = {"image": 0.03, "video": 0.05}  # of the region that differs most
FRAMES = 4  # of a video
_SIDE, _SMALL, _REGIONS = 32, 16, 4  # pixels and regions per side
_LIGHT = np.array(
    [[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], np.float32
)  # brightness and two colour differences from RGB
_WAVES = ((1, 33), (0, 16), (0, 16))  # frequencies of each that count, by rank; 0 is the mean
_FLOOR = (0.5, 2.0, 2.0)  # grey levels that noise may reach
_GAIN = 0.85  # the darkest copy that is still one
_CHUNK = 256  # media per task of a worker
_BLOCK = 1 << 13  # pairs of thumbnails compared at a time


class MediaHashes(NamedTuple):
    """What `near_groups` compares; rows that could not be read have `causes`."""

    codes: np.ndarray  # [N, 2 W] uint64
    thumbs: np.ndarray  # [N, W, 16, 16, 3] uint8
    causes: list[str]  # [N] why a medium could not be read, "" if it could


def image_hashes(paths: Sequence[str], root: str | Path = ".", workers: int = 0) -> MediaHashes:
    """Hashes of image files under `root`, in order; unreadable ones are marked, never an error.

    `workers` processes share the files; 0 does it here. Transparent pixels count as white and a
    picture is squeezed to a square, so size and slight changes of aspect do not matter.
    """
    return _hashes(partial(_image_pixels, root=str(root)), paths, workers, 1)


def video_hashes(paths: Sequence, root: str | Path = ".", workers: int = 0) -> MediaHashes:
    """Hashes of 4 frames, evenly spread from first to last, of each video (file or frame list).

    Copies at another frame rate have the same hash nearly, excerpts and shifted cuts do not.
    """
    return _hashes(partial(_video_pixels, root=str(root)), paths, workers, FRAMES)


def join_hashes(*hashes: MediaHashes) -> MediaHashes:
    """Hashes of several sets one after another, to compare them with each other."""
    codes, thumbs, causes = zip(*hashes, strict=True)
    return MediaHashes(np.concatenate(codes), np.concatenate(thumbs), sum(causes, []))


def near_groups(
    hashes: MediaHashes,
    max_distance: int = MAX_DISTANCE,
    max_difference: float | None = None,
) -> np.ndarray:
    """int64 [N], equal for media that look the same, directly or through a chain of others.

    Args
        max_distance    bits in which the 128 of a picture may differ (mean over a video's frames)
        max_difference  root mean square, 0 equal to 1 black against white, of the most different
                        of the 4 x 4 regions of the two thumbnails, after one is made as bright as
                        the other (by 15 % at most); None: .03 for images, .05 for videos
    Unreadable media are in no group but their own. With the defaults, 97 % of copies in JPEG
    quality 40 to 75, at 70 % of the size, 7 % brighter or darker, or with noise of 4 grey levels
    are found (emoji and shapes corpora), and re-encoded clips; copies that lost 2 % at each side
    mostly are not.
    """
    readable = np.flatnonzero([not cause for cause in hashes.causes])
    groups = np.arange(len(hashes.causes)) + len(hashes.causes)
    codes, thumbs = hashes.codes[readable], hashes.thumbs[readable]
    equal = renumber(_digests(codes, thumbs))
    first = np.unique(equal, return_index=True)[1]  # one of all that are equal to the last bit
    pictures = hashes.thumbs.shape[1]
    if max_difference is None:
        max_difference = MAX_DIFFERENCE["image" if pictures == 1 else "video"]
    near = near_pairs(codes[first], max_distance * pictures)
    near = _alike(near, thumbs[first], max_difference)
    groups[readable] = connect(len(first), near)[equal]
    return renumber(groups)


def _alike(pairs, thumbs: np.ndarray, limit: float) -> Iterator[tuple]:
    """The pairs whose thumbnails agree; means of regions sort out most of the others first."""
    coarse = _regions(thumbs).mean(axis=(3, 5)).round().astype(np.uint8)
    for left, right in pairs:
        for small, slack in ((coarse, 1.2), (thumbs, 1.0)):
            near = [
                _differences(small, left[s : s + _BLOCK], right[s : s + _BLOCK]) <= limit * slack
                for s in range(0, len(left), _BLOCK)
            ]
            near = np.concatenate(near) if near else np.zeros(0, bool)
            left, right = left[near], right[near]
        yield left, right


def _differences(thumbs: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[P] of thumbs [N, W, S, S, 3]: the root mean square of the region that differs most."""
    one, other = (thumbs[rows].astype(np.float32) for rows in (left, right))
    axes = tuple(range(1, one.ndim))
    gain = (one * other).sum(axes) / np.maximum((one * one).sum(axes), 1)
    one *= np.clip(gain, _GAIN, 1 / _GAIN).reshape(-1, *[1] * len(axes))
    squares = _regions((one - other) ** 2).mean(axis=(3, 5, 6))
    return np.sqrt(squares.max(axis=(1, 2, 3), initial=0)) / 255


def _regions(thumbs: np.ndarray) -> np.ndarray:
    """[N, W, S, S, 3] as [N, W, 4, S/4, 4, S/4, 3]."""
    count, pictures, side = thumbs.shape[:3]
    step = side // _REGIONS
    return thumbs.reshape(count, pictures, _REGIONS, step, _REGIONS, step, 3)


def _digests(codes: np.ndarray, thumbs: np.ndarray) -> np.ndarray:
    """[N, 2] uint64, equal for equal codes and thumbnails."""
    flat = thumbs.reshape(len(thumbs), math.prod(thumbs.shape[1:]))
    rows = np.concatenate([np.ascontiguousarray(codes).view(np.uint8), flat], axis=1)
    digests = b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in rows)
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def _hashes(read: Callable, media: Sequence, workers: int, pictures: int) -> MediaHashes:
    chunks = [media[start : start + _CHUNK] for start in range(0, len(media), _CHUNK)]
    hash_chunk = partial(_hash_chunk, read, pictures)
    if workers:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            parts = list(pool.map(hash_chunk, chunks))
    else:
        parts = list(map(hash_chunk, chunks))
    empty = hash_chunk([])
    return join_hashes(empty, *parts)


def _hash_chunk(read: Callable, pictures: int, media: Sequence) -> MediaHashes:
    pixels = np.zeros((len(media), pictures, _SIDE, _SIDE, 3), np.uint8)
    causes = [""] * len(media)
    for row, medium in enumerate(media):
        try:
            pixels[row] = read(medium)
        except MediaError as error:
            causes[row] = str(error)
    step = _SIDE // _SMALL
    blocks = pixels.reshape(len(media), pictures, _SMALL, step, _SMALL, step, 3)
    thumbs = blocks.mean(axis=(3, 5), dtype=np.float32).round().astype(np.uint8)
    codes = _codes(pixels.reshape(-1, _SIDE, _SIDE, 3)).reshape(len(media), 2 * pictures)
    return MediaHashes(codes, thumbs, causes)


def _codes(pixels: np.ndarray) -> np.ndarray:
    """uint64 [N, 2] from pictures uint8 [N, 32, 32, 3]."""
    waves = np.cos(np.pi * np.arange(_SMALL)[:, None] * (np.arange(_SIDE) + 0.5) / _SIDE)
    waves = waves.astype(np.float32) / _SIDE
    rows, columns = _order()
    bits = []
    for weights, (first, last), floor in zip(_LIGHT, _WAVES, _FLOOR, strict=True):
        strength = (waves @ (pixels @ weights) @ waves.T)[:, rows[first:last], columns[first:last]]
        least = np.maximum(np.abs(strength).mean(axis=1, keepdims=True), floor)
        bits += [strength > least, strength < -least]
    spread = np.arange(128) * 37 % 128  # so that each part of the code tells as much
    packed = np.packbits(np.concatenate(bits, axis=1)[:, spread], axis=1)
    return np.ascontiguousarray(packed).view(np.uint64)


def _order() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a table of frequencies, from the lowest up."""
    rows, columns = np.divmod(np.arange(_SMALL**2), _SMALL)
    ranked = np.lexsort((rows, rows + columns))
    return rows[ranked], columns[ranked]


def _image_pixels(path: str, root: str) -> np.ndarray:
    return _small(load_image(path, root))[None]


def _video_pixels(video, root: str) -> np.ndarray:
    frames = read_clip(video, root, min_frames=FRAMES, max_frames=FRAMES).frames
    chosen = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
    return np.stack([_small(frames[index]) for index in chosen.tolist()])


def _small(image: Image.Image) -> np.ndarray:
    size = (_SIDE, _SIDE)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0), np.uint8)


_BITS = 64
_ROWS_AT_ONCE = 1 << 21  # pairs compared at a time


def distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Bits that differ, uint8 or wider [P], of codes uint64 [P, W]."""
    return np.bitwise_count(left ^ right).sum(axis=1, dtype=np.uint16)


def near_pairs(codes: np.ndarray, max_distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of (left [P], right [P]): all pairs of rows at most `max_distance` bits apart.

    Args
        codes         uint64 [N, W]  rows should be distinct, equal ones make N^2 pairs
        max_distance  >= 0           bits, of all W words together
    A pair comes once per chunk that finds it, left != right, in no order.
    """
    if codes.ndim != 2 or codes.dtype != np.uint64 or not codes.shape[1]:
        raise ValueError(f"codes must be uint64 [N, W], not {codes.dtype} {list(codes.shape)}")
    if max_distance < 0:
        raise ValueError(f"max_distance counts bits, it cannot be {max_distance}")
    words = codes.shape[1]
    nearest = max_distance // words  # some word differs in no more than that
    chunks = _chunks(len(codes), nearest)
    for word in range(words):
        for low, high in zip(chunks, chunks[1:], strict=False):
            keys = (codes[:, word] >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
            radius = nearest // (len(chunks) - 1)
            for left, right in _candidates(keys.astype(np.int64), high - low, radius):
                near = distance(codes[left], codes[right]) <= max_distance
                if near.any():
                    yield left[near], right[near]


def _chunks(count: int, nearest: int) -> list[int]:
    """Borders of the cheapest cut of 64 bits into chunks, by expected look-ups and comparisons."""

    def cost(number: int) -> float:
        bits = _BITS / number
        probes = sum(comb(round(bits), d) for d in range(nearest // number + 1))
        return number * probes * (10 + count / 2**bits) + (1e12 if bits > 24 else 0)

    number = min(range(3, _BITS + 1), key=cost)
    return [round(step * _BITS / number) for step in range(number + 1)]


def _candidates(keys: np.ndarray, bits: int, radius: int):
    """Pairs of rows whose keys differ in at most `radius` bits, in blocks."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=1 << bits))])
    for mask in _masks(bits, radius):
        partner = ordered ^ mask
        # each pair once: from the lower key, or within one key from the earlier row
        begin = starts[partner] if mask else np.arange(1, len(keys) + 1)
        counts = np.where(partner >= ordered, starts[partner + 1] - begin, 0)
        yield from _expand(order, begin, counts)


def _expand(order: np.ndarray, begin: np.ndarray, counts: np.ndarray):
    rows = np.flatnonzero(counts)
    ends = np.cumsum(counts[rows])
    at = 0
    while at < len(rows):
        done = ends[at - 1] if at else 0
        stop = max(int(np.searchsorted(ends, done + _ROWS_AT_ONCE, side="right")), at + 1)
        part = rows[at:stop]
        sizes = counts[part]
        offset = np.arange(sizes.sum()) - np.repeat(ends[at:stop] - sizes - done, sizes)
        yield order[np.repeat(part, sizes)], order[np.repeat(begin[part], sizes) + offset]
        at = stop


def _masks(bits: int, radius: int) -> Iterator[int]:
    for size in range(radius + 1):
        for places in combinations(range(bits), size):
            yield sum(1 << place for place in places)
