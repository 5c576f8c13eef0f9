"""Score a task in a pool of candidates: its own, that of all modalities, or one modality of these.

Scores are computed for blocks of queries in float64, so that a tie is a tie in every pool.
"""

# Shapes: Q queries, q of a block, N candidates, D embedding size.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..data.modality import modality_of
from ..search.exact import checked_vectors
from .metrics import METRICS
from .places import Places, expected_metric, expected_share, places_of

if TYPE_CHECKING:
    from .tasks import RetrievalTask

__all__ = [
    "COUNTERPARTS", "POOLS", "TARGET_SHARE", "Pool", "Scorer", "cosine", "measure_task",
    "stack_vectors",
]  # fmt: skip


POOLS = ("single", "mixed", "target")
"""Of a task: its own candidates; those of all tasks of its split; of these, the modality asked for,
as if it were known."""
TARGET_SHARE = "target_share@10"
COUNTERPARTS = ("counterpart_hit@10", "counterpart_recall@10", "counterpart_ndcg@10")
"""Metrics of plain tasks in the mixed pool, where nothing says which modality is wanted: any
candidate of the query's concept is right. In nDCG one of the target's modality has gain 1, another
one half."""
_OTHER_MODALITY = 0.5
_SCORES_IN_MEMORY = 1 << 22


class Scorer(Protocol):
    """Scores that rank a pool, for a block of queries.

    `functools.partial(factorised_scores, first=probe, temperature=0.03)` is one.
    """

    def __call__(self, queries: np.ndarray, candidates: np.ndarray, modality: np.ndarray, *,
                 hidden: Sequence[Sequence[int]]) -> np.ndarray:  # fmt: skip
        """Scores [q, N], -inf for a candidate that must not be found.

        Args
            queries, candidates  [q, D] and [N, D] float64
            modality             [N] codes of the candidates
            hidden               [q] candidate indices that do not count for a query (itself);
                                 their scores are not looked at
        """


def cosine(queries, candidates, modality, *, hidden) -> np.ndarray:
    """Inner products [q, N]: cosines of unit vectors."""
    return queries @ candidates.T


@dataclass(frozen=True)
class Pool:
    """Distinct candidates in the order of their content ids.

    position  {content id: row}
    vectors   [N, D]
    modality  [N] codes
    about     {concept: rows of the candidates that are about it}
    """

    position: dict[str, int]
    vectors: np.ndarray
    modality: np.ndarray
    about: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, tasks: Sequence[RetrievalTask], vectors: Mapping[str, np.ndarray]) -> Pool:
        """Pool the candidates of all tasks, duplicates once; `vectors` as `embed_tasks` gives."""
        modality, labels = {}, defaultdict(set)
        for task in tasks:
            concepts = task.candidate_concepts or [""] * len(task.candidates)
            for identity, item, concept in zip(
                task.candidate_ids, task.candidates, concepts, strict=True
            ):
                modality[identity] = modality_of(item)
                if concept:
                    labels[concept].add(identity)
        ids = sorted(modality)
        position = {identity: row for row, identity in enumerate(ids)}
        return cls(
            position=position,
            vectors=stack_vectors(ids, vectors),
            modality=np.array([int(modality[identity]) for identity in ids]),
            about={c: sorted(position[i] for i in found) for c, found in labels.items()},
        )

    @cached_property
    def exact(self) -> np.ndarray:
        """[N, D] the vectors in float64."""
        return checked_vectors("candidates", self.vectors).astype(np.float64)

    def rows_of(self, ids: Iterable[str]) -> list[list[int]]:
        """Row of each content id as a list, empty if the pool does not have it."""
        return [[self.position[i]] if i in self.position else [] for i in ids]


def measure_task(
    task: RetrievalTask,
    kind: str,
    pool: Pool,
    vectors: Mapping[str, np.ndarray],
    scorer: Scorer = cosine,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """Compute every metric of one task in one pool.

    Args
        kind     one of POOLS
        pool     that of the task for "single", else of all tasks of its split
        vectors  {content id: [D]}
    Returns
        {metric: [Q]} values and {metric: [Q]} chance levels, and how many candidates there are.
    """
    case = _Case(task, kind, pool)
    queries = checked_vectors("queries", stack_vectors(task.query_ids, vectors)).astype(np.float64)
    parts, step = [], max(1, _SCORES_IN_MEMORY // len(pool.vectors))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        scores = scorer(queries[rows], pool.exact, pool.modality, hidden=case.itself[rows])
        parts.append(case.values(np.array(scores, np.float64), rows))
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    sizes = [target.sum() for target in case.is_target]
    return values, case.chance(), int(max(sizes) if kind == "target" else len(pool.vectors))


class _Case:
    """A task in a pool: what each query may find and what is relevant to it."""

    def __init__(self, task: RetrievalTask, kind: str, pool: Pool):
        self.kind, self.pool = kind, pool
        self.itself = pool.rows_of(task.query_ids)  # [Q]
        self.positives = [
            sorted({pool.position[task.candidate_ids[index]] for index in found})
            for found in task.positives
        ]
        codes = [tuple(np.unique(pool.modality[found])) for found in self.positives]
        of_codes = {each: np.isin(pool.modality, each) for each in set(codes)}
        self.is_target = [of_codes[each] for each in codes]  # [Q] of [N], shared by queries
        self.counterparts: list[list[int]] = []
        if kind == "mixed" and task.kind == "plain" and task.query_concepts:
            self.counterparts = [
                sorted({*pool.about.get(concept, ()), *right} - {*itself})
                for concept, right, itself in zip(
                    task.query_concepts, self.positives, self.itself, strict=True
                )
            ]
        self.gains = [
            np.where(target[found], 1.0, _OTHER_MODALITY)
            for found, target in zip(self.counterparts, self.is_target, strict=False)
        ]

    @cached_property
    def findable_targets(self) -> np.ndarray:
        """[Q] how many candidates of the target modality a query can find."""
        pairs = zip(self.is_target, self.itself, strict=True)
        return np.array([target.sum() - target[itself].sum() for target, itself in pairs])

    @cached_property
    def findable(self) -> np.ndarray:
        """[Q] how many candidates a query can find."""
        if self.kind == "target":
            return self.findable_targets
        return len(self.pool.modality) - np.array(list(map(len, self.itself)))

    def values(self, scores: np.ndarray, rows: slice) -> dict[str, np.ndarray]:
        """{metric: [q]} of a block of queries."""
        if np.isnan(scores).any():
            raise ValueError("a scorer gave a score that is no number: check its vectors")
        is_target = np.array(self.is_target[rows])
        if self.kind == "target":
            scores[~is_target] = -np.inf
        for row, itself in zip(scores, self.itself[rows], strict=True):
            row[itself] = -np.inf
        places = places_of(scores, self.positives[rows])
        values = {name: expected_metric(name, places) for name in METRICS}
        if self.kind == "mixed":
            values[TARGET_SHARE] = expected_share(scores, is_target, 10)
        if self.counterparts:
            places = places_of(scores, self.counterparts[rows], self.gains[rows])
            values |= _of_counterparts(places)
        return values

    def chance(self) -> dict[str, np.ndarray]:
        """{metric: [Q]} expectations under a random ranking."""
        places = Places.at_random(self.findable, [np.ones(len(f)) for f in self.positives])
        values = {name: expected_metric(name, places) for name in METRICS}
        if self.kind == "mixed":
            values[TARGET_SHARE] = self.findable_targets / self.findable
        if self.counterparts:
            values |= _of_counterparts(Places.at_random(self.findable, self.gains))
        return values


def _of_counterparts(places: Places) -> dict[str, np.ndarray]:
    return {name: expected_metric(name.removeprefix("counterpart_"), places)
            for name in COUNTERPARTS}  # fmt: skip


def stack_vectors(ids: Sequence[str], vectors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Stack the vectors of content ids to [N, D]; ValueError if any has none."""
    lacking = [identity for identity in ids if identity not in vectors]
    if lacking:
        raise ValueError(
            f"vectors lack {len(lacking)} of the tasks' items, the first with content id "
            f"{lacking[0]}; embed these tasks with embed_tasks"
        )
    return np.stack([vectors[identity] for identity in ids])
