"""Axes-level figures of published results: what was quoted looks other than what was run here.

Runs of this machine are filled and solid; quoted numbers are pale and dashed, whoever printed them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.projections.polar import PolarAxes

from ..evaluation.benchmarks.published import RUN_HERE, Line, table_of

__all__ = ["plot_bars", "plot_radar"]


_COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "0.55")
_MARKERS = "osD^Pv"
_HERE = "#000000"


def plot_bars(
    lines: Iterable[Line],
    tasks: Sequence[str],
    models: Sequence[str] = (),
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """A group of bars for each task, one bar per model and source; empty where there is no number.

    Args
        lines   as `published.read_published` and `published.run_here` give
        tasks   the groups, in their order
        models  those to draw, in their order; default: all, at most 6 of one kind
    Whiskers are the precision to which a digitised value was read, not a confidence interval.
    """
    ax = ax or plt.gca()
    rows = _rows(lines, tasks, models)
    width = 0.84 / len(rows)
    for number, row in enumerate(rows):
        known = [(place, row["values"][t]) for place, t in enumerate(tasks) if t in row["values"]]
        x = np.array([place for place, _ in known]) + width * (number - (len(rows) - 1) / 2)
        values = [line.value for _, line in known]
        look = {"color": row["colour"]} if row["here"] else _pale(row["colour"])
        error = [line.plus_minus or np.nan for _, line in known]
        ax.bar(x, values, 0.92 * width, yerr=error, ecolor="0.3", label=row["label"], **look)
        for place, value in zip(x, values, strict=True):
            ax.annotate(f"{value:.1f}", (place, 0), (0, 3), textcoords="offset points", fontsize=6,
                        ha="center", va="bottom", rotation=90,
                        color="white" if row["here"] else "0.15")  # fmt: skip
    ax.set_xticks(range(len(tasks)), _labels(tasks))
    ax.grid(visible=False, axis="x")
    ax.set_ylabel(f"{_metric(rows)} (%)")
    ax.set_title(title)
    return _legend(ax, rows)


def plot_radar(
    lines: Iterable[Line],
    tasks: Sequence[str],
    models: Sequence[str] = (),
    ax: PolarAxes | None = None,
    title: str = "",
) -> Axes:
    """One axis per task around a centre, one closed line per model and source.

    Only rows with a number for each of the tasks are drawn, since a gap would look like a value.
    The centre is not 0 but a little below the lowest value: read the rings, not the areas.
    Raises ValueError for fewer than 3 tasks, axes that are not polar, or nothing to draw.
    """
    if len(tasks) < 3:
        raise ValueError(f"a radar needs 3 tasks or more, not {len(tasks)}: draw bars")
    ax = ax or plt.subplot(projection="polar")
    if not isinstance(ax, PolarAxes):
        raise ValueError('axes must be polar: plt.subplots(subplot_kw={"projection": "polar"})')
    rows = _rows(lines, tasks, models, whole=True)
    angles = np.linspace(0, 2 * np.pi, len(tasks), endpoint=False)
    for row in rows:
        values = [row["values"][task].value for task in tasks]
        closed = np.append(angles, angles[0]), [*values, values[0]]
        style = {"ls": "-", "lw": 2.5} if row["here"] else {"ls": (0, (4, 1.5)), "lw": 1.3}
        ax.plot(*closed, color=row["colour"], marker=row["marker"], ms=4, label=row["label"],
                **style)  # fmt: skip
    lowest = min(row["values"][task].value for row in rows for task in tasks)
    ax.set_ylim(10 * np.floor(lowest / 10 - 0.5) if lowest >= 15 else 0, 100)
    ax.set_theta_offset(np.pi / 2)
    ax.set_xticks(angles, _labels(tasks))
    ax.tick_params(axis="x", pad=9)
    ax.set_rlabel_position(180 / len(tasks))
    ax.tick_params(axis="y", labelsize=6)
    ax.spines["polar"].set_visible(False)
    ax.set_title(f"{title}\n{_metric(rows)} (%)", pad=18)
    return _legend(ax, rows)


def _rows(lines: Iterable[Line], tasks: Sequence[str], models: Sequence[str],
          whole: bool = False) -> list[dict]:  # fmt: skip
    """The table's rows (only those without a gap if `whole`), each with how it is drawn."""
    rows = table_of(lines, tasks, models)
    rows = [row for row in rows if not whole or len(row["values"]) == len(tasks)]
    if not rows:
        raise ValueError(f"no model has a number for each of {', '.join(tasks)}: draw bars")
    quoted = [row for row in rows if row["kind"] != RUN_HERE]
    if len({row["model"] for row in quoted}) > len(_COLOURS):
        raise ValueError(
            f"{len({row['model'] for row in quoted})} models: at most {len(_COLOURS)} can be told "
            "apart; name those to draw"
        )
    names = list(dict.fromkeys(row["model"] for row in rows))
    for row in rows:
        place = names.index(row["model"]) % len(_COLOURS)
        row["here"] = row["kind"] == RUN_HERE
        row["colour"] = _HERE if row["here"] else _COLOURS[place]
        row["marker"] = "*" if row["here"] else _MARKERS[place]
        row["label"] = f"{row['model']} ({row['kind']})"
    return rows


def _pale(colour: str) -> dict:
    return {"facecolor": (colour, 0.3), "edgecolor": colour, "linestyle": "--", "linewidth": 0.8}


def _metric(rows: Sequence[dict]) -> str:
    metrics = {line.metric: None for row in rows for line in row["values"].values()}
    return " / ".join(metrics)


def _labels(tasks: Sequence[str]) -> list[str]:
    """Names of tasks in lines, without what all of them begin with, directions as arrows."""
    arrows = {"t2v": "T→V", "v2t": "V→T", "t2i": "T→I", "i2t": "I→T"}
    words = [task.replace("-", " ").split() for task in tasks]
    if len({each[0] for each in words}) == 1 and all(len(each) > 1 for each in words):
        words = [each[1:] for each in words]
    return ["\n".join(arrows.get(word, word) for word in each) for each in words]


def _legend(ax: Axes, rows: Sequence[dict]) -> Axes:
    """Labels, and in words which lines were run here."""
    handles, _ = ax.get_legend_handles_labels()
    here = sum(row["here"] for row in rows)
    said = f"run here: {here or 'none'}{' (black)' if here else ''}; "
    said += f"quoted: {len(rows) - here} (dashed)"
    far = 1.25 if isinstance(ax, PolarAxes) else 1.02
    ax.legend(handles=handles, title=said, alignment="left", loc="upper left",
              bbox_to_anchor=(far, 1))  # fmt: skip
    return ax
