"""Figures of evaluations: scores of models, retrieved modalities, gains."""

# Shapes: R kinds of query, C modalities of candidates.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..evaluation.confusion import Confusion
from ..evaluation.results import format_families
from .common import label_style, legend_below, model_style

__all__ = [
    "plot_gains", "plot_modality_confusion", "plot_pools", "plot_scores", "plot_sign_flips",
]  # fmt: skip


_CLEAR, _OPEN = "0.1", "0.55"
_MOST_MODELS = 6


def plot_scores(
    rows: Sequence[Mapping], models: Sequence[str], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot scores of several models by task, in percent, with intervals and chance levels.

    Args
        rows    from `results.comparison`: task, split, n, families, effective_families, chance,
                and a `Score` per model
        models  names, at most 6, in the order of the legend
    A score without an interval (few families) is an open mark.
    """
    ax = ax or plt.gca()
    if len(models) > _MOST_MODELS:
        raise ValueError(f"{len(models)} models: at most {_MOST_MODELS} can be told apart")
    for place, row in enumerate(rows):
        chance = 100 * row["chance"]
        ax.plot([chance] * 2, [place - 0.42, place + 0.42], "--", color="0.4", lw=1)
    for number, model in enumerate(models):
        shift = min(0.22, 0.7 / len(models)) * (number - (len(models) - 1) / 2)
        scores = [row[model] for row in rows]
        values = 100 * np.array([_arms(s) for s in scores])
        style = model_style(model, number)
        places = np.arange(len(rows)) + shift
        ax.errorbar(values[:, 0], places, xerr=values[:, 1:].T, ls="",
                    elinewidth=1.2, label=model, **style)  # fmt: skip
        few = np.array([s.low is None for s in scores])
        ax.plot(values[few, 0], places[few], ls="", mfc="white", zorder=3, **style)
    ax.plot([], [], "--", color="0.4", lw=1, label="chance")
    ax.set_yticks(range(len(rows)), _names_of(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    ax.set_xlabel(f"{_metric_of(rows, models)} (%), 95 % interval over families")
    ax.set_title(title)
    legend_below(ax, len(models) + 1)
    return ax


def plot_pools(
    single: Sequence[Mapping],
    mixed: Sequence[Mapping],
    model: str,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Plot what tasks lose when their candidates share one index with all other modalities.

    `single` and `mixed` are `results.comparison` rows of the same tasks in the two pools.
    """
    ax = ax or plt.gca()
    if [(r["task"], r["split"]) for r in single] != [(r["task"], r["split"]) for r in mixed]:
        raise ValueError("single and mixed rows are of different tasks; compare the same ones")
    pairs = [
        (100 * a[model].value, 100 * b[model].value) for a, b in zip(single, mixed, strict=True)
    ]
    for place, pair in enumerate(pairs):
        ax.plot(pair, [place, place], color="0.6", lw=1, zorder=1)
    places = range(len(pairs))
    style = model_style(model) | {"s": 34, "zorder": 2}
    colour = style.pop("color")
    ax.scatter([alone for alone, _ in pairs], places, facecolor="white", edgecolor=colour, lw=1.4,
               label="its own pool", **style)  # fmt: skip
    ax.scatter([shared for _, shared in pairs], places, color=colour, lw=1.4,
               label="one pool of everything", **style)  # fmt: skip
    ax.set_yticks(places, _names_of(single))
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    ax.set_xlabel(f"{_metric_of(single, [model])} of {model} (%)")
    ax.set_title(title)
    legend_below(ax, 2)
    return ax


def plot_modality_confusion(confusion: Confusion, ax: Axes | None = None, title: str = "") -> Axes:
    """Plot the modalities of results by kind of query, in percent, with chance below.

    The modality asked for is in bold. Rows add up to 100.
    """
    ax = ax or plt.gca()
    share = 100 * confusion.share  # [R, C]
    ax.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    ax.grid(visible=False)
    for (row, column), value in np.ndenumerate(share):
        ink = "white" if value > 55 else "0.15"
        wanted = confusion.columns[column] in confusion.kinds[row][1].split(" or ")
        ax.text(column, row - 0.1, f"{value:.0f}", ha="center", va="center", color=ink,
                fontsize=10, weight="bold" if wanted else "normal")  # fmt: skip
        said = "asked for, " if wanted else ""
        chance = f"{said}chance {100 * confusion.chance[row, column]:.0f}"
        ax.text(column, row + 0.28, chance, ha="center", va="center", color=ink, fontsize=6.5)
    names = [
        f"{query} → {target}\nn {n}"
        for (query, target), n in zip(confusion.kinds, confusion.n, strict=True)
    ]
    ax.set_yticks(range(len(names)), names)
    ax.set_xticks(range(len(confusion.columns)), confusion.columns)
    for label in ax.get_xticklabels():
        label.set_color(label_style(label.get_text()).get("color", "0.15"))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(f"modality of the first {confusion.k} results (%)")
    ax.set_title(title)
    return ax


def plot_gains(
    rows: Sequence[Mapping], ax: Axes | None = None, title: str = "", level: float = 0.05
) -> Axes:
    """Plot paired gains with 95 % intervals; filled where the adjusted p is below `level`.

    rows  from `significance.compare_models`: task, split, families, effective_families, gain,
          low, high (None: no bar), p_holm
    """
    ax = ax or plt.gca()
    ax.axvline(0, ls="--", color="0.4", lw=1)
    for place, row in enumerate(rows):
        clear = row["p_holm"] < level
        colour = _CLEAR if clear else _OPEN
        gain = 100 * row["gain"]
        if row["low"] is not None:
            ends = [100 * row["low"], 100 * row["high"]]
            ax.plot(ends, [place, place], color=colour, lw=1.2, zorder=1)
        ax.plot(gain, place, "o", color=colour, mfc=colour if clear else "white", zorder=2)
        ax.annotate(
            _p(row["p_holm"]), (1, place), (4, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=7, color=colour if clear else "0.4",
            annotation_clip=False,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), _names_of(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("gain in points, 95 % interval over families")
    ax.annotate("p (Holm)", (1, 1), (4, 4), xycoords="axes fraction", textcoords="offset points",
                fontsize=7, color="0.4", annotation_clip=False)  # fmt: skip
    ax.set_title(title)
    return ax


def plot_sign_flips(
    gains: Sequence[float], observed: float, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot the gains that all choices of signs would give, a dot each; black: as far from 0.

    Args
        gains     of every choice, the observed one among them
        observed  the gain that was found
    """
    ax = ax or plt.gca()
    height: dict[float, int] = {}
    for gain in sorted(gains):
        place = round(float(gain), 9)
        height[place] = height.get(place, 0) + 1
        far = abs(gain) >= abs(observed) - 1e-9
        ax.plot(gain, height[place], "o", ms=11, mec="0.4", color="black" if far else "white")
    ax.annotate("found", (observed, height[round(float(observed), 9)]), (0, 20), ha="center",
                textcoords="offset points", arrowprops={"arrowstyle": "->"})  # fmt: skip
    top = max(height.values())
    ax.set(xlabel="gain", ylabel="choices of signs", ylim=(0.3, top + 1.2))
    ax.set_yticks(range(1, top + 1))
    ax.set_title(title)
    return ax


def _arms(score) -> tuple[float, float, float]:
    """Value and lengths of the two arms of its interval, 0 if it has none."""
    if score.low is None:
        return score.value, 0.0, 0.0
    return score.value, score.value - score.low, score.high - score.value


def _names_of(rows: Sequence[Mapping]) -> list[str]:
    """Labels of rows in two lines; the split is named where there are several."""
    several = len({row["split"] for row in rows}) > 1
    return [
        f"{row['task']}{', ' + row['split'] if several else ''}\n"
        f"n {row['n']}, families {format_families(row)}"
        for row in rows
    ]


def _p(value: float) -> str:
    if value < 0.001:
        return "< .001"
    return "1" if value > 0.9995 else f"{value:.3f}".lstrip("0")


def _metric_of(rows: Sequence[Mapping], models: Sequence[str]) -> str:
    return rows[0][models[0]].metric if rows else "score"
