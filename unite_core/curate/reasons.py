"""Reasons to remove records: one bit per reason and record, with a report and examples."""

# Shapes: N records, R reasons.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["REASONS", "Reasons"]


REASONS: Mapping[str, str] = {
    "missing": "a media file is not there",
    "too large": "an image has more pixels than are read: shrink it (clean.shrink_to)",
    "unreadable": "a media file cannot be decoded",
    "small": "an image or video has too short a side",
    "stretched": "an image or video is too long and narrow",
    "constant": "an image or video shows next to nothing",
    "static": "a video does not move",
    "blank": "a text has no letter, digit or symbol",
    "boilerplate": "a text describes nothing: file names, links, site phrases",
    "keywords": "a text is a long list of keywords and no sentence",
    "shared text": "one text stands with very many pictures or clips: a template, or a label",
    "short": "a text has too few characters",
    "long": "a text has too many characters",
    "language": "a text is in a language that was not asked for",
    "leak": "an evaluation set has the same item, exactly or nearly",
    "exact duplicate": "an earlier record has the same content on both sides",
    "near duplicate": "an earlier record nearly has the same content on both sides",
    "misaligned": "query and candidate do not belong together",
    "over quota": "its source has enough records without it",
}
"""All reasons, in the order in which reports list them, and their meaning."""

_BIT = {name: np.uint32(1 << place) for place, name in enumerate(REASONS)}


class Reasons:
    """The reasons, if any, to remove each of N records.

    >>> reasons = Reasons(3)
    >>> reasons.mark("blank", np.array([1]))
    >>> reasons.of(1), reasons.kept.tolist()
    (['blank'], [True, False, True])
    """

    def __init__(self, count: int):
        self.bits = np.zeros(count, np.uint32)

    def __len__(self) -> int:
        return len(self.bits)

    def mark(self, reason: str, rows: np.ndarray) -> None:
        """Add a reason to rows, given as indices or as a mask bool [N]."""
        if reason not in _BIT:
            raise ValueError(f"reason {reason!r}: use one of {', '.join(REASONS)}")
        rows = np.asarray(rows)
        self.bits[rows if rows.dtype == bool else rows.astype(np.int64)] |= _BIT[reason]

    def has(self, reason: str) -> np.ndarray:
        """bool [N]: whether a record has this reason."""
        return (self.bits & _BIT[reason]) > 0

    @property
    def kept(self) -> np.ndarray:
        """bool [N]: whether a record has no reason."""
        return self.bits == 0

    def of(self, row: int) -> list[str]:
        """The reasons of one record, in the order of REASONS."""
        return [name for name, bit in _BIT.items() if self.bits[row] & bit]

    def report(self, examples: int = 3) -> list[dict]:
        """Summarize each reason that occurs, in the order of REASONS.

        Returns rows of `reason`, `meaning`, `hits` (records with it), `first` (records where no
        earlier reason applies; these add up to all removed records), `only` (records with no
        other reason, which would come back without the rule), `share` of all records, and
        `examples`: row numbers spread evenly, first over `only`, then over the other hits.
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
    """Pick `wanted` evenly spaced numbers, from the first list before the second."""
    chosen: list[int] = []
    for rows in choices:
        count = min(wanted - len(chosen), len(rows))
        if count > 0:
            places = np.linspace(0, len(rows) - 1, count).round().astype(int)
            chosen += rows[places].tolist()
    return chosen
