"""Group rows, items and files by content, as arrays of group numbers.

A grouping is an int64 array [N]: rows with equal numbers are in one group. An item is a structure
(which kinds of parts in which order) plus leaves (texts and media files). Leaves are classified
first, by equal bytes here or by similarity elsewhere; items are in one group if their structures
are equal and their leaves have equal classes.
"""

# Shapes: N rows or items, L distinct leaves, F files, E pairs of rows.

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

from ..data.items import images_of, videos_of
from ..data.media import inside
from ..data.records import content_id

__all__ = [
    "FileLeaves", "Items", "Leaf", "MediaRoot", "PartLeaves", "combine",
    "content_classes", "first_of", "gather_items", "group_items", "renumber", "stars",
]  # fmt: skip


_EDGES = 20_000_000  # pairs held before repeated ones are removed
_HEAD = 1 << 16  # bytes compared of files of equal size before any is read whole


def renumber(labels: np.ndarray) -> np.ndarray:
    """Number labels by first appearance: [N], or the rows of a matrix [N, K], -> int64 [N].

    >>> renumber(np.array([7, 3, 7, 9]))
    array([0, 1, 0, 2])
    """
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
    """Intersect groupings [N]: rows share a group, int64 [N], if they do so in all of them."""
    combined = renumber(np.asarray(groups[0]))
    for labels in groups[1:]:
        other = renumber(np.asarray(labels))
        combined = renumber(combined * (other.max(initial=0) + 1) + other)
    return combined


def stars(count: int, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Group rows around centres, int64 [count]: every row is paired with the centre of its group.

    pairs  blocks ([E], [E]) of rows that are similar
    The row with most pairs is the first centre and takes all that it is paired with, then the row
    with most pairs among the rest, and so on (Aslam, Pelekhov and Rus, 2004); no two centres are
    paired. Connected components would put a crowd in which each resembles only its neighbours into
    one group.

    >>> stars(5, [(np.array([0, 1, 2, 3]), np.array([1, 2, 3, 4]))])
    array([0, 0, 0, 1, 1])
    """
    links = _distinct_links(pairs)
    ends = np.concatenate([links, links[:, ::-1]])
    ends = ends[np.argsort(ends[:, 0], kind="stable")]
    degree = np.bincount(ends[:, 0], minlength=count)
    starts = np.concatenate([[0], np.cumsum(degree)])
    centre = np.full(count, -1)
    for row in np.lexsort((np.arange(count), -degree)).tolist():
        if not degree[row]:
            break
        if centre[row] < 0:
            others = ends[starts[row] : starts[row + 1], 1]
            centre[others[centre[others] < 0]] = row
            centre[row] = row
    return renumber(np.where(centre < 0, np.arange(count), centre))


def first_of(groups: np.ndarray) -> np.ndarray:
    """bool [N]: whether a row is the first of its group, the one that deduplication keeps.

    >>> first_of(np.array([0, 1, 0]))
    array([ True,  True, False])
    """
    first = np.zeros(len(groups), bool)
    first[np.unique(groups, return_index=True)[1]] = True
    return first


def _distinct_links(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Pairs of different rows, int64 [E, 2], each once."""
    held = [np.zeros((0, 2), np.int64)]
    for left, right in pairs:
        held.append(np.stack([np.maximum(left, right), np.minimum(left, right)], axis=1))
        if sum(map(len, held)) > _EDGES:
            held = [np.unique(np.concatenate(held), axis=0)]
    links = np.unique(np.concatenate(held), axis=0)
    return links[links[:, 0] != links[:, 1]]


class Leaf(NamedTuple):
    """A text, an image file, or a video: a file or a tuple of frame files."""

    kind: str
    value: str | tuple[str, ...]


class FileLeaves:
    """Leaves are media files and texts belong to the structure: for exact comparison."""

    def __init__(self):
        self.numbers: dict[str, int] = {}

    def structure(self, item: Mapping, refs: array) -> list:
        """Return the item's structure and append the numbers of its leaves to `refs`."""
        media = [
            [self._leaf(file, refs) for file in split(item)] for split in (images_of, videos_of)
        ]
        return [item.get("text"), *media]

    def _leaf(self, file, refs: array):
        if isinstance(file, list | tuple):
            return [self._leaf(frame, refs) for frame in file]
        if not isinstance(file, str | os.PathLike):
            return content_id({"image": file})
        refs.append(self.numbers.setdefault(os.fspath(file), len(self.numbers)))
        return 0


class PartLeaves:
    """Leaves are whole texts, images and videos: for comparison by similarity."""

    def __init__(self):
        self.numbers: dict[Leaf, int] = {}

    def structure(self, item: Mapping, refs: array) -> list:
        """As `FileLeaves.structure`; media in memory are compared as part of the structure."""
        text = item.get("text")
        parts = [] if text is None else [self._leaf("text", text, refs)]
        parts += [self._leaf("image", image, refs) for image in images_of(item)]
        parts += [self._leaf("video", video, refs) for video in videos_of(item)]
        return parts

    def _leaf(self, kind: str, part, refs: array) -> list[str]:
        frames = part if isinstance(part, list | tuple) else [part]
        if not all(isinstance(frame, str | os.PathLike) for frame in frames):
            return [kind, content_id({kind: part})]
        files = tuple(os.fspath(frame) for frame in frames)
        leaf = Leaf(kind, files if frames is part else files[0])
        refs.append(self.numbers.setdefault(leaf, len(self.numbers)))
        return [kind]


class Items(NamedTuple):
    """Structures of N items and references to their leaves."""

    structures: np.ndarray  # [N] int64, equal for equal structures
    refs: np.ndarray  # numbers of the leaves of all items, one item after another
    starts: np.ndarray  # [N + 1] int64, where each item's leaves start in `refs`


def gather_items(items: Iterable[Mapping], leaves: FileLeaves | PartLeaves) -> Items:
    """Structures and leaf references of items, read one by one; keeps about 40 bytes of each."""
    digests, refs, starts = bytearray(), array("q"), array("q", [0])
    for item in items:
        structure = json.dumps(leaves.structure(item, refs)).encode()
        digests += hashlib.blake2b(structure, digest_size=16).digest()
        starts.append(len(refs))
    structures = renumber(np.frombuffer(digests, np.uint64).reshape(-1, 2))
    return Items(structures, np.array(refs, np.int64), np.array(starts, np.int64))


def group_items(items: Items, classes: np.ndarray) -> np.ndarray:
    """Group items, int64 [N], by equal structure and equal classes of their leaves in order.

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


class MediaRoot:
    """Finds files by path relative to a folder and never outside it, not even through links."""

    def __init__(self, root: str | Path):
        self.root = os.path.realpath(root)
        self._folders: dict[str, str | None] = {}

    def locate(self, path: str) -> tuple[str, int] | None:
        """Real path and size in bytes of `root/path`; None if outside or not a regular file.

        Each folder is resolved once and cached: do not move links meanwhile.
        """
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
            return inside(path, self.root)
        except (OSError, ValueError):  # a NUL, or links in a circle
            return None


def content_classes(paths: Sequence[str], root: str | Path) -> np.ndarray:
    """Classify F distinct paths below `root`: int64 [F], equal exactly for files of equal bytes.

    Files are compared by size, then by a digest of their first 64 KiB, then by a digest of the
    whole file, so most large files are never read to the end. A file that is missing, unreadable
    or outside the root is in a class of its own.
    """
    from tqdm import tqdm

    folder = MediaRoot(root)
    found = [folder.locate(path) for path in paths]
    sizes = np.array([file[1] if file else -1 for file in found], np.int64)
    classes = renumber(sizes)
    for limit in (_HEAD, None):
        tied = np.bincount(classes)[classes] > 1
        if limit is None:
            tied &= sizes > _HEAD
        rows = np.flatnonzero(tied | (sizes < 0))
        shown = tqdm(rows.tolist(), "comparing files", unit="file", mininterval=2, delay=1)
        digests = b"".join(_digest(found[row], limit) or _unique(row) for row in shown)
        labels = np.zeros((len(paths), 3), np.uint64)
        labels[:, 0] = classes
        labels[rows, 1:] = np.frombuffer(digests, np.uint64).reshape(-1, 2)
        classes = renumber(labels)
    return classes


def _digest(located: tuple[str, int] | None, limit: int | None) -> bytes | None:
    """16-byte digest of the file's first `limit` bytes, or of all; None if unreadable."""
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


def _unique(row: int) -> bytes:
    return b"own" + row.to_bytes(13, "big")
