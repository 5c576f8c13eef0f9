"""Task of a benchmark: a retrieval task, the pool of each query, and its metrics."""

# Shapes: Q queries, N candidates, D embedding size.

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...search.exact import search
from ..metrics import depth_of, ranking_metrics
from ..pools import stack_vectors
from ..results import Score, single_score
from ..tasks import RetrievalTask

__all__ = ["BenchmarkTask", "MissingDataError", "score_task"]


class MissingDataError(FileNotFoundError):
    """Files of a benchmark are missing; the message says which, and where to get them."""


@dataclass(frozen=True)
class BenchmarkTask:
    """A retrieval task with pools, exclusions and metrics of its own.

    task     queries, candidates, positives, and families of dependent queries
    metrics  names as `ranking_metrics` takes them, the main one first
    pools    [Q] lists of the candidates that each query ranks; None: all
    hidden   [Q] lists of candidates excluded for each query; None: none
    Candidates of equal content count once. Raises ValueError naming the task and the query.
    """

    task: RetrievalTask
    metrics: tuple[str, ...]
    pools: list[list[int]] | None = None
    hidden: list[list[int]] | None = None

    def __post_init__(self):
        depth_of(self.metrics)
        for name in ("pools", "hidden"):
            lists = getattr(self, name)
            if lists is not None and len(lists) != len(self.task.queries):
                raise ValueError(
                    f"{self.task}: {len(lists)} {name} for {len(self.task.queries)} queries; "
                    "give one for each query"
                )
        for row, positives in enumerate(map(set, self.task.positives)):
            pool = set(self.pools[row]) if self.pools else positives
            lost = positives - pool or positives & set(self.hidden[row] if self.hidden else ())
            if lost:
                raise ValueError(
                    f"{self.task}, query {row + 1}: answer {min(lost)} is not in its pool or is "
                    "hidden, so it can never be found; correct the pool"
                )

    @property
    def digest(self) -> str:
        """SHA-256 of all that scores depend on: items, positives, families, pools and metrics."""
        task = self.task
        content = [task.name, task.split, task.query_ids, task.candidate_ids, task.positives]
        content += [task.families, self.metrics, self.pools, self.hidden]
        return hashlib.sha256(json.dumps(content).encode("utf-8")).hexdigest()


def score_task(
    benchmark: BenchmarkTask, vectors: Mapping[str, np.ndarray], seed: int = 0
) -> list[Score]:
    """Score a task: every metric with a 95 % interval over families and its chance level.

    Args
        vectors  {content id: [D]} of all of the task's items
        seed     of the bootstrap
    Ties go to the smaller content id. By position, every tie would count as right where the first
    candidate of a list is the positive, as in MMEB.
    """
    task = benchmark.task
    ids = sorted(set(task.candidate_ids))
    place = {identity: row for row, identity in enumerate(ids)}
    rows = [place[identity] for identity in task.candidate_ids]  # candidate -> row
    positives = [sorted({rows[index] for index in found}) for found in task.positives]
    queries, candidates = stack_vectors(task.query_ids, vectors), stack_vectors(ids, vectors)
    depth = depth_of(benchmark.metrics)
    hidden = [[place[i]] if i in place else [] for i in task.query_ids]  # the query itself
    if benchmark.hidden:
        hidden = [
            sorted({*itself, *(rows[index] for index in more)})
            for itself, more in zip(hidden, benchmark.hidden, strict=True)
        ]
    if benchmark.pools is None:
        ranked = search(queries, candidates, depth, hidden)[1].tolist()
        sizes = [len(ids) - len(excluded) for excluded in hidden]
    else:
        pools = [
            sorted({rows[index] for index in pool} - set(excluded))
            for pool, excluded in zip(benchmark.pools, hidden, strict=True)
        ]
        ranked = _rank_in_pools(queries, candidates, pools, depth)
        sizes = [len(pool) for pool in pools]
    values = ranking_metrics(ranked, positives, benchmark.metrics)
    sides = [(size, len(found)) for size, found in zip(sizes, positives, strict=True)]
    return [
        single_score(task.name, task.split, name, values[name], task.families, sides, seed)
        for name in benchmark.metrics
    ]


def _rank_in_pools(
    queries: np.ndarray, candidates: np.ndarray, pools: Sequence[list[int]], depth: int
) -> list[list[int]]:
    """Rank each query's own pool to `depth`, equal scores in the order of their rows."""
    ranked = []
    for query, pool in zip(queries, pools, strict=True):
        scores = candidates[pool] @ query
        order = np.argsort(-scores, kind="stable")[:depth]
        ranked.append([pool[index] for index in order])
    return ranked
