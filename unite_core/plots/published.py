"""Figures of published results beside our own runs.

Runs of this machine are black and filled; quoted numbers are open, in the colour of their model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..evaluation.benchmarks.published import RUN_HERE, Line, table_of

__all__ = ["plot_published"]


_LOOKS = {
    "UNITE 2B": ("#E69F00", "o"), "UNITE 7B": ("#B25D00", "s"), "VLM2Vec-V2 2B": ("#56B4E9", "^"),
    "GME 2B": ("#332288", "v"), "RzenEmbed 2B": ("#44AA99", "D"), "Long-CLIP": ("#CC79A7", "P"),
}  # fmt: skip
_OTHERS = (("#882255", "<"), ("#0072B2", ">"), ("#999933", "h"), ("0.5", "p"), ("#117733", "X"),
           ("#AA4499", "*"))  # fmt: skip
_HERE = ("#000000", "o")


def plot_published(
    lines: Iterable[Line],
    tasks: Sequence[str],
    models: Sequence[str] = (),
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Plot a row of dots per task, one per model and source; none where there is no number.

    Args
        lines   from `published.read_published` and `published.read_run`
        tasks   from the top down
        models  models to draw, in order; default: all, at most 6 of one kind
    Whiskers are the reading precision of digitised values, not confidence intervals. Rows of one
    model, of different sources, have one colour and stand one below the other.
    """
    ax = ax or plt.gca()
    rows = _rows(lines, tasks, models)
    height = 0.8 / len(rows)
    for number, row in enumerate(rows):
        known = [(place, row["values"][t]) for place, t in enumerate(tasks) if t in row["values"]]
        y = np.array([place for place, _ in known]) + height * (number - (len(rows) - 1) / 2)
        values = [line.value for _, line in known]
        error = [line.plus_minus or np.nan for _, line in known]
        colour, marker = row["look"]
        ax.errorbar(values, y, xerr=error, ls="", marker=marker, color=colour, ecolor=colour,
                    ms=5.5, mfc=colour if row["here"] else "white", label=row["label"])  # fmt: skip
    for place in range(1, len(tasks)):
        ax.axhline(place - 0.5, color="0.85", lw=0.8)
    ax.set_yticks(range(len(tasks)), _labels(tasks))
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(f"{_metric(rows)} (%)")
    ax.set_title(title)
    return _legend(ax, rows)


def _rows(lines: Iterable[Line], tasks: Sequence[str], models: Sequence[str]) -> list[dict]:
    """The table's rows, each with its look."""
    rows = table_of(lines, tasks, models)
    names = list(dict.fromkeys(row["model"] for row in rows if row["kind"] != RUN_HERE))
    if len(names) > len(_OTHERS):
        raise ValueError(
            f"{len(names)} models: at most {len(_OTHERS)} can be told apart; name those to draw"
        )
    for row in rows:
        row["here"] = row["kind"] == RUN_HERE
        if row["here"]:
            row["look"] = _HERE
        else:
            row["look"] = _LOOKS.get(row["model"], _OTHERS[names.index(row["model"])])
        row["label"] = f"{row['model']} ({row['kind']})"
    return rows


def _metric(rows: Sequence[dict]) -> str:
    metrics = {line.metric: None for row in rows for line in row["values"].values()}
    return " / ".join(metrics)


def _labels(tasks: Sequence[str]) -> list[str]:
    """Names of tasks, without a common first word, directions as arrows."""
    arrows = {"t2v": "T→V", "v2t": "V→T", "t2i": "T→I", "i2t": "I→T"}
    words = [task.replace("-", " ").split() for task in tasks]
    if len({task[0] for task in words}) == 1 and all(len(task) > 1 for task in words):
        words = [task[1:] for task in words]
    return [" ".join(arrows.get(word, word) for word in task) for task in words]


def _legend(ax: Axes, rows: Sequence[dict]) -> Axes:
    """Legend with the number of lines that were run here and that are quoted."""
    handles, _ = ax.get_legend_handles_labels()
    here = sum(row["here"] for row in rows)
    said = f"run here: {here or 'none'}{' (black)' if here else ''}; "
    said += f"quoted: {len(rows) - here} (open)"
    ax.legend(handles=handles, title=said, alignment="left", loc="upper left",
              bbox_to_anchor=(1.02, 1))  # fmt: skip
    return ax
