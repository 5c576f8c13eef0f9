"""Who competes with whom: groups, positives by content, negatives drawn at random.

All of it as lists of numbers or chunk by chunk, never as an N x N matrix.
"""

# Shapes: N pairs, K negatives seen by all queries, k by one query alone, R rows asked for,
# c anchors of a chunk.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Contest", "Pairs", "drawn_at_random", "groups", "matches", "sort"]


Pairs = tuple[Tensor, Tensor]  # row and column numbers of entries of a matrix


@dataclass(frozen=True)
class Contest:
    """Who competes with whom for what. Labels are dense integers from 0.

    group, content            [N]  of each pair; equal content means: a positive
    tempered                  [N]  which entry of the scale multiplies the scores of this anchor
    rows                      [R]  the pairs whose losses are asked for
    negative_group, _content  [K] or [N, k], like the negatives; content -1 is nobody's positive
    cross_weight              in [0, 1): exp(logit) of targets of other groups counts this much
    margin                    a negative scoring above the anchor's own pair + margin is dropped
    seed                      groups only say how many negatives an anchor keeps, the seed which
    """

    group: Tensor
    content: Tensor
    tempered: Tensor
    rows: Tensor
    negative_group: Tensor
    negative_content: Tensor
    symmetric: bool = False
    cross_weight: float = 0.0
    margin: float | None = None
    seed: int | None = None

    @property
    def apart(self) -> bool:
        """Whether no group sees another, so that each can be computed alone."""
        return self.cross_weight == 0 and self.seed is None

    def unmasked(self) -> Contest:
        """The same with everybody in one group: what a `cross_weight` of 1 would mean."""
        group, others = torch.zeros_like(self.group), torch.zeros_like(self.negative_group)
        return replace(self, group=group, negative_group=others, cross_weight=0.0)


def groups(contest: Contest) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pairs, asked rows and shared negatives of each group that has rows, as numbers.

    Groups that see each other come as one.
    """
    if not len(contest.rows):
        return
    shared = contest.negative_group if contest.negative_group.ndim == 1 else contest.group[:0]
    if not contest.apart or not (contest.group.any() or shared.any()):
        everything, every_negative = (
            torch.arange(len(labels), device=labels.device) for labels in (contest.group, shared)
        )
        yield everything, contest.rows, every_negative
        return
    labels = (contest.group, contest.group[contest.rows], shared)
    size = 1 + int(torch.cat(labels).max())
    for members, rows, others in zip(*(_buckets(label, size) for label in labels), strict=True):
        if len(rows):
            yield members, contest.rows[rows], others


def _buckets(labels: Tensor, size: int) -> tuple[Tensor, ...]:
    """Positions of each label 0 ... size - 1, ascending."""
    return labels.argsort(stable=True).split(torch.bincount(labels, minlength=size).tolist())


def sort(content: Tensor) -> Pairs:
    """Contents in ascending order and where they were, for `matches`."""
    return content.sort(stable=True)


def matches(wanted: Tensor, content: Pairs) -> Pairs:
    """Rows of `wanted` [c] and columns of the sorted `content` that are equal, row by row."""
    ordered, places = content
    first = torch.searchsorted(ordered, wanted)
    count = torch.searchsorted(ordered, wanted, right=True) - first
    rows = torch.arange(len(wanted), device=wanted.device).repeat_interleave(count)
    start = first - count.cumsum(0) + count  # of each row's run, minus the entries before it
    return rows, places[start[rows] + torch.arange(len(rows), device=wanted.device)]


def drawn_at_random(seed: int, anchors: Tensor, many: Tensor, width: int, never: Pairs) -> Tensor:
    """For each anchor `many` [c] columns out of `width`, never those listed, as booleans.

    A draw depends on the seed, the anchor's number and the width alone, not on the other anchors
    of the chunk. The keys of all columns are hashes; the smallest win.
    """
    columns = torch.arange(width, device=anchors.device)
    rows = _hash(_hash(torch.full_like(anchors, seed)) + anchors)
    keys = (_hash(rows[:, None] + _hash(columns)) << 31) | columns  # no two are equal
    keys[never] = torch.iinfo(torch.int64).max
    last = keys.sort(1)[0].gather(1, (many[:, None] - 1).clamp_min(0))
    return (keys <= last) & (many[:, None] > 0)


def _hash(x: Tensor) -> Tensor:
    """32 well-mixed bits of each integer (xor-shifts and odd multipliers)."""
    for factor in (0x7FEB352D, 0x846CA68B):
        x = x & 0xFFFFFFFF
        x = (x ^ (x >> 16)) * factor
    x = x & 0xFFFFFFFF
    return x ^ (x >> 16)
