"""Batches to look at: small ones with chosen target modalities, and the first of a stage."""

# Shapes: N pairs in a batch, D embedding size.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..data.modality import modality_of
from ..data.pairs import PairDataset
from ..data.records import content_id
from ..model.embedder import UniteEmbedder
from ..train.config import StageConfig

__all__ = ["FIGURE_2B", "embedded_batch", "mixed_batch"]


FIGURE_2B = (1, 2, 4, 3, 1, 1, 2, 4)
"""Target modalities of the paper's example of the mask: T, I, V, T+I, T, T, I, V."""


def mixed_batch(
    pairs: Iterable[tuple[Mapping, Mapping]], target_modality: Sequence[int] = FIGURE_2B
) -> list[tuple[Mapping, Mapping]]:
    """Pick the first pairs with the given target modalities [N], in that order.

    No two share an item. Where no pair has a target modality, pairs with it on the query side are
    reversed. Raises ValueError if there are not enough.
    """
    pairs = list(pairs)
    lacking = set(target_modality) - {int(modality_of(candidate)) for _, candidate in pairs}
    found, seen = {}, set()
    for query, candidate in pairs:
        contents = {content_id(query), content_id(candidate)}
        if seen.isdisjoint(contents):
            seen |= contents
            if modality_of(query) in lacking:
                query, candidate = candidate, query
            found.setdefault(int(modality_of(candidate)), []).append((query, candidate))
    wanted = Counter(target_modality)
    short = {code: count for code, count in wanted.items() if len(found.get(code, ())) < count}
    if short:
        raise ValueError(f"too few pairs with targets of these modalities (code: wanted): {short}")
    left = {code: iter(found[code]) for code in wanted}
    return [next(left[code]) for code in target_modality]


def embedded_batch(
    embedder: UniteEmbedder, pairs: PairDataset, stage: StageConfig, root: str | Path
):
    """The first batch that a stage draws from pairs, collated, and its vectors [2 N, D].

    Queries come first, then candidates. Returns (pairs of the batch, batch, vectors).
    """
    import torch

    from ..train.collator import PairCollator
    from ..train.sampler import PairSampler

    rows = next(iter(PairSampler(pairs, stage.batch_size, 1, seed=stage.seed)))
    drawn = [pairs[index] for index in rows]
    batch = PairCollator(embedder.processor, root)(drawn)
    with torch.inference_mode():
        vectors = torch.cat([embedder(**group) for group in batch["groups"]])[batch["order"]]
    return drawn, batch, vectors[: 2 * len(drawn)]
