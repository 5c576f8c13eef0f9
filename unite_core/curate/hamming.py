"""All pairs of 64-bit codes that differ in few bits, found by multi-index hashing.

Codes that differ in at most d bits differ in at most d // m bits of one of m chunks (pigeonhole),
so each chunk is looked up with all of its values that near. Cost grows with N, not its square, as
long as codes spread over the values of a chunk.
"""

# Shapes: N codes of W words, P pairs.

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb

import numpy as np

__all__ = ["distance", "near_pairs"]

_BITS = 64
_BLOCK = 1 << 21  # pairs compared at a time


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
        stop = max(int(np.searchsorted(ends, done + _BLOCK, side="right")), at + 1)
        part = rows[at:stop]
        sizes = counts[part]
        offset = np.arange(sizes.sum()) - np.repeat(ends[at:stop] - sizes - done, sizes)
        yield order[np.repeat(part, sizes)], order[np.repeat(begin[part], sizes) + offset]
        at = stop


def _masks(bits: int, radius: int) -> Iterator[int]:
    for size in range(radius + 1):
        for places in combinations(range(bits), size):
            yield sum(1 << place for place in places)
