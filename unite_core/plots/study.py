"""Figures of studies: block differences, endpoints by arm, curves over a share, power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .common import null_line

__all__ = [
    "arm_style", "draw_endpoints", "plot_arm_curve", "plot_arms", "plot_block_differences",
    "plot_gap_and_index", "plot_power", "plot_rates",
]  # fmt: skip


_ARMS = {
    "info_nce": ("#000000", "s"), "mamcl": ("#E69F00", "o"), "random_mask": ("0.6", "X"),
    "one_modality": ("#56B4E9", "^"), "soft_mask": ("#CC79A7", "D"),
    "modality_term": ("#44AA99", "P"), "router": ("#882255", "v"),
    "stage_1": ("0.8", "d"),
    "TT": ("#0072B2", "o"), "TI": ("#D55E00", "s"), "TI_wide": ("#F0A07A", "s"),
    "TV": ("#009E73", "^"), "TV_frame": ("#7FCEB9", "<"), "TV_tokens": ("#00664B", ">"),
    "TI_TV": ("#9A6FB0", "D"), "TV_25": ("#D5703A", "D"), "TV_75": ("#5C9C6E", "D"),
    "all": ("#E69F00", "P"), "noise_10": ("0.7", "X"), "noise_30": ("0.45", "X"),
    "clean_10": ("#8CC6EC", "*"), "clean_30": ("#3A8FC6", "*"),
    "fine_within": ("#AA4499", "h"), "fine_between": ("#882255", "h"),
    "fine_after": ("#DDAACC", "h"),
}  # fmt: skip
_OTHER = ("0.4", "o")
_FRAME = "0.15"
_LEVELS = ("-", "--", ":")


def arm_style(arm: str) -> dict[str, str]:
    """`color` and `marker` of an arm, the same in all figures; unknown arms are grey.

    >>> arm_style("mamcl")
    {'color': '#E69F00', 'marker': 'o'}
    """
    colour, marker = _ARMS.get(arm, _OTHER)
    return {"color": colour, "marker": marker}


def plot_block_differences(
    results: Sequence[Mapping[str, Any]], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot planned tests: a dot for each block, the mean, its 95 % interval, p and verdict.

    results  from `study.verdicts`. A frame is drawn where the interval does not hold 0; a dotted
    mark is the margin of a test that has one. Tests that were not run have their name alone.
    """
    ax = ax or plt.gca()
    ax.axvline(0, ls="--", color="0.4", lw=1)
    for place, row in enumerate(results):
        style = arm_style(row["contrast"].split()[0])
        values = 100 * np.asarray(row["differences"], float)
        ax.scatter(values, np.full(len(values), place + 0.22), s=14, alpha=0.6, lw=0, **style)
        ax.annotate(_verdict(row), (1, place), (6, 0), xycoords=("axes fraction", "data"),
                    textcoords="offset points", va="center", fontsize=7, color="0.3",
                    annotation_clip=False)  # fmt: skip
        for margin in {row["margin"], row["margin"] * (row["kind"] == "equivalent") * -1} - {0}:
            ax.plot([-100 * margin] * 2, [place - 0.3, place + 0.35], ":", color="0.2", lw=1.2)
        if not len(values):
            continue
        ax.plot(100 * row["effect"], place - 0.08, "d", color=style["color"], ms=6, zorder=3)
        if np.isfinite(row["low"]):
            low, high = 100 * row["low"], 100 * row["high"]
            ax.plot([low, high], [place - 0.08] * 2, color=style["color"], lw=1.2)
            if low > 0 or high < 0:
                ax.add_patch(plt.Rectangle((low, place - 0.22), high - low, 0.28, fill=False,
                                           edgecolor=_FRAME, lw=0.9))  # fmt: skip
    names = [
        f"{row['test']}\n{row['contrast']} on {row['endpoint']}  ({row['blocks']} blocks)"
        for row in results
    ]
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel("difference in points; dots are blocks, bars 95 % intervals of the mean")
    ax.set_title(title)
    return ax


def plot_arms(
    rows: Sequence[Mapping[str, Any]],
    endpoint: str,
    arms: Mapping[str, str],
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Plot one endpoint by arm, in percent: a dot for each block and a bar at the mean.

    Args
        rows      one for each run, with its arm and endpoints
        endpoint  name of the field
        arms      {arm: label}, from above
    """
    ax = ax or plt.gca()
    for place, arm in enumerate(arms):
        values = 100 * np.array([row[endpoint] for row in rows if row["arm"] == arm], float)
        style = arm_style(arm)
        ax.scatter(values, np.full(len(values), place), s=18, alpha=0.65, lw=0, **style)
        if len(values):
            ax.plot([values.mean()] * 2, [place - 0.32, place + 0.32], color=style["color"], lw=2)
    ax.set_yticks(range(len(arms)), arms.values())
    ax.set_ylim(len(arms) - 0.5, -0.5)
    ax.set_xlabel("recall@10 (%)")
    ax.set_title(title)
    return ax


def draw_endpoints(
    rows: Sequence[Mapping[str, Any]],
    endpoints: Mapping[str, str],
    arms: Mapping[str, str],
    title: str = "",
    one_scale: bool = False,
) -> Figure:
    """Draw `plot_arms` side by side for each of {field: title of its axes}.

    one_scale  whether all axes have one horizontal scale, for fields that are to be compared
    """
    size = (2.2 + 1.9 * len(endpoints), 1.1 + 0.3 * len(arms))
    figure, axes = plt.subplots(1, len(endpoints), sharex=one_scale, sharey=True, squeeze=False,
                                figsize=size)  # fmt: skip
    for ax, (endpoint, label) in zip(axes[0], endpoints.items(), strict=True):
        plot_arms(rows, endpoint, arms, ax, label)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def plot_gap_and_index(
    rows: Sequence[Mapping[str, Any]],
    columns: tuple[str, str],
    arms: Mapping[str, str],
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Plot the recall of an index of all modalities over the modality gap, a pair for each run.

    Args
        rows     one for each run, with its arm, `gap` and the columns
        columns  fields in [0, 1]: by cosine (hollow) and by another score (filled)
        arms     {arm: label}, in the order of the legend
    """
    ax = ax or plt.gca()
    for arm, label in arms.items():
        found = [row for row in rows if row["arm"] == arm]
        style = arm_style(arm)
        for number, row in enumerate(found):
            low, high = (100 * row[column] for column in columns)
            ax.plot([row["gap"]] * 2, [low, high], color=style["color"], lw=0.8, alpha=0.6)
            ax.plot(row["gap"], low, mfc="none", ls="", **style)
            ax.plot(row["gap"], high, ls="", label="" if number else label, **style)
    ax.set_xscale("log")  # most losses share a narrow range
    ax.set_xticks([0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1], [".1", ".15", ".2", ".3", ".5", ".7", "1"])
    ax.minorticks_off()
    ax.set_xlabel("distance of the means of texts and of pictures, log scale")
    ax.set_ylabel("recall@10 in one index (%)")
    ax.set_title(title)
    if rows:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_arm_curve(
    rows: Sequence[Mapping[str, Any]],
    endpoint: str,
    curves: Mapping[str, Mapping[float, str]],
    ax: Axes | None = None,
    share: str = "",
    title: str = "",
) -> Axes:
    """Plot an endpoint over a share: a dot for each seed, a line through the means of the arms.

    Args
        rows    one for each run, with its arm and endpoints
        curves  {label: {share in [0, 1]: arm}}, at most three
        share   name of the horizontal axis
    """
    ax = ax or plt.gca()
    for (label, arms), dashes in zip(curves.items(), _LEVELS, strict=False):
        means = {}
        for place, arm in sorted(arms.items()):
            values = 100 * np.array([row[endpoint] for row in rows if row["arm"] == arm], float)
            ax.scatter(np.full(len(values), 100 * place), values, s=18, alpha=0.65, lw=0,
                       zorder=3, **arm_style(arm))  # fmt: skip
            if len(values):
                means[100 * place] = values.mean()
        colour = arm_style(arms[max(arms)])["color"]
        ax.plot(list(means), list(means.values()), dashes, color=colour, lw=1.4, label=label)
    ax.set_xlabel(share)
    ax.set_ylabel("recall@10 (%)")
    ax.set_title(title)
    ax.legend()
    return ax


def plot_power(
    rows: Sequence[Mapping[str, float]], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot power over the true difference: simulated dots, and lines by the noncentral t.

    rows  of blocks, level, effect (in shares), power, formula
    """
    ax = ax or plt.gca()
    levels = sorted({row["level"] for row in rows}, reverse=True)
    colours = dict(zip(sorted({row["blocks"] for row in rows}), ("#56B4E9", "#E69F00", "#000000"),
                       strict=False))  # fmt: skip
    for blocks, colour in colours.items():
        for level, dashes in zip(levels, _LEVELS, strict=False):
            of = [row for row in rows if (row["blocks"], row["level"]) == (blocks, level)]
            effects = [100 * row["effect"] for row in of]
            ax.plot(effects, [100 * row["formula"] for row in of], dashes, color=colour, lw=1.2,
                    label=f"{blocks} blocks, {100 * level:.2g} %")  # fmt: skip
            ax.plot(effects, [100 * row["power"] for row in of], "o", color=colour, ms=3.5)
    null_line(ax, "wanted", 80)
    ax.set_xlabel("true difference (points)")
    ax.set_ylabel("studies that show it (%)")
    ax.set_ylim(0, 102)
    ax.set_title(title)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_rates(
    curves: Mapping[str, Mapping[float, float]],
    nominal: float,
    ax: Axes | None = None,
    across: str = "",
    rate: str = "",
    title: str = "",
) -> Axes:
    """Plot rates of error, in percent, beside the nominal one.

    Args
        curves  {label: {place: rate in [0, 1]}}, at most three
        across  name of the horizontal axis
        rate    name of the vertical one
    """
    ax = ax or plt.gca()
    for (label, values), dashes in zip(curves.items(), _LEVELS, strict=False):
        ax.plot(list(values), [100 * value for value in values.values()], dashes, marker="o", ms=4,
                lw=1.4, label=label)  # fmt: skip
    ax.axhline(100 * nominal, ls=":", color="0.4", lw=1, label=f"nominal, {100 * nominal:.3g} %")
    ax.set_xlabel(across)
    ax.set_ylabel(rate)
    ax.set_ylim(bottom=0)
    ax.set_title(title)
    ax.legend()
    return ax


def _verdict(row: Mapping[str, Any]) -> str:
    p = row["p"] if row["p_holm"] is None else row["p_holm"]
    # corrected, a test that was not run counts as 1
    shown = "" if np.isnan(row["p"]) else f"p = {p:.3f}" if p >= 0.001 else "p < .001"
    return "\n".join(filter(None, (shown, row["verdict"])))
