"""Items as a structure with leaves: what is compared is said by the classes of the leaves.

Groups as numbers: rows are of one group when their numbers are equal.

Media files by content: equal numbers for equal bytes, whatever their names.
"""

# Shapes: N items, L distinct leaves.
# Shapes: F files.
# Shapes: N rows, E pairs of rows.

from __future__ import annotations

import hashlib
import json
import os
import stat
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..data.items import images_of, videos_of
from ..data.records import content_id

__all__ = [
    "FileLeaves",
    "Leaf",
    "MediaRoot",
    "PartLeaves",
    "combine",
    "connect",
    "content_classes",
    "first_of",
    "gather_items",
    "group_items",
    "renumber",
]


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


_EDGES = 20_000_000  # pairs held before they are folded into groups


def renumber(labels: np.ndarray) -> np.ndarray:
    """[N] labels (rows of a matrix count whole) -> int64 [N], numbered by first appearance."""
    if labels.ndim == 2:
        labels = _rows_as_numbers(labels)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _rows_as_numbers(labels: np.ndarray) -> np.ndarray:
    order = np.lexsort(labels.T)
    ordered = labels[order]
    changes = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = np.zeros(len(labels), np.int64)
    numbers[order[1:]] = np.cumsum(changes)
    return numbers


def combine(*groups: np.ndarray) -> np.ndarray:
    """Rows that are of one group in every one of the given [N] groupings share one in int64 [N]."""
    combined = renumber(np.asarray(groups[0]))
    for each in groups[1:]:
        other = renumber(np.asarray(each))
        combined = renumber(combined * (other.max(initial=0) + 1) + other)
    return combined


def connect(count: int, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Rows linked by a chain of pairs share a group: int64 [count] from blocks of ([E], [E]).

    A chain may link rows that are not alike themselves; keep thresholds tight enough that it
    seldom does.
    """
    groups = np.arange(count)
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for left, right in pairs:
        held.append((left, right))
        if sum(len(one) for one, _ in held) > _EDGES:
            groups, held = _fold(groups, held), []
    return renumber(_fold(groups, held))


def first_of(groups: np.ndarray) -> np.ndarray:
    """bool [N]: whether a row is the first of its group, the one that deduplication keeps."""
    first = np.zeros(len(groups), bool)
    first[np.unique(groups, return_index=True)[1]] = True
    return first


def _fold(groups: np.ndarray, held) -> np.ndarray:
    if not held:
        return groups
    left, right = (np.concatenate([one[side] for one in held]) for side in (0, 1))
    links = np.ones(len(left), np.int8), (groups[left], groups[right])
    merged = connected_components(coo_array(links, shape=(len(groups),) * 2), directed=False)[1]
    return merged[groups].astype(np.int64)


_HEAD = 1 << 16  # bytes read of files of one size before any is read whole


class MediaRoot:
    """A folder whose files are found by relative path and never outside it, links included."""

    def __init__(self, root: str | Path):
        self.root = os.path.realpath(root)
        self._folders: dict[str, str | None] = {}

    def locate(self, path: str) -> str | None:
        """The real path of `root/path`, None if it is outside the root or not a regular file.

        A folder is resolved once and remembered; so do not move links while this is in use.
        """
        return (self.measure(path) or (None,))[0]

    def measure(self, path: str) -> tuple[str, int] | None:
        """As `locate`, with the size in bytes."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = self._inside(os.path.join(self.root, folder))
        base = self._folders[folder]
        if base is None or not name or name in (".", "..") or "\0" in name:
            return None
        full = f"{base}{os.sep}{name}"
        try:
            status = os.lstat(full)
            if stat.S_ISLNK(status.st_mode):
                full = self._inside(full)
                status = os.stat(full) if full else status
        except (OSError, ValueError):
            return None
        return (full, status.st_size) if full and stat.S_ISREG(status.st_mode) else None

    def _inside(self, path: str) -> str | None:
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError):  # a NUL, or links in a circle
            return None
        base = self.root.rstrip(os.sep) + os.sep
        return real if (real + os.sep).startswith(base) else None


def content_classes(paths: Sequence[str], root: str | Path) -> np.ndarray:
    """int64 [F], equal exactly for files of equal bytes; relative to `root`, F distinct paths.

    Files are compared by size, then by a digest of their first 64 KiB, then by one of all of
    them: most large files of a corpus are never read whole. A file that is missing, cannot be
    read or lies outside the root is equal to no other.
    """
    folder = MediaRoot(root)
    found = [folder.measure(path) for path in paths]
    sizes = np.array([one[1] if one else -1 for one in found], np.int64)
    classes = renumber(sizes)
    for limit in (_HEAD, None):
        tied = np.bincount(classes)[classes] > 1
        if limit is None:
            tied &= sizes > _HEAD
        rows = np.flatnonzero(tied | (sizes < 0))
        digests = b"".join(_digest(found[row], limit) or _own(row) for row in rows.tolist())
        labels = np.zeros((len(paths), 3), np.uint64)
        labels[:, 0] = classes
        labels[rows, 1:] = np.frombuffer(digests, np.uint64).reshape(-1, 2)
        classes = renumber(labels)
    return classes


def _digest(located: tuple[str, int] | None, limit: int | None) -> bytes | None:
    """16 bytes that stand for the file's first `limit` bytes, or all; None if unreadable."""
    if located is None:
        return None
    try:
        handle = os.open(located[0], os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            if limit is not None:
                return hashlib.blake2b(os.read(handle, limit), digest_size=16).digest()
            with open(handle, "rb", closefd=False) as file:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
        finally:
            os.close(handle)
    except OSError:
        return None


def _own(row: int) -> bytes:
    return b"own" + row.to_bytes(13, "big")
