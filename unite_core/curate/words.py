"""What texts are made of: words, attribute words, language; how coarse or fine a caption is."""

# Shapes: N texts.

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

__all__ = ["ATTRIBUTES", "bare_text", "granularity", "languages", "top_shares", "words_of"]

ATTRIBUTES = frozenset((
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
    "grey", "gray", "golden", "silver", "dark", "light", "bright", "pale", "colourful",
    "colorful", "striped", "dotted", "plain", "small", "medium", "large", "big", "tiny", "huge",
    "tall", "short", "long", "wide", "narrow", "round", "square", "flat", "thin", "thick", "left",
    "right", "top", "bottom", "centre", "center", "middle", "upper", "lower", "above", "below",
    "behind", "front", "beside", "inside", "outside", "near", "far", "up", "down", "one", "two",
    "three", "four", "five", "six", "seven", "eight", "nine", "ten", "several", "many", "wooden",
    "metal", "plastic", "glass", "stone", "paper", "old", "young", "new", "open", "closed",
    "empty", "full", "smiling", "standing", "sitting", "running", "walking", "moving", "growing",
    "shrinking", "turning", "slowly", "quickly", "first", "then",
))  # fmt: skip
"""Words that tell items of one kind apart: colour, size, place, number, material, state."""
FINE_WORDS = 8  # a text of so many words, or of FINE_ATTRIBUTES attribute words, is fine
FINE_ATTRIBUTES = 3
_WINDOW = 1000  # words over which type-token ratios are taken, so that they can be compared
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_PLACEHOLDER = re.compile(r"<\|(?:IMAGE|VIDEO)\|>")


def bare_text(text: str) -> str:
    """The text without media placeholders and outer blanks."""
    return _PLACEHOLDER.sub(" ", text).strip()


def words_of(text: str) -> list[str]:
    """Words in small letters; scripts without spaces give one word per run of letters."""
    return _WORD.findall(bare_text(text).lower())


def granularity(texts: Sequence[str]) -> dict[str, float]:
    """How coarse or fine texts are.

    Returns the mean number of `words` and of `attribute_words` (`ATTRIBUTES`), the
    `type_token_ratio` (different words / words, mean over windows of 1000 words, or over what
    there is), and `fine_share`: texts of at least 8 words or 3 attribute words.
    """
    lists = [words_of(text) for text in texts]
    lengths = np.array([len(words) for words in lists])
    attributes = np.array([sum(word in ATTRIBUTES for word in words) for words in lists])
    if not len(lists):
        return dict.fromkeys(("words", "attribute_words", "type_token_ratio", "fine_share"), 0.0)
    return {
        "words": float(lengths.mean()),
        "attribute_words": float(attributes.mean()),
        "type_token_ratio": _type_token_ratio([word for words in lists for word in words]),
        "fine_share": float(((lengths >= FINE_WORDS) | (attributes >= FINE_ATTRIBUTES)).mean()),
    }


def languages(texts: Sequence[str], least_characters: int = 20) -> list[str]:
    """ISO 639-1 guesses of py3langid; "" for texts too short to tell.

    Below about 20 letters the guess is a coin toss (labels such as "melon"), so none is made.
    """
    guess = _identify()
    bare = [bare_text(text) for text in texts]
    return [guess(text)[0] if _letters(text) >= least_characters else "" for text in bare]


def top_shares(values: Sequence[str], most: int = 5) -> dict[str, float]:
    """The shares of the most frequent values, the most frequent first."""
    return {name: count / len(values) for name, count in Counter(values).most_common(most)}


def _letters(text: str) -> int:
    return sum(character.isalpha() for character in text)


def _type_token_ratio(words: Sequence[str]) -> float:
    windows = [words[start : start + _WINDOW] for start in range(0, len(words), _WINDOW)]
    whole = [window for window in windows if len(window) == _WINDOW] or windows
    return float(np.mean([len(set(window)) / len(window) for window in whole])) if words else 0.0


def _identify():
    try:
        from py3langid import classify
    except ImportError:
        raise ImportError(
            "language guesses need py3langid: pip install 'unite-workbook[curate]', or leave the "
            "language checks out"
        ) from None
    return classify
