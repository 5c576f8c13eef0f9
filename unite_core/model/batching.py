"""Before anything is decoded: which items share a batch, when media are read, how long kept.

Lengths come from prompts and file headers alone. A medium that several items hold is read and seen
once and kept until its last use, as long as what is kept stays under a limit of memory.
"""

# Shapes: N items, D width of the language model.

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..data.items import ItemError
from ..data.media import MediaError
from .preprocessing import Source
from .processor import ItemPlan, Processor, naming

__all__ = ["Batch", "BatchPlan", "plan_batches"]


KEPT_BYTES = 256 * 2**20  # of media that later batches use again


class Batch(NamedTuple):
    """Items that are embedded together."""

    rows: list[int]
    fresh: list[Source]  # media that are read for it
    done: list[tuple]  # keys of media that no later batch takes from it


@dataclass(frozen=True)
class BatchPlan:
    """How N items become vectors."""

    items: list[ItemPlan | None]  # [N]; None for a bad item
    batches: list[Batch]
    bad: dict[int, ValueError]  # items that cannot be embedded: an ItemError or MediaError
    patches: dict[tuple, int]  # of each medium; of a video file perhaps more than it has

    @property
    def reads(self) -> Iterator[Source]:
        """All media in the order in which batches take them."""
        return (source for batch in self.batches for source in batch.fresh)


def plan_batches(processor: Processor, items: Sequence[Any], where: Sequence[str],
              media_root: str | Path, tokens: int, batch_size: int | None = None,
              token_bytes: int = 4096, kept_bytes: int = KEPT_BYTES) -> BatchPlan:  # fmt: skip
    """BatchPlan batches of items of similar length, the longest first.

    Args
        where        [N] how errors name the items
        tokens       of a batch, padding included; one item may have more
        batch_size   items of a batch, in place of `tokens`
        token_bytes  that a visual token takes up while it is kept
        kept_bytes   that media may take up between batches; those beyond are read again
    """
    outlines, shapes, bad = processor.outlines(items, where), {}, {}
    lengths = {}
    for row, outline in enumerate(outlines):
        try:
            lengths[row] = _length(processor, outline, media_root, shapes, where[row])
        except (ItemError, MediaError) as error:
            outlines[row], bad[row] = None, error
    sizes = {key: token_bytes * processor.visual_tokens(shape[1])
             for key, shape in shapes.items()}  # fmt: skip
    media = {row: {source.key: source for source in outlines[row].media} for row in lengths}
    groups = list(_groups(lengths, tokens, batch_size))
    patches = {key: math.prod(grid) for key, (_, grid) in shapes.items()}
    return BatchPlan(outlines, list(_batches(groups, media, sizes, kept_bytes)), bad, patches)


def _length(processor, outline: ItemPlan | ItemError, root, shapes: dict, where: str) -> int:
    """Tokens of an item; headers of media that are not in `shapes` are read into it."""
    if isinstance(outline, ItemError):
        raise outline
    with naming(where):
        for source in outline.media:
            if source.key not in shapes:
                shapes[source.key] = processor.reader.shape(source, root)
        return processor.count(outline, [shapes[source.key] for source in outline.media])


def _groups(lengths: Mapping[int, int], tokens: int,
            batch_size: int | None) -> Iterator[list[int]]:  # fmt: skip
    order = sorted(lengths, key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = batch_size or max(1, tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def _batches(groups, media: Mapping[int, dict[tuple, Source]], sizes: Mapping[tuple, int],
             limit: int) -> Iterator[Batch]:  # fmt: skip
    """What each group reads and drops. What is kept stays until its last use: nothing is pushed
    out for something newer, which in a long cycle of uses would leave no medium its second one."""
    held: list[dict[tuple, Source]] = [
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
