"""Cleaning rules for texts and media, with thresholds that a recipe sets, and text statistics.

A rule marks records with a reason and removes nothing. Text statistics are words, attribute words,
language, and whether a caption is coarse or fine.
"""

# Shapes: N records, M media files.

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

import numpy as np

from .config import CleanConfig
from .media_stats import MediaStats, mark_media
from .reasons import Reasons

__all__ = [
    "ATTRIBUTES", "bare_text", "clean", "granularity", "languages", "media_faults", "text_faults",
    "top_shares", "words_of",
]  # fmt: skip


def clean(
    reasons: Reasons, rows: Sequence[Mapping], stats: MediaStats,
    config: CleanConfig | None = None,
) -> None:  # fmt: skip
    """Mark the records whose texts or media break a rule.

    Args
        reasons  of the N `rows`; new reasons are added
        stats    of the media of the rows, from `measure_media`; other media are not checked
    Raises ValueError if rows and reasons differ in number.
    """
    config = config or CleanConfig()
    faults = media_faults(stats, config)
    if len(rows) != len(reasons):
        raise ValueError(f"{len(rows)} records but reasons of {len(reasons)}")
    mark_media(reasons, rows, faults)
    for number, row in enumerate(rows):
        for side in ("query", "candidate"):
            text = row[side].get("text")
            for reason in text_faults(text, config) if text is not None else ():
                reasons.mark(reason, np.array([number]))


def media_faults(stats: MediaStats, config: CleanConfig) -> dict[tuple[str, str], list[str]]:
    """{(kind, path): reasons} of the media files that break a rule."""
    readable, video = stats.readable, np.array([kind == "video" for kind in stats.kinds], bool)
    short = np.minimum(stats.height, stats.width)
    aspect = np.maximum(stats.height, stats.width) / np.maximum(short, 1)
    named = {
        "small": short < config.least_side,
        "stretched": aspect > config.largest_aspect if config.largest_aspect else ~readable,
        "constant": stats.contrast < config.least_contrast,
        "static": video & (stats.motion < config.least_motion),
    }
    named = {reason: mask & readable for reason, mask in named.items()}
    named["unreadable"] = ~readable if config.readable else np.zeros_like(readable)
    faults: dict[tuple[str, str], list[str]] = {}
    for reason, mask in named.items():
        for place in np.flatnonzero(mask).tolist():
            faults.setdefault((stats.kinds[place], stats.paths[place]), []).append(reason)
    return faults


@lru_cache(maxsize=1 << 16)  # captions repeat
def text_faults(text: str, config: CleanConfig) -> tuple[str, ...]:
    """Reasons to reject a text; media placeholders do not count as text.

    A text that is only a placeholder is accepted. The language is checked only in texts of at least
    `language_characters` letters.

    >>> text_faults("IMG_2041.jpg", CleanConfig()), text_faults("a red circle", CleanConfig())
    (('boilerplate',), ())
    """
    bare = bare_text(text)
    if not bare and text.strip():
        return ()
    found = []
    if config.blank and not any(_says_something(character) for character in bare):
        found.append("blank")
    if config.boilerplate and _boilerplate(config.boilerplate).fullmatch(bare.rstrip(" .!")):
        found.append("boilerplate")
    if len(bare) < config.least_characters:
        found.append("short")
    if config.most_characters and len(bare) > config.most_characters:
        found.append("long")
    if config.languages:
        (guess,) = languages([bare], config.language_characters)
        if guess and guess not in config.languages:
            found.append("language")
    return tuple(found)


def _says_something(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "S"


@cache
def _boilerplate(patterns: tuple[str, ...]) -> re.Pattern:
    joined = "|".join(f"(?:{pattern})" for pattern in patterns)
    return re.compile(joined, re.IGNORECASE | re.DOTALL)


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
"""Words for attributes: colour, size, place, number, material, state."""
FINE_WORDS = 8  # a text with at least so many words, or FINE_ATTRIBUTES attribute words, is fine
FINE_ATTRIBUTES = 3
_WINDOW = 1000  # words per window of the type-token ratio, which depends on length
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_PLACEHOLDER = re.compile(r"<\|(?:IMAGE|VIDEO)\|>")


def bare_text(text: str) -> str:
    """The text without media placeholders and surrounding white space."""
    return _PLACEHOLDER.sub(" ", text).strip()


def words_of(text: str) -> list[str]:
    """Lower-case words; in scripts without spaces each run of letters is one word.

    >>> words_of("<|IMAGE|>\\nThe SAME, in blue!")
    ['the', 'same', 'in', 'blue']
    """
    return _WORD.findall(bare_text(text).lower())


def granularity(texts: Sequence[str]) -> dict[str, float]:
    """Measure how coarse or fine texts are.

    Returns the mean number of `words` and of `attribute_words` (`ATTRIBUTES`), the
    `type_token_ratio` (distinct words / words, mean over windows of 1000 words, or over all words
    if there are fewer), and `fine_share`: texts of at least 8 words or 3 attribute words.
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
    """Languages of texts as ISO 639-1 codes, guessed by py3langid; "" for texts that are too short.

    Below about 20 letters a guess is not reliable (labels such as "melon").
    """
    guess = _identify()
    bare = [bare_text(text) for text in texts]
    return [guess(text)[0] if _letters(text) >= least_characters else "" for text in bare]


def top_shares(values: Sequence[str], count: int = 5) -> dict[str, float]:
    """Shares of the most frequent values, in descending order."""
    return {name: n / len(values) for name, n in Counter(values).most_common(count)}


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
