"""Modalities as a bit set: text 1, image 2, video 4, and their sums for mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag

__all__ = ["KEYS", "Modality", "modality_of", "parse_modality"]


class Modality(IntFlag):
    """TEXT | IMAGE | VIDEO; the integer values are those of the released code."""

    TEXT = 1
    IMAGE = 2
    VIDEO = 4

    @property
    def label(self) -> str:
        """Names joined by a plus sign in the order text, image, video: `"text+image"`."""
        return "+".join(key for key in KEYS if self & Modality[key.upper()])


KEYS = ("text", "image", "video")


def modality_of(item: Mapping) -> Modality:
    """The modalities of an item: those of its keys whose value is not None.

    >>> modality_of({"image": "cat.png", "text": "the same in blue"}).label
    'text+image'
    >>> int(modality_of({"image": "cat.png", "text": None}))
    2
    """
    code = 0
    for bit, key in enumerate(KEYS):
        if item.get(key) is not None:
            code |= 1 << bit
    return _ALL[code]


def parse_modality(names: str) -> Modality:
    """Read `"text,image"` or `"text+image"`; an unknown or empty name is a ValueError."""
    code = Modality(0)
    for name in names.replace("+", ",").split(","):
        key = name.strip().lower()
        if key not in KEYS:
            raise ValueError(
                f"unknown modality {name.strip()!r} in {names!r}: "
                f"use {', '.join(KEYS)}, joined by commas"
            )
        code |= Modality[key.upper()]
    return code


_ALL = [Modality(code) for code in range(1 << len(KEYS))]  # IntFlag's operators are slow
