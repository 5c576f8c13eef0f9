"""Paired permutation tests between two models on the same queries, over families.

An interval of the gain says how large it may be; the test says how often two models that do not
differ would show a gain as large. Both count the queries of one family as one observation.
"""

# Shapes: Q queries, G families, T tasks.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .results import EvaluationResult, paired_gain

__all__ = ["compare_models", "holm", "paired_permutation"]


_FLIPS_IN_MEMORY = 1 << 22


def paired_permutation(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence,
    n_resamples: int = 9999,
    seed: int = 0,
) -> tuple[float, float]:
    """Test whether `second` differs from `first`: mean gain and two-sided p-value.

        gain = sum_g s_g / Q,   s_g = sum of (second - first) in family g;
        under the null the sign of every s_g is a fair coin

    Args
        first, second  [Q] one metric of the two models on the same queries
        groups         [Q] label of each query's family, whose queries swap models together
        n_resamples    random sign patterns; all 2^G if there are no more than these
    Returns
        (gain, p in (0, 1]). With few families p cannot be small: six families that all agree
        give 2 / 2^6 = .03. Families without a difference carry no evidence and are left out.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    groups = np.asarray(groups)
    if first.ndim != 1 or not first.shape == second.shape == groups.shape:
        raise ValueError(
            f"first {first.shape}, second {second.shape} and groups {groups.shape} must be [Q]: "
            "give the same queries in the same order"
        )
    if len(first) == 0 or not np.isfinite(first - second).all():
        raise ValueError("values must be finite numbers, at least one: evaluate both models anew")
    member = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(member, weights=second - first)  # [G]
    sums = sums[np.abs(sums) > 1e-12]
    gain = float((second - first).mean())
    # with one sum or none, every sign pattern is as far from 0
    return gain, 1.0 if len(sums) < 2 else _sign_flip_p(sums, n_resamples, seed)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-Bonferroni adjusted p-values, in the given order.

    Rejecting where the adjusted value is below .05 keeps the probability of any false rejection
    among the T tests at 5 % at most, however the tests depend on each other.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()


def compare_models(
    first: EvaluationResult,
    second: EvaluationResult,
    metric: str = "recall@10",
    pool: str = "single",
    n_resamples: int = 9999,
) -> list[dict]:
    """Compare two models on all tasks that have the metric.

    Returns rows of task, split, n, families, effective_families, first, second, gain, low, high
    (None below 10 effective families), p, and p_holm, adjusted over these tasks. ValueError
    if the two results are of different tasks.
    """
    rows = []
    for score in first.scores:
        if (score.metric, score.pool) != (metric, pool):
            continue
        names = (score.task, score.split, metric, pool)
        gain, low, high = paired_gain(first, second, *names)
        other = second.score(*names)
        families = first.families[score.split][score.task]
        _, p = paired_permutation(
            score.per_query, other.per_query, families, n_resamples, first.seed
        )
        row = {"task": score.task, "split": score.split, "n": score.n}
        row |= {"families": score.families, "effective_families": score.effective_families}
        row |= {"first": score.value, "second": other.value}
        rows.append(row | {"gain": gain, "low": low, "high": high, "p": p})
    if not rows:
        raise ValueError(f"no task has {metric} in the {pool} pool; see the results' rows()")
    adjusted = holm([row["p"] for row in rows])
    return [row | {"p_holm": value} for row, value in zip(rows, adjusted, strict=True)]


def _sign_flip_p(sums: np.ndarray, n_resamples: int, seed: int) -> float:
    from scipy.stats import permutation_test

    done = permutation_test(
        (sums,),
        lambda sample, axis: sample.sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_resamples,
        batch=max(1, _FLIPS_IN_MEMORY // len(sums)),
        random_state=np.random.default_rng(seed),
    )
    return float(min(done.pvalue, 1.0))
