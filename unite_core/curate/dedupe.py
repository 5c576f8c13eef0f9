"""Exact and near twins of rows, within a set and between training and evaluation sets.

Groups are numbers: rows of one number are one another's duplicates. They are kept as groups, not
removed: a cleaning rule drops all but `first_of` each, or training treats members as positives.
"""

# Shapes: N rows, L leaves (distinct texts, images and videos of all rows).

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.records import GROUPS
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
from .minhash import THRESHOLD, text_groups
from .perceptual_hash import MAX_DIFFERENCE, MAX_DISTANCE, image_hashes, near_groups, video_hashes

__all__ = [
    "Leaks",
    "DuplicateThresholds",
    "DuplicateGroups",
    "exact_duplicates",
    "leaks",
    "near_duplicates",
    "with_groups",
]


class DuplicateThresholds(NamedTuple):
    """How alike near twins are; see `near_groups` and `text_groups`."""

    max_distance: int = MAX_DISTANCE
    image: float = MAX_DIFFERENCE["image"]
    video: float = MAX_DIFFERENCE["video"]
    text: float = THRESHOLD


class DuplicateGroups(NamedTuple):
    """Groups of rows, and of the items on their two sides."""

    query: np.ndarray  # [N] int64, numbered together with `candidate`
    candidate: np.ndarray  # [N] int64
    rows: np.ndarray  # [N] int64, equal where both sides are


class Leaks(NamedTuple):
    """For each of N training rows the first evaluation row that is its twin, -1 for none."""

    exact: np.ndarray  # [N] int64: same content on both sides
    near: np.ndarray  # [N] int64: both sides alike; exact ones included
    media: np.ndarray  # [N] int64: some image or video of it is alike, whatever the side and text


def exact_duplicates(rows: Iterable[Mapping], root: str | Path = ".") -> DuplicateGroups:
    """Rows and items of the same content, whatever the names of their files.

    Texts are equal when all their characters are, media when the bytes of their files are, by
    whatever name; key order, task, source and hard negatives do not count. A file that cannot be
    read, or lies outside the root, equals only itself. Rows are taken one by one and not kept.
    """
    leaves = FileLeaves()
    items = gather_items(_sides(rows), leaves)
    return _twins(group_items(items, content_classes(list(leaves.numbers), root)))


def near_duplicates(
    rows: Iterable[Mapping],
    root: str | Path = ".",
    likeness: DuplicateThresholds | None = None,
    workers: int = 0,
) -> DuplicateGroups:
    """Rows and items that are alike part by part: text to text, image to image, video to video.

    Items are twins when they have the same parts in the same order and each pair of parts is in
    one group of `text_groups` or `near_groups`. Exact twins are near duplicates.
    A row is near only with both sides: two captions of one picture are twins on one side.
    """
    items, _, classes = _alike(rows, root, likeness or DuplicateThresholds(), workers)
    return _twins(group_items(items, classes))


def with_groups(
    rows: Iterable[Mapping], duplicates: DuplicateGroups, prefix: str = "twins"
) -> Iterator[dict]:
    """Rows with `query_group` and `candidate_group` "{prefix} {number}" where an item has a twin.

    Training then counts twins as one item: candidates of one group are positives of each other's
    queries, and with `sampling.distinct` no two of a group share a batch; either way they are not
    negatives of each other. Groups that rows have already are replaced. A row of another file
    with the same item but no group is a stranger: find twins over all files together.
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
    likeness: DuplicateThresholds | None = None,
    workers: int = 0,
) -> Leaks:
    """Which training rows have an exact or near twin in an evaluation set under the same root.

    A chain through further training rows counts as near. Texts alone are never a leak of `media`:
    labels and short captions repeat rightly.
    """
    train, test = list(train_rows), list(test_rows)
    rows, count = train + test, len(train)
    items, leaves, classes = _alike(rows, root, likeness or DuplicateThresholds(), workers)
    near = _twins(group_items(items, classes)).rows
    is_medium = np.array([leaf.kind != "text" for leaf in leaves], bool)
    row_of = np.repeat(np.arange(len(items.structures)) // 2, np.diff(items.starts))
    shown = is_medium[items.refs]
    media = _first_test(classes[items.refs[shown]], row_of[shown], count)
    every = np.arange(len(rows))
    exact = _first_test(exact_duplicates(rows, root).rows, every, count)
    return Leaks(exact, _first_test(near, every, count), media)


def _sides(rows: Iterable[Mapping]) -> Iterator[Mapping]:
    for row in rows:
        yield row["query"]
        yield row["candidate"]


def _twins(groups: np.ndarray) -> DuplicateGroups:
    query, candidate = groups[0::2], groups[1::2]
    return DuplicateGroups(query, candidate, combine(query, candidate))


def _alike(rows, root, likeness, workers) -> tuple[Items, list[Leaf], np.ndarray]:
    """The items of rows, their leaves, and int64 [L]: equal for leaves that are alike."""
    numbered = PartLeaves()
    items = gather_items(_sides(rows), numbered)
    leaves = list(numbered.numbers)
    classes = np.zeros(len(leaves), np.int64)
    for kind in ("text", "image", "video"):
        places = [number for number, leaf in enumerate(leaves) if leaf.kind == kind]
        values = [leaves[number].value for number in places]
        start = classes.max(initial=-1) + 1
        classes[places] = start + _classes(kind, values, root, likeness, workers)
    return items, leaves, classes


def _classes(
    kind: str, values: list, root, likeness: DuplicateThresholds, workers: int
) -> np.ndarray:
    if kind == "text":
        return text_groups(values, likeness.text)
    same = _same_files(values, root)
    kept = [values[row] for row in np.flatnonzero(first_of(same)).tolist()]
    hashed = (image_hashes if kind == "image" else video_hashes)(kept, root, workers)
    return near_groups(hashed, likeness.max_distance, getattr(likeness, kind))[same]


def _same_files(values: Sequence[str | tuple[str, ...]], root) -> np.ndarray:
    """Groups of media whose files have the same bytes, so that each is decoded once."""
    leaves = FileLeaves()
    items = gather_items(({"video": [value]} for value in values), leaves)
    return group_items(items, content_classes(list(leaves.numbers), root))


def _first_test(classes: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """[count]: the first row from `count` on that shares a class with each row before it, or -1."""
    classes = renumber(classes)
    never = rows.max(initial=0) + 1
    first = np.full(classes.max(initial=0) + 1, never)
    is_test = rows >= count
    np.minimum.at(first, classes[is_test], rows[is_test])
    found = np.full(count, never)
    np.minimum.at(found, rows[~is_test], first[classes[~is_test]])
    return np.where(found < never, found - count, -1)
