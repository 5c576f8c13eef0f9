"""Axes-level figures of training data: what a batch, a mask, an augmentation look like."""

# Shapes: B pairs in a batch.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from .modality import Modality
from .plots import modality_style, plot_retrieved

__all__ = ["plot_mask", "plot_pairs"]


def plot_pairs(
    pairs: Sequence[tuple[Mapping, Mapping]],
    ax: Axes | None = None,
    media_root: str | Path = ".",
    title: str = "",
    names: Sequence[str] = ("query", "candidate"),
) -> Axes:
    """Pairs of items side by side, one pair per row; `names` stand above the two columns."""
    queries, candidates = zip(*pairs, strict=True)
    shown = [[candidate] for candidate in candidates]
    ax = plot_retrieved(queries, shown, [[False]] * len(pairs), ax, media_root, title)
    ax.set_xticks([-0.25, 1], names)
    return ax


def plot_mask(target_modality, ax: Axes | None = None, title: str = "") -> Axes:
    """Which of the B x B scores of a batch MAMCL keeps, in the colour of the target's modality.

    target_modality [B] codes. Row i is query i, column j candidate j; the positives are the dark
    diagonal, and what the mask removes is white.
    """
    ax = ax or plt.gca()
    codes = np.asarray(target_modality)
    kept = codes[:, None] == codes  # [B, B]
    picture = np.ones((*kept.shape, 3))
    for code in np.unique(codes):
        style = modality_style(int(code))
        colour = np.array(to_rgb(style["color"]))
        picture[kept & (codes == code)] = 0.6 + 0.4 * colour
        label = f"{Modality(int(code)).label} ({(codes == code).sum()})"
        ax.plot([], [], "s", color=style["color"], label=label)
    np.einsum("iic->ic", picture)[:] *= 0.35
    ax.imshow(picture, interpolation="nearest")
    ax.grid(visible=False)
    ax.set(xlabel=f"candidate (B = {len(codes)})", ylabel="query")
    ax.set_title(title)
    ax.legend(title="target modality", loc="upper left", bbox_to_anchor=(1, 1))
    return ax
