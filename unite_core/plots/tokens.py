"""Figures of how a model processes an item: tokens, patches, positions, cost.

A token has its modality's colour, the chat template is grey.
"""

# Shapes: T tokens.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..data.modality import Modality
from ..model.inspect import KINDS
from .common import modality_style

__all__ = [
    "plot_item_cosines", "plot_parts", "plot_patches", "plot_positions", "plot_token_runs",
]  # fmt: skip


_PARTS = ("#D55E00", "#0072B2", "#56B4E9", "0.6")
_AXES = (("time", "-", "#009E73"), ("height", "--", "#E69F00"), ("width", ":", "#0072B2"))


def plot_token_runs(
    runs: Mapping[str, Sequence[tuple[str, int]]], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot one bar per item along its tokens, coloured by kind.

    Args
        runs  {name of an item: (kind, number of tokens) of each run}, from `inspect.token_runs`
    The pooled token is the last one, always part of the template.
    """
    ax = ax or plt.gca()
    longest = max(sum(count for _, count in stretches) for stretches in runs.values())
    for place, stretches in enumerate(runs.values()):
        start = 0
        for kind, count in stretches:
            ax.barh(place, count, left=start, color=_colour(kind), edgecolor="white", lw=0.5)
            if count >= longest / 40:
                ax.annotate(str(count), (start + count / 2, place), ha="center", va="center",
                            color="white", fontsize=7)  # fmt: skip
            start += count
        ax.plot(start - 0.5, place, "k|", ms=14, mew=2)
    _kinds_legend(ax, {kind for stretches in runs.values() for kind, _ in stretches})
    ax.set_yticks(range(len(runs)), list(runs))
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("token")
    ax.set_title(title)
    return ax


def plot_patches(
    image, grid: tuple[int, int, int], merge: int, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot an image as resized for the model, with its patches (grey) and tokens (numbered).

    Args
        image  PIL image or array of any size; stretched to the grid
        grid   (time, height, width) in patches
        merge  merge x merge patches become one token
    """
    ax = ax or plt.gca()
    _, height, width = grid
    ax.imshow(image, extent=(0, width, height, 0), aspect="equal")
    for lines, step, colour in ((0.5, 1, "0.6"), (1.2, merge, "#D55E00")):
        ax.vlines(np.arange(0, width + 1, step), 0, height, color=colour, lw=lines)
        ax.hlines(np.arange(0, height + 1, step), 0, width, color=colour, lw=lines)
    for token in range(height * width // merge**2):
        row, column = divmod(token, width // merge)
        ax.annotate(
            str(token), ((column + 0.5) * merge, (row + 0.5) * merge), ha="center", va="center",
            color="white", fontsize=8, bbox={"fc": (0, 0, 0, 0.45), "ec": "none", "pad": 1},
        )  # fmt: skip
    ax.set(xlim=(-0.05, width + 0.05), ylim=(height + 0.05, -0.05), xticks=[], yticks=[])
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_title(title)
    return ax


def plot_positions(
    positions: np.ndarray, kinds: Sequence[str], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot the time, height and width position of each token; media are shaded.

    Args
        positions  [3, T]  from `inspect.positions_of`
        kinds      [T]     kinds of the tokens, from `inspect.token_kinds`
    Where the three lines coincide, the position is simply the token's place.
    """
    ax = ax or plt.gca()
    steps = np.arange(positions.shape[1])
    if len(kinds) != len(steps):
        raise ValueError(f"{len(kinds)} kinds for {len(steps)} tokens")
    for kind in ("image", "video"):
        inside = np.array([name == kind for name in kinds])
        if inside.any():
            ax.fill_between(steps, 0, 1, where=inside, color=_colour(kind), alpha=0.15, lw=0,
                            step="mid", transform=ax.get_xaxis_transform(),
                            label=f"{kind} tokens")  # fmt: skip
    for values, (name, style, colour) in zip(positions, _AXES, strict=True):
        ax.plot(steps, values, style, color=colour, label=name)
    ax.set(xlabel=f"token (T = {len(steps)})", ylabel="position")
    ax.legend(loc="upper left")
    ax.set_title(title)
    return ax


def plot_item_cosines(
    cosines: Mapping[str, np.ndarray],
    modalities: Mapping[str, str],
    ax: Axes | None = None,
    title: str = "",
    xlabel: str = "cosine between the two vectors of an item",
) -> Axes:
    """Plot a row of dots per name, one dot per item, with the median as a tick; dashed: no change.

    Args
        cosines     {name: [n]}
        modalities  {name: its modality, or "fused"}, for colour and marker
    """
    ax = ax or plt.gca()
    for place, (name, values) in enumerate(cosines.items()):
        style = modality_style(modalities[name].replace("fused", "text+image"))
        spread = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else np.zeros(1)
        ax.plot(values, place + spread, ls="", ms=4, alpha=0.45, mew=0, **style)
        middle = float(np.median(values))
        ax.plot([middle] * 2, [place - 0.36, place + 0.36], "-", color="0.15", lw=1.5)
        ax.annotate(f"{middle:.4f}", (middle, place - 0.36), (0, 1), textcoords="offset points",
                    ha="center", va="bottom", fontsize=7)  # fmt: skip
    ax.axvline(1, ls="--", color="0.4", lw=1)
    ax.set_yticks(range(len(cosines)), [f"{name}  (n {len(v)})" for name, v in cosines.items()])
    ax.set_ylim(len(cosines) - 0.5, -0.7)
    ax.set_xlabel(xlabel)
    ax.set_title(title)
    return ax


def plot_parts(
    parts: Mapping[str, Mapping[str, float]],
    ax: Axes | None = None,
    title: str = "",
    xlabel: str = "",
    form: str = "{:.3g}",
) -> Axes:
    """Plot one stacked bar per item, split by part of the model, with the total at its end.

    Args
        parts  {item: {part: amount}}, the same parts in each, at most 4
        form   format of the total
    """
    ax = ax or plt.gca()
    names = list(next(iter(parts.values())))
    if len(names) > len(_PARTS):
        raise ValueError(f"{len(names)} parts: at most {len(_PARTS)} can be told apart")
    starts = np.zeros(len(parts))
    for part, colour in zip(names, _PARTS, strict=False):
        amounts = np.array([row[part] for row in parts.values()])
        ax.barh(range(len(parts)), amounts, left=starts, color=colour, label=part,
                edgecolor="white", lw=0.5)  # fmt: skip
        starts += amounts
    for place, total in enumerate(starts):
        ax.annotate(form.format(total), (total, place), (3, 0), textcoords="offset points",
                    va="center", fontsize=7)  # fmt: skip
    ax.set_yticks(range(len(parts)), list(parts))
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlim(left=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(xlabel)
    ax.set_title(title)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(names))
    return ax


def _colour(kind: str) -> str:
    return "0.6" if kind == "template" else modality_style(Modality[kind.upper()])["color"]


def _kinds_legend(ax: Axes, present: set[str]) -> None:
    for kind in KINDS:
        if kind in present:
            ax.plot([], [], "s", color=_colour(kind), label=kind)
    ax.plot([], [], "k|", ms=9, mew=2, label="pooled")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
