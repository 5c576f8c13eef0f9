"""Metrics of a ranking from its scores, in expectation over the order of equal scores.

A model that gives thirty candidates one score has not put any of them first. Where a rank cut
splits such a tie, a candidate of it counts with the probability that a random order puts it above
the cut: recall@10 of one answer in a tie of thirty at the top is 1/3.
"""

# Shapes: Q queries, N candidates, R relevant candidates of all queries together.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["Places", "expected_metric", "expected_share", "places_of", "reciprocal_of_first"]


_TIE = (
    1e-9  # relative to the largest score of a query; float64 products of equal vectors agree to it
)
_NEVER = 1 << 40  # a rank that no metric looks at


@dataclass(frozen=True)
class Places:
    """Where the relevant candidates of Q queries stand: at ranks above + 1 to above + tied.

    query  [R] row of the query, ascending, every one of 0 to Q - 1 at least once
    above  [R] candidates with a higher score
    tied   [R] candidates with the same score, itself included; all orders are equally likely
    gain   [R] > 0, how relevant it is, for nDCG
    """

    query: np.ndarray
    above: np.ndarray
    tied: np.ndarray
    gain: np.ndarray

    @classmethod
    def at_random(cls, findable: Sequence[int], gains: Sequence[Sequence[float]]) -> Places:
        """Places if all scores are equal: their metrics are chance levels.

        Args
            findable  [Q] candidates that each query can find
            gains     [Q] lists of the gains of each query's relevant candidates
        """
        query = np.repeat(np.arange(len(gains)), list(map(len, gains)))
        tied = np.asarray(findable)[query]
        return cls(query, np.zeros_like(tied), tied, np.concatenate(gains))

    @cached_property
    def counts(self) -> np.ndarray:
        """[Q] relevant candidates of each query."""
        return np.bincount(self.query)

    @cached_property
    def first(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[Q] above, tied, and relevant among the tied, where the first relevant one stands."""
        above = np.minimum.reduceat(self.above, np.cumsum(self.counts) - self.counts)
        in_first = self.above == above[self.query]
        tied = np.zeros_like(above)
        np.maximum.at(tied, self.query[in_first], self.tied[in_first])
        return above, tied, np.bincount(self.query[in_first])


def places_of(scores: np.ndarray, relevant: Sequence[Sequence[int]],
              gains: Sequence[Sequence[float]] | None = None) -> Places:  # fmt: skip
    """Places of relevant candidates by their scores.

    Args
        scores    [Q, N]  float64; -inf for what cannot be found
        relevant  [Q]     lists of candidate indices, at least one each
        gains     [Q]     lists of their gains; None: 1 each
    Scores count as equal if they differ by at most 1e-9 of the query's largest.

    >>> places = places_of(np.array([[0.9, 0.5, 0.5, 0.1]]), [[1, 3]])
    >>> places.above, places.tied
    (array([1, 3]), array([2, 1]))
    """
    query = np.repeat(np.arange(len(relevant)), list(map(len, relevant)))
    above, tied = np.empty(len(query), np.int64), np.empty(len(query), np.int64)
    start = 0
    for row, found in zip(scores, relevant, strict=True):
        wanted = row[np.asarray(found, np.int64)][:, None]  # [relevant, 1]
        margin = _margin(row[None])
        higher = row > wanted + margin
        part = slice(start, start + len(found))
        above[part] = higher.sum(1)
        tied[part] = ((row >= wanted - margin) & ~higher).sum(1)
        lost = np.isneginf(wanted[:, 0])
        above[part][lost], tied[part][lost] = _NEVER, 1
        start += len(found)
    return Places(query, above, tied,
                  np.ones(len(query)) if gains is None else np.concatenate(gains))  # fmt: skip


def expected_metric(name: str, places: Places) -> np.ndarray:
    """One metric of every query, [Q] float64 in [0, 1].

    Args: name
        recall@k  share of the relevant candidates among the first k
        hit@k     1 if any of them is
        ndcg@k    discounted gain, discount 1 / log2(rank + 1), over the largest possible
        mrr       1 / rank of the first one, to any depth

    >>> top = Places(np.array([0]), np.array([0]), np.array([30]), np.ones(1))  # a tie of thirty
    >>> [expected_metric(name, top).round(3)[0] for name in ("recall@1", "recall@10", "mrr")]
    [np.float64(0.033), np.float64(0.333), np.float64(0.133)]
    """
    if name == "mrr":
        return reciprocal_of_first(*places.first)
    kind, _, k = name.partition("@")
    k = int(k)
    if kind == "hit":
        above, tied, relevant = places.first
        return 1 - _all_missed(tied, relevant, np.clip(k - above, 0, tied))
    if kind == "recall":
        inside = np.clip((k - places.above) / places.tied, 0, 1)
        return np.bincount(places.query, inside) / places.counts
    discount = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    last = np.minimum(places.above + places.tied, k)
    share = (discount[last] - discount[np.minimum(places.above, k)]) / places.tied
    order = np.lexsort((-places.gain, places.query))
    starts = np.cumsum(places.counts) - places.counts
    rank = np.arange(len(order)) - starts[places.query]  # from 0, if all stood first
    best = np.diff(discount)[np.minimum(rank, k - 1)] * (rank < k) * places.gain[order]
    return np.bincount(places.query, places.gain * share) / np.bincount(places.query, best)


def expected_share(scores: np.ndarray, wanted: np.ndarray, k: int) -> np.ndarray:
    """Share [Q] of wanted candidates among the first k that can be found.

    Args: scores [Q, N] float64, -inf for what cannot be found; wanted [Q, N] booleans. 0 where a
    query can find nothing.
    """
    found = np.minimum(k, np.isfinite(scores).sum(1))  # [Q]
    highest = -np.partition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
    last = -np.sort(-highest, axis=1)[np.arange(len(scores)), np.maximum(found - 1, 0)][:, None]
    margin = _margin(scores)
    above = scores > last + margin
    tied = (scores >= last - margin) & ~above
    rest = (found - above.sum(1)) * (tied & wanted).sum(1) / tied.sum(1)
    return np.where(found > 0, ((above & wanted).sum(1) + rest) / np.maximum(found, 1), 0.0)


def reciprocal_of_first(above, tied, relevant) -> np.ndarray:
    """Expected 1 / rank of the first of `relevant` candidates in a tie, [Q]; see `Places`."""
    cases, case = np.unique(np.stack([above, tied, relevant]), axis=1, return_inverse=True)
    values = []
    for before, size, wanted in cases.T:
        offsets = np.arange(size - wanted + 2)
        missed = _all_missed(size, wanted, offsets)
        values.append((-np.diff(missed) / (before + offsets[1:])).sum())
    return np.array(values)[case.ravel()]


def _all_missed(n, m, drawn) -> np.ndarray:
    """Probability that `drawn` of n candidates, without replacement, are none of m."""
    from scipy.special import gammaln

    n, m, drawn = np.broadcast_arrays(n, m, drawn)
    possible = drawn <= n - m
    left = np.where(possible, n - m - drawn, 0)
    log = gammaln(n - m + 1) - gammaln(left + 1) - gammaln(n + 1) + gammaln(n - drawn + 1)
    return np.where(possible, np.exp(log), 0.0)


def _margin(scores: np.ndarray) -> np.ndarray:
    """[Q, 1] difference up to which scores [Q, N] count as equal."""
    size = np.where(np.isfinite(scores), np.abs(scores), 0).max(1, keepdims=True)
    return _TIE * size
