"""Confusion matrix of target and retrieved modality in the mixed pool.

MAMCL never compares candidates of different modalities, so it does not align their scores. A pool
of all modalities shows the effect: results may favour the query's own modality, or one modality
that is near to every query.
"""

# Shapes: R kinds of query, C modalities of candidates, Q queries, N candidates, K results.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.modality import Modality, modality_of
from ..search.exact import search
from .pools import Pool, stack_vectors
from .tasks import RetrievalTask

__all__ = ["Confusion", "modality_confusion"]


@dataclass(frozen=True)
class Confusion:
    """Modalities of the first `k` results, by query modality and target modality.

    kinds    [R] (query modality, target modality), such as ("text+image", "video")
    columns  [C] modalities in the pool; a fused modality is one of its own
    share    [R, C] mean share of the first k results; rows sum to 1
    chance   [R, C] expected share under a random ranking
    n        [R] number of queries of each kind
    """

    kinds: list[tuple[str, str]]
    columns: list[str]
    share: np.ndarray
    chance: np.ndarray
    n: list[int]
    k: int

    @property
    def target_share(self) -> np.ndarray:
        """[R] share of results that have the target modality."""
        return self._share_of([target.split(" or ") for _, target in self.kinds])

    @property
    def query_share(self) -> np.ndarray:
        """[R] share of results that have the query's own modality: query-modality bias."""
        return self._share_of([[query] for query, _ in self.kinds])

    def _share_of(self, modalities: Sequence[Sequence[str]]) -> np.ndarray:
        counted = [[column in names for column in self.columns] for names in modalities]
        return (self.share * np.array(counted)).sum(1)


def modality_confusion(
    tasks: Sequence[RetrievalTask],
    vectors: Mapping[str, np.ndarray],
    k: int = 10,
    kinds: Sequence[str] = ("", "plain", "instructed"),
) -> Confusion:
    """Search the mixed pool of one split with the queries and count the modalities of results.

    Args
        tasks    of one split; the pool is all of their candidates, duplicates once
        vectors  {content id: [D]}, as `embed_tasks` gives
        k        results per query; every query must be able to find as many
        kinds    of the tasks whose queries are searched. Asked queries would be counted with
                 others of the same modalities, so give them alone: ("asked",)
    A query never finds itself; every query has equal weight, whatever task it belongs to.
    """
    splits = sorted({task.split for task in tasks})
    if len(splits) != 1:
        raise ValueError(f"tasks of splits {', '.join(splits) or 'none'}: give those of one split")
    pool = Pool.of(tasks, vectors)
    codes, column = np.unique(pool.modality, return_inverse=True)  # [C], [N]
    names, found, findable = [], [], []
    for task in (task for task in tasks if task.kind in kinds):
        itself = pool.rows_of(task.query_ids)
        if k < 1 or k > len(column) - max(map(len, itself)):
            raise ValueError(f"k {k} results of {len(column)} candidates: lower k, or add tasks")
        queries = stack_vectors(task.query_ids, vectors)
        _, indices = search(queries, pool.vectors, k, itself)
        found += [_shares(column[row], len(codes)) for row in indices]
        findable += [_shares(np.delete(column, hidden), len(codes)) for hidden in itself]
        names += _kinds(task)
    if not names:
        raise ValueError(f"no task is of kind {', '.join(kinds)}: name those that there are")
    distinct = sorted(set(names), key=_order)
    members = [[row for row, other in enumerate(names) if other == name] for name in distinct]
    return Confusion(
        kinds=distinct,
        columns=[Modality(int(code)).label for code in codes],
        share=np.array([np.array(found)[rows].mean(0) for rows in members]),
        chance=np.array([np.array(findable)[rows].mean(0) for rows in members]),
        n=[len(rows) for rows in members],
        k=k,
    )


def _kinds(task: RetrievalTask) -> list[tuple[str, str]]:
    """Modality of each query and of its positives ("text or image" if these differ)."""
    labels = [modality_of(item).label for item in task.candidates]
    return [
        (modality_of(query).label, " or ".join(sorted({labels[index] for index in positives})))
        for query, positives in zip(task.queries, task.positives, strict=True)
    ]


def _shares(columns: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(columns, minlength=n) / len(columns)


def _order(kind: tuple[str, str]) -> tuple:
    """Sort key: single modalities before fused ones, text before image before video."""
    names = list(Modality.__members__)
    return tuple(
        (
            label.count("+"),
            [names.index(part.upper()) for part in label.split(" or ")[0].split("+")],
        )
        for label in kind
    )
