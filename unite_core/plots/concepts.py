"""Drawings of ideas: a few vectors, ranks or scores that one can check by hand.

The pages of `docs/concepts` and the notebooks use them with the numbers of their texts.
"""

# Shapes: n items of a modality, Q queries.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from .common import modality_style

__all__ = [
    "plot_chain_rule", "plot_circle", "plot_pull", "plot_ranks", "plot_remaining",
    "plot_scores_by_modality",
]  # fmt: skip


_PALE = "0.85"


def plot_circle(
    points: Mapping[str, np.ndarray],
    ax: Axes | None = None,
    title: str = "",
    labels: Mapping[str, Sequence[str]] | None = None,
    means: bool = False,
) -> Axes:
    """Plot unit vectors of two dimensions as arrows on the circle, in the colour of the modality.

    Args
        points  {modality: [n, 2]}; rows of equal number are pairs and joined by a dotted line. A
                later modality has smaller marks, so that equal points show both
        labels  {modality: n texts} beside the ends of the arrows
        means   whether to mark the means of the modalities and join them: the gap
    """
    ax = ax or plt.gca()
    ax.add_patch(Circle((0, 0), 1, fill=False, color="0.7", lw=1))
    for number, (name, rows) in enumerate(points.items()):
        style = modality_style(name)
        for row in rows:
            ax.annotate("", row, (0, 0), arrowprops={"arrowstyle": "->", "color": style["color"]})
        ax.plot(*np.transpose(rows), ls="", ms=9 - 4 * number, label=name, **style)
        for row, words in zip(rows, (labels or {}).get(name, ()), strict=False):
            side = "left" if row[0] > 0 else "right"
            ax.annotate(words, row, (8 if row[0] > 0 else -8, 0), textcoords="offset points",
                        ha=side, va="center", fontsize=8, color=style["color"])  # fmt: skip
    for pair in zip(*points.values(), strict=False):
        ax.plot(*np.transpose(pair), ":", color="0.5", lw=1, zorder=1)
    if means:
        middle = np.array([np.mean(rows, axis=0) for rows in points.values()])
        ax.plot(*middle.T, "-", color="black", lw=1.6)
        ax.plot(*middle.T, "o", mfc="white", mec="black", ms=6, label="mean")
    ax.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal")
    ax.set_axis_off()
    ax.set_title(title)
    return ax


def plot_ranks(
    ranks: Sequence[int], k: int, ax: Axes | None = None, title: str = "", length: int = 10
) -> Axes:
    """Plot the lists of Q queries: their positives in black, the first k places framed.

    Args
        ranks   [Q] rank of each query's one positive, counted from 1
        length  places that are drawn
    """
    ax = ax or plt.gca()
    for row, rank in enumerate(ranks):
        for place in range(1, length + 1):
            hit = place == rank
            ax.plot(place, row, "s", ms=15, color="black" if hit else _PALE)
        found = rank <= k
        ax.annotate("found" if found else "missed", (length + 0.8, row), va="center", fontsize=8,
                    color="#009E73" if found else "#D55E00")  # fmt: skip
    box = plt.Rectangle((0.45, -0.5), k + 0.1, len(ranks), fill=False, ec="#0072B2", lw=1.6)
    ax.add_patch(box)
    ax.set_yticks(range(len(ranks)), [f"query {row + 1}" for row in range(len(ranks))])
    ax.set_xticks(range(1, length + 1))
    ax.set(xlabel="rank", xlim=(0.3, length + 2.2), ylim=(len(ranks) - 0.4, -0.6))
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_title(title)
    return ax


def plot_pull(
    probabilities: Mapping[str, Sequence[float]], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot a query's probabilities, positive first: a group of bars for each setting.

    Args
        probabilities  {name of the setting: [n] that sum to 1}
    """
    ax = ax or plt.gca()
    width = 0.8 / len(probabilities)
    shades = plt.get_cmap("viridis")(np.linspace(0.15, 0.8, len(probabilities)))
    for number, (name, values) in enumerate(probabilities.items()):
        places = np.arange(len(values)) + width * (number - (len(probabilities) - 1) / 2)
        bars = ax.bar(places, values, width, color=shades[number], label=name)
        ax.bar_label(bars, [f"{value:.2f}" for value in values], fontsize=7, padding=2)
    count = len(next(iter(probabilities.values())))
    negatives = [f"negative {number}" for number in range(1, count)]
    ax.set_xticks(range(count), ["positive", *negatives])
    ax.set(ylim=(0, 1.08), ylabel="probability")
    ax.grid(visible=False, axis="x")
    ax.set_title(title)
    ax.legend()
    return ax


def plot_chain_rule(
    powers: Mapping[str, Sequence[float]], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot the softmax of one query as modalities (above) and candidates inside each (below).

    Args
        powers  {modality: exp(s / temperature) of its candidates}; the positive is the first
                candidate of the first modality and framed
    """
    ax = ax or plt.gca()
    total = sum(map(sum, powers.values()))
    left = 0.0
    for name, values in powers.items():
        share = sum(values) / total
        colour = modality_style(name)["color"]
        ax.barh(1, share, 0.7, left, color=colour, ec="white", lw=2)
        ax.text(left + share / 2, 1, f"{name} {share:.2f}", ha="center", va="center",
                color="white", fontsize=9)  # fmt: skip
        for value in values:
            ax.barh(0, value / total, 0.7, left, color=colour, alpha=0.55, ec="white", lw=2)
            ax.text(left + value / total / 2, 0, f"{value / sum(values):.2f}", ha="center",
                    va="center", fontsize=9)  # fmt: skip
            left += value / total
    first = next(iter(powers.values()))[0] / total
    ax.add_patch(plt.Rectangle((0, -0.35), first, 0.7, fill=False, ec="black", lw=1.8))
    ax.annotate(f"positive: $p(c|q)$ = {first:.2f}", (first / 2, -0.35), (0, -6), ha="center",
                va="top", textcoords="offset points", fontsize=9)  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(-0.75, 1.5))
    ax.set_yticks([1, 0], ["modality $p(m|q)$", "candidate $p(c|q,m)$"])
    ax.set_xticks([])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_title(title)
    return ax


def plot_scores_by_modality(
    scores: Mapping[str, Sequence[float]],
    wanted: tuple[str, int],
    ax: Axes | None = None,
    title: str = "",
    xlabel: str = "cosine",
) -> Axes:
    """Plot the scores of one query's candidates, a line for each modality, with their ranks.

    Args
        scores  {modality: scores of its candidates}
        wanted  modality and place of the positive, which is framed
    """
    ax = ax or plt.gca()
    falling = sorted((value for values in scores.values() for value in values), reverse=True)
    for row, (name, values) in enumerate(scores.items()):
        style = modality_style(name)
        ax.plot(values, [row] * len(values), ls="", ms=9, **style)
        for value in dict.fromkeys(values):
            ax.annotate(f"{falling.index(value) + 1}", (value, row), (0, 9), ha="center",
                        textcoords="offset points", fontsize=8, color="0.3")  # fmt: skip
    name, place = wanted
    ax.plot(scores[name][place], list(scores).index(name), "o", ms=17, mfc="none", mec="black")
    ax.set_yticks(range(len(scores)), list(scores))
    ax.set(xlabel=xlabel, ylim=(-0.6, len(scores) - 0.4))
    ax.grid(visible=False, axis="y")
    ax.set_title(title)
    return ax


def plot_remaining(
    removed: Mapping[str, int], total: int, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot how many of `total` records are left after each rule, removed ones pale.

    Args
        removed  {rule: number of records that it removes}, in the order of the rules
    """
    ax = ax or plt.gca()
    left = total
    rows = [("all records", 0), *removed.items()]
    for place, (name, gone) in enumerate(rows):
        ax.barh(place, left, 0.65, color=_PALE)
        left -= gone
        ax.barh(place, left, 0.65, color="#0072B2")
        words = f"{left}  ({name}: −{gone})" if gone else f"{left}"
        ax.annotate(words, (left + gone, place), (6, 0), textcoords="offset points", va="center",
                    fontsize=8)  # fmt: skip
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.set(xlim=(0, 1.35 * total), ylim=(len(rows) - 0.5, -0.5), xlabel="records")
    ax.grid(visible=False)
    ax.set_title(title)
    return ax
