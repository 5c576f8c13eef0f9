"""Families of queries: how many there really are, and intervals that draw them across tasks.

Queries of one family (an emoji in all its tones) are right or wrong together, so families are what
an interval counts. A few large families weigh as much as their effective number says.
"""

# Shapes: Q queries of a task, T tasks, F families, R resamples.

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from .metrics import bootstrap_interval

__all__ = [
    "FEW_FAMILIES", "MINIMUM_FAMILIES", "effective_families", "enough_families", "family_interval",
    "joint_effective_families", "joint_family_bootstrap", "joint_family_draws", "macro",
    "macro_resamples",
]  # fmt: skip


MINIMUM_FAMILIES = 10
"""Below so many effective families there is no interval: one of nominally 95 % covers 88 % at 5."""
FEW_FAMILIES = 15
"""Below so many effective families an interval is shown with a warning."""


def effective_families(families: Sequence[str]) -> float:
    """Number of families of equal size that would be as informative: (sum n)^2 / sum n^2.

    `families` [Q] has the label of each query's family. From 1 to the number of families, which
    it reaches if all are of one size.

    >>> effective_families(["a", "a", "b", "b"]), effective_families(["a", "a", "a", "b"])
    (2.0, 1.6)
    """
    sizes = Counter(families).values()  # integers, so that ten equal families are exactly ten
    if not sizes:
        raise ValueError("no families: give a label for each query")
    return sum(sizes) ** 2 / sum(size**2 for size in sizes)


def enough_families(families: Sequence[str]) -> bool:
    """Whether queries of these families [Q] may have an interval, and be in an endpoint."""
    return effective_families(families) >= MINIMUM_FAMILIES


def family_interval(
    values: Sequence[float], families: Sequence[str], seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of the mean of `values` [Q] over `families` [Q]; None if they are too few."""
    if not enough_families(families):
        return None, None
    return bootstrap_interval(values, families, seed=seed)


def joint_effective_families(families_by_task: Mapping[str, Sequence[str]]) -> float:
    """Effective families behind a mean over tasks, in which every task has equal weight.

    1 / sum_f w_f^2,   w_f = mean over tasks of the share of a task's queries in family f
    """
    member, n_families = _members(families_by_task)
    shares = [np.bincount(rows, minlength=n_families) / len(rows) for rows in member.values()]
    return float(1 / (np.mean(shares, axis=0) ** 2).sum())


def macro(values_by_task: Mapping[str, Sequence[float]]) -> float:
    """Mean over tasks of the mean over a task's queries: every task counts the same.

    >>> macro({"first": [1, 1, 1, 1], "second": [0]})
    0.5
    """
    if not values_by_task:
        raise ValueError("no tasks to average over: name at least one with enough families")
    return float(np.mean([np.mean(values) for values in values_by_task.values()]))


def joint_family_draws(
    families_by_task: Mapping[str, Sequence[str]], n_resamples: int = 1000, seed: int = 0
) -> dict[str, np.ndarray]:
    """Draw families with replacement, once for all tasks: {task: [R, Q] how often a query counts}.

    Args
        families_by_task  {task: [Q] label of each query's family}; a label is the same family in
                          every task, and a family that is drawn brings its queries in all of them
    Each resample draws as many families as there are in any task.
    """
    member, n_families = _members(families_by_task)
    generator = np.random.default_rng(seed)
    draws = generator.integers(n_families, size=(n_resamples, n_families))
    rows = np.arange(n_resamples)[:, None] * n_families
    counts = np.bincount((draws + rows).ravel(), minlength=n_resamples * n_families)
    counts = counts.reshape(n_resamples, n_families)
    return {task: counts[:, families] for task, families in member.items()}


def joint_family_bootstrap(
    values_by_task: Mapping[str, Sequence[float]],
    families_by_task: Mapping[str, Sequence[str]],
    n_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """`macro` of some tasks with its percentile interval over families, drawn jointly.

    Args
        values_by_task    {task: [Q] one number per query}; for the gain of one model over
                          another, their differences
        families_by_task  {task: [Q]}, see `joint_family_draws`; other tasks in it are ignored
    Returns (value, low, high). A task of which a resample has no query is left out of that
    resample's mean. The interval is over families alone: another training run is not in it. It is
    given for any number of families; see MINIMUM_FAMILIES.

    >>> families = {"first": list("aabbcc"), "second": list("abc")}
    >>> joint_family_bootstrap({"first": [1, 1, 0, 0, 1, 0], "second": [1, 0, 0]}, families)
    (0.41666666666666663, 0.0, 1.0)
    """
    value = macro(values_by_task)
    means = macro_resamples(values_by_task, families_by_task, n_resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return value, float(low), float(high)


def macro_resamples(values_by_task, families_by_task, n_resamples=1000, seed=0) -> np.ndarray:
    """[R] `macro` of each resample of families; arguments as in `joint_family_bootstrap`."""
    for task, values in values_by_task.items():
        if np.shape(values) != np.shape(families_by_task[task]):
            raise ValueError(
                f"{task}: values {np.shape(values)} and families "
                f"{np.shape(families_by_task[task])} must both be [Q]"
            )
    families = {task: families_by_task[task] for task in values_by_task}
    means = []
    for task, counts in joint_family_draws(families, n_resamples, seed).items():
        total = counts.sum(1)  # [R]
        sums = counts @ np.asarray(values_by_task[task], float)
        means.append(np.where(total > 0, sums / np.maximum(total, 1), np.nan))
    return np.nanmean(means, axis=0)


def _members(families_by_task) -> tuple[dict[str, np.ndarray], int]:
    """{task: [Q] number of each query's family}, and how many families there are."""
    labels = sorted({label for families in families_by_task.values() for label in families})
    if not labels:
        raise ValueError("no families: give a label for each query")
    number = {label: place for place, label in enumerate(labels)}
    return {
        task: np.array([number[label] for label in families], dtype=np.int64)
        for task, families in families_by_task.items()
    }, len(labels)
