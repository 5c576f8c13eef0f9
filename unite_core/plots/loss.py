"""Axes-level figures of the contrastive loss; each takes what `reference` computed and draws it.

Axes-level figures of training data: what a batch, a mask, an augmentation look like.
"""

# Shapes: N pairs in a batch.
# Shapes: B pairs in a batch.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from ..data.modality import Modality
from .common import modality_style, plot_retrieved

__all__ = [
    "plot_batch",
    "plot_by_temperature",
    "plot_mask",
    "plot_pairs",
    "plot_push",
    "plot_shares",
]


_LOOKS = {
    "cosine": {"cmap": "viridis"},
    "probability": {"cmap": "viridis", "vmin": 0, "vmax": 1},
    "gradient": {"cmap": "RdBu_r", "vmin": -1, "vmax": 1},
}
_TICKS = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
_NUMBERED = 12  # pairs up to which cells hold their numbers


def plot_batch(
    values,
    target_modality: Sequence[int],
    ax: Axes | None = None,
    title: str = "",
    kind: str = "probability",
) -> Axes:
    """A value of each query and candidate [N, N]; what is masked (nan) is left white.

    Args
        target_modality  [N] codes; they label rows and columns in their colours
        kind             cosine, probability, or gradient (p_ij less 1 at the positive: red pushes
                         away, blue pulls)
    """
    ax = ax or plt.gca()
    values = np.asarray(values, float)
    picture = ax.imshow(values, interpolation="nearest", **_LOOKS[kind])
    ax.grid(visible=False)
    if len(values) <= _NUMBERED:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                red, green, blue, _ = picture.to_rgba(value)
                ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
                ax.text(column, row, f"{value:.2f}".replace("-0.00", "0.00"), ha="center",
                        va="center", color=ink, fontsize=6.5)  # fmt: skip
    _label_targets(ax, target_modality)
    ax.set(xlabel="candidate", ylabel="query, by its target")
    ax.set_title(title)
    return ax


def plot_push(
    pushes: Mapping[str, Mapping[int, Mapping[int, float]]], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Whom queries push away, by target modality: a stack of `reference.push_by_modality` per loss.

    The length of a stack is the whole push, which equals the pull on the positive.
    """
    ax = ax or plt.gca()
    targets = list(next(iter(pushes.values())))
    rows = [(target, name) for target in targets for name in pushes]
    for place, (target, name) in enumerate(rows):
        left = 0.0
        for other, push in pushes[name][target].items():
            colour = modality_style(other)["color"]
            ax.barh(place, push, left=left, height=0.7, color=colour, edgecolor="white", lw=0.8)
            left += push
    for other in targets:
        style = modality_style(other)
        ax.plot([], [], "s", color=style["color"], label=Modality(other).label)
    ax.set_yticks(range(len(rows)), [f"{Modality(t).label} target, {name}" for t, name in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("push on negatives (mean probability)")
    ax.set_title(title)
    ax.legend(title="negative is", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_shares(
    probabilities: Mapping[float, np.ndarray], ax: Axes | None = None, title: str = ""
) -> Axes:
    """One row's probabilities [N] at several temperatures, the candidates in falling order."""
    ax = ax or plt.gca()
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(probabilities)))
    for (temperature, row), shade in zip(probabilities.items(), shades, strict=True):
        falling = np.sort(row[row > 0])[::-1]
        ax.plot(np.arange(1, len(falling) + 1), falling, color=shade, label=f"{temperature:g}")
    size = len(falling)
    ax.axhline(1 / size, ls="--", color="0.4", lw=1)
    ax.annotate(f"1 / {size}", (1, 1 / size), (-2, 2), xycoords=("axes fraction", "data"),
                textcoords="offset points", ha="right", color="0.4", fontsize=7)  # fmt: skip
    ax.set_yscale("log")
    ax.set_ylim(1e-6, 40)  # room for the legend above the curves
    ax.set_yticks([1e-6, 1e-4, 1e-2, 1], ["0.000001", "0.0001", "0.01", "1"])
    ax.set_yticks([], minor=True)
    ax.set(xlabel="candidate, the most probable first", ylabel="probability")
    ax.set_title(title)
    ax.legend(title="temperature", loc="upper right", ncols=len(probabilities))
    return ax


def plot_by_temperature(
    temperatures: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    ax: Axes | None = None,
    title: str = "",
    ylabel: str = "loss (nats)",
    now: float | None = None,
    limits: Mapping[str, float] | None = None,
) -> Axes:
    """One line per mask over the temperature (logarithmic).

    `now` is marked by an upright line, `limits` {name: value} of a curve by a dashed one in its
    colour.
    """
    ax = ax or plt.gca()
    for name, values in curves.items():
        (line,) = ax.plot(temperatures, values, label=name)
        if limits:
            ax.axhline(limits[name], ls="--", color=line.get_color(), lw=1)
            ax.annotate(f"all alike: {limits[name]:.1f}", (temperatures[0], limits[name]), (0, 2),
                        textcoords="offset points", fontsize=7,
                        color=line.get_color())  # fmt: skip
    if now is not None:
        ax.axvline(now, color="0.4", lw=1)
    ax.set_xscale("log")
    ticks = [tick for tick in _TICKS if min(temperatures) <= tick <= max(temperatures)]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set(xlabel="temperature", ylabel=ylabel)
    ax.set_title(title)
    ax.legend()
    return ax


def _label_targets(ax: Axes, target_modality: Sequence[int]) -> None:
    """Initials of the modalities at both axes in their colours; none where they would collide."""
    codes = [int(code) for code in target_modality]
    if len(codes) > 2 * _NUMBERED:
        return
    names = ["+".join(word[0].upper() for word in Modality(c).label.split("+")) for c in codes]
    ax.set_xticks(range(len(codes)), names)
    ax.set_yticks(range(len(codes)), names)
    for axis in (ax.xaxis, ax.yaxis):
        for label, code in zip(axis.get_ticklabels(), codes, strict=True):
            label.set_color(modality_style(code)["color"])


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
