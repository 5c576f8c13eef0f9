"""Cleaning rules: what makes a medium or a text unfit, by thresholds that a recipe can set.

What texts are made of: words, attribute words, language; how coarse or fine a caption is.
"""

# Shapes: N records, M media.
# Shapes: N texts.

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, lru_cache

import numpy as np

from .media_stats import MediaStats, mark_media
from .reasons import Reasons

__all__ = [
    "ATTRIBUTES",
    "BOILERPLATE",
    "CleanConfig",
    "bare_text",
    "clean",
    "granularity",
    "languages",
    "media_faults",
    "text_faults",
    "top_shares",
    "words_of",
]


BOILERPLATE = (
    r"(untitled|image|img|photo|picture|pic|video|clip|movie|screenshot|thumbnail|logo|dsc[nf]?)"
    r"[\s_#-]*\d*(\.\w{2,4})?",
    r"\S+\.(jpe?g|png|gif|webp|bmp|tiff?|mp4|webm|mov|avi)",
    r"(https?://|www\.)\S+",
    r".*\b(click (here|to enlarge|for more)|all rights reserved|image may contain)\b.*",
    r".*\b(subscribe to (my|our|the) channel|like and subscribe)\b.*",
    r".*\b(lorem ipsum|404 not found|page not found|access denied)\b.*",
    r"(no|missing|add( a)?) (caption|description|alt ?text|title)( available| provided)?",
    r"(royalty[- ]free )?stock (photo|image|footage|video|illustration)s?\b.{0,40}",
    r"(null|none|nan|n/a|undefined|todo|tbd|test)",
)
"""Whole texts, in any case and without final punctuation, that describe no medium."""


@dataclass(frozen=True)
class CleanConfig:
    """Thresholds of the rules; a rule is off where its threshold is 0, empty or False."""

    readable: bool = True  # media must decode to the end
    least_side: int = 16  # pixels of a picture's shorter side
    largest_aspect: float = 8.0  # longer side / shorter side
    least_contrast: float = 0.01  # standard deviation of pixels, 0 to .5
    least_motion: float = 0.004  # of a video: root mean square difference from its first frame
    blank: bool = True  # texts need a letter, digit or symbol
    boilerplate: tuple[str, ...] = BOILERPLATE  # regular expressions of whole texts
    least_characters: int = 0
    most_characters: int = 20_000
    languages: tuple[str, ...] = ()  # ISO 639-1 codes that may occur
    language_characters: int = 40  # letters below which no language is guessed

    def __post_init__(self):
        for name in ("boilerplate", "languages"):  # a recipe gives lists
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is a list of strings, not one string")
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"{each.name} {value} must be at least 0; 0 turns the rule off")
        if 0 < self.largest_aspect < 1:
            raise ValueError(f"largest_aspect {self.largest_aspect}: longer / shorter is >= 1")
        for pattern in self.boilerplate:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"boilerplate {pattern!r}: {error}; correct it") from None


def clean(
    reasons: Reasons, rows: Sequence[Mapping], facts: MediaStats,
    config: CleanConfig | None = None,
) -> None:  # fmt: skip
    """Mark the records that a rule names, because of any of their items.

    Args
        reasons  of as many records as there are `rows`; reasons are added to it
        facts     of all media of the rows (`facts.measure_media`); others are not judged
    Raises ValueError if rows and reasons differ in number.
    """
    config = config or CleanConfig()
    faults = media_faults(facts, config)
    if len(rows) != len(reasons):
        raise ValueError(f"{len(rows)} records for verdicts on {len(reasons)}")
    mark_media(reasons, rows, faults)
    for number, row in enumerate(rows):
        for side in ("query", "candidate"):
            text = row[side].get("text")
            for reason in text_faults(text, config) if text is not None else ():
                reasons.mark(reason, np.array([number]))


def media_faults(facts: MediaStats, config: CleanConfig) -> dict[tuple[str, str], list[str]]:
    """{(kind, path): reasons} of the media that a rule names; the others do not appear."""
    readable, video = facts.readable, np.array([kind == "video" for kind in facts.kinds], bool)
    short = np.minimum(facts.height, facts.width)
    aspect = np.maximum(facts.height, facts.width) / np.maximum(short, 1)
    named = {
        "small": short < config.least_side,
        "stretched": aspect > config.largest_aspect if config.largest_aspect else ~readable,
        "constant": facts.contrast < config.least_contrast,
        "static": video & (facts.motion < config.least_motion),
    }
    named = {reason: mask & readable for reason, mask in named.items()}
    named["unreadable"] = ~readable if config.readable else np.zeros_like(readable)
    faults: dict[tuple[str, str], list[str]] = {}
    for reason, mask in named.items():
        for place in np.flatnonzero(mask).tolist():
            faults.setdefault((facts.kinds[place], facts.paths[place]), []).append(reason)
    return faults


@lru_cache(maxsize=1 << 16)  # captions repeat
def text_faults(text: str, config: CleanConfig) -> tuple[str, ...]:
    """The reasons against one text; placeholders of media do not count as text.

    An item whose text is only a placeholder says nothing by itself but is no fault: its medium
    speaks. Languages are guessed from `language_characters` letters on only.
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
    return re.compile("|".join(f"(?:{each})" for each in patterns), re.IGNORECASE | re.DOTALL)


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
