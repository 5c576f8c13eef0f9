"""Exact search, ranking metrics, their chance levels and bootstrap intervals, on plain vectors.

Everything is per query first: a metric is an array [Q], so that means, intervals over families
and paired comparisons of two models come from the same numbers. Ties go to the lower candidate
index, which makes a ranking a function of its scores alone; trec_eval, under `ir_measures`, would
break them by the spelling of ids, so it is given ranks and not scores.

Metrics of ranked lists by name, per query, and what chance gives: the ones papers report.

`retrieval.query_metrics` has the workbook's four; benchmarks ask for others (recall@50 of
WebVid-CoVR, precision@1 of MMEB). Values come from `ir_measures`.
"""

# Shapes: Q queries, K ranks.

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np

# Shapes: Q queries, N candidates, D embedding size, K ranks kept, G groups, R resamples.

__all__ = [
    "METRICS",
    "bootstrap_interval",
    "chance_level",
    "chance_value",
    "depth_of",
    "paired_interval",
    "query_metrics",
    "ranking_metrics",
]


METRICS = {"recall@1": 1, "recall@5": 5, "recall@10": 10, "ndcg@10": 10}
"""Metric names and how many ranks each looks at."""


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


_MEASURES = {"recall": "R", "hit": "Success", "precision": "P", "ndcg": "nDCG"}


def depth_of(names: Sequence[str]) -> int:
    """How many ranks the named metrics look at; ValueError for a name that is none."""
    return max(_parts(name)[1] for name in names)


def ranking_metrics(
    ranked: Sequence[Sequence[int]], positives: Sequence[Sequence[int]], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Metrics "recall@k", "hit@k", "precision@k" and "ndcg@k" of every query.

    Args
        ranked     [Q] lists of candidates, best first; -1 fills up
        positives  [Q] lists of the candidates that answer each query, at least one
    Returns
        {name: [Q] float64 in [0, 1]}. recall@k is the share of a query's positives among its first
        k, hit@k whether there is any: papers that print "R@1" of images with five captions mean
        the hit. precision@k divides by k even where fewer candidates exist.
    """
    import ir_measures

    if len(ranked) != len(positives):
        raise ValueError(f"{len(ranked)} rankings for {len(positives)} lists of positives")
    for row, found in enumerate(positives):
        if len(found) == 0:
            raise ValueError(f"query {row} has no positive: its metrics are undefined")
    measures = {_measure(name): name for name in names}
    judged = {str(q): {str(int(c)): 1 for c in found} for q, found in enumerate(positives)}
    run = {
        str(q): {str(int(c)): -float(rank) for rank, c in enumerate(found) if c >= 0}
        for q, found in enumerate(ranked)
    }
    values = {name: np.zeros(len(ranked)) for name in names}
    for result in ir_measures.iter_calc(list(measures), judged, run):
        values[measures[result.measure]][int(result.query_id)] = result.value
    return values


def chance_value(name: str, n_candidates: int, n_positives: int) -> float:
    """Exact expectation of a metric for one query under a uniformly random ranking.

    With n candidates of which m are positive, and k' = min(k, n):
        recall k'/n,   precision m k'/(n k),   hit 1 - C(n-m, k')/C(n, k'),
        ndcg  (m/n) sum_{r <= k'} d(r) / sum_{r <= min(k, m)} d(r),   d(r) = 1 / log2(r + 1)
    """
    kind, k = _parts(name)
    n, m = n_candidates, n_positives
    if not 1 <= m <= n:
        raise ValueError(f"{m} positives among {n} candidates: 1 to {n} are possible")
    most = min(k, n)
    if kind == "recall":
        return most / n
    if kind == "precision":
        return m * most / (n * k)
    if kind == "hit":
        return 1 - comb(n - m, most) / comb(n, most)
    gain = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    return float(m / n * gain[most - 1] / gain[min(k, m) - 1])


def _parts(name: str) -> tuple[str, int]:
    kind, _, k = name.partition("@")
    if kind not in _MEASURES or not k.isdigit() or int(k) < 1:
        raise ValueError(f"metric {name!r}: write one of {', '.join(_MEASURES)}, then @ and a rank")
    return kind, int(k)


def _measure(name: str):
    import ir_measures

    kind, k = _parts(name)
    return getattr(ir_measures, _MEASURES[kind]) @ k
