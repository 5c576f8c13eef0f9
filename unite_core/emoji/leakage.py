"""Near-duplicate pictures between families: what would leak from training into the test splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .catalogue import STYLES, family_of

__all__ = ["merge_families", "near_duplicates"]

THUMBNAIL = 28  # pixels per side


def near_duplicates(root: str | Path, threshold: float = 0.02) -> list[tuple[str, str, str, float]]:
    """Pairs of stills of one style and of two families that look the same.

    Compares thumbnails by root-mean-square difference (0 equal, 1 black against white).
    Returns (style, code, other code, difference), the most alike first.
    """
    found = []
    for style in STYLES:
        files = sorted((Path(root) / "images" / style).glob("*.png"))
        pixels = np.stack([_thumbnail(file) for file in files])
        codes = [file.stem for file in files]
        families = np.array([family_of(code) for code in codes])
        norms = (pixels**2).sum(1)
        for start in range(0, len(files), 512):
            block = slice(start, start + 512)
            square = norms[block, None] + norms[None] - 2 * pixels[block] @ pixels.T
            difference = np.sqrt(np.maximum(square, 0) / pixels.shape[1])
            alike = (difference < threshold) & (families[block, None] < families[None])
            for row, column in zip(*np.nonzero(alike), strict=True):
                value = float(difference[row, column])
                found.append((style, codes[start + row], codes[column], value))
    return sorted(found, key=lambda pair: pair[-1])


def merge_families(pairs: list[tuple[str, str, str, float]]) -> dict[str, str]:
    """Connected families to the first of their component: what `lookalikes.json` holds."""
    root: dict[str, str] = {}

    def find(family: str) -> str:
        while root.get(family, family) != family:
            family = root[family]
        return family

    for _, code, other, _ in pairs:
        first, second = sorted((find(family_of(code)), find(family_of(other))))
        root[second] = first
    return {family: find(family) for family in sorted(root) if find(family) != family}


def _thumbnail(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        small = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel() / 255
