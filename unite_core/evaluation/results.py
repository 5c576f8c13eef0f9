"""Scores of a model on retrieval tasks: kept per query, saved, and compared between models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from ..files import from_row, read_json, write_json
from .metrics import bootstrap_interval, chance_value, paired_interval

__all__ = [
    "EvaluationResult",
    "Score",
    "comparison",
    "format_table",
    "load_results",
    "paired_gain",
    "result_from",
    "save_results",
    "single_score",
]


@dataclass(frozen=True)
class Score:
    """One metric of one task in one pool: its mean over queries, 95 % interval and chance level.

    n counts queries, candidates the pool's distinct items; per_query [n] allows paired tests.
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
    tasks_hash  of the tasks' contents; results are comparable only where it agrees
    embedder    the embedder's configuration: prompt, pixel and frame limits, positions
    seed        of the bootstrap
    """

    scores: list[Score]
    families: dict[str, dict[str, list[str]]]
    tasks_hash: str
    embedder: dict
    seed: int

    def score(self, task: str, split: str, metric="recall@10", pool="single") -> Score:
        """The one score with these names; ValueError if there is none."""
        for score in self.scores:
            if (score.task, score.split, score.metric, score.pool) == (task, split, metric, pool):
                return score
        known = sorted({f"{score.task} / {score.split}" for score in self.scores})
        raise ValueError(
            f"no {metric} of {task} / {split} in the {pool} pool; tasks are {', '.join(known)}"
        )

    def rows(self) -> list[dict]:
        """The scores as flat dictionaries for a table, without the values per query."""
        names = [each.name for each in fields(Score) if each.name != "per_query"]
        return [{name: getattr(score, name) for name in names} for score in self.scores]


def save_results(path: str | Path, result: EvaluationResult) -> None:
    """Write a result, values per query included, as one JSON file, atomically."""
    write_json(path, asdict(result))


def load_results(path: str | Path) -> EvaluationResult:
    """Read what `save_results` wrote; ValueError names what is missing or unknown."""
    return result_from(read_json(path), str(path))


def result_from(row, where: str) -> EvaluationResult:
    """A result from its JSON object; ValueError names the place and what is missing or unknown."""
    result = from_row(EvaluationResult, row, where)
    scores = [from_row(Score, row, f"{where}, score {n}") for n, row in enumerate(result.scores, 1)]
    return replace(result, scores=scores)


def comparison(
    results: Mapping[str, EvaluationResult], metric: str = "recall@10", pool: str = "single"
) -> list[dict]:
    """One row per task and split: its names, n, candidates, chance, and each model's `Score`.

    `results` maps column names ("base", "stage 1", ...) to results on the same tasks; other
    tasks, an unknown metric or an unknown pool are a ValueError.
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
    """The comparison as plain text, in percent, each value with its 95 % interval."""
    table = [["task", "split", "n", "pool", "chance", *results]]
    for row in comparison(results, metric, pool):
        cells = [row["task"], row["split"], str(row["n"]), str(row["candidates"])]
        cells.append(f"{100 * row['chance']:.1f}")
        table.append(cells + [_percent(row[name]) for name in results])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(_aligned, range(len(widths)), cells, widths)) for cells in table]
    title = f"{metric}, {pool} pool, in percent [95 % interval over families]"
    return "\n".join([title, lines[0], "-" * len(lines[0]), *lines[1:]])


def paired_gain(
    first: EvaluationResult,
    second: EvaluationResult,
    task: str,
    split: str,
    metric: str = "recall@10",
    pool: str = "single",
) -> tuple[float, float, float]:
    """Gain of the second model over the first on one task: (difference, low, high)."""
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


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def _aligned(column: int, cell: str, width: int) -> str:
    """Task and split to the left, numbers to the right."""
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def single_score(task: str, split: str, metric: str, values: np.ndarray, families: Sequence[str],
                 pools: Sequence[tuple[int, int]], seed: int) -> Score:  # fmt: skip
    """The score of one metric [Q] where every query has a pool of its own.

    pools [Q] pairs: how many candidates a query chooses among, and how many of them are right.
    """
    return Score(
        task,
        split,
        "single",
        metric,
        float(values.mean()),
        *bootstrap_interval(values, families, seed=seed),
        chance=float(np.mean([chance_value(metric, size, right) for size, right in pools])),
        n=len(values),
        candidates=max(size for size, _ in pools),
        per_query=values.tolist(),
    )
