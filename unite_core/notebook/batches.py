"""Small batches with chosen target modalities, to show what the mask does."""

# Shapes: N pairs in a batch.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ..data.modality import modality_of
from ..data.records import content_id

__all__ = ["FIGURE_2B", "mixed_batch"]


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
