"""Exact and near duplicates of rows, within a set and between training and evaluation sets.

Duplicates are returned as groups and not removed: a filter keeps the first row of each group, or
training treats the members as the same item.
"""

# Shapes: N rows, L leaves (distinct texts, images and videos of all rows).

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.records import GROUPS
from .config import DuplicateThresholds
from .item_groups import (
    FileLeaves,
    Items,
    Leaf,
    PartLeaves,
    combine,
    content_classes,
    first_of,
    gather_items,
    group_items,
    renumber,
)
from .minhash import text_groups
from .perceptual_hash import image_hashes, near_groups, video_hashes

__all__ = [
    "DuplicateGroups", "Leaks", "exact_duplicates", "leaks", "near_duplicates", "with_groups",
]  # fmt: skip


class DuplicateGroups(NamedTuple):
    """Duplicate groups of N rows, and of the items on their two sides."""

    query: np.ndarray  # [N] int64, numbered together with `candidate`
    candidate: np.ndarray  # [N] int64
    rows: np.ndarray  # [N] int64, equal where both sides are


class Leaks(NamedTuple):
    """The first evaluation row that each of N training rows duplicates, -1 for none."""

    exact: np.ndarray  # [N] int64: same content on both sides
    near: np.ndarray  # [N] int64: similar content on both sides, exact included
    media: np.ndarray  # [N] int64: a similar image or video on any side, whatever the texts


def exact_duplicates(rows: Iterable[Mapping], root: str | Path = ".") -> DuplicateGroups:
    """Group rows and items of equal content, whatever the names of their files.

    Texts must be equal character by character, media files byte by byte; key order, task, source
    and hard negatives do not count. A file that is unreadable or outside the root equals only
    itself. Rows are read one by one and not kept.

    >>> text, label = {"text": "a word"}, {"text": "noun"}
    >>> rows = [{"query": text, "candidate": label}, {"query": label, "candidate": text}]
    >>> exact_duplicates([*rows, rows[0]]).rows
    array([0, 1, 0])
    """
    leaves = FileLeaves()
    items = gather_items(_sides(rows), leaves)
    return _row_groups(group_items(items, content_classes(list(leaves.numbers), root)))


def near_duplicates(
    rows: Iterable[Mapping],
    root: str | Path = ".",
    thresholds: DuplicateThresholds | None = None,
    workers: int = 0,
) -> DuplicateGroups:
    """Group rows and items that are similar part by part: texts, images and videos.

    Items are near duplicates if they have the same kinds of parts in the same order and each pair
    of parts is in one group of `text_groups` or `near_groups`; this includes exact duplicates.
    Rows must be similar on both sides: two captions of an image make only one side a duplicate.
    """
    items, _, classes = _similar_leaves(rows, root, thresholds or DuplicateThresholds(), workers)
    return _row_groups(group_items(items, classes))


def with_groups(
    rows: Iterable[Mapping], duplicates: DuplicateGroups, prefix: str = "duplicates"
) -> Iterator[dict]:
    """Yield rows with `query_group` and `candidate_group` "{prefix} {number}" for duplicate items.

    Training treats the items of a group as one: they are positives for each other's queries, and
    never negatives of each other. Groups that rows had before are replaced. Groups only hold within
    the given rows: search for duplicates over all files of a training set together.
    """
    numbers = np.concatenate([duplicates.query, duplicates.candidate])
    shared = np.bincount(numbers, minlength=1) > 1
    for row, *groups in zip(rows, duplicates.query, duplicates.candidate, strict=True):
        named = zip(GROUPS, groups, strict=True)
        kept = {key: value for key, value in row.items() if key not in GROUPS}
        yield kept | {name: f"{prefix} {group}" for name, group in named if shared[group]}


def leaks(
    train_rows: Iterable[Mapping],
    test_rows: Iterable[Mapping],
    root: str | Path = ".",
    thresholds: DuplicateThresholds | None = None,
    workers: int = 0,
) -> Leaks:
    """Find training rows that duplicate rows of an evaluation set below the same root.

    A chain of near duplicates through other training rows counts. Texts alone never count as a
    leak of `media`, because labels and short captions repeat legitimately.
    """
    train, test = list(train_rows), list(test_rows)
    rows, count = train + test, len(train)
    items, leaves, classes = _similar_leaves(
        rows, root, thresholds or DuplicateThresholds(), workers
    )
    near = _row_groups(group_items(items, classes)).rows
    is_media = np.array([leaf.kind != "text" for leaf in leaves], bool)
    row_of = np.repeat(np.arange(len(items.structures)) // 2, np.diff(items.starts))
    shown = is_media[items.refs]
    media = _first_test(classes[items.refs[shown]], row_of[shown], count)
    numbers = np.arange(len(rows))
    exact = _first_test(exact_duplicates(rows, root).rows, numbers, count)
    return Leaks(exact, _first_test(near, numbers, count), media)


def _sides(rows: Iterable[Mapping]) -> Iterator[Mapping]:
    for row in rows:
        yield row["query"]
        yield row["candidate"]


def _row_groups(groups: np.ndarray) -> DuplicateGroups:
    query, candidate = groups[0::2], groups[1::2]
    return DuplicateGroups(query, candidate, combine(query, candidate))


def _similar_leaves(rows, root, thresholds, workers) -> tuple[Items, list[Leaf], np.ndarray]:
    """Items of the rows, their leaves, and classes int64 [L], equal for similar leaves."""
    numbered = PartLeaves()
    items = gather_items(_sides(rows), numbered)
    leaves = list(numbered.numbers)
    classes = np.zeros(len(leaves), np.int64)
    for kind in ("text", "image", "video"):
        places = [number for number, leaf in enumerate(leaves) if leaf.kind == kind]
        values = [leaves[number].value for number in places]
        start = classes.max(initial=-1) + 1
        classes[places] = start + _classes(kind, values, root, thresholds, workers)
    return items, leaves, classes


def _classes(
    kind: str, values: list, root, thresholds: DuplicateThresholds, workers: int
) -> np.ndarray:
    if kind == "text":
        return text_groups(values, thresholds.text)
    same = _same_files(values, root)
    kept = [values[row] for row in np.flatnonzero(first_of(same)).tolist()]
    hashed = (image_hashes if kind == "image" else video_hashes)(kept, root, workers)
    return near_groups(hashed, thresholds.max_distance, getattr(thresholds, kind))[same]


def _same_files(values: Sequence[str | tuple[str, ...]], root) -> np.ndarray:
    """Group media with equal files, so that each file is decoded once."""
    leaves = FileLeaves()
    items = gather_items(({"video": [value]} for value in values), leaves)
    return group_items(items, content_classes(list(leaves.numbers), root))


def _first_test(classes: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """For rows below `count`: the first row from `count` on in the same class, or -1."""
    classes = renumber(classes)
    never = rows.max(initial=0) + 1
    first = np.full(classes.max(initial=0) + 1, never)
    is_test = rows >= count
    np.minimum.at(first, classes[is_test], rows[is_test])
    found = np.full(count, never)
    np.minimum.at(found, rows[~is_test], first[classes[~is_test]])
    return np.where(found < never, found - count, -1)
