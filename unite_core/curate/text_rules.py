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
from .scripts import guess_languages, text_weight
from .validate import cause_of

__all__ = [
    "ATTRIBUTES", "bare_text", "clean", "granularity", "keywords", "languages", "media_faults",
    "template_texts", "text_faults", "top_shares", "words_of",
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
    from tqdm import tqdm

    config = config or CleanConfig()
    faults = media_faults(stats, config)
    if len(rows) != len(reasons):
        raise ValueError(f"{len(rows)} records but reasons of {len(reasons)}")
    mark_media(reasons, rows, faults)
    templated = template_texts(rows, config.templates)
    for number, row in enumerate(tqdm(rows, "reading texts", mininterval=2, delay=1)):
        for side in ("query", "candidate"):
            text = row[side].get("text")
            for reason in text_faults(text, config) if text is not None else ():
                reasons.mark(reason, np.array([number]))
            if text in templated:
                reasons.mark("boilerplate", np.array([number]))


def template_texts(rows: Sequence[Mapping], patterns: tuple[str, ...], least: int = 20) -> set[str]:
    """The texts that fit one of the patterns, if at least `least` different ones fit it.

    >>> rows = [{"query": {"text": f"Photo {n}"}, "candidate": {"text": "a"}} for n in range(30)]
    >>> len(template_texts(rows, (r"photo \\d+",))), template_texts(rows[:9], (r"photo \\d+",))
    (30, set())
    """
    texts = {row[side].get("text") or "" for row in rows for side in ("query", "candidate")}
    found: set[str] = set()
    for pattern in patterns:
        fits = _patterns((pattern,)).fullmatch
        fitting = {text for text in texts if fits(bare_text(text).rstrip(" .!"))}
        found |= fitting if len(fitting) >= least else set()
    return found


def media_faults(stats: MediaStats, config: CleanConfig) -> dict[tuple[str, str], list[str]]:
    """{(kind, path): reasons} of the media files that break a rule."""
    readable, video = stats.readable, np.array([kind == "video" for kind in stats.kinds], bool)
    short = np.minimum(stats.height, stats.width)
    aspect = np.maximum(stats.height, stats.width) / np.maximum(short, 1)
    named = {
        "small": short < config.least_side,
        "stretched": aspect > config.largest_aspect if config.largest_aspect else ~readable,
        "constant": (stats.contrast < config.least_contrast) & (stats.ink <= config.least_ink),
        "static": video & (stats.motion < config.least_motion),
    }
    named = {reason: mask & readable for reason, mask in named.items()}
    failed = [_failure(cause) if config.readable else "" for cause in stats.cause]
    for reason in dict.fromkeys(_FAILURES.values()):
        named[reason] = np.array([name == reason for name in failed], bool)
    faults: dict[tuple[str, str], list[str]] = {}
    for reason, mask in named.items():
        for place in np.flatnonzero(mask).tolist():
            faults.setdefault((stats.kinds[place], stats.paths[place]), []).append(reason)
    return faults


def _failure(cause: str) -> str:
    """The reason that the cause of an unreadable file is; "" for one that can be read."""
    return _FAILURES.get(cause_of(cause), _FAILURES[""]) if cause else ""


_FAILURES = {
    "no file under the media root": "missing", "too many pixels": "too large", "": "unreadable",
}  # fmt: skip


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
    if config.boilerplate and _patterns(config.boilerplate).fullmatch(bare.rstrip(" .!")):
        found.append("boilerplate")
    if config.most_keywords and len(keywords(bare)) > config.most_keywords:
        found.append("keywords")
    if config.least_characters and text_weight(bare) < config.least_characters:
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


def keywords(text: str) -> list[str]:
    """The parts of a text that is a list of keywords, [] of one that is not.

    A list has four parts or more between commas or the like, each of three words at most, and no
    full stop inside.

    >>> keywords("cat, pet, fur, small animal"), keywords("A cat, a dog and a bird play, here.")
    (['cat', 'pet', 'fur', 'small animal'], [])
    """
    parts = [part.strip() for part in _COMMA.split(text.strip(" .,;#")) if part.strip()]
    is_list = len(parts) >= 4 and all(_is_keyword(part) for part in parts)
    return parts if is_list else []


def _is_keyword(part: str) -> bool:
    return len(part.split()) <= 3 and len(part) <= 40 and ". " not in part


@cache
def _patterns(patterns: tuple[str, ...]) -> re.Pattern:
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
_COMMA = re.compile(r"[,;|#•、，；،]+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_PLACEHOLDER = re.compile(r"<\|(?:IMAGE|VIDEO)\|>")


def bare_text(text: str) -> str:
    """The text without media placeholders and surrounding white space."""
    return _PLACEHOLDER.sub(" ", text).strip()


def words_of(text: str) -> list[str]:
    """Lower-case words; in scripts without spaces each run of letters is one word.

    >>> words_of("<|IMAGE|>\\nThe SAME, in blue!"), words_of("हिन्दी भाषा")
    (['the', 'same', 'in', 'blue'], ['हिन्दी', 'भाषा'])
    """
    bare = bare_text(text).lower()
    return _WORD.findall(bare) if bare.isascii() else _marked_words(bare)


def _marked_words(text: str) -> list[str]:
    """Words of letters, digits, and the marks on them, which regular expressions leave out."""
    kept = (c if _is_of_word(c) else " " for c in text)
    return [word for part in "".join(kept).split() if (word := part.strip("'’"))]


@lru_cache(maxsize=1 << 14)
def _is_of_word(character: str) -> bool:
    return character.isalnum() or character in "'’" or unicodedata.category(character)[0] == "M"


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
    """Languages of texts as ISO 639-1 codes; "" where a text says too little, see `scripts`."""
    bare = [bare_text(text) for text in texts]
    return [guess.code for guess in guess_languages(bare, least_characters)]


def top_shares(values: Sequence[str], count: int = 5) -> dict[str, float]:
    """Shares of the most frequent values, in descending order."""
    return {name: n / len(values) for name, n in Counter(values).most_common(count)}


def _type_token_ratio(words: Sequence[str]) -> float:
    windows = [words[start : start + _WINDOW] for start in range(0, len(words), _WINDOW)]
    whole = [window for window in windows if len(window) == _WINDOW] or windows
    return float(np.mean([len(set(window)) / len(window) for window in whole])) if words else 0.0
