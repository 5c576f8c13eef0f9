"""Features of items for alignment without a model: thumbnails, colours and edges; hashed words."""

# Shapes: N items, S side of a thumbnail, E size of a text's features.

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.items import images_of, videos_of
from ..data.media import load_image
from ..data.modality import Modality, modality_of
from ..data.videos import read_clip
from .alignment import cross_fitted
from .text_rules import words_of

__all__ = ["predict_words", "visual_features", "word_features"]


SIDE = 16  # S
_MIDDLE = 48  # side of the image that colours and edges are computed from
WORDS = 1024  # E
_MIN_PAIRS = 50  # of a kind, to learn from


def visual_features(items: Sequence[Mapping], root: str | Path = ".") -> np.ndarray:
    """Features [N, D] float32 of each item's first image or video.

    They are thumbnail, colour histogram and edge directions; of a video those of its first frame
    and their change to its last frame. The three parts are scaled to equal total variance.
    """
    parts = zip(*(_features(item, root) for item in items), strict=True)
    stacked = [np.stack(part) for part in parts]
    scales = [np.sqrt(((part - part.mean(0)) ** 2).sum(1).mean()) + 1e-9 for part in stacked]
    return np.concatenate([p / s for p, s in zip(stacked, scales, strict=True)], axis=1)


def word_features(texts: Sequence[str], size: int = WORDS) -> np.ndarray:
    """Binary features [N, E] float32 of texts: hashed words and pairs of neighbouring words."""
    features = np.zeros((len(texts), size), np.float32)
    for row, text in enumerate(texts):
        words = words_of(text)
        for word in {*words, *(" ".join(pair) for pair in zip(words, words[1:], strict=False))}:
            features[row, zlib.crc32(word.encode()) % size] = 1
    return features


def predict_words(
    rows: Sequence[Mapping], root: str | Path, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
        if len(picked) < _MIN_PAIRS:
            continue
        places, media, texts = zip(*picked, strict=True)
        both = visual_features(media, root), word_features([item["text"] for item in texts])
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


def _features(item: Mapping, root: str | Path) -> list[np.ndarray]:
    if images_of(item):
        return _image_features(load_image(images_of(item)[0], root))
    frames = read_clip(videos_of(item)[0], root, min_frames=4, max_frames=4).frames
    ends = zip(_image_features(frames[0]), _image_features(frames[-1]), strict=True)
    return [np.concatenate([first, last - first]) for first, last in ends]


def _image_features(image) -> list[np.ndarray]:
    """Thumbnail [3 S S], colour histogram [64], and edge directions with edge strength [17]."""
    small = np.asarray(image.resize((SIDE, SIDE), 4), np.float32).ravel() / 255
    middle = np.asarray(image.resize((_MIDDLE, _MIDDLE), 4))
    levels = (middle >> 6).astype(int) @ (16, 4, 1)
    colours = np.sqrt(np.bincount(levels.ravel(), minlength=64) / levels.size)
    down, right = np.gradient(middle.astype(np.float32).mean(2) / 255)
    strength = np.hypot(down, right)
    turn = ((np.arctan2(down, right) / (2 * np.pi) + 0.5) * 16).astype(int) % 16
    edges = np.bincount(turn.ravel(), strength.ravel(), minlength=16)
    amount = edges.sum()
    edges = np.append(edges / max(amount, 1e-6), amount / _MIDDLE)
    return [part.astype(np.float32) for part in (small, colours, edges)]
