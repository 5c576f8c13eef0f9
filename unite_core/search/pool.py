"""Rank a pool that is held in memory, exactly, by any scorer."""

# Shapes: Q queries, N candidates, D embedding size, k results.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .exact import checked_vectors
from .index import build_index
from .scorers import COSINE, Scorer
from .shards import Shard

__all__ = ["rank"]


def rank(
    queries: np.ndarray,
    pool_vectors: np.ndarray,
    pool_modality: Sequence[int],
    k: int,
    hidden: Sequence[Sequence[int]] | None = None,
    scorer: Scorer = COSINE,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k candidates that a scorer ranks first for each query, in a pool of modalities.

    Args
        queries        [Q, D]  finite
        pool_vectors   [N, D]  finite
        pool_modality  [N]     codes of `Modality`
        k              >= 1
        hidden         [Q]     candidate indices that a query must not find (such as itself)
    Returns
        scores [Q, k], descending, and indices [Q, k] int64, as `exact.search` does: equal scores in
        the order of their indices, index -1 and score -inf where fewer than k can be found.
        Candidates of a modality with probability 0 cannot be found.

    >>> from unite_core.search.factorised import known_modality
    >>> from unite_core.search.scorers import Factorised
    >>> pool = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> rank(np.array([[1.0, 0.0]]), pool, [1, 2, 2], k=3)[1]
    array([[0, 2, 1]])
    >>> asks_for_images = Factorised(known_modality([2], codes=[1, 2]), temperature=0.05)
    >>> rank(np.array([[1.0, 0.0]]), pool, [1, 2, 2], k=3, scorer=asks_for_images)[1]
    array([[ 2,  1, -1]])
    """
    vectors = checked_vectors("pool_vectors", pool_vectors)
    names = [str(row) for row in range(len(vectors))]
    modality = np.asarray(pool_modality, dtype=np.uint8)
    index = build_index([Shard(names, vectors, modality, name="the pool")])
    found = index.search(queries, k, scorer=scorer, excluded=hidden)
    return found.scores, found.rows
