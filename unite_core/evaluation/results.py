"""Scores of a model on retrieval tasks: kept per query, saved to JSON, compared between models."""

# Shapes: Q queries.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import from_row, read_json, write_json
from ..tables import text_table
from .families import FEW_FAMILIES, MINIMUM_FAMILIES, effective_families, family_interval
from .metrics import chance_value

if TYPE_CHECKING:
    from .tasks import RetrievalTask

__all__ = [
    "EvaluationResult", "FAMILIES_NOTE", "Score", "comparison", "format_families", "format_table",
    "load_results", "paired_gain", "percent", "result_from", "save_results", "score_of",
    "single_score",
]  # fmt: skip


FAMILIES_NOTE = (
    f"families (effective); ! below {FEW_FAMILIES} effective an interval is too narrow, "
    f"below {MINIMUM_FAMILIES} there is none"
)
"""Explains `format_families` below a table."""


@dataclass(frozen=True)
class Score:
    """One metric of one task in one pool: mean over queries, 95 % interval and chance level.

    low, high   None below 10 effective families, whose interval would be too narrow
    n           number of queries
    candidates  distinct items in the pool
    families, effective_families
                of the queries, see `families.effective_families`
    per_query   [n] values, needed for paired tests
    """

    task: str
    split: str
    pool: str
    metric: str
    value: float
    low: float | None
    high: float | None
    chance: float
    n: int
    candidates: int
    families: int
    effective_families: float
    per_query: list[float] = field(repr=False)


@dataclass(frozen=True)
class EvaluationResult:
    """All scores of one model, with what is needed to repeat or compare them.

    families    {split: {task: [n] family of each query}}
    tasks_hash  of the tasks' contents; two results are comparable only if it agrees
    embedder    the embedder's configuration: prompt, pixel and frame limits, positions
    seed        of the bootstrap
    """

    scores: list[Score]
    families: dict[str, dict[str, list[str]]]
    tasks_hash: str
    embedder: dict
    seed: int

    def score(self, task: str, split: str, metric="recall@10", pool="single") -> Score:
        """Look up one score; ValueError if there is none."""
        for score in self.scores:
            if (score.task, score.split, score.metric, score.pool) == (task, split, metric, pool):
                return score
        known = sorted({f"{score.task} / {score.split}" for score in self.scores})
        raise ValueError(
            f"no {metric} of {task} / {split} in the {pool} pool; tasks are {', '.join(known)}"
        )

    def rows(self) -> list[dict]:
        """The scores as flat dictionaries, without the values per query."""
        names = [field.name for field in fields(Score) if field.name != "per_query"]
        return [{name: getattr(score, name) for name in names} for score in self.scores]


def save_results(path: str | Path, result: EvaluationResult) -> None:
    """Write a result, values per query included, to one JSON file, atomically."""
    write_json(path, asdict(result))


def load_results(path: str | Path) -> EvaluationResult:
    """Read a file of `save_results`; ValueError names a missing or unknown field."""
    return result_from(read_json(path), str(path))


def result_from(row, where: str) -> EvaluationResult:
    """Build a result from its JSON object; ValueError names `where` and the field that is wrong."""
    result = from_row(EvaluationResult, row, where)
    scores = [from_row(Score, row, f"{where}, score {n}") for n, row in enumerate(result.scores, 1)]
    return replace(result, scores=scores)


def comparison(
    results: Mapping[str, EvaluationResult], metric: str = "recall@10", pool: str = "single"
) -> list[dict]:
    """Put models side by side: one row per task and split.

    Args
        results  {column name, such as "stage 1": result on the same tasks}
    Returns
        rows of task, split, n, candidates, families, effective_families, chance, and the `Score`
        of each model by column name.
    ValueError for results on different tasks, an unknown metric or an unknown pool.
    """
    first = next(iter(results.values()))
    for name, result in results.items():
        _check_same_tasks(first, result, name)
    columns = [
        [score for score in result.scores if (score.metric, score.pool) == (metric, pool)]
        for result in results.values()
    ]
    if not columns[0]:
        known = sorted({f"{score.metric} ({score.pool})" for score in first.scores})
        raise ValueError(f"no {metric} in the {pool} pool; there are {', '.join(known)}")
    shared = ("task", "split", "n", "candidates", "families", "effective_families", "chance")
    return [
        {name: getattr(scores[0], name) for name in shared}
        | dict(zip(results, scores, strict=True))
        for scores in zip(*columns, strict=True)
    ]


def format_table(
    results: Mapping[str, EvaluationResult], metric: str = "recall@10", pool: str = "single"
) -> str:
    """Print the comparison as text, in percent, each value with its 95 % interval."""
    rows = [
        [row["task"], row["split"], row["n"], format_families(row), row["candidates"],
         f"{100 * row['chance']:.1f}"]
        + [percent(row[name].value, row[name].low, row[name].high) for name in results]
        for row in comparison(results, metric, pool)
    ]  # fmt: skip
    title = f"{metric}, {pool} pool, in percent [95 % interval over families]"
    head = ["task", "split", "n", "families", "pool", "chance", *results]
    return f"{title}\n{text_table(rows, head, left=2)}\n{FAMILIES_NOTE}"


def format_families(row: Mapping) -> str:
    """Families of a row, effective ones in brackets, with a mark if these are few.

    >>> format_families({"families": 27, "effective_families": 10.26})
    '27 (10.3) !'
    """
    mark = " !" if row["effective_families"] < FEW_FAMILIES else ""
    return f"{row['families']} ({row['effective_families']:.1f}){mark}"


def paired_gain(
    first: EvaluationResult,
    second: EvaluationResult,
    task: str,
    split: str,
    metric: str = "recall@10",
    pool: str = "single",
) -> tuple[float, float | None, float | None]:
    """Mean gain of the second model over the first on one task: (gain, low, high), 95 %.

    low and high are None below 10 effective families.
    """
    _check_same_tasks(first, second, "the second")
    before, after = (result.score(task, split, metric, pool) for result in (first, second))
    gain = np.subtract(after.per_query, before.per_query)
    return float(gain.mean()), *family_interval(gain, first.families[split][task], first.seed)


def _check_same_tasks(first: EvaluationResult, other: EvaluationResult, name: str) -> None:
    if first.tasks_hash != other.tasks_hash:
        raise ValueError(
            f"{name} result is of other tasks (hash {other.tasks_hash[:12]}, not "
            f"{first.tasks_hash[:12]}); evaluate both models on the same task file"
        )


def percent(value: float, low: float | None, high: float | None, sign: str = "") -> str:
    """A share with its interval in percent: "52.3 [48.0, 56.1]"; `sign` "+" for differences.

    Without an interval (few families): "52.3".
    """
    if low is None:
        return f"{100 * value:{sign}.1f}"
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def score_of(task: RetrievalTask, pool: str, metric: str, values: np.ndarray, chance: np.ndarray,
             candidates: int, seed: int) -> Score:  # fmt: skip
    """Score of one metric from its values [Q] and chance levels [Q] by query."""
    return _score(task.name, task.split, pool, metric, values, task.families, chance,
                  candidates, seed)  # fmt: skip


def single_score(task: str, split: str, metric: str, values: np.ndarray, families: Sequence[str],
                 pools: Sequence[tuple[int, int]], seed: int) -> Score:  # fmt: skip
    """Score of one metric where every query has its own pool of candidates.

    Args
        values  [Q] the metric of each query
        pools   [Q] (candidates that the query chooses among, positives among them)
    """
    sizes, positives = np.asarray(pools).T
    chance = chance_value(metric, sizes, positives)
    return _score(task, split, "single", metric, values, families, chance, sizes.max(), seed)


def _score(task, split, pool, metric, values, families, chance, candidates, seed) -> Score:
    low, high = family_interval(values, families, seed)
    return Score(
        task, split, pool, metric, float(np.mean(values)), low, high, float(np.mean(chance)),
        len(values), int(candidates), len(set(families)), effective_families(families),
        np.asarray(values).tolist(),
    )  # fmt: skip
