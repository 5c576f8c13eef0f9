"""Items as a structure with leaves: what is compared is said by the classes of the leaves."""

# Shapes: N items, L distinct leaves.

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ..prompts import images_of, videos_of
from ..records import content_id
from .groups import renumber

__all__ = ["FileLeaves", "Leaf", "PartLeaves", "gather_items", "group_items"]


class Leaf(NamedTuple):
    """A text, an image file, or a video: a file or a tuple of frame files."""

    kind: str
    value: str | tuple[str, ...]


class FileLeaves:
    """Leaves are file names; texts belong to the structure. For comparing contents exactly."""

    def __init__(self):
        self.numbers: dict[str, int] = {}

    def marks(self, item: Mapping, refs: array) -> list:
        """The item's structure; its leaves are added to `refs`."""
        media = [[self._mark(m, refs) for m in split(item)] for split in (images_of, videos_of)]
        return [item.get("text"), *media]

    def _mark(self, medium, refs: array):
        if isinstance(medium, list | tuple):
            return [self._mark(frame, refs) for frame in medium]
        if not isinstance(medium, str | os.PathLike):
            return content_id({"image": medium})
        refs.append(self.numbers.setdefault(os.fspath(medium), len(self.numbers)))
        return 0


class PartLeaves:
    """Leaves are whole texts, images and videos. For comparing them by likeness."""

    def __init__(self):
        self.numbers: dict[Leaf, int] = {}

    def marks(self, item: Mapping, refs: array) -> list:
        """As `FileLeaves.marks`; media in memory are part of the structure, alike if equal."""
        text = item.get("text")
        parts = [] if text is None else [self._mark("text", text, refs)]
        parts += [self._mark("image", image, refs) for image in images_of(item)]
        parts += [self._mark("video", video, refs) for video in videos_of(item)]
        return parts

    def _mark(self, kind: str, part, refs: array) -> list[str]:
        frames = part if isinstance(part, list | tuple) else [part]
        if not all(isinstance(frame, str | os.PathLike) for frame in frames):
            return [kind, content_id({kind: part})]
        files = tuple(os.fspath(frame) for frame in frames)
        leaf = Leaf(kind, files if frames is part else files[0])
        refs.append(self.numbers.setdefault(leaf, len(self.numbers)))
        return [kind]


class Items(NamedTuple):
    """N items without their leaves."""

    structures: np.ndarray  # [N] int64, equal for equal structures
    refs: np.ndarray  # numbers of the leaves of all items, one item after another
    starts: np.ndarray  # [N + 1] int64, where each item's leaves start in `refs`


def gather_items(items: Iterable[Mapping], leaves: FileLeaves | PartLeaves) -> Items:
    """Structures and leaves of items, taken one by one; what is kept is ~40 bytes per item."""
    digests, refs, starts = bytearray(), array("q"), array("q", [0])
    for item in items:
        structure = json.dumps(leaves.marks(item, refs)).encode()
        digests += hashlib.blake2b(structure, digest_size=16).digest()
        starts.append(len(refs))
    structures = renumber(np.frombuffer(digests, np.uint64).reshape(-1, 2))
    return Items(structures, np.array(refs, np.int64), np.array(starts, np.int64))


def group_items(items: Items, classes: np.ndarray) -> np.ndarray:
    """int64 [N], equal for items of one structure whose leaves, in order, have equal classes.

    `classes` is int64 [L], >= 0, by leaf number.
    """
    groups, counts = items.structures, np.diff(items.starts)
    width = int(classes.max(initial=0)) + 2
    for place in range(int(counts.max(initial=0))):
        has = counts > place
        here = np.zeros(len(groups), np.int64)
        here[has] = classes[items.refs[items.starts[:-1][has] + place]] + 1
        groups = renumber(groups * width + here)
    return groups
