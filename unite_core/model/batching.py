"""Plan how items are embedded: which share a batch, when media are read and how long kept.

Lengths come from prompts and file headers, before anything is decoded. A media file that several
items share is read and encoded once and kept until its last use, within a limit of memory.
"""

# Shapes: N items.

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

from ..data.items import ItemError
from ..data.media import MediaError
from .preprocessing import MediaSource
from .processor import ItemPlan, Processor

__all__ = ["Batch", "BatchPlan", "plan_batches"]


KEPT_BYTES = 256 * 2**20  # of media kept for later batches


class Batch(NamedTuple):
    """Items that are embedded together."""

    rows: list[int]
    fresh: list[MediaSource]  # media to read for it
    done: list[tuple]  # keys of media to drop after it


@dataclass(frozen=True)
class BatchPlan:
    """How N items are embedded; made by `plan_batches`."""

    items: list[ItemPlan | None]  # [N]; None for a bad item
    batches: list[Batch]
    bad: dict[int, ValueError]  # by row, why an item cannot be embedded
    patches: dict[tuple, int]  # by key of the media; an upper limit for video files

    @property
    def reads(self) -> Iterator[MediaSource]:
        """All media in the order in which batches need them."""
        return (source for batch in self.batches for source in batch.fresh)


def plan_batches(processor: Processor, items: Sequence[Any], where: Sequence[str],
              media_root: str | Path, tokens: int, batch_size: int | None = None,
              token_bytes: int = 4096, kept_bytes: int = KEPT_BYTES) -> BatchPlan:  # fmt: skip
    """BatchPlan batches of items of similar length, the longest first.

    Args
        where        [N] how errors name the items
        tokens       limit per batch, padding included; a longer item is a batch alone
        batch_size   items per batch, instead of `tokens`
        token_bytes  memory of a kept visual token
        kept_bytes   memory for media between batches; what exceeds it is read again
    """
    if batch_size is not None and not (isinstance(batch_size, Integral) and batch_size > 0):
        raise ValueError(f"batch_size must be a number from 1 on, or None, not {batch_size!r}")
    planned, shapes, bad = processor.plan_items(items, where), {}, {}
    lengths = {}
    for row, item in enumerate(planned):
        try:
            if isinstance(item, ItemError):
                raise item
            lengths[row] = processor.count_tokens(item, media_root, where[row], shapes)
        except (ItemError, MediaError) as error:
            planned[row], bad[row] = None, error
    sizes = {key: token_bytes * processor.visual_tokens(shape[1])
             for key, shape in shapes.items()}  # fmt: skip
    media = {row: {source.key: source for source in planned[row].media} for row in lengths}
    groups = list(_groups(lengths, tokens, batch_size))
    patches = {key: math.prod(grid) for key, (_, grid) in shapes.items()}
    return BatchPlan(planned, list(_batches(groups, media, sizes, kept_bytes)), bad, patches)


def _groups(lengths: Mapping[int, int], tokens: int,
            batch_size: int | None) -> Iterator[list[int]]:  # fmt: skip
    order = sorted(lengths, key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = batch_size or max(1, tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def _batches(groups, media: Mapping[int, dict[tuple, MediaSource]], sizes: Mapping[tuple, int],
             limit: int) -> Iterator[Batch]:  # fmt: skip
    """Decide which media each group reads and drops.

    What is kept stays until its last use. Evicting it for something newer would, in a long cycle of
    uses, leave nothing for a second use.
    """
    held: list[dict[tuple, MediaSource]] = [
        {key: source for row in rows for key, source in media[row].items()} for rows in groups
    ]
    uses = Counter(key for keys in held for key in keys)
    kept, used = set(), 0
    for rows, needed in zip(groups, held, strict=True):
        fresh = [source for key, source in needed.items() if key not in kept]
        done = []
        for key in needed:
            uses[key] -= 1
            if key in kept and not uses[key]:
                kept.remove(key)
                used -= sizes[key]
                done.append(key)
            elif key not in kept and uses[key] and used + sizes[key] <= limit:
                kept.add(key)
                used += sizes[key]
            elif key not in kept:
                done.append(key)
        yield Batch(rows, fresh, done)
