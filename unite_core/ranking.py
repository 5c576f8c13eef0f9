"""Metrics of ranked lists by name, per query, and what chance gives: the ones papers report.

`retrieval.query_metrics` has the workbook's four; benchmarks ask for others (recall@50 of
WebVid-CoVR, precision@1 of MMEB). Values come from `ir_measures`.
"""

# Shapes: Q queries, K ranks.

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np

__all__ = ["chance_value", "depth_of", "ranking_metrics"]

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
