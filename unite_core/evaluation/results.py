"""Scores of a model on retrieval tasks: kept per query, saved to JSON, compared between models."""

# Shapes: Q queries.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from ..files import from_row, read_json, write_json
from ..tables import text_table
from .metrics import bootstrap_interval, chance_value, paired_interval

__all__ = [
    "EvaluationResult", "Score", "comparison", "format_table", "load_results", "paired_gain",
    "percent", "result_from", "save_results", "single_score",
]  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One metric of one task in one pool: mean over queries, 95 % interval and chance level.

    n           number of queries
    candidates  distinct items in the pool
    per_query   [n] values, needed for paired tests
    """

    task: str
    split: str
    pool: str
    metric: str
    value: float
    low: float
    high: float
    chance: float
    n: int
    candidates: int
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
        rows of task, split, n, candidates, chance, and the `Score` of each model by column name.
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
    shared = ("task", "split", "n", "candidates", "chance")
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
        [row["task"], row["split"], row["n"], row["candidates"], f"{100 * row['chance']:.1f}"]
        + [percent(row[name].value, row[name].low, row[name].high) for name in results]
        for row in comparison(results, metric, pool)
    ]
    title = f"{metric}, {pool} pool, in percent [95 % interval over families]"
    head = ["task", "split", "n", "pool", "chance", *results]
    return f"{title}\n{text_table(rows, head, left=2)}"


def paired_gain(
    first: EvaluationResult,
    second: EvaluationResult,
    task: str,
    split: str,
    metric: str = "recall@10",
    pool: str = "single",
) -> tuple[float, float, float]:
    """Mean gain of the second model over the first on one task: (gain, low, high), 95 %."""
    _check_same_tasks(first, second, "the second")
    before, after = (result.score(task, split, metric, pool) for result in (first, second))
    return paired_interval(
        before.per_query, after.per_query, first.families[split][task], seed=first.seed
    )


def _check_same_tasks(first: EvaluationResult, other: EvaluationResult, name: str) -> None:
    if first.tasks_hash != other.tasks_hash:
        raise ValueError(
            f"{name} result is of other tasks (hash {other.tasks_hash[:12]}, not "
            f"{first.tasks_hash[:12]}); evaluate both models on the same task file"
        )


def percent(value: float, low: float, high: float, sign: str = "") -> str:
    """A share with its interval in percent: "52.3 [48.0, 56.1]"; `sign` "+" for differences."""
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def single_score(task: str, split: str, metric: str, values: np.ndarray, families: Sequence[str],
                 pools: Sequence[tuple[int, int]], seed: int) -> Score:  # fmt: skip
    """Score of one metric where every query has its own pool of candidates.

    Args
        values  [Q] the metric of each query
        pools   [Q] (candidates that the query chooses among, positives among them)
    """
    sizes, positives = np.asarray(pools).T
    return Score(
        task,
        split,
        "single",
        metric,
        float(values.mean()),
        *bootstrap_interval(values, families, seed=seed),
        chance=float(np.mean(chance_value(metric, sizes, positives))),
        n=len(values),
        candidates=int(sizes.max()),
        per_query=values.tolist(),
    )
