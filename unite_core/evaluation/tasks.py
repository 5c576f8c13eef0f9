"""Retrieval tasks and their scores, each in its own pool and in one pool of all modalities.

The *single* pool of a task holds its own candidates. The *mixed* pool holds the candidates of all
tasks of the same split, of every modality: masked training (MAMCL) never makes scores of different
modalities comparable, and only this pool shows it. A candidate that is a positive in another task
only counts as wrong there, so read its recall beside `target_share@10`, the share of the first ten
results that have the target modality, and, for plain tasks, beside `pools.COUNTERPARTS`.
Items of equal content count once per pool, and a query never finds itself.
"""

# Shapes: Q queries, N candidates, D embedding size.

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..data.records import content_id, validate_item
from ..files import from_row, read_json, write_json
from .pools import POOLS, Pool, Scorer, cosine, measure_task
from .results import EvaluationResult, score_of

__all__ = [
    "Kind",
    "RetrievalTask",
    "distinct_items",
    "embed_tasks",
    "evaluate",
    "read_tasks",
    "write_tasks",
]


Kind = Literal["", "plain", "asked", "instructed"]


@dataclass(frozen=True)
class RetrievalTask:
    """Queries, candidates, and the positives of each query.

    queries     [Q] items
    candidates  [N] items
    positives   [Q] lists of indices into `candidates`, at least one each
    families    [Q] labels; intervals resample the queries of a family together, so a task needs
                two families or more
    kind        plain: bare queries of one modality, nothing tells which modality is wanted;
                asked: the queries of a plain task in the words that training asks with;
                instructed: other instructions; empty: not said
    query_concepts, candidate_concepts
                [Q] and [N] labels of what an item is about, in any modality, equal across the
                tasks of a split; "" for an item that is about no single concept. A query's is
                that of its answer. None: not known; give both or neither
    Raises ValueError naming the task, the row (counted from 1) and the remedy.
    """

    name: str
    split: str
    queries: list[dict]
    candidates: list[dict]
    positives: list[list[int]]
    families: list[str]
    description: str = ""
    kind: Kind = ""
    query_concepts: list[str] | None = None
    candidate_concepts: list[str] | None = None

    def __post_init__(self):
        for label in ("name", "split", "description"):
            value = getattr(self, label)
            if not isinstance(value, str) or not (value.strip() or label == "description"):
                raise ValueError(f"{self}, {label}: {value!r} is no text; write some")
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"{self}, kind: {self.kind!r}; write plain, asked or instructed, or leave it out"
            )
        for side in ("queries", "candidates", "positives", "families"):
            values = getattr(self, side)
            if not isinstance(values, list) or not values:
                raise ValueError(f"{self}, {side}: a list that is not empty is needed; fill it")
            if side in ("positives", "families") and len(values) != len(self.queries):
                raise ValueError(
                    f"{self}: {len(values)} {side} for {len(self.queries)} queries; "
                    "give one for each query"
                )
        for side in ("queries", "candidates"):
            for row, item in enumerate(getattr(self, side), 1):
                validate_item(item, f"{self}, {side} row {row}")
        for row, found in enumerate(self.positives, 1):
            self._check_positives(f"{self}, positives row {row}", found, self.query_ids[row - 1])
        self._check_families()
        self._check_concepts()

    def __str__(self):
        return f"task {self.name!r} (split {self.split!r})"

    def _check_positives(self, where: str, found: list[int], query_id: str) -> None:
        if not isinstance(found, list) or not found:
            raise ValueError(f"{where}: no answers; give a list of indices or drop the query")
        for index in found:
            if type(index) is not int or not 0 <= index < len(self.candidates):
                raise ValueError(
                    f"{where}: {index!r} is no candidate; use integers from 0 to "
                    f"{len(self.candidates) - 1}"
                )
            if self.candidate_ids[index] == query_id:
                raise ValueError(
                    f"{where}: candidate {index} is the query itself, which it never finds; "
                    "give another answer or drop the query"
                )

    def _check_families(self) -> None:
        for row, family in enumerate(self.families, 1):
            if not isinstance(family, str):
                raise ValueError(f"{self}, families row {row}: {family!r} is no string; quote it")
        if len(set(self.families)) < 2:
            raise ValueError(
                f"{self}, families: only {self.families[0]!r}, so no interval can be given; add "
                "queries of another family, or name a family for each independent query"
            )

    def _check_concepts(self) -> None:
        if (self.query_concepts is None) != (self.candidate_concepts is None):
            raise ValueError(f"{self}: give query_concepts and candidate_concepts, or neither")
        for side, items in (("query", self.queries), ("candidate", self.candidates)):
            labels = getattr(self, f"{side}_concepts")
            if labels is None:
                continue
            if not isinstance(labels, list) or len(labels) != len(items):
                raise ValueError(f"{self}, {side}_concepts: give a list of {len(items)} labels")
            for row, label in enumerate(labels, 1):
                if not isinstance(label, str):
                    raise ValueError(
                        f"{self}, {side}_concepts row {row}: {label!r} is no string; quote it"
                    )

    @cached_property
    def query_ids(self) -> list[str]:
        """[Q] content ids of the queries."""
        return [content_id(item) for item in self.queries]

    @cached_property
    def candidate_ids(self) -> list[str]:
        """[N] content ids of the candidates."""
        return [content_id(item) for item in self.candidates]


def read_tasks(path: str | Path) -> list[RetrievalTask]:
    """Read a JSON list of objects with the fields of `RetrievalTask`; ValueError if invalid."""
    rows = read_json(path)
    if not isinstance(rows, list):
        raise ValueError(f"{path}: a task file is a JSON list of tasks; put the tasks in [...]")
    tasks = [from_row(RetrievalTask, row, f"{path}, task {n}") for n, row in enumerate(rows, 1)]
    _check_names(tasks, f"{path}: ")
    return tasks


def write_tasks(path: str | Path, tasks: Iterable[RetrievalTask]) -> None:
    """Write tasks as a JSON list, atomically. Media must be paths, relative to the media root."""
    tasks = list(tasks)
    _check_names(tasks, f"{path}: ")
    for task in tasks:
        for side in ("queries", "candidates"):
            for row, item in enumerate(getattr(task, side), 1):
                _check_written(item, f"{path}: {task}, {side} row {row}")
    write_json(path, [asdict(task) for task in tasks])


def distinct_items(tasks: Sequence[RetrievalTask]) -> dict[str, Mapping]:
    """Items of the tasks, each content once: {content id: item}.

    ValueError where equal content comes with different instructions, which need a vector each.
    """
    items: dict[str, Mapping] = {}
    for task in tasks:
        pairs = zip(
            task.query_ids + task.candidate_ids, task.queries + task.candidates, strict=True
        )
        for identity, item in pairs:
            known = items.get(identity, item)
            if known.get("instruction") != item.get("instruction"):
                raise ValueError(
                    f"{task}: {str(dict(item))[:80]} comes with another instruction elsewhere: "
                    "evaluate tasks of different instructions apart"
                )
            items[identity] = item
    return items


def embed_tasks(
    embedder, tasks: Sequence[RetrievalTask], media_root: str | Path = ".", progress: bool = True
) -> dict[str, np.ndarray]:
    """Embed every distinct item of the tasks once: {content id: [D] float32}.

    `embedder` needs `.embed(items, media_root=..., progress=...)` that returns [items, D].
    ValueError as `distinct_items`.
    """
    items = distinct_items(tasks)
    vectors = embedder.embed(list(items.values()), media_root=media_root, progress=progress)
    return dict(zip(items, vectors, strict=True))


def evaluate(
    embedder,
    tasks: Sequence[RetrievalTask],
    media_root: str | Path = ".",
    progress: bool = True,
    vectors: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    pools: Sequence[str] = ("single", "mixed"),
    scorers: Mapping[str, Scorer] | None = None,
) -> EvaluationResult:
    """Embed the items of the tasks and score each task in its single and its mixed pool.

    Args
        embedder    see `embed_tasks`; its `.config`, if any, is kept with the result
        media_root  folder that the items' paths are relative to
        vectors     {content id: [D]}, as `embed_tasks` gives; None: the items are embedded
        seed        of the bootstrap intervals (1 000 resamples of families)
        pools       of `pools.POOLS`; "target" is the mixed pool with the modality given
        scorers     {name: other scores than cosines}; their pools are called "mixed, NAME"
    Returns
        scores of METRICS for every pool; for the mixed ones also target_share@10 and, of plain
        tasks with concepts, the metrics of `pools.COUNTERPARTS`.
    Raises ValueError for two tasks of one name and split, or an item without a vector.
    """
    _check_names(tasks, "")
    if unknown := [name for name in pools if name not in POOLS]:
        raise ValueError(f"pools {unknown[0]!r}: write one of {', '.join(POOLS)}")
    if vectors is None:
        vectors = embed_tasks(embedder, tasks, media_root, progress)
    splits = dict.fromkeys(task.split for task in tasks)
    families = {split: {t.name: t.families for t in tasks if t.split == split} for split in splits}
    mixed = {split: Pool.of([t for t in tasks if t.split == split], vectors) for split in splits}
    ways = {"": cosine} | {f", {name}": scorer for name, scorer in (scorers or {}).items()}
    scores = []
    for task in tasks:
        for kind in pools:
            pool = Pool.of([task], vectors) if kind == "single" else mixed[task.split]
            for way, scorer in ways.items():
                values, chance, size = measure_task(task, kind, pool, vectors, scorer)
                scores += [
                    score_of(task, kind + way, name, values[name], chance[name], size, seed)
                    for name in values
                ]
    config = getattr(embedder, "config", None)
    config = asdict(config) if is_dataclass(config) else {}
    return EvaluationResult(scores, families, _hash(tasks), config, seed)


def _hash(tasks: Sequence[RetrievalTask]) -> str:
    """SHA-256 of everything the scores depend on, in the order of the tasks."""
    content = [
        [
            task.name,
            task.split,
            task.query_ids,
            task.candidate_ids,
            task.positives,
            task.families,
            task.kind,
            task.query_concepts,
            task.candidate_concepts,
        ]
        for task in tasks
    ]
    return hashlib.sha256(json.dumps(content).encode("utf-8")).hexdigest()


def _check_names(tasks: Sequence[RetrievalTask], where: str) -> None:
    names = [(task.name, task.split) for task in tasks]
    for task in tasks:
        if names.count((task.name, task.split)) > 1:
            raise ValueError(f"{where}{task} is given twice; rename one")
    if not names:
        raise ValueError(f"{where}no tasks; give at least one")


def _check_written(item: Mapping, where: str) -> None:
    try:
        json.dumps(item, default=os.fspath)
    except TypeError:
        raise ValueError(
            f"{where}: media in memory cannot be written; save them and give their paths"
        ) from None
