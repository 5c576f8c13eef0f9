"""Tables of a notebook: gains between models, hits and misses, differences of stages."""

# Shapes: D embedding size.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from .. import tables
from ..evaluation.results import EvaluationResult, format_families, paired_gain
from ..evaluation.tasks import RetrievalTask
from ..search.exact import search
from ..train.config import StageConfig

__all__ = ["differences", "error_table", "gains", "hit_and_miss", "leads_said", "markdown_table"]


def gains(
    results: Mapping[str, EvaluationResult],
    before: str,
    after: str,
    tasks: Sequence[RetrievalTask],
    metric: str = "recall@10",
) -> list[dict]:
    """Gain of one model over another by task, in single-modality pools.

    Returns rows of task, split, n, families (effective in brackets), both values, the paired gain
    with its 95 % interval (None if families are few), and `apart`: whether the second model's
    interval lies above the first's.
    """
    rows = []
    for task in tasks:
        names = (task.name, task.split, metric)
        old, new = results[before].score(*names), results[after].score(*names)
        gain, low, high = paired_gain(results[before], results[after], *names)
        row = {"task": task.name, "split": task.split, "n": new.n}
        row |= {"families": format_families(vars(new)), before: old.value}
        row |= {after: new.value, "gain": gain, "low": low, "high": high}
        rows.append(row | {"apart": new.low is not None and new.low > old.high})
    return rows


def leads_said(rows: Sequence[Mapping], before: str, after: str) -> str:
    """What `comparison` rows show of two models, for a figure's title.

    Only intervals that do not overlap count; tasks without intervals do not.

    >>> from types import SimpleNamespace as Score
    >>> rows = [{"base": Score(low=0.1, high=0.2), "stage 1": Score(low=0.3, high=0.4)},
    ...         {"base": Score(low=0.1, high=0.2), "stage 1": Score(low=0.1, high=0.3)}]
    >>> leads_said(rows, "base", "stage 1")
    'stage 1 above base in 1 of 2 tasks, below in 0 (intervals apart)'
    """
    pairs = [(row[before], row[after]) for row in rows]
    pairs = [(a, b) for a, b in pairs if a.low is not None and b.low is not None]
    above = sum(b.low > a.high for a, b in pairs)
    below = sum(b.high < a.low for a, b in pairs)
    return (
        f"{after} above {before} in {above} of {len(pairs)} tasks, below in {below} "
        "(intervals apart)"
    )


def error_table(rows: Sequence[Mapping], most: int = 10) -> str:
    """The first rows of `family_errors` as a Markdown table, shares in percent.

    One emoji or scene per line: the family, the task, how many queries, how many of them are
    answered by either model, and the queries that the second misses by most.
    """
    return markdown_table(
        [
            {"family": row["family"], "task": f"{row['task']}, {row['split']}", "n": row["n"],
             "before": f"{100 * row['before']:.0f} %", "after": f"{100 * row['after']:.0f} %",
             "missed": f"{row['missed']:.1f}", "worst queries": "; ".join(row["worst"])}
            for row in rows[:most]
        ]
    )  # fmt: skip


def hit_and_miss(
    task: RetrievalTask, vectors: Mapping[str, np.ndarray], k: int = 5
) -> tuple[list[dict], list[list[dict]], list[list[bool]]]:
    """The first query with a positive at rank 1 and the first with none among the best k.

    `vectors` {content id: [D]} from `embed_tasks`. Returns queries, their k results and which of
    these are positives, for `plots.plot_retrieved`; a case that does not occur is absent.
    """
    place = {identity: row for row, identity in enumerate(task.candidate_ids)}
    itself = [[place[name]] if name in place else [] for name in task.query_ids]
    sides = (task.query_ids, task.candidate_ids)
    query, candidate = (np.stack([vectors[name] for name in side]) for side in sides)
    found = search(query, candidate, k, itself)[1]  # [Q, K]
    hits = [np.isin(row, right) for row, right in zip(found, task.positives, strict=True)]
    rows = [next((q for q, hit in enumerate(hits) if hit[0]), None)]
    rows += [next((q for q, hit in enumerate(hits) if not hit.any()), None)]
    rows = [row for row in rows if row is not None]
    retrieved = [[task.candidates[index] for index in found[row] if index >= 0] for row in rows]
    return [task.queries[row] for row in rows], retrieved, [hits[row].tolist() for row in rows]


def differences(first: StageConfig, second: StageConfig) -> list[dict]:
    """Fields in which two stages differ, as rows of field, first and second value."""
    names = [field.name for field in fields(StageConfig)]
    return [
        {"field": name, "first": getattr(first, name), "second": getattr(second, name)}
        for name in names
        if getattr(first, name) != getattr(second, name)
    ]


def markdown_table(rows: Sequence[Mapping], names: Sequence[str] | None = None) -> str:
    """Rows as a Markdown table, floats to 3 digits; `names` replaces the columns' names.

    >>> print(markdown_table([{"model": "base", "recall": 0.1234}]))
    | model | recall |
    | --- | --- |
    | base | 0.123 |
    """
    return tables.markdown_table([list(row.values()) for row in rows], list(names or rows[0]))
