"""Tests and intervals for differences of trained runs, in blocks of seeds.

The unit of evidence is a trained run. Arms of a block share their start and the order of their
data, so arms are compared within blocks. Every block has a stage 1 of its own: blocks that share
one are not independent. How often all of this errs is measured in docs/study_simulation.md.
"""

# Shapes: B blocks, U independent units (blocks, or seeds of stage 1 that several share),
# Q queries of a task, R resamples; ... any leading dimensions.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import optimize, special, stats

from ..evaluation.families import joint_effective_families, joint_family_draws

__all__ = [
    "BlockDifferences", "Kind", "blind_deviation", "block_differences", "blocks_families_interval",
    "blocks_needed", "detectable_difference", "power", "t_interval", "t_test", "unit_means",
]  # fmt: skip

Kind = Literal["two-sided", "non-inferior", "equivalent"]


@dataclass(frozen=True)
class BlockDifferences:
    """Differences of two arms, block by block, in the unit of the endpoint."""

    values: np.ndarray
    """[B]"""
    blocks: tuple
    """[B] labels of the blocks, sorted."""


def block_differences(
    rows: Sequence[Mapping[str, Any]],
    first_arm: str,
    second_arm: str,
    endpoint: str,
    second_endpoint: str | None = None,
) -> BlockDifferences:
    """Subtract the second arm from the first in every block that has both.

    Args
        rows             one for each run, with its arm, block, endpoints
        endpoint         name of the field that is compared
        second_endpoint  that of the second arm, where it differs: another search-time score
    ValueError naming the arm and block that has two runs.
    """
    first = _by_block(rows, first_arm)
    second = _by_block(rows, second_arm)
    blocks = tuple(sorted(first.keys() & second.keys()))
    other = second_endpoint or endpoint
    values = [float(first[b][endpoint]) - float(second[b][other]) for b in blocks]
    return BlockDifferences(np.array(values), blocks)


def unit_means(values: np.ndarray, units: Sequence) -> np.ndarray:
    """Average [..., B] over the blocks of each unit: [..., U], in the order of first appearance.

    >>> unit_means(np.array([1.0, 5.0, 3.0]), ["a", "b", "a"])
    array([2., 5.])
    """
    labels = list(dict.fromkeys(units))
    member = np.array([labels.index(unit) for unit in units], dtype=int)
    weights = (member[:, None] == np.arange(len(labels))) * 1.0  # [B, U]
    return np.asarray(values, float) @ (weights / weights.sum(0))


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean of [..., U] independent differences: low and high [...].

    NaN for a single difference.
    """
    mean, error, df = _mean_and_error(values)
    reach = _quantile(df, level) * error
    return mean - reach, mean + reach


def t_test(values: np.ndarray, kind: Kind = "two-sided", margin: float = 0.0) -> np.ndarray:
    """p-values [...] of the mean of [..., U] independent differences, by Student's t.

    Args
        kind    two-sided: the mean is not 0; non-inferior: it is above -margin (one-sided);
                equivalent: it lies within ±margin (the larger p of two one-sided tests)
        margin  > 0 for the latter two
    Returns NaN for a single difference, and for equal differences other than 0, whose spread is
    too small to be seen. Differences that are all 0 are equal by construction: p is 1 for a
    difference and 0 for its absence.
    """
    if (margin > 0) == (kind == "two-sided"):
        raise ValueError(f"margin {margin} for a {kind} test: give one > 0 for the others alone")
    mean, error, df = _mean_and_error(values)
    if kind == "two-sided":
        p = 2 * special.stdtr(df, -np.abs(_ratio(mean, error)))
        return np.where((error == 0) & (mean == 0), 1.0, p)
    p = special.stdtr(df, -_ratio(mean + margin, error))
    if kind == "equivalent":
        p = np.maximum(p, special.stdtr(df, _ratio(mean - margin, error)))
    return np.where((error == 0) & (mean == 0), 0.0, p)


def power(
    difference: float, n: int, deviation: float, level: float = 0.05, two_sided: bool = True
) -> float:
    """Probability that `t_test` of n differences is below `level`, by the noncentral t.

    Args
        difference  true mean; for a one-sided test its distance from the margin
        deviation   standard deviation of single differences, in the same unit, > 0
    """
    shift = difference / deviation * n**0.5
    critical = stats.t.ppf(1 - level / (1 + two_sided), n - 1)
    upper = stats.nct.sf(critical, n - 1, shift)
    # scipy has NaN for the other tail where it is below 1e-15
    lower = np.nan_to_num(stats.nct.cdf(-critical, n - 1, shift)) if two_sided else 0.0
    return float(upper + lower)


def detectable_difference(
    n: int,
    deviation: float,
    level: float = 0.05,
    wanted: float = 0.8,
    two_sided: bool = True,
) -> float:
    """Smallest true difference that n blocks show with a power of `wanted`; NaN for n < 2.

    With a deviation of 2 points, six blocks show 2.9 points at 5 %:

    >>> round(detectable_difference(6, 2.0), 2), round(detectable_difference(6, 2.0, 0.05 / 6), 2)
    (2.87, 4.39)
    """
    if n < 2 or not np.isfinite(deviation):
        return float("nan")
    if deviation == 0:
        return 0.0
    most = deviation
    while power(most, n, deviation, level, two_sided) < wanted:
        most *= 2
    return float(
        optimize.brentq(lambda d: power(d, n, deviation, level, two_sided) - wanted, 0, most)
    )


def blind_deviation(differences: Sequence[np.ndarray]) -> float:
    """Standard deviation of block differences, pooled over contrasts, without their means.

    Args: differences, one [B >= 2] for each contrast. The root of the mean of their variances, so
    that nothing about a direction is learnt from it.
    """
    if not differences or min(map(len, differences)) < 2:
        raise ValueError("a deviation needs two blocks of every contrast: run another block")
    return float(np.sqrt(np.mean([np.var(values, ddof=1) for values in differences])))


def blocks_needed(
    deviation: float, planned: int = 6, more: int = 10, limit: float = 0.025
) -> int:  # fmt: skip
    """Number of blocks by the written rule: `more` if the blind deviation is above `limit`."""
    return more if deviation > limit else planned


def blocks_families_interval(
    differences: Mapping[str, np.ndarray],
    families_by_task: Mapping[str, Sequence[str]],
    units: Sequence | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over tasks with an interval for other blocks and other families of queries.

    Families are drawn with replacement, jointly across tasks and blocks; the variance of the
    endpoint over these draws is added to that of its mean over blocks. The interval is
    mean ± t · root of the sum, with Satterthwaite's degrees of freedom: percentiles of draws of
    blocks and families cover too little where few blocks differ. Families count as many as are
    effective (`joint_effective_families`). What is random in single queries is in both parts, so
    the interval is wide rather than narrow.

    Args
        differences       {task: [..., B, Q]} of the two arms, query by query
        families_by_task  {task: [Q] labels}; a label is the same family in every task
        units             [B] seed of stage 1; blocks of one are averaged. None: all differ
    Returns effect, low and high [...]; NaN for the latter two with a single unit.
    """
    tasks = {name: np.asarray(values, float) for name, values in differences.items()}
    by_block = np.mean([values.mean(-1) for values in tasks.values()], axis=0)  # [..., B]
    by_unit = unit_means(by_block, units if units is not None else range(by_block.shape[-1]))
    mean, error, df = _mean_and_error(by_unit)
    families = {name: families_by_task[name] for name in tasks}
    resampled = []
    for name, counts in joint_family_draws(families, n_resamples, seed).items():
        total = counts.sum(1)
        shares = np.where(total > 0, 1 / np.maximum(total, 1), np.nan)[:, None] * counts  # [R, Q]
        resampled.append(tasks[name].mean(-2) @ shares.T)  # [..., R]
    effective = joint_effective_families(families)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.nanmean(resampled, axis=0).var(-1, ddof=1)
        family_part = spread * np.divide(effective, effective - 1)
        variance = error**2 + family_part
        df = variance**2 / (error**4 / df + family_part**2 / (effective - 1))
    reach = np.where(variance == 0, 0.0, _quantile(df, level) * np.sqrt(variance))
    return mean, mean - reach, mean + reach


def _by_block(rows, arm: str) -> dict[Any, Mapping[str, Any]]:
    found: dict[Any, Mapping[str, Any]] = {}
    for row in rows:
        if row["arm"] != arm:
            continue
        if row["block"] in found:
            raise ValueError(
                f"arm {arm!r} has two rows of block {row['block']}: give those of one size "
                "and setting"
            )
        found[row["block"]] = row
    return found


def _mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean [...] of [..., U], its standard error (NaN for U = 1), degrees of freedom."""
    values = np.asarray(values, float)
    n = values.shape[-1]
    mean = values.mean(-1) if n else np.full(values.shape[:-1], np.nan)
    if n < 2:
        return mean, np.full_like(mean, np.nan), 0
    spread = values.std(-1, ddof=1)
    # equal numbers have a spread of some last bits
    spread = np.where(spread > 1e-12 * np.abs(values).max(-1), spread, 0.0)
    return mean, spread / n**0.5, n - 1


def _ratio(difference: np.ndarray, error: np.ndarray) -> np.ndarray:
    return np.divide(
        difference, error, out=np.full(np.shape(error), np.nan), where=np.asarray(error) > 0
    )


def _quantile(df, level: float):
    with np.errstate(invalid="ignore"):
        return stats.t.ppf((1 + level) / 2, np.where(np.asarray(df) > 0, df, np.nan))
