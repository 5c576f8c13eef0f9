"""Features of items for alignment without a model: thumbnails, colours and edges; hashed words."""

# Shapes: N items, E size of a text's features.

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.items import images_of, videos_of
from ..data.media import MediaError
from ..data.modality import Modality, modality_of
from .alignment import cross_fitted
from .media_facts import media_facts
from .scripts import is_spaceless
from .text_rules import words_of

__all__ = ["MIN_PAIRS", "predict_words", "visual_features", "word_features"]


WORDS = 1024  # E
MIN_PAIRS = 50  # of a kind, to learn from


def visual_features(
    items: Sequence[Mapping], root: str | Path = ".", folder: str | Path | None = None,
    workers: int = 0,
) -> np.ndarray:  # fmt: skip
    """Features [N, D] float32 of each item's first image, or of each item's first video.

    They are thumbnail, colour histogram and edge directions; of a video those of its first frame
    and their change to its last frame. The three parts are scaled to equal total variance. `folder`
    is that of the cache of media facts. Raises MediaError for a file that cannot be read.
    """
    kind = "image" if images_of(items[0]) else "video"
    media = [(images_of if kind == "image" else videos_of)(item)[0] for item in items]
    media = [tuple(each) if isinstance(each, list) else each for each in media]
    cause, facts = media_facts(kind, media, root, folder, workers)
    if bad := next(filter(None, cause), ""):
        raise MediaError(bad)
    thumbs = facts["thumbs"][:, [0, -1]] if kind == "video" else facts["thumbs"]
    ends = thumbs.reshape(*thumbs.shape[:2], -1) / np.float32(255), facts["colours"], facts["edges"]
    parts = [_with_change(part.astype(np.float32)) for part in ends]
    scales = [np.sqrt(((part - part.mean(0)) ** 2).sum(1).mean()) + 1e-9 for part in parts]
    return np.concatenate([p / s for p, s in zip(parts, scales, strict=True)], axis=1)


def word_features(texts: Sequence[str], size: int = WORDS) -> np.ndarray:
    """Binary features [N, E] float32 of texts: hashed words and pairs of neighbouring words."""
    features = np.zeros((len(texts), size), np.float32)
    for row, text in enumerate(texts):
        words = [part for word in words_of(text) for part in _parts(word)]
        for word in {*words, *(" ".join(pair) for pair in zip(words, words[1:], strict=False))}:
            features[row, zlib.crc32(word.encode()) % size] = 1
    return features


def _parts(word: str) -> list[str]:
    """A word; of a script without spaces the pairs of its characters."""
    if any(is_spaceless(character) for character in word) and len(word) > 2:
        return [word[at : at + 2] for at in range(len(word) - 1)]
    return [word]


def predict_words(
    rows: Sequence[Mapping], root: str | Path, groups: np.ndarray,
    folder: str | Path | None = None, workers: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Predict the words of captions from the pixels of their media, learned on other pairs.

    Only pairs of a text with an image or a video are used, in either direction.

    Args
        rows    records whose media can be read
        groups  [N]  equal for records that share content, see `cross_fitted`
    Returns
        row numbers [n], and predicted and actual word features [n, E], for `align`.
    """
    numbers, predicted, actual = [], [], []
    for kind in (Modality.IMAGE, Modality.VIDEO):
        picked = [(n, *sides) for n, row in enumerate(rows) if (sides := _sides(row, kind))]
        if len(picked) < MIN_PAIRS:
            continue
        places, media, texts = zip(*picked, strict=True)
        seen = visual_features(media, root, folder, workers)
        both = seen, word_features([item["text"] for item in texts])
        vectors = cross_fitted(*both, groups[list(places)])
        numbers.append(places)
        predicted.append(vectors[0])
        actual.append(vectors[1])
    if not numbers:
        return np.zeros(0, np.int64), np.zeros((0, WORDS)), np.zeros((0, WORDS))
    return np.concatenate(numbers), np.concatenate(predicted), np.concatenate(actual)


def _sides(row: Mapping, kind: Modality) -> tuple[Mapping, Mapping] | None:
    """The media item and the text item, if the pair consists of just these two."""
    sides = {modality_of(row[side]): row[side] for side in ("query", "candidate")}
    return (sides[kind], sides[Modality.TEXT]) if set(sides) == {kind, Modality.TEXT} else None


def _with_change(ends: np.ndarray) -> np.ndarray:
    """The first of [N, ends, D] and, of two, the change to the last: [N, ends * D]."""
    return np.concatenate([ends[:, 0], *(ends[:, n] - ends[:, 0] for n in range(1, ends.shape[1]))],
                          axis=1)  # fmt: skip
