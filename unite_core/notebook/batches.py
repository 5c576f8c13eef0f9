"""TODO."""

# Shapes: N pairs in a batch, T modalities that occur.

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
    """The first pairs of the target modalities asked for, in that order, of different contents.

    A target modality that is nobody's is taken from pairs that have it as the query, turned round.
    Raises ValueError if there are not enough of these either.
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
    short = {code: many for code, many in wanted.items() if len(found.get(code, ())) < many}
    if short:
        raise ValueError(f"too few pairs with targets of these modalities (code: wanted): {short}")
    left = {code: iter(found[code]) for code in wanted}
    return [next(left[code]) for code in target_modality]
