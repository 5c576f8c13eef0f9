"""Which records stay and why the others go: reasons as bits, reports with examples."""

# Shapes: N records, R reasons.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["REASONS", "Reasons"]


REASONS: Mapping[str, str] = {
    "unreadable": "a medium is missing or cannot be decoded",
    "small": "a picture has too short a side",
    "stretched": "a picture is too long and narrow",
    "constant": "a picture shows next to nothing",
    "static": "a video does not move",
    "blank": "a text has no letter, digit or symbol",
    "boilerplate": "a text describes nothing: file names, links, site phrases",
    "short": "a text has too few characters",
    "long": "a text has too many characters",
    "language": "a text is in a language that was not asked for",
    "leak": "an evaluation set has the same item, exactly or nearly",
    "exact duplicate": "an earlier record has the same content on both sides",
    "near duplicate": "an earlier record nearly has the same content on both sides",
    "misaligned": "query and candidate do not belong together",
    "unquoted": "its source had enough without it",
}
"""Every reason in the order in which it is named first, and what it says of a record."""

_BIT = {name: np.uint32(1 << place) for place, name in enumerate(REASONS)}


class Reasons:
    """For each of N records the reasons, if any, to leave it out."""

    def __init__(self, count: int):
        self.bits = np.zeros(count, np.uint32)

    def __len__(self) -> int:
        return len(self.bits)

    def mark(self, reason: str, rows: np.ndarray) -> None:
        """Add a reason to rows, given as numbers or as a mask [N]."""
        if reason not in _BIT:
            raise ValueError(f"reason {reason!r}: use one of {', '.join(REASONS)}")
        rows = np.asarray(rows)
        self.bits[rows if rows.dtype == bool else rows.astype(np.int64)] |= _BIT[reason]

    def has(self, reason: str) -> np.ndarray:
        """bool [N]: the records that a reason names."""
        return (self.bits & _BIT[reason]) > 0

    @property
    def kept(self) -> np.ndarray:
        """bool [N]: the records without any reason."""
        return self.bits == 0

    def of(self, row: int) -> list[str]:
        """The reasons against one record, in the order of REASONS."""
        return [name for name, bit in _BIT.items() if self.bits[row] & bit]

    def report(self, examples: int = 3) -> list[dict]:
        """What each reason that was met removes, in the order of REASONS.

        Returns rows of `reason`, `meaning`, `hits` (records it names), `first` (no reason before
        it names them: these add up to all that is removed), `only` (nothing else names them: what
        would come back without the rule), `share` of all records, and `examples`, row numbers
        spread evenly over those that only this reason names, then over its other hits.
        """
        rows, before = [], np.uint32(0)
        for name, bit in _BIT.items():
            hit = (self.bits & bit) > 0
            first, only = hit & ((self.bits & before) == 0), self.bits == bit
            before |= bit
            if hit.any():
                rows.append({
                    "reason": name,
                    "meaning": REASONS[name],
                    "hits": int(hit.sum()),
                    "first": int(first.sum()),
                    "only": int(only.sum()),
                    "share": float(hit.mean()),
                    "examples": _spread([np.flatnonzero(only), np.flatnonzero(hit & ~only)],
                                        examples),
                })  # fmt: skip
        return rows


def _spread(choices: Sequence[np.ndarray], wanted: int) -> list[int]:
    """`wanted` of the numbers, evenly spaced, of the first list before the second."""
    chosen: list[int] = []
    for rows in choices:
        count = min(wanted - len(chosen), len(rows))
        if count > 0:
            places = np.linspace(0, len(rows) - 1, count).round().astype(int)
            chosen += rows[places].tolist()
    return chosen
