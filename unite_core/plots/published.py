"""Figures of published results beside our own runs.

Runs of this machine are filled and solid; quoted numbers are pale and dashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..evaluation.benchmarks.published import RUN_HERE, Line, table_of

__all__ = ["plot_published"]


_COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "0.55")
_HERE = "#000000"


def plot_published(
    lines: Iterable[Line],
    tasks: Sequence[str],
    models: Sequence[str] = (),
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Plot a group of bars per task, one bar per model and source; empty where there is no number.

    Args
        lines   from `published.read_published` and `published.read_run`
        tasks   the groups, in order
        models  models to draw, in order; default: all, at most 6 of one kind
    Whiskers are the reading precision of digitised values, not confidence intervals.
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


def _rows(lines: Iterable[Line], tasks: Sequence[str], models: Sequence[str]) -> list[dict]:
    """The table's rows, each with its look."""
    rows = table_of(lines, tasks, models)
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
        row["label"] = f"{row['model']} ({row['kind']})"
    return rows


def _pale(colour: str) -> dict:
    return {"facecolor": (colour, 0.3), "edgecolor": colour, "linestyle": "--", "linewidth": 0.8}


def _metric(rows: Sequence[dict]) -> str:
    metrics = {line.metric: None for row in rows for line in row["values"].values()}
    return " / ".join(metrics)


def _labels(tasks: Sequence[str]) -> list[str]:
    """Names of tasks in lines, without a common first word, directions as arrows."""
    arrows = {"t2v": "T→V", "v2t": "V→T", "t2i": "T→I", "i2t": "I→T"}
    words = [task.replace("-", " ").split() for task in tasks]
    if len({task[0] for task in words}) == 1 and all(len(task) > 1 for task in words):
        words = [task[1:] for task in words]
    return ["\n".join(arrows.get(word, word) for word in task) for task in words]


def _legend(ax: Axes, rows: Sequence[dict]) -> Axes:
    """Legend with the number of lines that were run here and that are quoted."""
    handles, _ = ax.get_legend_handles_labels()
    here = sum(row["here"] for row in rows)
    said = f"run here: {here or 'none'}{' (black)' if here else ''}; "
    said += f"quoted: {len(rows) - here} (dashed)"
    ax.legend(handles=handles, title=said, alignment="left", loc="upper left",
              bbox_to_anchor=(1.02, 1))  # fmt: skip
    return ax
