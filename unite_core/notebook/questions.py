"""Questions of every kind that a corpus asks, answered from one index of their answers."""

# Shapes: Q queries, k results.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.modality import modality_of
from ..evaluation.tasks import RetrievalTask
from ..model.embedder import UniteEmbedder
from .corpus import kind_of, tasks_of

__all__ = ["Answers", "Questions", "caption_pairs", "first_of_each_shape", "question_kinds"]


@dataclass(frozen=True)
class Answers:
    """Results of Q queries, best first.

    results [Q][k] items, hits [Q][k] whether each is a positive, candidates searched per query
    """

    queries: Sequence[Mapping]
    results: Sequence[Sequence[Mapping]]
    hits: Sequence[Sequence[bool]]
    candidates: int
    positives: float

    @property
    def first(self) -> float:
        """Share of queries whose best result is right."""
        return float(np.mean([row[0] for row in self.hits]))

    @property
    def chance(self) -> float:
        """What a random order would give for it."""
        return self.positives / self.candidates

    def one_right(self) -> tuple[Mapping, Sequence[Mapping], Sequence[bool]]:
        """The first query with a right best result (else the first), its results and hits."""
        row = next((row for row, hits in enumerate(self.hits) if hits[0]), 0)
        return self.queries[row], self.results[row], self.hits[row]


@dataclass(frozen=True)
class Questions:
    """Queries of one task with their positives, {content id: item} in `answers`."""

    name: str
    queries: list[dict]
    positives: list[set[str]]
    answers: dict[str, dict]

    @property
    def modality(self) -> str:
        """Modality that is asked for."""
        return modality_of(next(iter(self.answers.values()))).label

    def search(
        self, embedder: UniteEmbedder, pool: Mapping[str, Mapping],
        vectors: Mapping[str, np.ndarray], root: str | Path, k: int = 4,
    ) -> Answers:  # fmt: skip
        """Search the pool's items {content id: item} of the modality asked for, by cosine."""
        names = [name for name, item in pool.items() if modality_of(item).label == self.modality]
        asked = embedder.embed(self.queries, root, progress=False)
        order = np.argsort(-(asked @ np.stack([vectors[name] for name in names]).T), kind="stable")
        found = [[names[place] for place in row[:k]] for row in order.tolist()]
        hits = [[name in right for name in row] for row, right in zip(
            found, self.positives, strict=True)]  # fmt: skip
        there = [len(right.intersection(names)) for right in self.positives]
        results = [[pool[name] for name in row] for row in found]
        return Answers(self.queries, results, hits, len(names), float(np.mean(there)))


def question_kinds(root: str | Path, split: str, count: int, seed: int) -> list[Questions]:
    """Draw `count` queries of every task of a split that says in words what it asks for.

    Where a corpus does not ask its plain queries in words, these are taken.
    """
    tasks = tasks_of(root, split)
    asked = [task for task in tasks if kind_of(task) == "asked"]
    asked = asked or [task for task in tasks if kind_of(task) == "plain"]
    asked += [task for task in tasks if kind_of(task) == "instructed"]
    return [_draw(task, count, seed) for task in asked]


def first_of_each_shape(kinds: Sequence[Questions]) -> list[int]:
    """Places of the first kind with each pair of query's and candidate's modality."""
    shapes = [(modality_of(kind.queries[0]), kind.modality) for kind in kinds]
    return [place for place, shape in enumerate(shapes) if shapes.index(shape) == place]


def caption_pairs(root: str | Path, split: str, count: int, seed: int) -> list[tuple[dict, dict]]:
    """`count` bare texts with their pictures, then as many with their clips: (text, medium)."""
    tasks = {task.name: task for task in tasks_of(root, split)}
    pairs = []
    for name in ("text → image", "text → video"):
        task = tasks[name]
        for row in _rows(task, count, seed):
            pairs.append((task.queries[row], task.candidates[task.positives[row][0]]))
    return pairs


def _draw(task: RetrievalTask, count: int, seed: int) -> Questions:
    rows = _rows(task, count, seed)
    positives = [{task.candidate_ids[place] for place in task.positives[row]} for row in rows]
    answers = {
        task.candidate_ids[place]: task.candidates[place]
        for row in rows
        for place in task.positives[row]
    }
    return Questions(task.name, [task.queries[row] for row in rows], positives, answers)


def _rows(task: RetrievalTask, count: int, seed: int) -> list[int]:
    """The same rows of tasks with as many queries, so that kinds ask for the same things."""
    return np.random.default_rng(seed).permutation(len(task.queries))[:count].tolist()
