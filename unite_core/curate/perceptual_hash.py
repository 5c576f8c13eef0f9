"""Groups of images and videos that look the same, by codes and thumbnails (`frame_codes`).

Codes find candidates fast; thumbnails verify them cell by cell, so that a small object in another
place or colour makes another image.

Candidates come from multi-index hashing (Norouzi et al., 2012): codes that differ in at most d bits
differ in at most d // m bits of one of m chunks, so each chunk is looked up with all values that
near. Cost grows with N, not N squared, as long as codes spread over the values of a chunk.
"""

# Shapes: N media of W frames each (W = 1 for images), codes of W words, P pairs.

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from math import comb
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .item_groups import renumber, stars
from .media_facts import media_facts

__all__ = [
    "MediaHashes", "image_hashes", "near_groups", "near_links", "near_pairs", "video_hashes",
]  # fmt: skip


MAX_DISTANCE = 4  # bits of 128, see `near_groups`
MAX_DIFFERENCE = {"image": 0.03, "video": 0.05}  # RMS of the most different region
_CELL = 2.5  # a cell may differ by this many times the limit of a region; copies do by 2.4
_REGIONS = 4  # per side
_GAIN = 0.85  # brightness of the darkest copy that is compensated
_BLOCK = 1 << 13  # pairs of thumbnails compared at a time
_BITS = 64  # of a word
_ROWS_AT_ONCE = 1 << 21  # pairs of codes compared at a time


class MediaHashes(NamedTuple):
    """Hashes of N media, for `near_groups`; unreadable media have a cause and zeros."""

    codes: np.ndarray  # [N, 2 W] uint64
    thumbs: np.ndarray  # [N, W, 16, 16, 3] uint8
    causes: list[str]  # [N] why a file could not be read, "" if it could


def image_hashes(
    paths: Sequence[str], root: str | Path = ".", workers: int = 0, folder: str | Path | None = None
) -> MediaHashes:
    """Hash image files below `root`, in order; unreadable files are marked and no error.

    `workers` is the number of processes, 0 for none, and `folder` that of the cache of media facts.
    Images are resized to a square, so that size and slight changes of aspect do not matter.
    """
    return _hashes("image", paths, root, workers, folder)


def video_hashes(
    paths: Sequence, root: str | Path = ".", workers: int = 0, folder: str | Path | None = None
) -> MediaHashes:
    """Hash 4 frames of each video (file or list of frames), evenly spaced from first to last.

    Copies at another frame rate hash nearly alike; excerpts and shifted cuts do not.
    """
    media = [tuple(path) if isinstance(path, list) else path for path in paths]
    return _hashes("video", media, root, workers, folder)


def near_groups(
    hashes: MediaHashes,
    max_distance: int = MAX_DISTANCE,
    max_difference: float | None = None,
) -> np.ndarray:
    """Group media that look the same, int64 [N]: each is similar to the centre of its group.

    Args
        max_distance    bits, of the 128 of a frame, that may differ (mean over a video's frames)
        max_difference  RMS pixel difference, from 0 (equal) to 1 (black against white), of the most
                        different of 4 x 4 regions of the two thumbnails, after brightness is
                        matched (by at most 15 %); None: .03 for images, .05 for videos. No single
                        cell of 16 x 16 may differ by more than 2.5 times as much
    An unreadable file is a group of its own. With the defaults 97 % of copies are found that were
    saved as JPEG of quality 40 to 75, scaled to 70 %, made 7 % brighter or darker, or given noise
    of 4 grey levels (emoji and shapes corpora), and re-encoded clips; most copies that were cropped
    by 2 % at each side are missed.
    """
    equal, links = near_links(hashes, max_distance, max_difference)
    return renumber(stars(int(equal.max(initial=-1)) + 1, links)[equal])


def near_links(
    hashes: MediaHashes,
    max_distance: int = MAX_DISTANCE,
    max_difference: float | None = None,
) -> tuple[np.ndarray, Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Numbers int64 [N], equal for equal hashes, and blocks of pairs of numbers that look alike."""
    readable = np.flatnonzero([not cause for cause in hashes.causes])
    labels = np.arange(len(hashes.causes)) + len(hashes.causes)
    codes, thumbs = hashes.codes[readable], hashes.thumbs[readable]
    labels[readable] = renumber(_digests(codes, thumbs))
    equal = renumber(labels)
    first = np.unique(equal[readable], return_index=True)[1]  # one of each set of equal hashes
    numbers = equal[readable][first]
    frames = hashes.thumbs.shape[1]
    if max_difference is None:
        max_difference = MAX_DIFFERENCE["image" if frames == 1 else "video"]
    near = _alike(near_pairs(codes[first], max_distance * frames), thumbs[first], max_difference)
    return equal, ((numbers[left], numbers[right]) for left, right in near)


def _alike(pairs, thumbs: np.ndarray, limit: float) -> Iterator[tuple]:
    """Keep the pairs whose thumbnails agree; region means reject most of the others first."""
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
    """RMS difference [P] of the most different region, from thumbs [N, W, S, S, 3].

    Or that of the most different cell, divided by 2.5, which a region would thin out.
    """
    first, second = (thumbs[rows].astype(np.float32) for rows in (left, right))
    axes = tuple(range(1, first.ndim))
    gain = (first * second).sum(axes) / np.maximum((first * first).sum(axes), 1)
    first *= np.clip(gain, _GAIN, 1 / _GAIN).reshape(-1, *[1] * len(axes))
    squares = _regions((first - second) ** 2)
    regions = squares.mean(axis=(3, 5, 6)).max(axis=(1, 2, 3), initial=0)
    cells = squares.mean(axis=6).max(axis=(1, 2, 3, 4, 5), initial=0) / _CELL**2
    return np.sqrt(np.maximum(regions, cells)) / 255


def _regions(thumbs: np.ndarray) -> np.ndarray:
    """View thumbs [N, W, S, S, 3] as regions [N, W, 4, S/4, 4, S/4, 3]."""
    count, frames, side = thumbs.shape[:3]
    step = side // _REGIONS
    return thumbs.reshape(count, frames, _REGIONS, step, _REGIONS, step, 3)


def _digests(codes: np.ndarray, thumbs: np.ndarray) -> np.ndarray:
    """[N, 2] uint64, equal for equal codes and thumbnails."""
    flat = thumbs.reshape(len(thumbs), math.prod(thumbs.shape[1:]))
    rows = np.concatenate([np.ascontiguousarray(codes).view(np.uint8), flat], axis=1)
    digests = b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in rows)
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def _hashes(kind: str, media: Sequence, root, workers: int, folder) -> MediaHashes:
    cause, values = media_facts(kind, media, root, folder, workers)
    return MediaHashes(values["codes"], values["thumbs"], cause)


def _distance(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Hamming distance uint16 [P] of codes uint64 [P, W]."""
    return np.bitwise_count(left ^ right).sum(axis=1, dtype=np.uint16)


def near_pairs(codes: np.ndarray, max_distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks (left [P], right [P]) of all row pairs within a Hamming distance.

    Args
        codes         uint64 [N, W]  distinct rows; equal rows would make N^2 pairs
        max_distance  >= 0           bits, over all W words
    A pair comes once, left != right, in no order.

    >>> codes = np.array([[0b0000], [0b1000], [0b1111]], np.uint64)
    >>> {(int(i), int(j)) for left, right in near_pairs(codes, 1) for i, j in zip(left, right)}
    {(0, 1)}
    """
    from tqdm import tqdm

    if codes.ndim != 2 or codes.dtype != np.uint64 or not codes.shape[1]:
        raise ValueError(f"codes must be uint64 [N, W], not {codes.dtype} {list(codes.shape)}")
    if max_distance < 0:
        raise ValueError(f"max_distance counts bits, it cannot be {max_distance}")
    words = codes.shape[1]
    nearest = max_distance // words  # bits that differ in at least one of the words, at most
    chunks = _chunks(len(codes), nearest)
    radius = nearest // (len(chunks) - 1)
    parts = [(word, *ends) for word in range(words) for ends in pairwise(chunks)]
    keys = [(codes[:, word] >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
            for word, low, high in parts]  # fmt: skip
    for place, (_, low, high) in enumerate(tqdm(parts, "comparing media", mininterval=2, delay=1)):
        for left, right in _candidates(keys[place].astype(np.int64), high - low, radius):
            near = _distance(codes[left], codes[right]) <= max_distance
            left, right = left[near], right[near]
            for earlier in keys[:place]:  # the first chunk that finds a pair yields it
                fresh = np.bitwise_count(earlier[left] ^ earlier[right]) > radius
                left, right = left[fresh], right[fresh]
            if len(left):
                yield left, right


def _chunks(count: int, nearest: int) -> list[int]:
    """Borders of the cheapest split of 64 bits, by expected look-ups and comparisons."""

    def cost(number: int) -> float:
        bits = _BITS / number
        probes = sum(comb(round(bits), d) for d in range(nearest // number + 1))
        return number * probes * (10 + count / 2**bits) + (1e12 if bits > 24 else 0)

    number = min(range(3, _BITS + 1), key=cost)
    return [round(step * _BITS / number) for step in range(number + 1)]


def _candidates(keys: np.ndarray, bits: int, radius: int):
    """Yield blocks of row pairs whose keys differ in at most `radius` bits."""
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
