"""Figures of evaluations: scores of models, retrieved modalities, gains."""

# Shapes: R kinds of query, C modalities of candidates.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..evaluation.confusion import Confusion
from ..evaluation.results import format_families
from .common import MODEL_COLOURS, MODEL_MARKERS, label_style, legend_below

__all__ = ["plot_gains", "plot_modality_confusion", "plot_pools", "plot_scores"]


_BETTER, _WORSE, _OPEN = "#009E73", "#D55E00", "0.55"


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
    if len(models) > len(MODEL_COLOURS):
        raise ValueError(f"{len(models)} models: at most {len(MODEL_COLOURS)} can be told apart")
    for place, row in enumerate(rows):
        chance = 100 * row["chance"]
        ax.plot([chance] * 2, [place - 0.42, place + 0.42], "--", color="0.4", lw=1)
        ax.annotate(f"{chance:.1f}", (chance, place + 0.42), (2, 0), textcoords="offset points",
                    fontsize=6, color="0.4", va="bottom")  # fmt: skip
    for number, model in enumerate(models):
        shift = min(0.22, 0.7 / len(models)) * (number - (len(models) - 1) / 2)
        scores = [row[model] for row in rows]
        values = 100 * np.array([_arms(s) for s in scores])
        colour, marker = MODEL_COLOURS[number], MODEL_MARKERS[number]
        places = np.arange(len(rows)) + shift
        ax.errorbar(values[:, 0], places, xerr=values[:, 1:].T,
                    fmt=marker, color=colour, elinewidth=1, label=model)  # fmt: skip
        few = np.array([s.low is None for s in scores])
        ax.plot(values[few, 0], places[few], marker, color=colour, mfc="white")
    ax.plot([], [], "--", color="0.4", lw=1, label="chance")
    ax.set_yticks(range(len(rows)), list(map(_name_of, rows)))
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
    ax.scatter([alone for alone, _ in pairs], places, facecolor="white", edgecolor="#000000",
               zorder=2, label="single-modality pool")  # fmt: skip
    ax.scatter([shared for _, shared in pairs], places, color="#000000", zorder=2,
               label="mixed pool")  # fmt: skip
    ax.set_yticks(places, list(map(_name_of, single)))
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    ax.set_xlabel(f"{_metric_of(single, [model])} of {model} (%)")
    ax.set_title(title)
    legend_below(ax, 2)
    return ax


def plot_modality_confusion(confusion: Confusion, ax: Axes | None = None, title: str = "") -> Axes:
    """Plot the modalities of results by kind of query, in percent, with chance below.

    The target modality is framed. Rows add up to 100.
    """
    ax = ax or plt.gca()
    share = 100 * confusion.share  # [R, C]
    ax.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    ax.grid(visible=False)
    for (row, column), value in np.ndenumerate(share):
        ink = "white" if value > 55 else "0.15"
        ax.text(column, row - 0.08, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=9)
        chance = f"chance {100 * confusion.chance[row, column]:.0f}"
        ax.text(column, row + 0.28, chance, ha="center", va="center", color=ink, fontsize=5.5)
        if confusion.columns[column] in confusion.kinds[row][1].split(" or "):
            ax.add_patch(_frame(column, row))
    names = [
        f"{query} → {target}  (n {n})"
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
        colour = (_BETTER if row["gain"] > 0 else _WORSE) if clear else _OPEN
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
    several = len({row["split"] for row in rows}) > 1
    splits = [f", {row['split']}" if several else "" for row in rows]
    names = [
        f"{row['task']}{split}  (families {format_families(row)})"
        for row, split in zip(rows, splits, strict=True)
    ]
    ax.set_yticks(range(len(rows)), names)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("gain in points, 95 % interval over families")
    ax.annotate("p (Holm)", (1, 1), (4, 4), xycoords="axes fraction", textcoords="offset points",
                fontsize=7, color="0.4", annotation_clip=False)  # fmt: skip
    ax.set_title(title)
    return ax


def _arms(score) -> tuple[float, float, float]:
    """Value and lengths of the two arms of its interval, 0 if it has none."""
    if score.low is None:
        return score.value, 0.0, 0.0
    return score.value, score.value - score.low, score.high - score.value


def _name_of(row: Mapping) -> str:
    return f"{row['task']}, {row['split']}  (n {row['n']}, families {format_families(row)})"


def _frame(column: int, row: int) -> plt.Rectangle:
    return plt.Rectangle(
        (column - 0.47, row - 0.43), 0.94, 0.86, fill=False, edgecolor="#E69F00", lw=1.6
    )


def _p(value: float) -> str:
    if value < 0.001:
        return "< .001"
    return "1" if value > 0.9995 else f"{value:.3f}".lstrip("0")


def _metric_of(rows: Sequence[Mapping], models: Sequence[str]) -> str:
    return rows[0][models[0]].metric if rows else "score"
