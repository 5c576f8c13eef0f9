"""Means over tasks with intervals over families, plain, asked and instructed tasks apart."""

# Shapes: Q queries of a task.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..tables import text_table
from .families import (
    MINIMUM_FAMILIES,
    enough_families,
    joint_effective_families,
    joint_family_bootstrap,
    macro,
)
from .results import FAMILIES_NOTE, EvaluationResult, format_families, percent
from .tasks import RetrievalTask

__all__ = ["Mean", "format_means", "mean_gains", "mean_rows"]


@dataclass(frozen=True)
class Mean:
    """Mean over tasks, each with equal weight; low and high None if families are too few."""

    value: float
    low: float | None
    high: float | None


def mean_rows(
    results: Mapping[str, EvaluationResult],
    tasks: Sequence[RetrievalTask],
    metric: str = "recall@10",
    pool: str = "single",
) -> list[dict]:
    """Average models over the tasks of each split and kind.

    Args
        results  {column name: result on these tasks, or on more}
    Returns
        rows of split, kind, tasks (how many), left_out (names of those with too few families for
        an interval), families, effective_families, and the `Mean` of each model by column name.
        If no task of a row has enough families, its mean is over all of them, without an interval.
        A family that is drawn brings its queries in all tasks (`joint_family_bootstrap`).
    """
    rows = []
    for (split, kind), kept, left_out in _groups(tasks):
        families = {task.name: task.families for task in kept}
        row = _described(split, kind, families, left_out)
        for name, result in results.items():
            values = {task: result.score(task, split, metric, pool).per_query for task in families}
            row[name] = _mean(values, families, result.seed)
        rows.append(row)
    return rows


def mean_gains(
    first: EvaluationResult,
    second: EvaluationResult,
    tasks: Sequence[RetrievalTask],
    metric: str = "recall@10",
    pool: str = "single",
) -> list[dict]:
    """Mean gain of the second model over the first: the rows of `mean_rows` with gain, low, high.

    ValueError if the two results are of different tasks.
    """
    if first.tasks_hash != second.tasks_hash:
        raise ValueError("the results are of different tasks: evaluate both on the same task file")
    rows = []
    for (split, kind), kept, left_out in _groups(tasks):
        families = {task.name: task.families for task in kept}
        gains = {}
        for task in families:
            before, after = (r.score(task, split, metric, pool).per_query for r in (first, second))
            gains[task] = np.subtract(after, before)
        found = _mean(gains, families, first.seed)
        row = _described(split, kind, families, left_out)
        rows.append(row | {"gain": found.value, "low": found.low, "high": found.high})
    return rows


def format_means(
    results: Mapping[str, EvaluationResult],
    tasks: Sequence[RetrievalTask],
    metric: str = "recall@10",
    pool: str = "single",
) -> str:
    """Print `mean_rows` as text, in percent, each mean with its 95 % interval."""
    rows = mean_rows(results, tasks, metric, pool)
    lines = [
        [row["split"], row["kind"] or "not said", row["tasks"], format_families(row)]
        + [percent(row[name].value, row[name].low, row[name].high) for name in results]
        for row in rows
    ]
    left_out = dict.fromkeys(f"{row['split']}: {name}" for row in rows for name in row["left_out"])
    notes = [FAMILIES_NOTE]
    if left_out:
        notes.append("not in a mean, families being too few: " + "; ".join(left_out))
    title = f"{metric}, {pool} pool, mean over tasks in percent [95 % interval over families]"
    table = text_table(lines, ["split", "kind", "tasks", "families", *results], left=2)
    return "\n".join([title, table, *notes])


def _groups(tasks: Sequence[RetrievalTask]):
    """((split, kind), tasks of the mean, names of those left out) in the order of the tasks."""
    for split, kind in dict.fromkeys((task.split, task.kind) for task in tasks):
        group = [task for task in tasks if (task.split, task.kind) == (split, kind)]
        kept = [task for task in group if enough_families(task.families)] or group
        yield (split, kind), kept, [task.name for task in group if task not in kept]


def _described(split: str, kind: str, families: Mapping, left_out: list[str]) -> dict:
    distinct = {label for labels in families.values() for label in labels}
    return {
        "split": split, "kind": kind, "tasks": len(families), "left_out": left_out,
        "families": len(distinct), "effective_families": joint_effective_families(families),
    }  # fmt: skip


def _mean(values: Mapping, families: Mapping, seed: int) -> Mean:
    few = not all(map(enough_families, families.values()))
    if few or joint_effective_families(families) < MINIMUM_FAMILIES:
        return Mean(macro(values), None, None)
    return Mean(*joint_family_bootstrap(values, families, seed=seed))
