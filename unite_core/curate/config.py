"""What curation can be told: rules for texts and media, duplicates, alignment, profiles, faults."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Annotated, Literal

from pydantic import Field

from ..model.config import EmbedConfig
from ..settings import Count, Natural, NonNegative, Share, Strings, nested, settings
from .minhash import THRESHOLD
from .perceptual_hash import MAX_DIFFERENCE, MAX_DISTANCE

__all__ = [
    "AlignConfig", "CleanConfig", "DuplicateThresholds", "InjectionConfig", "ProfileConfig",
    "RuleConfig",
]  # fmt: skip

_MEDIA = r"(image|img|photo|picture|pic|video|clip|movie|screenshot|thumbnail|logo|scan|file|frame)"
_BOILERPLATE = (
    r"(untitled|unnamed)([\s_#-]*\d+)?(\.\w{2,4})?",
    _MEDIA + r"[\s_#-]*(\d{4,}|0\d+)[\d\s_.:~()-]*(\.\w{2,4})?",
    _MEDIA + r"[\s_#-]*\(?\d*\)?\.\w{3,4}",
    r"(img|dsc[nf]?|pxl|mvi|imag|gopr)[\s_#-]*(\d[\d\s_.:~()-]*)?(\.\w{2,4})?|p\d{5,}(\.\w{2,4})?",
    r"(whatsapp image|screenshot|screen shot|scan) \d{4}-\d\d-\d\d.{0,20}",
    r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}",
    r"\S+_(hi|lo)?res\d*|\S+[_-]\d{6,}",
    r"\S+\.(jpe?g|png|gif|webp|bmp|tiff?|mp4|webm|mov|avi)",
    r"(https?://|www\.)\S+",
    r".*\b(click (here|to enlarge|for more)|all rights reserved|image may contain)\b.*",
    r".*\b(subscribe to (my|our|the) channel|like and subscribe)\b.*",
    r".*\b(lorem ipsum|404 not found|page not found|access denied)\b.*",
    r"(no|missing|add( a)?) (caption|description|alt ?text|title)( available| provided)?",
    r"(royalty[- ]free )?stock (photo|image|footage|video|illustration)s?\b.{0,40}",
    r"(null|none|nan|n/a)",
)
"""Patterns of whole texts, in any case and without final punctuation, that describe nothing."""
_TEMPLATES = (
    _MEDIA + r"[\s_#-]*\d{1,3}",
    r"(part|piece|item|image|picture|photo) (of|from) (the|a|an|our|my) .{1,60}\b"
    r"(collection|collections|series|album|archive|gallery|set)",
    r"(\w+ ){1,3}themes?",
)
"""Patterns that may be right once ("colour theme") and describe nothing where many texts fit."""


@settings
class CleanConfig:
    """Thresholds of the rules; a rule is off where its threshold is 0, empty or false."""

    readable: bool = True
    """Media must decode to the end."""
    remove: Strings = ()
    """Regular expressions of what is cut out of texts, such as " 24 (filled|regular)$"."""
    least_side: Natural = 16
    """Pixels of a picture's shorter side."""
    largest_aspect: NonNegative = 8.0
    """Longer side / shorter side."""
    least_contrast: NonNegative = 0.01
    """Standard deviation of the pixels, 0 to 0.5; a picture with enough ink passes without it."""
    least_ink: Share = 0.0002
    """Share of the pixels that are not background: thin drawings have little contrast."""
    shrink_to: Natural = 0
    """Longer side of a copy of a picture too large to be read; 0: it is dropped."""
    unescape: bool = True
    """HTML entities in texts become the characters that they mean."""
    least_motion: NonNegative = 0.004
    """Of a video: root mean square difference from its first frame."""
    blank: bool = True
    """Texts need a letter, a digit or a symbol."""
    boilerplate: Strings = _BOILERPLATE
    """Regular expressions of whole texts."""
    templates: Strings = _TEMPLATES
    """Regular expressions of whole texts that count if 20 different texts or more fit."""
    most_keywords: Natural = 10
    """Parts of a list of keywords, at most; 0: any number."""
    most_media: Natural = 100
    """Pictures or clips that one text may stand with, running numbers aside; 0: any number."""
    least_characters: Natural = 0
    """Characters of a text, at least; an ideograph or a Hangul block counts as 3."""
    most_characters: Natural = 20_000
    """Characters of a text, at most."""
    languages: Strings = ()
    """ISO 639-1 codes of the languages that are kept."""
    language_characters: Natural = 40
    """Letters below which no language is guessed."""

    def __post_init__(self):
        if 0 < self.largest_aspect < 1:
            raise ValueError(f"largest_aspect {self.largest_aspect}: longer / shorter is >= 1")
        for name in ("boilerplate", "templates", "remove"):
            for pattern in getattr(self, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{name} {pattern!r}: {error}; correct it") from None


@settings
class AlignConfig:
    """Which pairs are kept by similarity; criteria that are 0 or empty are not applied."""

    cost: NonNegative = 1.0
    """Cost of dropping a pair that fits, in mismatched pairs dropped; 0: drop none."""
    most_mismatched: Share = 0.2
    """Estimated share of mismatched pairs above which the scores are not trusted."""
    thresholds: dict[str, float] = Field(default_factory=dict)
    """Least similarity of each pair type."""
    most_rank: Share = 0.0
    """Largest share of others that may beat a pair in both directions."""
    pool: Annotated[int, Field(ge=2)] = 4096
    """Pairs of its type that a pair competes with."""
    seed: Natural = 0
    """Decides which pairs make a pool."""


@settings
class DuplicateThresholds:
    """How similar near duplicates are, see `near_groups` and `text_groups`."""

    max_distance: Natural = MAX_DISTANCE
    """Different bits of two perceptual hashes."""
    image: NonNegative = MAX_DIFFERENCE["image"]
    """Difference of two images' thumbnails."""
    video: NonNegative = MAX_DIFFERENCE["video"]
    """Difference of two videos' thumbnails."""
    text: Share = THRESHOLD
    """Jaccard similarity of two texts' shingles."""


@settings
class RuleConfig:
    """Which rules are applied and how."""

    clean: nested(CleanConfig) = CleanConfig()
    """Rules for single media and texts."""
    duplicates: Literal["near", "exact", "keep"] = "near"
    """Which duplicates are dropped."""
    likeness: nested(DuplicateThresholds) = DuplicateThresholds(text=0.9)
    """What a near duplicate is; captions may differ by a word and in meaning."""
    leaks: Literal["pairs", "media", "keep"] = "pairs"
    """What counts as a leak of a test set: both sides alike, any media file alike, or nothing."""
    alignment: Literal["words", "embedder", "keep"] = "words"
    """What tells mismatched pairs: words learned from the data, an embedder, or nothing."""
    align: nested(AlignConfig) = AlignConfig()
    """Which pairs alignment keeps."""


@settings
class ProfileConfig:
    """How a profile is taken; the same configuration and records give the same profile."""

    batch_size: Count = 1024
    """Pairs of the batches whose groups and collisions are predicted, all records at most."""
    sample: Count = 2000
    """Records of each pair type whose headers and words are looked at."""
    embed: nested(EmbedConfig) = EmbedConfig()
    """The settings whose visual tokens are counted."""


@settings
class InjectionConfig:
    """Shares of the clean records; a fault needs records that it fits, else it comes up less."""

    unreadable: Share = 0.01
    """A media file cut in half or replaced by an error page."""
    exact_duplicates: Share = 0.05
    """Files copied under new names."""
    near_duplicates: Share = 0.05
    """Media made smaller and compressed, texts written otherwise."""
    swapped: Share = 0.05
    """The caption of another picture or clip."""
    static: Share = 0.02
    """A clip that shows its first frame only."""
    leaks: Share = 0.01
    """An evaluation pair, every second one compressed as a near duplicate."""
    seed: Natural = 0
    """Decides which records get which fault."""

    def __post_init__(self):
        shares = [getattr(self, field.name) for field in fields(self) if field.name != "seed"]
        if sum(shares) > 0.8:
            raise ValueError(f"shares {shares} must leave most records clean: at most 0.8 in all")
