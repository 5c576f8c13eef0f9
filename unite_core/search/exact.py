"""Exact inner-product search with faiss or on a GPU, with ties in a defined order.

Equal scores are in the order of candidate indices, so a ranking is a function of its scores alone,
whatever the number of threads or the block size.
"""

# Shapes: Q queries, N candidates, D embedding size, k results, K >= k results before a cut.

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

__all__ = [
    "DeviceIndex", "checked_vectors", "drop_excluded", "ranked", "search", "search_past_ties",
    "whole_number",
]  # fmt: skip


_BLOCK = (2**16, 2**12)  # candidates and queries whose scores are on a GPU: 1 GiB


def search(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    k: int,
    excluded: Sequence[Sequence[int]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k candidates of largest inner product for each query, exactly.

    Args
        query_vectors      [Q, D]  finite; unit norm makes the score a cosine
        candidate_vectors  [N, D]  finite
        k                  >= 1    ranks to return
        excluded           [Q]     candidate indices that a query must not find (such as itself)
    Returns
        scores [Q, k] float32, descending, and indices [Q, k] int64. Equal scores are in the order
        of their indices. Where fewer than k candidates remain: index -1, score -inf.
    Raises ValueError on shapes that disagree, vectors that are not finite, or k < 1.

    >>> scores, indices = search([[1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]], k=2)
    >>> indices, scores
    (array([[1, 2]]), array([[1. , 0.6]], dtype=float32))
    """
    queries, candidates = (
        checked_vectors("query_vectors", query_vectors),
        checked_vectors("candidate_vectors", candidate_vectors),
    )
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"query_vectors {queries.shape} and candidate_vectors {candidates.shape} "
            "differ in size: embed both with one model"
        )
    k = whole_number("k", k)
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    index = _index_of(candidates)
    margin = max(map(len, excluded), default=0) if excluded is not None else 0
    scores, indices = search_past_ties(index, queries, k + margin)
    if excluded is not None:
        drop_excluded(scores, indices, excluded)
    return ranked(scores, indices, k)


def checked_vectors(name: str, vectors: np.ndarray) -> np.ndarray:
    """Convert vectors to float32; ValueError unless they are [rows >= 1, D] and finite."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) == 0:
        raise ValueError(f"{name} must be [rows >= 1, D], not {list(vectors.shape)}")
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise ValueError(
            f"{name} row {bad[0]} is not finite ({len(bad)} such rows): the model that "
            "embedded them has diverged or was read wrongly"
        )
    return vectors


def whole_number(name: str, value) -> int:
    """An integer of any kind as an int, which faiss needs; ValueError for another value."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None


def search_past_ties(index, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Search a faiss index for the k best and every candidate that ties with the k-th best.

    faiss keeps an arbitrary one of equal scores at its last rank, so more ranks are searched until
    the last score is worse than the k-th. Returns scores and indices [Q, K].
    """
    depth = min(k + 1, index.ntotal)
    while True:
        scores, indices = index.search(queries, depth)
        if depth == index.ntotal or (scores[:, -1] < scores[:, k - 1]).all():
            return scores, indices
        depth = min(4 * depth, index.ntotal)


def _index_of(candidates: np.ndarray):
    """The candidates in a faiss index, or on a GPU where there is one."""
    import faiss
    import torch

    if torch.cuda.is_available():
        return DeviceIndex(candidates, "cuda")
    index = faiss.IndexFlatIP(candidates.shape[1])
    index.add(candidates)
    return index


class DeviceIndex:
    """Inner products on a torch device, with the part of faiss's interface that a search needs.

    Candidates stay in the host's memory: the device has one block of them and of the scores.

    Args
        candidates  [N, D] float32
        block       rows of a block of candidates, and of one of queries
    """

    def __init__(self, candidates: np.ndarray, device: str, block: tuple[int, int] = _BLOCK):
        self.candidates, self.device, self.block = candidates, device, block
        self.ntotal = len(candidates)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores [Q, k] float32, descending, and indices [Q, k] int64, k at most N."""
        import torch

        columns, rows = self.block
        groups = torch.from_numpy(queries).to(self.device).split(rows)
        best = [(group[:, :0], group[:, :0].long()) for group in groups]
        for start in range(0, self.ntotal, columns):
            part = torch.from_numpy(self.candidates[start : start + columns]).to(self.device)
            for number, group in enumerate(groups):
                scores, indices = (group @ part.T).topk(min(k, len(part)))
                scores = torch.cat([best[number][0], scores], dim=1)
                indices = torch.cat([best[number][1], indices + start], dim=1)
                scores, kept = scores.topk(min(k, scores.shape[1]))
                best[number] = scores, indices.gather(1, kept)
        scores, indices = (torch.cat(parts).cpu().numpy() for parts in zip(*best, strict=True))
        return scores, indices


def drop_excluded(scores, indices, excluded) -> None:
    """Replace excluded candidates by index -1 and score -inf, in place."""
    if len(excluded) != len(indices):
        raise ValueError(f"excluded has {len(excluded)} rows for {len(indices)} queries")
    for row, found in enumerate(excluded):
        if len(found):
            hidden = np.isin(indices[row], found)
            scores[row, hidden], indices[row, hidden] = -np.inf, -1


def ranked(scores, indices, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort by score, then by index, and keep the first k, padded with -inf and -1."""
    order = np.lexsort((indices, -scores))[:, :k]
    short = ((0, 0), (0, k - order.shape[1]))
    scores, indices = (np.take_along_axis(part, order, 1) for part in (scores, indices))
    return (
        np.pad(scores, short, constant_values=-np.inf),
        np.pad(indices, short, constant_values=-1),
    )
