"""Ranking metrics per query, their chance levels, and bootstrap intervals over families.

A metric is an array [Q] first; means, intervals and paired comparisons of two models come from
the same numbers. The workbook's own tasks are measured from scores, in expectation over ties
(`places`); benchmarks from rankings, as they are published, by `ir_measures`. trec_eval, which it
calls, would break ties by the spelling of ids, so it gets ranks instead of scores.
"""

# Shapes: Q queries, N candidates, K ranks, G groups, R resamples.

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np

from .places import reciprocal_of_first

__all__ = [
    "METRICS", "bootstrap_interval", "chance_level", "chance_value", "depth_of",
    "paired_interval", "ranking_metrics",
]  # fmt: skip


METRICS = ("recall@1", "recall@5", "recall@10", "recall@100", "ndcg@10", "mrr")
"""Metrics of the workbook's own tasks; benchmarks name theirs, see `ranking_metrics`."""
_MEASURES = {"recall": "R", "hit": "Success", "precision": "P", "ndcg": "nDCG"}


def ranking_metrics(
    ranked: Sequence[Sequence[int]], positives: Sequence[Sequence[int]], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Compute metrics "recall@k", "hit@k", "precision@k" and "ndcg@k" of every query.

    Args
        ranked     [Q] lists of candidates, best first; padded with -1
        positives  [Q] lists of the candidates that answer each query, at least one
    Returns
        {name: [Q] float64 in [0, 1]}. recall@k is the *share* of a query's positives among its
        first k, so it needs at most k positives to reach 1; hit@k is 1 if any is among them:
        papers that print "R@1" of images with five captions mean the hit. precision@k divides by
        k even where fewer candidates exist. nDCG has binary gains, discount 1 / log2(rank + 1).
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


def depth_of(names: Sequence[str]) -> int:
    """Deepest rank that the named metrics look at; ValueError for an unknown name."""
    return max(_parts(name)[1] for name in names)


def chance_level(
    n_candidates: int | np.ndarray, n_positives: int | np.ndarray
) -> dict[str, np.ndarray]:
    """Chance level of each of the `METRICS`: {metric: `chance_value` of it}."""
    return {name: chance_value(name, n_candidates, n_positives) for name in METRICS}


def chance_value(
    name: str, n_candidates: int | np.ndarray, n_positives: int | np.ndarray
) -> np.ndarray:
    """Exact expectation of a metric under a uniformly random ranking.

    With n candidates of which m are positive, and k' = min(k, n):
        recall k'/n,   precision m k'/(n k),   hit 1 - C(n-m, k')/C(n, k'),
        ndcg  (m/n) sum_{r <= k'} d(r) / sum_{r <= min(k, m)} d(r),   d(r) = 1 / log2(r + 1)
        mrr   the mean of 1 / rank of the first of m; (sum_{r <= n} 1 / r) / n for one
    In a pool of k or fewer candidates recall@k is 1 whatever the model, and so is its chance level.

    Args: n_candidates and n_positives, integers or integer arrays [Q] with 1 <= m <= n; n counts
    what a query can find, so without candidates that are excluded for it.
    Returns levels in [0, 1], of the broadcast shape of the arguments.
    """
    kind, k = ("mrr", 1) if name == "mrr" else _parts(name)
    n, m = np.broadcast_arrays(n_candidates, n_positives)
    if wrong := np.argwhere((m < 1) | (m > n)).tolist():
        place = tuple(wrong[0])
        raise ValueError(
            f"{m[place]} positives among {n[place]} candidates: every query needs "
            "1 <= n_positives <= n_candidates"
        )
    if kind == "mrr":
        return reciprocal_of_first(np.zeros(n.size, int), n.ravel(), m.ravel()).reshape(n.shape)
    looked_at = np.minimum(k, n)
    if kind == "recall":
        return looked_at / n
    if kind == "precision":
        return m * looked_at / (n * k)
    if kind == "hit":
        return 1 - np.vectorize(_miss_probability, otypes=[float])(n, m, looked_at)
    gain = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
    return m / n * gain[looked_at - 1] / gain[np.minimum(k, m) - 1]


def bootstrap_interval(
    values: np.ndarray,
    groups: Sequence,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over queries, resampling whole families.

    Queries of one family are not independent, families are: each resample draws G families with
    replacement and averages all of their queries.

    Args
        values       [Q]  one number per query
        groups       [Q]  label of each query's family; at least two families
        n_resamples       R
        level             coverage in (0, 1)
    Returns
        (low, high) in the unit of `values`, the same for the same seed. If all values are equal,
        the interval has no width and says nothing about the truth.

    >>> bootstrap_interval([1, 1, 0, 0, 1, 0], ["a", "a", "b", "b", "c", "c"])
    (0.0, 1.0)
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
    Returns (gain, low, high). Pairing removes the spread between queries that both systems
    share, so this can separate two systems whose own intervals overlap.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"first {first.shape} and second {second.shape} are not paired")
    gain = second - first
    return (float(gain.mean()), *bootstrap_interval(gain, groups, n_resamples, seed, level))


def _miss_probability(n: int, m: int, k: int) -> float:
    """Probability that none of m positives is among k of n candidates drawn without replacement."""
    n, m, k = int(n), int(m), int(k)  # Python's integers do not overflow
    return comb(n - m, k) / comb(n, k)


def _parts(name: str) -> tuple[str, int]:
    kind, _, k = name.partition("@")
    if kind not in _MEASURES or not k.isdigit() or int(k) < 1:
        raise ValueError(f"metric {name!r}: write one of {', '.join(_MEASURES)}, then @ and a rank")
    return kind, int(k)


def _measure(name: str):
    import ir_measures

    kind, k = _parts(name)
    return getattr(ir_measures, _MEASURES[kind]) @ k
