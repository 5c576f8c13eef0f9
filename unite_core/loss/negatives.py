"""Which targets an anchor competes with: groups, positives by content, random negatives.

Everything is lists of indices or one chunk of rows at a time, never an N x N matrix.
"""

# Shapes: N pairs, K negatives seen by all queries, k by one query alone, R rows asked for,
# c anchors of a chunk.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["NegativeMask", "Pairs", "draw_columns", "iter_groups", "matches", "sort_content"]


Pairs = tuple[Tensor, Tensor]  # row and column indices of entries of a matrix


@dataclass(frozen=True)
class NegativeMask:
    """Which targets are positives, which are negatives, and how much a negative counts.

    Labels are dense integers from 0.

    group, content            [N]  of each pair; a target of equal content is a positive
    temperature_index         [N]  the entry of the scale that multiplies this anchor's scores
    rows                      [R]  the pairs whose losses are asked for
    negative_group, _content  [K] or [N, k], like the negatives; content -1 matches no pair
    cross_modal_weight        in [0, 1): weight of exp(logit) of targets of other groups
    false_negative_margin     negatives scoring above the anchor's own pair + margin are dropped
    random_mask               a seed: groups only set how many negatives an anchor keeps, the seed
                              decides which
    """

    group: Tensor
    content: Tensor
    temperature_index: Tensor
    rows: Tensor
    negative_group: Tensor
    negative_content: Tensor
    symmetric: bool = False
    cross_modal_weight: float = 0.0
    false_negative_margin: float | None = None
    random_mask: int | None = None

    @property
    def separable(self) -> bool:
        """Whether no group sees another, so that each can be computed alone."""
        return self.cross_modal_weight == 0 and self.random_mask is None

    def unmasked(self) -> NegativeMask:
        """The same with all pairs in one group, which is what a `cross_modal_weight` of 1 means."""
        group, others = torch.zeros_like(self.group), torch.zeros_like(self.negative_group)
        return replace(self, group=group, negative_group=others, cross_modal_weight=0.0)


def iter_groups(mask: NegativeMask) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield indices of the pairs, requested rows and shared negatives of each group with rows.

    Groups that see each other are yielded as one.
    """
    if not len(mask.rows):
        return
    shared = mask.negative_group if mask.negative_group.ndim == 1 else mask.group[:0]
    if not mask.separable or not (mask.group.any() or shared.any()):
        pairs, negatives = (
            torch.arange(len(labels), device=labels.device) for labels in (mask.group, shared)
        )
        yield pairs, mask.rows, negatives
        return
    labels = (mask.group, mask.group[mask.rows], shared)
    size = 1 + int(torch.cat(labels).max())
    for members, rows, others in zip(*(_buckets(label, size) for label in labels), strict=True):
        if len(rows):
            yield members, mask.rows[rows], others


def _buckets(labels: Tensor, size: int) -> tuple[Tensor, ...]:
    """Positions of each label 0 ... size - 1, ascending."""
    return labels.argsort(stable=True).split(torch.bincount(labels, minlength=size).tolist())


def sort_content(content: Tensor) -> Pairs:
    """Sort contents for `matches`: the values in ascending order and where each came from."""
    return content.sort(stable=True)


def matches(wanted: Tensor, content: Pairs) -> Pairs:
    """Find the entries where `wanted` [c] equals the sorted `content`, row by row."""
    ordered, places = content
    first = torch.searchsorted(ordered, wanted)
    count = torch.searchsorted(ordered, wanted, right=True) - first
    rows = torch.arange(len(wanted), device=wanted.device).repeat_interleave(count)
    start = first - count.cumsum(0) + count  # of each row's run, minus the entries before it
    return rows, places[start[rows] + torch.arange(len(rows), device=wanted.device)]


def draw_columns(seed: int, anchors: Tensor, counts: Tensor, width: int, never: Pairs) -> Tensor:
    """Draw `counts` [c] of `width` columns for each anchor, never those listed.

    Returns booleans [c, width]. A draw depends on the seed, the anchor's index and the width alone,
    not on the other anchors of the chunk. Every column gets a hash as its key; the smallest keys
    win.
    """
    columns = torch.arange(width, device=anchors.device)
    rows = _hash(_hash(torch.full_like(anchors, seed)) + anchors)
    keys = (_hash(rows[:, None] + _hash(columns)) << 31) | columns  # no two are equal
    keys[never] = torch.iinfo(torch.int64).max
    last = keys.sort(1)[0].gather(1, (counts[:, None] - 1).clamp_min(0))
    return (keys <= last) & (counts[:, None] > 0)


def _hash(x: Tensor) -> Tensor:
    """32 well-mixed bits of each integer (xor-shifts and odd multipliers)."""
    for factor in (0x7FEB352D, 0x846CA68B):
        x = x & 0xFFFFFFFF
        x = (x ^ (x >> 16)) * factor
    x = x & 0xFFFFFFFF
    return x ^ (x >> 16)
