"""TODO."""

# Shapes: Q queries, N candidates, D embedding size, K results.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from ..evaluation.results import EvaluationResult, paired_gain
from ..evaluation.tasks import RetrievalTask
from ..search.exact import search
from ..train.config import StageConfig

__all__ = ["differences", "gains", "hit_and_miss", "markdown_table"]


def gains(
    results: Mapping[str, EvaluationResult],
    before: str,
    after: str,
    tasks: Sequence[RetrievalTask],
    metric: str = "recall@10",
) -> list[dict]:
    """How far one model is above another, task by task, in their single pools.

    Returns rows of task, split, n, both values, the paired gain with its 95 % interval, and
    `apart`: whether the two models' own intervals do not overlap and the second is above.
    """
    rows = []
    for task in tasks:
        names = (task.name, task.split, metric)
        old, new = results[before].score(*names), results[after].score(*names)
        gain, low, high = paired_gain(results[before], results[after], *names)
        row = {"task": task.name, "split": task.split, "n": new.n, before: old.value}
        row |= {after: new.value, "gain": gain, "low": low, "high": high}
        rows.append(row | {"apart": new.low > old.high})
    return rows


def hit_and_miss(
    task: RetrievalTask, vectors: Mapping[str, np.ndarray], k: int = 5
) -> tuple[list[dict], list[list[dict]], list[list[bool]]]:
    """The task's first query answered at rank 1 and its first with no answer among the best k.

    `vectors` {content id: [D]} as `embed_tasks` gives. Returns queries, their k results each, and
    which of these are right, as `plots.plot_retrieved` takes them; what does not occur is left out.
    """
    place = {identity: row for row, identity in enumerate(task.candidate_ids)}
    itself = [[place[one]] if one in place else [] for one in task.query_ids]
    sides = (task.query_ids, task.candidate_ids)
    query, candidate = (np.stack([vectors[one] for one in side]) for side in sides)
    found = search(query, candidate, k, itself)[1]  # [Q, K]
    hits = [np.isin(row, right) for row, right in zip(found, task.positives, strict=True)]
    rows = [next((q for q, hit in enumerate(hits) if hit[0]), None)]
    rows += [next((q for q, hit in enumerate(hits) if not hit.any()), None)]
    rows = [row for row in rows if row is not None]
    retrieved = [[task.candidates[index] for index in found[row] if index >= 0] for row in rows]
    return [task.queries[row] for row in rows], retrieved, [hits[row].tolist() for row in rows]


def differences(first: StageConfig, second: StageConfig) -> list[dict]:
    """The fields in which two stages differ, as rows of a table."""
    pairs = [(each.name, getattr(first, each.name), getattr(second, each.name))
             for each in fields(StageConfig)]  # fmt: skip
    return [dict(zip(("field", "first", "second"), row, strict=True))
            for row in pairs if row[1] != row[2]]  # fmt: skip


def markdown_table(rows: Sequence[Mapping], names: Sequence[str] | None = None) -> str:
    """Rows as a Markdown table, floats to 3 digits; `names` replaces the columns' names."""
    lines = [list(names or rows[0]), ["---"] * len(rows[0])]
    lines += [[_cell(value) for value in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
