"""Figures of curation: what is in the data, what rules removed, how well pairs align."""

# Shapes: R reasons, P pair types.

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..files import replacing
from .common import modality_style, use_style

__all__ = [
    "draw_card", "plot_alignment", "plot_groups", "plot_pair_types", "plot_quantity",
    "plot_recovery", "plot_removed",
]  # fmt: skip


_REASONS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B",
    "#7F7F7F", "#BCBD22", "#17BECF", "#9467BD", "#AEC7E8", "#FFBB78", "#C7C7C7",
)  # fmt: skip
_KEPT = "0.88"
_HIT = "#009E73"


def plot_pair_types(profile: Mapping, ax: Axes | None = None, title: str = "") -> Axes:
    """Plot records by pair type, coloured by the candidate's modality."""
    ax = ax or plt.gca()
    pairs = profile["pairs"]
    names = [f"{pair['query']} → {pair['candidate']}" for pair in pairs]
    colours = [modality_style(pair["candidate"])["color"] for pair in pairs]
    ax.barh(range(len(pairs)), [pair["records"] for pair in pairs], color=colours, height=0.7)
    for place, pair in enumerate(pairs):
        ax.annotate(f"{pair['share']:.1%}", (pair["records"], place), (3, 0), va="center",
                    textcoords="offset points", fontsize=7, color="0.4")  # fmt: skip
    ax.set_yticks(range(len(pairs)), names)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.grid(visible=False, axis="y")
    ax.set(xlabel=f"records (n = {profile['records']})")
    ax.set_title(title)
    return ax


def plot_quantity(
    rows: Sequence[Mapping], quantity: str, ax: Axes | None = None, title: str = "",
    xlabel: str = "",
) -> Axes:  # fmt: skip
    """Plot the spread of a quantity: the middle 90 % thin, the middle half thick, the median.

    Args
        rows      a profile's `texts` or `media`; rows without the quantity are skipped
        quantity  such as "characters", "tokens", "width", "aspect", "seconds"
    Colour and marker are those of the media's modality, or of text.
    """
    ax = ax or plt.gca()
    shown = [row for row in rows if row.get(quantity)]
    for place, row in enumerate(shown):
        style = modality_style(row.get("kind", "text"))
        _, low, first, middle, third, high, _ = row[quantity]["quantiles"]
        ax.plot([low, high], [place] * 2, color=style["color"], lw=1.2)
        ax.plot([first, third], [place] * 2, color=style["color"], lw=5, solid_capstyle="butt")
        ax.plot([middle], [place], style["marker"], mfc="white", mec=style["color"], ms=6)
        ax.annotate(f"{middle:.3g}", (middle, place), (0, 5), textcoords="offset points",
                    ha="center", fontsize=6.5, color="0.4")  # fmt: skip
    names = [f"{_row_label(row)}  (n {row[quantity]['n']})" for row in shown]
    ax.set_yticks(range(len(shown)), names)
    ax.set_ylim(len(shown) - 0.4, -0.7)
    ax.margins(x=0.06)
    ax.grid(visible=False, axis="y")
    ax.set(xlabel=xlabel or quantity)
    ax.set_title(title)
    return ax


def plot_groups(masking: Mapping, ax: Axes | None = None, title: str = "") -> Axes:
    """Plot expected group sizes under MAMCL by target modality, on a logarithmic axis."""
    ax = ax or plt.gca()
    groups, size = masking["groups"], masking["batch_size"]
    for place, group in enumerate(groups):
        style = modality_style(group["target"])
        ax.barh(place, group["expected_size"], color=style["color"], height=0.7)
        note = f"{group['expected_size']:.1f}" + ("  too small" if group["too_small"] else "")
        ax.annotate(note, (group["expected_size"], place), (3, 0), textcoords="offset points",
                    va="center", fontsize=7, color="0.4")  # fmt: skip
    ax.axvline(size, ls="--", color="0.4", lw=1)
    ax.annotate(f"InfoNCE: {size}", (size, -0.5), (-3, 0), textcoords="offset points", ha="right",
                va="bottom", fontsize=7, color="0.4")  # fmt: skip
    ax.set_yticks(range(len(groups)), [group["target"] for group in groups])
    ax.set(xscale="log", xlim=(min(1, *(g["expected_size"] for g in groups)) / 2, size * 1.6),
           ylim=(len(groups) - 0.5, -0.9),
           xlabel=f"pairs that compete, of a batch of {size}")  # fmt: skip
    ax.grid(visible=False, axis="y")
    ax.set_title(title)
    return ax


def plot_removed(
    counts: Mapping[str, Mapping[str, int]], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot what each rule removed of each pair type: stacked shares, kept records in grey.

    counts {pair type: {first reason, or "" for kept: records}}, a card's `removed_by_pair_type`.
    """
    ax = ax or plt.gca()
    totals = {name: sum(found.values()) for name, found in counts.items()}
    reasons = list(dict.fromkeys(r for found in counts.values() for r in found if r))
    places = np.arange(len(counts))
    left = np.zeros(len(counts))
    for number, reason in enumerate([*reasons, ""]):
        shares = np.array([100 * found.get(reason, 0) / totals[n] for n, found in counts.items()])
        colour = _REASONS[number % len(_REASONS)] if reason else _KEPT
        ax.barh(places, shares, left=left, color=colour, label=reason or "kept", height=0.7)
        left += shares
    names = [f"{name.replace(' > ', ' → ')}  (n {totals[name]})" for name in counts]
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="share of records (%)")
    ax.grid(visible=False)
    ax.set_title(title)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_alignment(report: Mapping, ax: Axes | None = None, title: str = "") -> Axes:
    """Plot similarities of one pair type beside those of mismatched pairs, with the threshold.

    report  a row of a card's `alignment`: edges, counts, null_counts, threshold, dropped
    """
    ax = ax or plt.gca()
    edges = np.asarray(report["edges"])
    style = modality_style(report["pair_type"].split(" > ")[1].split(",")[0])
    null = np.asarray(report["null_counts"], float)
    matched = np.asarray(report["counts"], float)
    ax.stairs(null / max(null.sum(), 1), edges, fill=True, color="0.85", label="mismatched pairs")
    label = f"pairs (n {report['pairs']})"
    ax.stairs(matched / max(matched.sum(), 1), edges, color=style["color"], lw=1.8, label=label)
    cut = report["threshold"]
    at_right = (edges[matched.argmax()] if cut is None else cut) > (edges[0] + edges[-1]) / 2
    if cut is not None:
        ax.axvline(cut, ls="--", color="0.4", lw=1)
        where = ("data", "axes fraction")
        ax.annotate(f"cut {cut:.2f}\n{report['dropped']} dropped",
                    (cut, 0.98), (3 if at_right else -3, 0), xycoords=where, va="top",
                    ha="left" if at_right else "right", textcoords="offset points",
                    fontsize=7, color="0.4")  # fmt: skip
    ax.set(xlabel="similarity (cosine)", ylabel="share of pairs")
    ax.set_title(title or report["pair_type"].replace(" > ", " → "))
    peak = max(counts.max(initial=0) / max(counts.sum(), 1) for counts in (matched, null))
    ax.set_ylim(0, 1.4 * peak or 1)  # room for the legend
    ax.legend(loc="upper left" if at_right else "upper right")
    return ax


def plot_recovery(rows: Sequence[Mapping], ax: Axes | None = None, title: str = "") -> Axes:
    """Plot recall and precision of each injected fault's rule, from `measure_recovery`."""
    ax = ax or plt.gca()
    for place, row in enumerate(rows):
        values = 100 * row["recall"], 100 * row["precision"]
        ax.plot(values, [place, place], color="0.6", lw=1, zorder=1)
    places = range(len(rows))
    ax.scatter([100 * row["recall"] for row in rows], places, color=_HIT, marker="o", zorder=3,
               label="recall")  # fmt: skip
    ax.scatter([100 * row["precision"] for row in rows], places, facecolor="white", zorder=2,
               edgecolor="#000000", marker="s", s=60, label="precision")  # fmt: skip
    ax.axvline(90, ls="--", color="0.4", lw=1)
    ax.set_yticks(places, [f"{row['kind']}  (n {row['injected']})" for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(min(50, *(100 * min(r["recall"], r["precision"]) for r in rows)) - 3, 103)
    ax.set(xlabel="percent of planted records (dashed: 90)")
    ax.set_title(title)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def draw_card(card: Mapping, folder: str | Path) -> list[str]:
    """Save the figures of a data set card into a folder; returns their file names."""
    use_style()
    folder, names = Path(folder), []
    for name, draw in _card_figures(card).items():
        figure, ax = plt.subplots(figsize=(6.4, 3.2))
        draw(ax)
        figure.set_figheight(max(2.4, 0.25 * len(ax.get_yticks()) + 1))
        with replacing(folder / f"{name}.png", durable=False) as partial:
            figure.savefig(partial, format="png", metadata={"Software": None}, bbox_inches="tight")
        plt.close(figure)
        names.append(f"{name}.png")
    return names


def _card_figures(card: Mapping) -> dict[str, Callable[[Axes], Axes]]:
    after = card["after"]
    figures = {
        "pair_types": lambda ax: plot_pair_types(after, ax, "The mix by pair type"),
        "groups": lambda ax: plot_groups(after["masking"], ax, "Groups under MAMCL"),
        "removed": lambda ax: plot_removed(card["removed_by_pair_type"], ax, "What rules removed"),
    }
    if after["texts"]:
        figures["characters"] = lambda ax: plot_quantity(
            after["texts"], "characters", ax, "Length of texts", "characters"
        )
    if any(row.get("tokens") for row in after["media"]):
        figures["visual_tokens"] = lambda ax: plot_quantity(
            after["media"], "tokens", ax, "Visual tokens of media", "visual tokens per item"
        )
    for report in card["alignment"]:
        name = "_".join(re.findall(r"\w+", report["pair_type"]))
        figures[f"alignment_{name}"] = lambda ax, report=report: plot_alignment(report, ax)
    return figures


def _row_label(row: Mapping) -> str:
    side = f", {row['side']}" if "side" in row else ""
    return f"{row['query']} → {row['candidate']}{side}"
