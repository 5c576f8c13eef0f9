"""Errors by family: which concepts a model loses, and by which queries."""

# Shapes: Q queries of a task.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.items import images_of, videos_of
from ..data.shown import item_text
from .results import EvaluationResult
from .tasks import RetrievalTask

__all__ = ["family_errors"]


def family_errors(
    tasks: Sequence[RetrievalTask],
    before: EvaluationResult,
    after: EvaluationResult,
    metric: str = "recall@10",
    pool: str = "single",
    worst: int = 3,
) -> list[dict]:
    """List every family of every task, those with the most misses of the second model first.

    Args
        before, after  results of two models on these tasks
        worst          most queries named in a row
    Returns
        rows of family, task, split, n, before and after (means of the metric over the family's
        queries), missed (of the second model, n minus the sum of the metric) and worst: the
        queries whose answer is not all found, by the rank of their answer (MRR), worst first, as
        their text or the name of their file. Equal rows are in the order of tasks and families.
    ValueError if the two results are of different tasks.
    """
    if before.tasks_hash != after.tasks_hash:
        raise ValueError("the results are of different tasks: evaluate both on the same task file")
    rows = []
    for task in tasks:
        old, new, rank = (
            np.array(result.score(task.name, task.split, name, pool).per_query)
            for result, name in ((before, metric), (after, metric), (after, "mrr"))
        )
        families = np.array(task.families)
        for family in sorted(set(task.families)):
            own = np.flatnonzero(families == family)
            lost = own[new[own] < 1]
            lost = lost[np.argsort(rank[lost], kind="stable")][:worst]
            rows.append(
                {"family": family, "task": task.name, "split": task.split, "n": len(own),
                 "before": float(old[own].mean()), "after": float(new[own].mean()),
                 "missed": float(len(own) - new[own].sum()),
                 "worst": [_named(task.queries[row]) for row in lost]}
            )  # fmt: skip
    return sorted(rows, key=lambda row: -row["missed"])


def _named(item: dict) -> str:
    """Text of an item without its media's places, and the names of its files."""
    files = [str(medium) for medium in (*images_of(item), *videos_of(item))]
    return ", ".join(filter(None, [*(file.rsplit("/", 1)[-1] for file in files), item_text(item)]))
