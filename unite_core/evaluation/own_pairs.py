"""Retrieval tasks from anybody's pairs of query and candidate."""

# Shapes: N pairs.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..data.modality import modality_of
from ..data.pairs import Pair, PairDataset, content_number
from ..data.records import content_id
from .tasks import RetrievalTask

__all__ = ["pair_families", "pair_tasks"]


def pair_tasks(
    pairs: Iterable[Pair] | PairDataset,
    both_ways: bool = False,
    families: Sequence[str] | None = None,
) -> list[RetrievalTask]:
    """Tasks from held-out pairs, one for each modality of query and of candidate that occurs.

    Args
        both_ways  also search the other way, from candidate to query
        families   [N] label of each pair; those of queries are resampled together for intervals.
                   None: a query is a family
    All are of one split, so that its mixed pool holds all candidates, hard negatives among them.
    Candidates of equal content or of one group are all right, for all queries of equal content or
    of one group; a pair whose query is its own candidate is left out.
    ValueError where a task has a single query or family.
    """
    identities = getattr(pairs, "identity_of", {})
    kinds: dict[str, list[tuple[Pair, str]]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        if content_id(pair.query) == content_id(pair.candidate):
            continue
        family = content_id(pair.query) if families is None else families[place]
        kinds[_name(pair)].append((pair, family))
        if both_ways:
            back = pair._replace(query=pair.candidate, candidate=pair.query, negatives=[])
            kinds[_name(back)].append((back, family))
    return [_task(name, kinds[name], identities) for name in sorted(kinds)]


def pair_families(pairs: Sequence[Pair] | PairDataset) -> list[str]:
    """Families [N] of pairs: those that share an item, or a group, also through other pairs.

    Captions of one picture are no independent queries, nor are the pictures of one caption.
    """
    identities = getattr(pairs, "identity_of", {})
    sides = [[_identity(item, identities) for item in (p.query, p.candidate)] for p in pairs]
    numbers = np.unique(np.array(sides, np.int64).reshape(-1, 2), return_inverse=True)[1]
    left, right = numbers.reshape(-1, 2).T
    size = int(numbers.max(initial=0)) + 1
    links = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    family = connected_components(links, directed=False)[1]
    return [f"family {number}" for number in family[left].tolist()]


def _name(pair: Pair) -> str:
    return " to ".join(modality_of(item).label for item in (pair.query, pair.candidate))


def _task(name: str, pairs: Sequence[tuple[Pair, str]], identities: Mapping[int, int]):
    items = {
        content_id(item): item for pair, _ in pairs for item in (pair.candidate, *pair.negatives)
    }
    places = {identity: place for place, identity in enumerate(items)}
    alike: dict[int, set[int]] = defaultdict(set)  # places of the candidates of an identity
    for pair, _ in pairs:
        alike[_identity(pair.candidate, identities)].add(places[content_id(pair.candidate)])
    right: dict[int, set[int]] = defaultdict(set)  # by the query's identity
    queries, families = {}, {}
    for pair, family in pairs:
        right[_identity(pair.query, identities)] |= alike[_identity(pair.candidate, identities)]
        queries[content_id(pair.query)] = pair.query
        families.setdefault(content_id(pair.query), family)
    positives = [
        sorted(right[_identity(item, identities)] - {places.get(name)})
        for name, item in queries.items()
    ]
    return RetrievalTask(
        name=name, split="held out", queries=list(queries.values()),
        candidates=list(items.values()), positives=positives, families=list(families.values()),
    )  # fmt: skip


def _identity(item: Mapping, identities: Mapping[int, int]) -> int:
    number = content_number(item)
    return identities.get(number, number)
