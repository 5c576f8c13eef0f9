"""Modalities as a bit set, and the one rule that reads them off an item."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag

__all__ = ["KEYS", "Modality", "modality_of", "parse_modality"]


class Modality(IntFlag):
    """TEXT | IMAGE | VIDEO; the integer values are the released code's (PAPER §2.2)."""

    TEXT = 1
    IMAGE = 2
    VIDEO = 4

    @property
    def label(self) -> str:
        """Names joined by a plus sign in the order text, image, video: `"text+image"`."""
        return "+".join(key for key in KEYS if self & Modality[key.upper()])


KEYS = ("text", "image", "video")


def modality_of(item: Mapping) -> Modality:
    """The modalities of an item, from the keys that it has and that are not None."""
    code = 0
    for bit, key in enumerate(KEYS):
        if item.get(key) is not None:
            code |= 1 << bit
    return _ALL[code]


def parse_modality(names: str) -> Modality:
    """`"text,image"` or `"text+image"` to a Modality; an unknown or empty name is a ValueError."""
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


_ALL = [Modality(code) for code in range(1 << len(KEYS))]  # operators of IntFlag are slow
