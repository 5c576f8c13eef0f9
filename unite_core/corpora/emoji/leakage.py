"""Near-duplicates between families, and similarity of styles: what could leak into test splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...data.media import load_image, thumbnail
from .catalogue import HELD_OUT_STYLE, STYLES, family_of, split_of

__all__ = ["merge_families", "near_duplicates", "style_distance"]


def near_duplicates(root: str | Path, threshold: float = 0.02) -> list[tuple[str, str, str, float]]:
    """Find pictures of one style and different families that look the same.

    Compares thumbnails by root-mean-square difference (0 equal, 1 black against white).
    Returns (style, code, other code, difference), most similar first.
    """
    found = []
    for style in STYLES:
        folder = Path(root) / "images" / style
        codes = sorted(file.stem for file in folder.glob("*.png"))
        pixels = _thumbnails(folder, codes)
        families = np.array([family_of(code) for code in codes])
        norms = (pixels**2).sum(1)
        for start in range(0, len(codes), 512):
            block = slice(start, start + 512)
            square = norms[block, None] + norms[None] - 2 * pixels[block] @ pixels.T
            difference = np.sqrt(np.maximum(square, 0) / pixels.shape[1])
            alike = (difference < threshold) & (families[block, None] < families[None])
            for row, column in zip(*np.nonzero(alike), strict=True):
                value = float(difference[row, column])
                found.append((style, codes[start + row], codes[column], value))
    return sorted(found, key=lambda pair: pair[-1])


def style_distance(root: str | Path, style: str, other: str = HELD_OUT_STYLE) -> dict[str, float]:
    """Similarity of two styles by thumbnails of emoji in training.

    Returns n, recall@1 and recall@10 of emoji of `other` searched in `style`, and the median and
    smallest root-mean-square difference of an emoji's two pictures.
    """
    folder = Path(root) / "images"
    codes = sorted(file.stem for file in (folder / style).glob("*.png"))
    codes = [code for code in codes if split_of(code, style) == "train"]
    asked, found = (_thumbnails(folder / name, codes) for name in (other, style))
    square = (asked**2).sum(1)[:, None] + (found**2).sum(1) - 2 * asked @ found.T
    rank = (square < square.diagonal()[:, None]).sum(1)
    differences = np.sqrt(np.maximum(square.diagonal(), 0) / asked.shape[1])
    return {
        "n": len(codes),
        "recall@1": float((rank < 1).mean()),
        "recall@10": float((rank < 10).mean()),
        "median difference": float(np.median(differences)),
        "smallest difference": float(differences.min()),
    }


def merge_families(pairs: list[tuple[str, str, str, float]]) -> dict[str, str]:
    """Map connected families to the first of their component, the content of `lookalikes.json`."""
    root: dict[str, str] = {}

    def find(family: str) -> str:
        while root.get(family, family) != family:
            family = root[family]
        return family

    for _, code, other, _ in pairs:
        first, second = sorted((find(family_of(code)), find(family_of(other))))
        root[second] = first
    return {family: find(family) for family in sorted(root) if find(family) != family}


def _thumbnails(folder: Path, codes: list[str]) -> np.ndarray:
    return np.stack([thumbnail(load_image(f"{code}.png", folder)) for code in codes])
