"""Which of the candidates that a query finds are hard negatives, and which may be positives.

A candidate counts for the first of these filters that it meets: a positive of the same query; the
query itself; a negative that the record has already; an item identical to one of those positives or
to the query (same text up to case and spaces, same bytes of its files, or a shared group; identical
queries share their positives); a rank to skip; a score within the margin of the positive's; a score
above the ratio of it (NV-Retriever, arXiv 2407.15831).
"""

# Shapes: N records, R records of a batch, K candidates found per record, U distinct items.

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.items import files_of, images_of, videos_of
from ..files import file_hash
from .config import MineConfig
from .pair_items import PairItems

__all__ = ["KnownFilters", "choose_negatives", "identical_items", "joined"]


def choose_negatives(scores: np.ndarray, positive_scores: np.ndarray,
                     known: Mapping[str, np.ndarray],
                     config: MineConfig) -> tuple[np.ndarray, dict[str, int]]:  # fmt: skip
    """Choose hard negatives among the candidates found.

    Args
        scores           [R, K]  of the candidates found, best first; -inf where there is none
        positive_scores  [R]     of each record's own candidate
        known            name -> [R, K] bool: candidates that are not negatives at any score
    Returns
        chosen [R, K] bool, the best of each row, at most `config.negatives`; and how many
        candidates each filter removed, in the order of filters, counted once.
    For a positive score s > 0 the ratio's limit is ratio * s; below 0 it stays below s.
    """
    left, removed = np.isfinite(scores), {}
    limits = {"margin": None if config.margin is None else positive_scores - config.margin,
              "ratio": None if config.ratio is None
              else positive_scores - (1 - config.ratio) * np.abs(positive_scores)}  # fmt: skip
    for name, mask in known.items():
        removed[name] = int((left & mask).sum())
        left &= ~mask
    skipped = left & (left.cumsum(1) <= config.skip)
    removed["skip"] = int(skipped.sum())
    left &= ~skipped
    for name, limit in limits.items():
        above = left & (scores > limit[:, None]) if limit is not None else np.zeros_like(left)
        removed[name] = int(above.sum())
        left &= ~above
    return left & (left.cumsum(1) <= config.negatives), removed


def identical_items(items: Sequence[dict], media_root: str | Path = ".") -> np.ndarray:
    """Group items of the same text and the same media: [U] numbers, equal within a group.

    Texts are compared in NFKC, ignoring case and spaces; files by their bytes, which are read only
    where two files have the same size.
    """
    root, sizes = Path(media_root), {}
    for item in items:
        sizes |= {path: _size(root / path) for path in files_of(item) if path not in sizes}
    shared = {size for size, count in Counter(sizes.values()).items() if count > 1}
    names = {path: file_hash(root / path) if size in shared and size else path
             for path, size in sizes.items()}  # fmt: skip
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(_identity(item, names), len(numbers)) for item in items])


def joined(*groupings: np.ndarray) -> np.ndarray:
    """Join groupings [U] of the same items: items are in one group if a chain connects them.

    >>> joined(np.array([7, 7, 1, 2]), np.array([5, 9, 9, 3])).tolist()
    [0, 0, 0, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size, start, ends = len(groupings[0]), len(groupings[0]), []
    for groups in groupings:  # an edge from each item to its group, numbered behind the items
        names, number = np.unique(groups, return_inverse=True)
        ends.append(number + start)
        start += len(names)
    rows = np.tile(np.arange(size), len(groupings))
    edges = coo_array((np.ones(len(rows), bool), (rows, np.concatenate(ends))), (start, start))
    return connected_components(edges, directed=False)[1][:size]


class KnownFilters:
    """Candidates that are not negatives of a record, whatever they score."""

    def __init__(self, items: PairItems, groups: np.ndarray):
        """Args: groups [U] of items that count as one: `identical_items` and groups, `joined`."""
        self.items, self.groups, size = items, groups, len(items)
        self.positives = np.sort(_code(items.queries, items.candidates, size))
        self.given = np.sort(_code(*items.given_negatives(), size))
        queries = groups[items.queries]
        self.identical = np.sort(np.concatenate([
            _code(queries, groups[items.candidates], size), _code(queries, queries, size)
        ]))  # fmt: skip

    def masks(self, rows: np.ndarray, found: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> [R, K] bool for the items `found` [R, K] of records `rows` [R]."""
        size, query = len(self.items), self.items.queries[rows][:, None]
        return {
            "positive": _member(_code(query, found, size), self.positives),
            "query": found == query,
            "given": _member(_code(rows[:, None], found, size), self.given),
            "identical": _member(
                _code(self.groups[query], self.groups[found], size), self.identical
            ),
        }


def _identity(item: Mapping, names: Mapping[str, str]) -> bytes:
    """Equal for items of the same text and media: 16 bytes, as there may be millions."""
    text = " ".join(unicodedata.normalize("NFKC", item.get("text") or "").casefold().split())
    media = [[_named(medium, names) for medium in kind(item)] for kind in (images_of, videos_of)]
    return hashlib.sha256(repr((text, media)).encode()).digest()[:16]


def _named(medium, names: Mapping[str, str]):
    return [names[frame] for frame in medium] if isinstance(medium, list) else names[medium]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _code(first: np.ndarray, second: np.ndarray, size: int) -> np.ndarray:
    """One integer for each pair of integers, the second below `size`."""
    return first.astype(np.int64) * size + second


def _member(codes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which codes are among the sorted `known`."""
    if not len(known):
        return np.zeros(codes.shape, dtype=bool)
    at = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return known[at] == codes
