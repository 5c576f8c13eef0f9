"""What is measured of decoded frames: codes and thumbnails, contrast, motion, ink, colours, edges.

A frame becomes a 128-bit code (which of its lowest frequencies of brightness and colour are strong,
and their signs) and a 16 x 16 thumbnail. The usual pHash, signs of all frequencies around their
median, is unstable on flat drawings, where most frequencies are near 0: 10 % of its bits flipped in
JPEG copies of the shapes corpus. Faint frames are stretched before both, so that a drawing of thin
lines on an empty page is compared by its lines and not by the page.
"""

# Shapes: T frames, S = 32 pixels a side.

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops

__all__ = [
    "SIDE", "THUMB", "colours_and_edges", "contrast", "ink", "motion", "small", "stretched_codes",
]  # fmt: skip


SIDE, THUMB = 32, 16  # pixels a side of what is measured, and of thumbnails
_MIDDLE = 48  # side of the image that colours and edges are computed from
_INK_SIDE = 1024  # larger images are reduced before their ink is counted
_INK = 12  # grey levels from the background
_FULL, _MOST = 0.04, 8.0  # contrast up to which frames are stretched, and how far at most
_COLOURS = np.array(
    [[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], np.float32
)  # brightness and two colour differences from RGB
_WAVES = ((1, 33), (0, 16), (0, 16))  # frequencies of each that count, by rank; 0 is the mean
_FLOOR = (0.5, 2.0, 2.0)  # grey levels up to which a frequency counts as noise


def small(image: Image.Image) -> np.ndarray:
    """The image as uint8 [S, S, 3], whatever its shape."""
    resampled = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(resampled, np.uint8)


def contrast(frames: np.ndarray) -> float:
    """Largest standard deviation, 0 to .5, of a frame's pixels from its mean colour.

    frames  [T, S, S, 3]  0 to 255
    """
    values = frames / np.float32(255)
    around = values - values.mean((1, 2), keepdims=True)
    return float(np.sqrt((around**2).mean((1, 2, 3))).max())


def motion(frames: np.ndarray) -> float:
    """Largest RMS difference, 0 to 1, of a frame [T, S, S, 3] from the first frame."""
    values = frames / np.float32(255)
    return float(np.sqrt(((values - values[:1]) ** 2).mean((1, 2, 3))).max())


def ink(image: Image.Image) -> float:
    """Share of an RGB image's pixels that differ from its most frequent colour, 0 to 1.

    Counted at full size (up to 1024 pixels a side), because in a thumbnail thin lines fade away.
    """
    image = image.reduce(-(-max(image.size) // _INK_SIDE))
    counts = np.array(image.histogram()).reshape(3, 256)
    page = Image.new("RGB", image.size, tuple(counts.argmax(1).tolist()))
    red, green, blue = ImageChops.difference(image, page).split()
    distance = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return sum(distance.histogram()[_INK + 1 :]) / (image.width * image.height)


def stretched_codes(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes uint64 [2 T] and thumbnails uint8 [T, 16, 16, 3] of frames uint8 [T, S, S, 3].

    Frames with a contrast below .04 are stretched around their most frequent brightness, eightfold
    at most: else two thin drawings differ less than two copies of one photograph.
    """
    gain = min(max(_FULL / max(contrast(frames), 1e-6), 1.0), _MOST)
    if gain > 1:
        page = np.median(frames.reshape(-1, 3), axis=0)
        frames = np.clip(page + gain * (frames - page), 0, 255).round().astype(np.uint8)
    step = SIDE // THUMB
    blocks = frames.reshape(len(frames), THUMB, step, THUMB, step, 3)
    thumbs = blocks.mean(axis=(2, 4), dtype=np.float32).round().astype(np.uint8)
    return _codes(frames).ravel(), thumbs


def colours_and_edges(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Colour histogram [64], and edge directions with the strength of all edges [17]."""
    middle = np.asarray(image.resize((_MIDDLE, _MIDDLE), Image.Resampling.BOX))
    levels = (middle >> 6).astype(int) @ (16, 4, 1)
    colours = np.sqrt(np.bincount(levels.ravel(), minlength=64) / levels.size)
    down, right = np.gradient(middle.astype(np.float32).mean(2) / 255)
    strength = np.hypot(down, right)
    turn = ((np.arctan2(down, right) / (2 * np.pi) + 0.5) * 16).astype(int) % 16
    edges = np.bincount(turn.ravel(), strength.ravel(), minlength=16)
    amount = edges.sum()
    return colours, np.append(edges / max(amount, 1e-6), amount / _MIDDLE)


def _codes(pixels: np.ndarray) -> np.ndarray:
    """Codes uint64 [T, 2] of frames uint8 [T, S, S, 3]."""
    waves = np.cos(np.pi * np.arange(THUMB)[:, None] * (np.arange(SIDE) + 0.5) / SIDE)
    waves = waves.astype(np.float32) / SIDE
    rows, columns = _order()
    bits = []
    for weights, (first, last), floor in zip(_COLOURS, _WAVES, _FLOOR, strict=True):
        strength = (waves @ (pixels @ weights) @ waves.T)[:, rows[first:last], columns[first:last]]
        least = np.maximum(np.abs(strength).mean(axis=1, keepdims=True), floor)
        bits += [strength > least, strength < -least]
    spread = np.arange(128) * 37 % 128  # spreads informative bits over the chunks
    packed = np.packbits(np.concatenate(bits, axis=1)[:, spread], axis=1)
    return np.ascontiguousarray(packed).view(np.uint64)


def _order() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the frequency table, lowest frequencies first."""
    rows, columns = np.divmod(np.arange(THUMB**2), THUMB)
    ranked = np.lexsort((rows, rows + columns))
    return rows[ranked], columns[ranked]
