"""Split pairs into training and test data that share nothing: no picture, caption or group.

Two pairs are linked if they share a query or a candidate, an equal one or a near duplicate, or the
user's group. What is linked, also through others, is on one side. Media are near duplicates by
their pixels; of texts only equal ones count (case, punctuation and spaces aside), since captions
that differ by a word often mean different things.
"""

# Shapes: N pairs.

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..settings import Natural, nested, settings
from .config import DuplicateThresholds
from .dedupe import DuplicateGroups, likeness
from .item_groups import renumber

__all__ = ["PairSplit", "SplitConfig", "linked_groups", "split_pairs", "draw_held_out"]


def _equal_words(value: Any) -> Any:
    """Thresholds as an object, in which texts have to be equal unless it says otherwise."""
    return {"text": 1.0} | dict(value) if isinstance(value, Mapping) else value


@settings
class SplitConfig:
    """How pairs are split; the same pairs and settings give the same sides, in any order."""

    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the pairs that are for testing, at most: groups stay whole."""
    thresholds: nested(DuplicateThresholds, _equal_words) = DuplicateThresholds(text=1.0)
    """What near duplicates are; text is 1 here, equal words, unless it is given."""
    seed: Natural = 0
    """Decides which groups are for testing."""


class PairSplit(NamedTuple):
    """Sides of N pairs."""

    test: np.ndarray  # [N] bool
    groups: np.ndarray  # [N] int64, equal for linked pairs
    duplicates: DuplicateGroups  # of their items


def split_pairs(
    records: Sequence[Mapping],
    root: str | Path = ".",
    config: SplitConfig | None = None,
    labels: Sequence[str] | None = None,
    workers: int = 0,
) -> PairSplit:
    """Split records so that nothing of the test side is trained on.

    Args
        records  N pairs of query and candidate
        root     folder that media paths are relative to
        labels   [N] the user's groups, such as a product's number; "" for none
        workers  processes that decode media
    A group larger than what is left for testing is trained on. ValueError where fewer than two
    groups are for testing, or none is left for training.
    """
    config = config or SplitConfig()
    duplicates = likeness(records, root, config.thresholds, workers).chained()
    groups = linked_groups(duplicates, labels)
    test = draw_held_out(groups, [_key(record, config.seed) for record in records], config.test)
    found, sizes = len(np.unique(groups[test])), np.bincount(groups)
    if found < 2 or test.all():
        raise ValueError(
            f"{len(records)} pairs in {len(sizes)} groups that share nothing, the largest of "
            f"{sizes.max()}: {found} fit into a share of {config.test:g} for testing, and two are "
            "needed: raise it, or give more pairs"
        )
    return PairSplit(test, groups, duplicates)


def linked_groups(duplicates: DuplicateGroups, labels: Sequence[str] | None = None) -> np.ndarray:
    """Groups int64 [N] of pairs that share an item or a label, also through other pairs.

    >>> two_captions = DuplicateGroups(*map(np.array, ([0, 1, 3], [2, 2, 4], [0, 1, 2])))
    >>> linked_groups(two_captions).tolist(), linked_groups(two_captions, ["a", "", "a"]).tolist()
    ([0, 0, 1], [0, 0, 0])
    """
    sides = [renumber(np.concatenate([duplicates.query, duplicates.candidate])).reshape(2, -1)]
    if labels is not None:
        own = np.arange(len(labels)) + len(labels)  # a pair without a label is linked to none
        numbers = np.unique(np.array(labels, str), return_inverse=True)[1]
        sides.append(np.where(np.array(labels, str) == "", own, numbers)[None])
    count, nodes, start = len(duplicates.query), [], len(duplicates.query)
    for side in sides:
        nodes.append(side + start)
        start += side.max(initial=-1) + 1
    linked = np.concatenate(nodes)
    rows = np.broadcast_to(np.arange(count), linked.shape)
    links = np.ones(linked.size, np.int8), (rows.ravel(), linked.ravel())
    graph = coo_array(links, shape=(start, start))
    return renumber(connected_components(graph, directed=False)[1][:count])


def draw_held_out(groups: np.ndarray, keys: Sequence[bytes], share: float) -> np.ndarray:
    """Which of N pairs are for testing, bool [N]: whole groups, drawn by their smallest key.

    The first groups in the order of keys that fit into the share; a group that does not is passed
    over. Keys are of a pair's content, so the order of pairs does not matter.
    """
    count, groups = len(groups), renumber(groups)
    sizes = np.bincount(groups, minlength=1)
    least: dict[int, bytes] = {}
    for group, key in zip(groups.tolist(), keys, strict=True):
        least[group] = min(key, least.get(group, key))
    left, chosen = round(share * count), np.zeros(len(sizes), bool)
    for group in sorted(least, key=least.get):
        if sizes[group] <= left:
            chosen[group] = True
            left -= sizes[group]
    return chosen[groups]


def _key(record: Mapping, seed: int) -> bytes:
    """Digest of a pair's content and the seed."""
    text = json.dumps([seed, record["query"], record["candidate"]], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).digest()
