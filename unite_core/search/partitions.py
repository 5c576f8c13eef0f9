"""Log partitions of large groups, estimated from the best candidates and a uniform sample.

Z = sum of exp(s / t) over a group is, for the candidates F that a search found, the exact sum over
F plus that over the rest. The rest is estimated by the mean over a uniform sample of it, times its
size: without bias, whatever the search missed. Two facts bound it:

* no candidate of the rest scores above the lowest in F, if the search missed none: Z is at most the
  sum over F plus |rest| exp(lowest / t);
* for values in [0, 1] the mean of R independent draws is off by at most
  sqrt(2 V log(4 / a) / R) + 7 log(4 / a) / (3 (R - 1)), V their sample variance, with probability
  1 - a at least (empirical Bernstein bound, Maurer & Pontil 2009, arXiv 0907.3740, theorem 4, on
  both sides).
"""

# Shapes: Q queries, K candidates found, R distinct candidates of a sample.

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .factorised import log_sum_exp

__all__ = ["LogPartition", "estimate_log_partition"]


class LogPartition(NamedTuple):
    """Log partition of one group for each query, with an interval."""

    value: np.ndarray  # [Q] log Z, or its estimate
    low: np.ndarray  # [Q] log Z is at least this, and
    high: np.ndarray  # [Q] at most this, as `estimate_log_partition` says
    standard_error: np.ndarray  # [Q] of `value` by sampling, to first order; 0 where it is exact

    @classmethod
    def exact(cls, value: np.ndarray) -> LogPartition:
        """A log partition that was summed over all candidates."""
        return cls(value, value, value, np.zeros_like(value))


def estimate_log_partition(
    found: np.ndarray,
    sampled: np.ndarray,
    weights: np.ndarray,
    rest: np.ndarray,
    temperature: float,
    level: float = 0.95,
) -> LogPartition:
    """Estimate log Z of a group from the candidates that a search found and a sample of the rest.

    Args
        found    [Q, K]  scores of distinct candidates, the best as far as the search knows; -inf
                 for padding
        sampled  [Q, R]  scores of the distinct candidates that a uniform sample with replacement
                 drew, independently of the queries
        weights  [Q, R]  how often each was drawn; 0 for one that does not count: found, or hidden
        rest     [Q]     number of candidates that are neither found nor hidden
        level    probability of the interval, for each query by itself, over draws of the sample
    Returns
        the estimate with [low, high]. `low` holds without any condition wherever it is the sum of
        what was seen. Else the interval holds with probability `level` at least, provided that no
        candidate that was neither found nor sampled scores above both the lowest found and the
        best sampled: always if the search is exact.

    >>> found, sampled = np.log([[4.0, 2.0]]), np.log([[1.0, 0.5]])
    >>> estimate = estimate_log_partition(found, sampled, np.ones((1, 2)), np.array([8]), 1.0)
    >>> np.exp(estimate.value), np.exp(estimate.high)  # 6 + 8 * 0.75, and at most 6 + 8 * 2
    (array([12.]), array([22.]))
    """
    found, sampled = (np.asarray(part, np.float64) / temperature for part in (found, sampled))
    rest, weights = np.asarray(rest, np.float64), np.asarray(weights, np.float64)
    drawn = np.where(weights > 0, sampled, -np.inf)
    lowest = np.where(np.isfinite(found), found, np.inf).min(1, initial=np.inf)
    best = drawn.max(1, initial=-np.inf)
    top = np.maximum(np.where(np.isfinite(lowest), lowest, -np.inf), best)  # bound of the rest
    top = np.where(np.isfinite(top), top, 0)
    seen = np.logaddexp(log_sum_exp(found.copy()), log_sum_exp(drawn.copy()))
    of_found = log_sum_exp(found)
    mean, error, spread = _mean_and_bound(np.exp(drawn - top[:, None]), weights, level)
    with np.errstate(divide="ignore"):
        log_rest = np.log(rest) + top
        value, high = (
            np.logaddexp(of_found, log_rest + np.log(share))
            for share in (mean, np.minimum(mean + error, 1))
        )
        low = np.logaddexp(of_found, log_rest + np.log(np.maximum(mean - error, 0)))
        error = np.exp(log_rest + np.log(spread) - np.where(np.isfinite(value), value, 0))
    low, high = np.maximum(low, seen), np.maximum(high, seen)
    return LogPartition(np.maximum(value, seen), low, high, error)


def _mean_and_bound(values, weights, level) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of weighted values [Q, R] in [0, 1], the bound of its error, its standard error.

    Without a draw nothing is known: .5, off by .5 at most.
    """
    count = weights.sum(1)
    draws = np.maximum(count, 1)
    mean = np.where(count > 0, (weights * values).sum(1) / draws, 0.5)
    squares = (weights * (values - mean[:, None]) ** 2).sum(1)
    variance = squares / np.maximum(count - 1, 1)
    tail = np.log(4 / (1 - level))
    error = np.sqrt(2 * variance * tail / draws) + 7 * tail / (3 * np.maximum(count - 1, 1))
    enough = count > 1
    return mean, np.where(enough, error, 1.0), np.where(enough, np.sqrt(variance / draws), 0.5)
