"""Groups as numbers: rows are of one group when their numbers are equal."""

# Shapes: N rows, E pairs of rows.

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["combine", "connect", "first_of", "renumber"]

_EDGES = 20_000_000  # pairs held before they are folded into groups


def renumber(labels: np.ndarray) -> np.ndarray:
    """[N] labels (rows of a matrix count whole) -> int64 [N], numbered by first appearance."""
    if labels.ndim == 2:
        labels = _rows_as_numbers(labels)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _rows_as_numbers(labels: np.ndarray) -> np.ndarray:
    order = np.lexsort(labels.T)
    ordered = labels[order]
    changes = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = np.zeros(len(labels), np.int64)
    numbers[order[1:]] = np.cumsum(changes)
    return numbers


def combine(*groups: np.ndarray) -> np.ndarray:
    """Rows that are of one group in every one of the given [N] groupings share one in int64 [N]."""
    combined = renumber(np.asarray(groups[0]))
    for each in groups[1:]:
        other = renumber(np.asarray(each))
        combined = renumber(combined * (other.max(initial=0) + 1) + other)
    return combined


def connect(count: int, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Rows linked by a chain of pairs share a group: int64 [count] from blocks of ([E], [E]).

    A chain may link rows that are not alike themselves; keep thresholds tight enough that it
    seldom does.
    """
    groups = np.arange(count)
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for left, right in pairs:
        held.append((left, right))
        if sum(len(one) for one, _ in held) > _EDGES:
            groups, held = _fold(groups, held), []
    return renumber(_fold(groups, held))


def first_of(groups: np.ndarray) -> np.ndarray:
    """bool [N]: whether a row is the first of its group, the one that deduplication keeps."""
    first = np.zeros(len(groups), bool)
    first[np.unique(groups, return_index=True)[1]] = True
    return first


def _fold(groups: np.ndarray, held) -> np.ndarray:
    if not held:
        return groups
    left, right = (np.concatenate([one[side] for one in held]) for side in (0, 1))
    links = np.ones(len(left), np.int8), (groups[left], groups[right])
    merged = connected_components(coo_array(links, shape=(len(groups),) * 2), directed=False)[1]
    return merged[groups].astype(np.int64)
