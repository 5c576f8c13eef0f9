"""Score a run's vectors: the rank of every query's positive, in each pool, by each score.

Every task of a study has one positive per query, so its rank says all: recall at any k, MRR, nDCG.
"""

# Shapes: Q queries, N candidates of a pool, D embedding size.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data.modality import modality_of
from ..data.records import content_id
from ..evaluation.pools import Pool, stack_vectors
from ..evaluation.tasks import RetrievalTask
from ..gap.corrections import Correction
from ..search.factorised import FirstFactor, factorised_scores, log_probabilities_among
from ..search.modality_probe import ModalityProbe, fit_modality_probe
from ..search.scorers import centre, fit_centring

__all__ = ["SCORES", "Fit", "Ranks", "fit_scores", "rank_tasks"]


SCORES = {
    "cosine": "cosine",
    "z-score": "z-score per modality",
    "centred": "both sides centred per modality",
    "bonus": "cosine + 0.1 log p(m | q), probe",
    "probe": "factorised, probe",
    "probe-tau": "factorised, probe, temperature fitted, too",
    "router": "factorised, trained head",
    "oracle": "modality given",
}
"""Search-time scores by the name in tables."""

_BLOCK = 512  # queries at a time


@dataclass(frozen=True)
class Fit:
    """What the scores of one run need, from vectors of training pairs alone."""

    probe: ModalityProbe
    centring: Correction
    temperature: float
    router: FirstFactor | None = None


@dataclass(frozen=True)
class Ranks:
    """Ranks of the positives of one task in one pool by one score."""

    task: str
    split: str
    pool: str  # single or mixed
    score: str
    rank: np.ndarray  # [Q] float32 from 1; of tied candidates the mean rank
    target_share: np.ndarray  # [Q] share of the first ten that have the target's modality
    counterpart_rank: np.ndarray  # [Q] of the best candidate of the query's concept


def fit_scores(records: Sequence[Mapping], vectors: Mapping[str, np.ndarray], temperature: float,
               router: FirstFactor | None = None) -> Fit:  # fmt: skip
    """Fit probe and means on training pairs.

    Args
        records      training pairs
        vectors      {content id: [D]} of their queries and candidates
        temperature  that of training
        router       a head that was trained with the model
    """
    sides = {side: [record[side] for record in records] for side in ("query", "candidate")}
    ids = {side: list(map(content_id, items)) for side, items in sides.items()}
    stacked = {side: stack_vectors(names, vectors) for side, names in ids.items()}
    codes = {side: np.array([int(modality_of(i)) for i in items]) for side, items in sides.items()}
    _, first, positives = np.unique(ids["candidate"], return_index=True, return_inverse=True)
    probe = fit_modality_probe(
        stacked["query"], stacked["candidate"][first], codes["candidate"][first], positives,
        groups=positives,
    )  # fmt: skip
    centring = fit_centring(
        np.concatenate([stacked["query"], stacked["candidate"]]),
        np.concatenate([codes["query"], codes["candidate"]]),
    )
    return Fit(probe, centring, temperature, router)


def rank_tasks(
    tasks: Sequence[RetrievalTask], vectors: Mapping[str, np.ndarray],
    scores: Sequence[str] = ("cosine",), fit: Fit | None = None,
) -> Iterator[Ranks]:  # fmt: skip
    """Rank every task in its own pool and among all candidates of its split.

    Args
        vectors  {content id: [D]} of all items
        scores   names of `SCORES`; in a task's own pool only those that can change an order there,
                 "router" only where the model has one
        fit      needed for all but cosine and oracle

    A query never finds itself. ValueError for a task with several positives to a query.
    """
    for split in sorted({task.split for task in tasks}):
        of_split = [task for task in tasks if task.split == split]
        concepts = _concepts(of_split)
        mixed = _Scored(Pool.of(of_split, vectors), fit, concepts)
        for task in of_split:
            single = _Scored(Pool.of([task], vectors), fit, concepts)
            alone = [name for name in scores if name in ("cosine", "centred")]
            yield from single.ranks(task, "single", alone, vectors)
            known = [name for name in scores if name != "router" or fit.router is not None]
            yield from mixed.ranks(task, "mixed", known, vectors)


def mean_rank(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rank [Q] of each row's best wanted candidate; of candidates that tie with it the mean rank.

    Args: scores [Q, N], -inf for what cannot be found; wanted [Q, N] booleans. inf where a row has
    none that can be found.

    >>> mean_rank(np.array([[3.0, 1.0, 1.0, 0.0]]), np.array([[False, True, False, False]]))
    array([2.5])
    """
    best = np.where(wanted, scores, -np.inf).max(1, keepdims=True)
    better = (scores > best).sum(1)
    ties = ((scores == best) & ~wanted).sum(1)
    return np.where(np.isneginf(best[:, 0]), np.inf, 1 + better + ties / 2)


class _Scored:
    """A pool with what its candidates' scores need."""

    def __init__(self, pool: Pool, fit: Fit | None, concepts: Mapping[str, str]):
        self.pool, self.fit = pool, fit
        self.codes, self.column = np.unique(pool.modality, return_inverse=True)
        self.concept = np.array([concepts.get(identity, "") for identity in pool.position])

    def ranks(self, task: RetrievalTask, pool_name: str, names: Sequence[str],
              vectors: Mapping[str, np.ndarray]) -> Iterator[Ranks]:  # fmt: skip
        if any(len(found) != 1 for found in task.positives):
            raise ValueError(f"{task} has several positives to a query: a study needs one each")
        positive = np.array(
            [self.pool.position[task.candidate_ids[index]] for (index,) in task.positives]
        )
        hidden = self.pool.rows_of(task.query_ids)
        queries = stack_vectors(task.query_ids, vectors)
        modality = np.array([int(modality_of(item)) for item in task.queries])
        labels = task.query_concepts or [""] * len(queries)
        parts: dict[str, list] = {name: [] for name in names}
        for start in range(0, len(queries), _BLOCK):
            rows = slice(start, start + _BLOCK)
            block = _Block(queries[rows], modality[rows], positive[rows], hidden[rows])
            same = np.array(labels[rows])[:, None] == self.concept
            same &= np.array(labels[rows])[:, None] != ""
            for name in names:
                parts[name].append(self._rank(block, name, same))
        for name in names:
            rank, share, counterpart = map(np.concatenate, zip(*parts[name], strict=True))
            yield Ranks(task.name, task.split, pool_name, name, rank, share, counterpart)

    def _rank(self, block: _Block, name: str, same: np.ndarray) -> tuple[np.ndarray, ...]:
        scores = self._scores(block, name)
        for row, found in enumerate(block.hidden):
            scores[row, found] = -np.inf
        at_positive = np.zeros(scores.shape, bool)
        at_positive[np.arange(len(scores)), block.positive] = True
        is_target = self.column == self.column[block.positive][:, None]
        top = np.argpartition(-scores, min(10, scores.shape[1] - 1), axis=1)[:, :10]
        share = np.take_along_axis(is_target, top, 1).mean(1)
        return mean_rank(scores, at_positive), share, mean_rank(scores, same | at_positive)

    def _scores(self, block: _Block, name: str) -> np.ndarray:
        """Scores [q, N] float64 of a block of queries by the score of that name."""
        if name == "centred":
            return centre(self.fit.centring, block.queries, block.modality) @ self._centred.T
        if name in ("probe", "probe-tau", "router"):
            fit, fitted = self.fit, name == "probe-tau"
            return factorised_scores(
                block.queries, self.pool.vectors, self.pool.modality,
                fit.router if name == "router" else fit.probe,
                fit.probe.temperature if fitted else fit.temperature, block.hidden,
            )  # fmt: skip
        scores = (block.queries @ self.pool.vectors.T).astype(np.float64)
        if name == "oracle":
            return np.where(self.column == self.column[block.positive][:, None], scores, -np.inf)
        if name == "z-score":
            for column in range(len(self.codes)):
                part = scores[:, self.column == column]
                spread = np.maximum(part.std(1, keepdims=True), 1e-12)
                scores[:, self.column == column] = (part - part.mean(1, keepdims=True)) / spread
        elif name == "bonus":
            log_p = log_probabilities_among(self.fit.probe, block.queries, self.codes.tolist())
            scores += 0.1 * log_p[:, self.column]
        return scores

    @cached_property
    def _centred(self) -> np.ndarray:
        return centre(self.fit.centring, self.pool.vectors, self.pool.modality)


@dataclass(frozen=True)
class _Block:
    queries: np.ndarray  # [q, D]
    modality: np.ndarray  # [q]
    positive: np.ndarray  # [q] rows of the pool
    hidden: list[list[int]]  # [q] rows that a query must not find


def _concepts(tasks: Sequence[RetrievalTask]) -> dict[str, str]:
    """Concept of each candidate's content id, for those that are about one."""
    return {
        identity: label
        for task in tasks
        for identity, label in zip(task.candidate_ids, task.candidate_concepts or (), strict=False)
        if label
    }
