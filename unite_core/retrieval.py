"""Exact search, ranking metrics, their chance levels and bootstrap intervals, on plain vectors.

Everything is per query first: a metric is an array [Q], so that means, intervals over families
and paired comparisons of two models come from the same numbers. Ties go to the lower candidate
index, which makes a ranking a function of its scores alone; trec_eval, under `ir_measures`, would
break them by the spelling of ids, so it is given ranks and not scores.
"""

# Shapes: Q queries, N candidates, D embedding size, K ranks kept, G groups, R resamples.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "METRICS",
    "bootstrap_interval",
    "chance_level",
    "checked_vectors",
    "drop_excluded",
    "paired_interval",
    "query_metrics",
    "ranked",
    "search",
    "search_past_ties",
]

METRICS = {"recall@1": 1, "recall@5": 5, "recall@10": 10, "ndcg@10": 10}
"""Metric names and how many ranks each looks at."""


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


def query_metrics(indices: np.ndarray, positives: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Every metric of `METRICS` for every query, through `ir_measures`.

    Args
        indices    [Q, K >= 10]  ranked candidates, best first; -1 fills up
        positives  [Q]           candidate indices that answer each query, at least one
    Returns
        {metric: [Q] float64 in [0, 1]}. recall@k is the *share* of a query's positives among its
        first k, so k positives or fewer are needed to reach 1; with one positive it is the hit
        rate. nDCG has binary gains and the discount 1 / log2(rank + 1).
    """
    import ir_measures
    from ir_measures import R, nDCG

    indices = np.asarray(indices)
    if indices.ndim != 2 or len(indices) != len(positives) or indices.shape[1] < 10:
        raise ValueError(
            f"indices must be [{len(positives)}, 10 or more], not {list(indices.shape)}"
        )
    empty = [row for row, found in enumerate(positives) if len(found) == 0]
    if empty:
        raise ValueError(f"query {empty[0]} has no positive: its recall is undefined")
    judged = {
        str(row): {str(int(index)): 1 for index in found} for row, found in enumerate(positives)
    }
    run = {
        str(row): {str(int(index)): -float(rank) for rank, index in enumerate(found) if index >= 0}
        for row, found in enumerate(indices)
    }
    names = {R @ 1: "recall@1", R @ 5: "recall@5", R @ 10: "recall@10", nDCG @ 10: "ndcg@10"}
    values = {name: np.zeros(len(indices)) for name in METRICS}
    for result in ir_measures.iter_calc(list(names), judged, run):
        values[names[result.measure]][int(result.query_id)] = result.value
    return values


def chance_level(
    n_candidates: int | np.ndarray, n_positives: int | np.ndarray
) -> dict[str, np.ndarray]:
    """Exact expectation of every metric under a uniformly random ranking.

    With n candidates of which m are positive, each rank holds a positive with probability m / n:
        recall@k = min(k, n) / n
        nDCG@10  = (m / n) * sum_{r <= min(10, n)} d(r) / sum_{r <= min(10, m)} d(r),
                   d(r) = 1 / log2(r + 1)

    Args: n_candidates and n_positives, integers or integer arrays [Q] with 1 <= m <= n; n counts
    what a query can find, so without what is excluded for it.
    Returns {metric: level in [0, 1], of the broadcast shape of the arguments}.
    """
    n, m = np.broadcast_arrays(n_candidates, n_positives)
    if (m < 1).any() or (m > n).any():
        raise ValueError("every query needs 1 <= n_positives <= n_candidates")
    gain = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, 12)))])  # [11]
    levels = {name: np.minimum(k, n) / n for name, k in METRICS.items()}
    levels["ndcg@10"] = m / n * gain[np.minimum(10, n)] / gain[np.minimum(10, m)]
    return levels


def bootstrap_interval(
    values: np.ndarray,
    groups: Sequence,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean over queries, whole groups (families) resampled.

    Queries of one family are not independent draws, families are: each resample takes G groups
    with replacement and averages all of their queries.

    Args
        values       [Q]  one number per query
        groups       [Q]  label of each query's family; at least two families
        n_resamples       R
        level             coverage in (0, 1)
    Returns
        (low, high) in the unit of `values`; the same for the same seed. Values that are all
        equal give an interval of no width, which then says nothing about the truth.
    """
    values, groups = np.asarray(values, dtype=np.float64), np.asarray(groups)
    if values.ndim != 1 or values.shape != groups.shape:
        raise ValueError(
            f"values and groups must both be [Q], not {values.shape} and {groups.shape}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    labels, member = np.unique(groups, return_inverse=True)
    if len(labels) < 2:
        raise ValueError(
            f"{len(labels)} group cannot be resampled: an interval needs two families or more"
        )
    sums, counts = np.bincount(member, weights=values), np.bincount(member)
    draws = np.random.default_rng(seed).integers(len(labels), size=(n_resamples, len(labels)))
    means = sums[draws].sum(1) / counts[draws].sum(1)  # [R]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_interval(
    first: np.ndarray,
    second: np.ndarray,
    groups: Sequence,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Mean gain of `second` over `first` on the same queries, with its bootstrap interval.

    Args as in `bootstrap_interval`; first and second [Q] hold one metric of two systems.
    Returns (difference, low, high). Pairing removes the spread between queries that both systems
    share, so this can separate two systems whose own intervals overlap.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"first {first.shape} and second {second.shape} are not paired")
    gain = second - first
    return (float(gain.mean()), *bootstrap_interval(gain, groups, n_resamples, seed, level))


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
