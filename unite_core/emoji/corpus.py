"""What exists on disk, by split: the view of the corpus that records and tasks are made from."""

from __future__ import annotations

from dataclasses import dataclass

from .catalogue import Emoji, split_of

__all__ = ["Corpus"]


@dataclass(frozen=True)
class Corpus:
    """Emoji drawn in all styles, and the codes that have a moving clip."""

    emoji: tuple[Emoji, ...]
    moving: frozenset[str]

    def of(self, style: str, *splits: str) -> list[Emoji]:
        """The emoji whose rendering in `style` ("text", "animated", …) is in one of `splits`."""
        return [
            one
            for one in self.emoji
            if split_of(one.code, style) in splits
            and (style != "animated" or one.code in self.moving)
        ]

    @staticmethod
    def image(code: str, style: str) -> str:
        return f"images/{style}/{code}.png"

    @staticmethod
    def clip(code: str) -> str:
        return f"videos/{code}.webp"
