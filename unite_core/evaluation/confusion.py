"""Which modality is asked for, and which is retrieved: the mixed pool as a confusion matrix.

MAMCL never compares candidates of different modalities, so one index of all of them shows what it
leaves open: results that share the query's modality, or the modality that lies nearest to all.
"""

# Shapes: R kinds of query, C modalities of candidates, Q queries, N candidates, K results.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.modality import Modality, modality_of
from ..search.exact import search
from .tasks import Pool, RetrievalTask, stack_vectors

__all__ = ["Confusion", "modality_confusion"]


@dataclass(frozen=True)
class Confusion:
    """Modalities of the first `k` results, by the query's modality and the modality asked for.

    kinds    [R] (query modality, modality asked for), such as ("text+image", "video")
    columns  [C] modalities of the pool, fused ones apart
    share    [R, C] mean share of the first k results, rows add up to 1
    chance   [R, C] the same for a random ranking: what the queries could find
    n        [R] queries of each kind
    """

    kinds: list[tuple[str, str]]
    columns: list[str]
    share: np.ndarray
    chance: np.ndarray
    n: list[int]
    k: int

    @property
    def asked_share(self) -> np.ndarray:
        """[R] share of results that have the modality asked for."""
        return self._picked([asked.split(" or ") for _, asked in self.kinds])

    @property
    def own_share(self) -> np.ndarray:
        """[R] share of results that have the query's own modality: query-modality bias."""
        return self._picked([[own] for own, _ in self.kinds])

    def _picked(self, wanted: Sequence[Sequence[str]]) -> np.ndarray:
        chosen = [[name in names for name in self.columns] for names in wanted]
        return (self.share * np.array(chosen)).sum(1)


def modality_confusion(
    tasks: Sequence[RetrievalTask], vectors: Mapping[str, np.ndarray], k: int = 10
) -> Confusion:
    """Search the mixed pool of one split with all of its queries, and count modalities.

    Args
        tasks    of one split; all of their candidates are the pool, equal ones once
        vectors  {content id: [D]}, as `evaluate.embed_tasks` gives
        k        results looked at, as many as every query can find at least
    A query never finds itself; every query counts once, whatever task it belongs to.
    """
    splits = sorted({task.split for task in tasks})
    if len(splits) != 1:
        raise ValueError(f"tasks of splits {', '.join(splits) or 'none'}: give those of one split")
    pool = Pool.of(tasks, vectors)
    codes, column = np.unique(pool.modality, return_inverse=True)  # [C], [N]
    asked, found, findable = [], [], []
    for task in tasks:
        itself = [[pool.position[one]] if one in pool.position else [] for one in task.query_ids]
        if k < 1 or k > len(column) - max(map(len, itself)):
            raise ValueError(f"k {k} results of {len(column)} candidates: lower k, or add tasks")
        queries = stack_vectors(task.query_ids, vectors)
        _, indices = search(queries, pool.vectors, k, itself)
        found += [_shares(column[row], len(codes)) for row in indices]
        findable += [_shares(np.delete(column, hidden), len(codes)) for hidden in itself]
        asked += _kinds(task)
    kinds = sorted(set(asked), key=_order)
    members = [[row for row, kind in enumerate(asked) if kind == one] for one in kinds]
    return Confusion(
        kinds=kinds,
        columns=[Modality(int(code)).label for code in codes],
        share=np.array([np.array(found)[rows].mean(0) for rows in members]),
        chance=np.array([np.array(findable)[rows].mean(0) for rows in members]),
        n=[len(rows) for rows in members],
        k=k,
    )


def _kinds(task: RetrievalTask) -> list[tuple[str, str]]:
    """The modality of each query, and that of its answers ("text or image" where they differ)."""
    labels = [modality_of(item).label for item in task.candidates]
    return [
        (modality_of(query).label, " or ".join(sorted({labels[index] for index in right})))
        for query, right in zip(task.queries, task.positives, strict=True)
    ]


def _shares(columns: np.ndarray, n: int) -> np.ndarray:
    return np.bincount(columns, minlength=n) / len(columns)


def _order(kind: tuple[str, str]) -> tuple:
    """Plain queries before fused ones, text before image before video."""
    names = list(Modality.__members__)
    return tuple(
        (
            label.count("+"),
            [names.index(part.upper()) for part in label.split(" or ")[0].split("+")],
        )
        for label in kind
    )
