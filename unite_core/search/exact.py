"""TODO."""

# Shapes: Q queries, N candidates, D embedding size, K ranks kept, G groups, R resamples.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["checked_vectors", "drop_excluded", "ranked", "search", "search_past_ties"]


def search(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    k: int,
    excluded: Sequence[Sequence[int]] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k candidates of largest inner product for each query, exactly (faiss).

    Args
        query_vectors      [Q, D]  finite; unit norm makes the score a cosine
        candidate_vectors  [N, D]  finite
        k                  >= 1    ranks to return
        excluded           [Q]     candidate indices that a query may not find (itself, say)
    Returns
        scores [Q, k] float32, descending, and indices [Q, k] int64. Equal scores are in the order
        of their indices. Where fewer than k candidates remain: index -1, score -inf.
    Raises ValueError on shapes that disagree, vectors that are not finite, or k < 1.
    """
    import faiss

    queries, candidates = (
        checked_vectors("query_vectors", query_vectors),
        checked_vectors("candidate_vectors", candidate_vectors),
    )
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"query_vectors {queries.shape} and candidate_vectors {candidates.shape} "
            "differ in size: embed both with one model"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    index = faiss.IndexFlatIP(candidates.shape[1])
    index.add(candidates)
    margin = max(map(len, excluded), default=0) if excluded is not None else 0
    scores, indices = search_past_ties(index, queries, k + margin)
    if excluded is not None:
        drop_excluded(scores, indices, excluded)
    return ranked(scores, indices, k)


def checked_vectors(name: str, vectors: np.ndarray) -> np.ndarray:
    """Float32 rows, checked to be [rows >= 1, D] and finite."""
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


def search_past_ties(index, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """At least the k best, and with them every candidate that ties with the k-th best.

    A heap keeps an arbitrary one of equal scores at its boundary, so it is made larger until the
    last score it holds is worse than the k-th.
    """
    wanted = min(k + 1, index.ntotal)
    while True:
        scores, indices = index.search(queries, wanted)
        if wanted == index.ntotal or (scores[:, -1] < scores[:, k - 1]).all():
            return scores, indices
        wanted = min(4 * wanted, index.ntotal)


def drop_excluded(scores, indices, excluded) -> None:
    """Overwrite, in place, what each query may not find by index -1 and score -inf."""
    if len(excluded) != len(indices):
        raise ValueError(f"excluded has {len(excluded)} rows for {len(indices)} queries")
    for row, found in enumerate(excluded):
        if len(found):
            hidden = np.isin(indices[row], found)
            scores[row, hidden], indices[row, hidden] = -np.inf, -1


def ranked(scores, indices, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k by score, then by index; filled up with -inf and -1 where there are fewer."""
    order = np.lexsort((indices, -scores))[:, :k]
    short = ((0, 0), (0, k - order.shape[1]))
    scores, indices = (np.take_along_axis(part, order, 1) for part in (scores, indices))
    return (
        np.pad(scores, short, constant_values=-np.inf),
        np.pad(indices, short, constant_values=-1),
    )
