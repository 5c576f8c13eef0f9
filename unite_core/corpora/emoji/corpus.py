"""The renderings on disk, by split, from which records and tasks are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .catalogue import HELD_OUT_STYLE, STYLES, Emoji, split_of

__all__ = ["Corpus"]


@dataclass(frozen=True)
class Corpus:
    """Emoji drawn in all of STYLES, codes with a clip, and codes drawn in extra styles."""

    emoji: tuple[Emoji, ...]
    moving: frozenset[str]
    extra: Mapping[str, frozenset[str]] = field(default_factory=dict)  # style -> codes

    def of(self, style: str, *splits: str) -> list[Emoji]:
        """The emoji whose rendering in `style` ("text", "animated", …) is in one of `splits`."""
        return [
            emoji
            for emoji in self.emoji
            if split_of(emoji.code, style) in splits
            and (style != "animated" or emoji.code in self.moving)
        ]

    def trained_styles(self, emoji: Emoji) -> list[str]:
        """Styles whose pictures of this emoji are in training; two or more if the emoji is."""
        styles = [style for style in STYLES if style != HELD_OUT_STYLE]
        styles += [style for style, codes in self.extra.items() if emoji.code in codes]
        return [style for style in styles if split_of(emoji.code, style) == "train"]

    @staticmethod
    def image(code: str, style: str) -> str:
        """Path of a picture below the corpus."""
        return f"images/{style}/{code}.png"

    @staticmethod
    def clip(code: str) -> str:
        """Path of a clip below the corpus."""
        return f"videos/{code}.webp"
