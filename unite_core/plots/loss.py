"""Figures of the contrastive loss and of training: batches, masks, temperatures, curves.

They draw what `loss.reference` computes and what a training run logs.
"""

# Shapes: N pairs in a batch.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from ..data.modality import Modality
from .common import label_style, modality_style, null_line

__all__ = [
    "plot_batch", "plot_by_temperature", "plot_history", "plot_mask", "plot_probabilities",
    "plot_push",
]  # fmt: skip


_LOOKS = {
    "cosine": {"cmap": "viridis"},
    "probability": {"cmap": "viridis", "vmin": 0, "vmax": 1},
    "gradient": {"cmap": "RdBu_r", "vmin": -1, "vmax": 1},
}
_TICKS = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
_NUMBERED = 12  # pairs up to which cells hold their numbers


def plot_history(
    history: Iterable[Mapping[str, float]],
    labels: Mapping[str, str],
    ax: Axes | None = None,
    null: tuple[str, float] | None = None,
    title: str = "",
    ylabel: str = "loss (nats)",
) -> Axes:
    """Plot training curves: one line per logged name, labelled at its end.

    Args
        history  rows with "step" and logged values, as in `Trainer.state.log_history`; a line skips
                 rows without its name
        labels   {logged name: label}; a modality as label ("image", "text+image") gives the line
                 its colour and marker
        null     (name, value) of a dashed line, such as ("chance", 1 / 64)
    Raises ValueError for a name that was never logged.
    """
    ax = ax or plt.gca()
    rows, ends = list(history), []
    for name, label in labels.items():
        points = [(row["step"], row[name]) for row in rows if name in row]
        if not points:
            logged = sorted({key for row in rows for key in row} - {"step"})
            raise ValueError(f"{name!r} was never logged; logged were {', '.join(logged)}")
        steps, values = zip(*points, strict=True)
        style = label_style(label) | {"markevery": max(1, len(steps) // 8)}
        (line,) = ax.plot(steps, values, label=label, **style)
        ends.append((values[-1], steps[-1], label, line.get_color()))
    _label_ends(ax, ends)
    if null:
        null_line(ax, *null)
    ax.set(xlabel="step", ylabel=ylabel)
    ax.set_title(title)
    ax.margins(x=0.02)
    return ax


def plot_batch(
    values,
    target_modality: Sequence[int],
    ax: Axes | None = None,
    title: str = "",
    kind: str = "probability",
) -> Axes:
    """Plot a value of each query and candidate [N, N]; masked ones (nan) stay white.

    Args
        target_modality  [N] codes, which label rows and columns in their colours
        kind             cosine, probability, or gradient (p_ij, minus 1 at the positive: red
                         pushes away, blue pulls)
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
    """Plot the push on negatives by target modality: a stack per loss.

    pushes  {loss: `reference.push_by_modality`}
    The length of a stack is the total push, which equals the pull on the positive.
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


def plot_probabilities(
    probabilities: Mapping[float, np.ndarray], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Plot one query's probabilities {temperature: [N]}, candidates in falling order."""
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
    """Plot one line per mask over the temperature (logarithmic).

    `now` is marked by a vertical line, `limits` {name: value} by dashed lines in the colours of the
    curves.
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
    """Initials of the modalities at both axes in their colours; none if they would overlap."""
    codes = [int(code) for code in target_modality]
    if len(codes) > 2 * _NUMBERED:
        return
    names = ["+".join(word[0].upper() for word in Modality(c).label.split("+")) for c in codes]
    ax.set_xticks(range(len(codes)), names)
    ax.set_yticks(range(len(codes)), names)
    for axis in (ax.xaxis, ax.yaxis):
        for label, code in zip(axis.get_ticklabels(), codes, strict=True):
            label.set_color(modality_style(code)["color"])


def plot_mask(target_modality, ax: Axes | None = None, title: str = "") -> Axes:
    """Plot which of the N x N scores of a batch MAMCL keeps, in the colour of the target modality.

    target_modality [N] codes. Rows are queries, columns candidates; the positives are the dark
    diagonal, masked scores are white.
    """
    ax = ax or plt.gca()
    codes = np.asarray(target_modality)
    kept = codes[:, None] == codes  # [N, N]
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


def _label_ends(ax: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Labels at the ends of lines, moved apart where they would lie on each other."""
    low, high = ax.get_ylim()
    free = low
    for value, step, label, colour in sorted(ends):
        free = max(value, free)
        ax.annotate(label, (step, free), (5, 0), textcoords="offset points", color=colour,
                    va="center", fontsize=8, annotation_clip=False)  # fmt: skip
        free += 0.06 * (high - low)
