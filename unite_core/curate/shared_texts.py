"""Texts that stand with many pictures or clips: labels, templates, and what training makes of them.

Every pair of a picture with such a text is right, and every other picture with the same text is a
false negative, unless training knows that the texts are one.
"""

# Shapes: N records.

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from ..data.modality import Modality, modality_of
from .minhash import normal_text
from .reasons import Reasons

__all__ = ["frames", "mark_shared", "repeated_texts"]


_MOST_LABELS = 0.5  # share of a source's records above which its texts are labels
_NUMBER = re.compile(r"\d{3,}|0\d+")  # a running number; "dice 3" says what is shown
_FRAME_TEXTS = 20  # distinct texts of a frame, at least
_FRAME_SHARE = 0.01  # of the distinct texts


def mark_shared(reasons: Reasons, rows: Sequence[Mapping], most: int) -> list[str]:
    """Mark records whose text stands with more than `most` media; returns sources left alone.

    Texts are compared without case, punctuation and running numbers: "Sketch 012" and "Sketch 131"
    are one. A source in which more than half of the records have such a text is one of labels: its
    records are right and stay.
    """
    pairs = list(_pairs(rows))
    media = defaultdict(set)
    for _, text, shown in pairs:
        media[template(text)].add(shown)
    crowded = {text for text, shown in media.items() if len(shown) > most}
    by_source = defaultdict(list)
    for row, text, _ in pairs:
        by_source[rows[row].get("source", "")].append((row, template(text) in crowded))
    labels = []
    for source, found in by_source.items():
        named = [row for row, is_crowded in found if is_crowded]
        if len(named) > _MOST_LABELS * len(found):
            labels.append(source)
        else:
            reasons.mark("shared text", np.array(named, np.int64))
    return labels


def repeated_texts(rows: Sequence[Mapping], kept: np.ndarray, most: int = 10) -> list[dict]:
    """The texts with the most media: `text`, `records`, `media`, and how many are `kept`.

    kept  bool [N]
    """
    records: Counter[str] = Counter()
    left: Counter[str] = Counter()
    media, shown_as = defaultdict(set), {}
    for row, text, shown in _pairs(rows):
        key = template(text)
        records[key] += 1
        left[key] += int(kept[row])
        media[key].add(shown)
        shown_as.setdefault(key, text)
    ranked = sorted(media, key=lambda key: -len(media[key]))
    return [
        {"text": shown_as[key], "records": records[key], "media": len(media[key]),
         "kept": left[key]}
        for key in ranked[:most] if len(media[key]) > 1
    ]  # fmt: skip


def frames(rows: Sequence[Mapping], most: int = 10) -> list[dict]:
    """Beginnings and ends of two words that many different texts share, as in "file type …".

    Returns rows of `frame`, and the number of distinct `texts` in it; a frame has at least 20, and
    1 % of all. Whether it says something ("a photo of …") or nothing is for a reader to judge.
    """
    texts = {normal_text(text) for _, text, _ in _pairs(rows)}
    found: Counter[str] = Counter()
    for words in (text.split() for text in texts):
        if len(words) > 2:
            found[" ".join(words[:2]) + " …"] += 1
            found["… " + " ".join(words[-2:])] += 1
    least = max(_FRAME_TEXTS, _FRAME_SHARE * len(texts))
    named = [{"frame": frame, "texts": n} for frame, n in found.most_common(most) if n >= least]
    return named


def template(text: str) -> str:
    """The text as it is compared: `normal_text` with "#" for each number of three digits or 0….

    >>> template("Sketch 012, dice 3")
    'sketch # dice 3'
    """
    return _NUMBER.sub("#", normal_text(text))


def _pairs(rows: Iterable[Mapping]) -> Iterator[tuple[int, str, str]]:
    """(row, text, media) of records that pair a text alone with media alone."""
    for number, row in enumerate(rows):
        for text, media in ((row["query"], row["candidate"]), (row["candidate"], row["query"])):
            shown = modality_of(media)
            if modality_of(text) == Modality.TEXT and shown in (Modality.IMAGE, Modality.VIDEO):
                yield number, text["text"], str(media.get("image", media.get("video")))
