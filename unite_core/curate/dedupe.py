"""Exact and near duplicates of rows, within a set and between training and evaluation sets.

Duplicates are returned as groups and not removed: a filter keeps the first row of each group, or
training treats the members as the same item.
"""

# Shapes: N rows, L leaves (distinct texts, images and videos of all rows).

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..data.records import ITEM_GROUPS
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
    stars,
)
from .minhash import text_links
from .perceptual_hash import image_hashes, near_links, video_hashes

__all__ = [
    "DuplicateGroups", "Leaks", "Likeness", "exact_duplicates", "leaks", "likeness",
    "near_duplicates", "with_groups",
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


class Likeness(NamedTuple):
    """Which parts of N rows look alike: texts, images and videos, by direct comparison."""

    items: Items
    leaves: list[Leaf]
    equal: np.ndarray  # [L] int64, equal for leaves of equal content
    links: np.ndarray  # [E, 2] int64, pairs of such numbers that are similar

    def groups(self) -> DuplicateGroups:
        """Group rows and items whose parts are, one by one, in the same star of similar parts."""
        pair = self.links.T if len(self.links) else np.zeros((2, 0), np.int64)
        centres = stars(int(self.equal.max(initial=-1)) + 1, [tuple(pair)])
        return _row_groups(group_items(self.items, centres[self.equal]))

    def chained(self) -> DuplicateGroups:
        """As `groups`, with parts that are similar only over others, too.

        For splits, in which no two similar parts may be on different sides; a crowd stays whole.
        """
        count = int(self.equal.max(initial=-1)) + 1
        links = coo_array((np.ones(len(self.links), np.int8), self.links.T), shape=(count, count))
        linked = connected_components(links, directed=False)[1].astype(np.int64)
        return _row_groups(group_items(self.items, linked[self.equal]))

    def leaks(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first row from `count` on that each row before it is similar to, or -1.

        Returns two int64 [count]: similar in all parts of both sides; in any image or video. A
        part leaks only by its own likeness to a part of a test, never through other parts.
        """
        tested = self.equal[self.items.refs[self.items.starts[2 * count] :]]
        near = _test_neighbours(self.links, set(tested.tolist()))
        first = _Firsts(self, count)
        found = [first.of(row, near) for row in range(count)]
        return tuple(np.array(column, np.int64) for column in zip(*found, strict=True)) or (
            np.zeros(0, np.int64), np.zeros(0, np.int64),
        )  # fmt: skip


class _Firsts:
    """Tests by their contents, and lookups of rows among them."""

    def __init__(self, like: Likeness, count: int):
        self.like, self.count = like, count
        self.rows: dict[tuple, int] = {}
        self.media: dict[int, int] = {}
        for test in range(count, len(like.items.structures) // 2):
            structure, parts = self._parts(test)
            self.rows.setdefault((structure, tuple(number for number, _ in parts)), test - count)
            for number, is_text in parts:
                if not is_text:
                    self.media.setdefault(number, test - count)

    def of(self, row: int, near: Mapping[int, set[int]]) -> tuple[int, int]:
        """The first tests that share all parts and any media with a row, -1 for none."""
        structure, parts = self._parts(row)
        choices = [sorted(near.get(number, ())) for number, _ in parts]
        keys = product(*choices) if all(choices) else ()
        whole = (self.rows.get((structure, key), -1) for key in keys)
        media = (
            self.media[other]
            for others, (_, is_text) in zip(choices, parts, strict=True)
            for other in others
            if not is_text and other in self.media
        )
        return min((test for test in whole if test >= 0), default=-1), min(media, default=-1)

    def _parts(self, row: int) -> tuple[tuple, list[tuple[int, bool]]]:
        """Structures of both sides, and (number, whether a text) of all their parts."""
        items = self.like.items
        refs = items.refs[items.starts[2 * row] : items.starts[2 * row + 2]].tolist()
        parts = [(int(self.like.equal[ref]), self.like.leaves[ref].kind == "text") for ref in refs]
        return tuple(items.structures[2 * row : 2 * row + 2].tolist()), parts


def _test_neighbours(links: np.ndarray, tested: set[int]) -> dict[int, set[int]]:
    """{part: parts of tests that are similar or equal to it}."""
    near = {number: {number} for number in tested}
    for left, right in links.tolist():
        if right in tested:
            near.setdefault(left, set()).add(right)
        if left in tested:
            near.setdefault(right, set()).add(left)
    return near


def likeness(
    rows: Iterable[Mapping],
    root: str | Path = ".",
    thresholds: DuplicateThresholds | None = None,
    workers: int = 0,
    folder: str | Path | None = None,
) -> Likeness:
    """Compare the parts of all rows; `folder` is that of the cache of media facts."""
    thresholds, numbered = thresholds or DuplicateThresholds(), PartLeaves()
    items = gather_items(_sides(rows), numbered)
    leaves = list(numbered.numbers)
    equal, links, start = np.zeros(len(leaves), np.int64), [np.zeros((0, 2), np.int64)], 0
    for kind in ("text", "image", "video"):
        places = [number for number, leaf in enumerate(leaves) if leaf.kind == kind]
        values = [leaves[number].value for number in places]
        same, pairs = _linked(kind, values, root, thresholds, workers, folder)
        equal[places] = start + same
        links += [start + np.stack(pair, axis=1) for pair in pairs]
        start += int(same.max(initial=-1)) + 1
    return Likeness(items, leaves, equal, np.unique(np.concatenate(links), axis=0))


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
    return likeness(rows, root, thresholds, workers).groups()


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
        named = zip(ITEM_GROUPS, groups, strict=True)
        kept = {key: value for key, value in row.items() if key not in ITEM_GROUPS}
        yield kept | {name: f"{prefix} {group}" for name, group in named if shared[group]}


def leaks(
    train_rows: Iterable[Mapping],
    test_rows: Iterable[Mapping],
    root: str | Path = ".",
    thresholds: DuplicateThresholds | None = None,
    workers: int = 0,
) -> Leaks:
    """Find training rows that duplicate rows of an evaluation set below the same root.

    Texts alone never count as a leak of `media`, because labels and short captions repeat
    legitimately.
    """
    train = list(train_rows)
    rows, count = [*train, *test_rows], len(train)
    near, media = likeness(rows, root, thresholds, workers).leaks(count)
    return Leaks(_first_test(exact_duplicates(rows, root).rows, count), near, media)


def _sides(rows: Iterable[Mapping]) -> Iterator[Mapping]:
    for row in rows:
        yield row["query"]
        yield row["candidate"]


def _row_groups(groups: np.ndarray) -> DuplicateGroups:
    query, candidate = groups[0::2], groups[1::2]
    return DuplicateGroups(query, candidate, combine(query, candidate))


def _linked(
    kind: str, values: list, root, thresholds: DuplicateThresholds, workers: int, folder
) -> tuple[np.ndarray, Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Numbers of leaves of one kind, equal for equal ones, and pairs of similar numbers."""
    if kind == "text":
        return text_links(values, thresholds.text)
    same = _same_files(values, root)
    kept = [values[row] for row in np.flatnonzero(first_of(same)).tolist()]
    hashed = (image_hashes if kind == "image" else video_hashes)(kept, root, workers, folder)
    equal, pairs = near_links(hashed, thresholds.max_distance, getattr(thresholds, kind))
    return equal[same], pairs


def _same_files(values: Sequence[str | tuple[str, ...]], root) -> np.ndarray:
    """Group media with equal files, so that each file is decoded once."""
    leaves = FileLeaves()
    items = gather_items(({"video": [value]} for value in values), leaves)
    return group_items(items, content_classes(list(leaves.numbers), root))


def _first_test(groups: np.ndarray, count: int) -> np.ndarray:
    """For rows below `count`: the first row from `count` on in the same group, or -1."""
    first: dict[int, int] = {}
    for test, group in enumerate(groups[count:].tolist()):
        first.setdefault(group, test)
    return np.array([first.get(group, -1) for group in groups[:count].tolist()], np.int64)
