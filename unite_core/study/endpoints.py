"""A study's table as what the tests want: endpoints of every run, differences query by query."""

# Shapes: B blocks, Q queries of a task.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..evaluation.endpoints import ENDPOINTS, Endpoint
from ..evaluation.families import enough_families
from .rows import StudyTable
from .verdicts import Cell, QueryDifferences, endpoint_column

__all__ = ["STUDY_ENDPOINTS", "endpoint_rows", "endpoint_tasks_of", "query_differences"]


_STILL = ("text → image", "image → text", "image → image")
STUDY_ENDPOINTS = ENDPOINTS | {
    "still": Endpoint("still, bare", _STILL),
    "plain": ENDPOINTS["P1a"],
}
"""Endpoints of docs/study.md by name; all are recall@10."""


def endpoint_tasks_of(table: StudyTable, endpoint: str, split: str) -> dict[str, list[str]]:
    """Tasks of an endpoint that have enough families: {task: [Q] family of each query}.

    `split` may join several, as in "concept+development", whose queries are taken together.
    Nothing if no task has enough; tasks that the corpus does not have (shapes lack most) are
    left out, too. A corpus that has none of them gives all its tasks of the endpoint's kind.
    """
    parts, of = split.split("+"), STUDY_ENDPOINTS[endpoint]
    kinds = {(task["name"], task["split"]): task["kind"] for task in table.tasks}
    names = [task for task in of.tasks if any((task, part) in kinds for part in parts)]
    others = {name for (name, _), kind in kinds.items() if kind == of.kind and kind}
    families = {
        task: [label for part in parts for label in table.families(task, part)]
        for task in names or sorted(others)
        if all((task, part) in kinds for part in parts)
    }
    return {task: labels for task, labels in families.items() if enough_families(labels)}


def endpoint_rows(
    table: StudyTable, endpoints: Sequence[str], splits: Sequence[str]
) -> list[dict[str, Any]]:
    """One row for each run: run, arm, block, processor, and a field for each endpoint and score.

    Fields are named by `endpoint_column`: those of all scores that the run has. An endpoint
    without a task that has enough families is NaN.
    """
    known = ("run", "arm", "block", "processor")
    rows = [{name: run[name] for name in known} for run in table.runs]
    scores = sorted({(run, pool, score) for run, _, _, pool, score in table.hits})
    for endpoint in endpoints:
        pool = STUDY_ENDPOINTS[endpoint].pool
        for split in splits:
            tasks = endpoint_tasks_of(table, endpoint, split)
            for row in rows:
                for score in [s for run, p, s in scores if (run, p) == (row["run"], pool)]:
                    hits = [_hits(table, row["run"], task, split, pool, score) for task in tasks]
                    value = np.mean([of.mean() for of in hits]) if hits else np.nan
                    row[endpoint_column(split, endpoint, score)] = float(value)
    return rows


def query_differences(table: StudyTable) -> QueryDifferences:
    """The argument `queries` of `verdicts`."""
    run_of = {(run["arm"], run["block"]): run["run"] for run in table.runs}

    def differences(first: Cell, second: Cell, endpoint: str, split: str, blocks: tuple):
        pool = STUDY_ENDPOINTS[endpoint].pool
        families = endpoint_tasks_of(table, endpoint, split)
        sides = []
        for cell in (first, second):
            # the score that stands for it in the endpoint's pool
            score = endpoint_column(split, endpoint, cell.score).rpartition("/")[2]
            runs = [run_of[cell.arm, block] for block in blocks]
            sides.append({task: np.stack([_hits(table, run, task, split, pool, score)
                                          for run in runs]) for task in families})  # fmt: skip
        return {task: sides[0][task] - sides[1][task] for task in families}, families

    return differences


def _hits(table: StudyTable, run: str, task: str, split: str, pool: str, score: str) -> np.ndarray:
    """[Q] 0 or 1, of all parts of the split."""
    parts = [table.hits[run, task, part, pool, score] for part in split.split("+")]
    return np.concatenate(parts).astype(float)
