"""Axes-level figures: each takes results, draws them into `ax`, and returns it.

Nothing is computed here and nothing is shown. A modality has one colour and one marker
everywhere, so that figures agree with each other and survive a black and white print.
"""

# Shapes: Q queries, N candidates, K results.

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from ..data.items import images_of, videos_of
from ..data.media import load_image
from ..data.modality import Modality
from ..data.videos import load_video

__all__ = [
    "MODEL_COLOURS",
    "modality_style",
    "plot_history",
    "plot_pools",
    "plot_retrieved",
    "plot_scores",
    "plot_similarity",
    "use_style",
]


STYLE = Path(__file__).with_name("unite.mplstyle")
_MODALITIES = {
    Modality.TEXT: ("#0072B2", "o"),
    Modality.IMAGE: ("#D55E00", "s"),
    Modality.VIDEO: ("#009E73", "^"),
}
_FUSED = ("#CC79A7", "D")
MODEL_COLOURS = ("0.55", "#56B4E9", "#E69F00", "#000000", "#CC79A7", "#44AA99")
"""Of models in the order of training."""
_MODEL_MARKERS = "vPX*ph"
_HIT, _MISS = "#009E73", "0.7"


def use_style() -> None:
    """Give all figures of this session the workbook's look (figures/unite.mplstyle)."""
    plt.style.use(STYLE)


def modality_style(modality: Modality | str | int) -> dict[str, str]:
    """`color` and `marker` of a modality (or of its name); every mixture is "fused"."""
    if isinstance(modality, str):
        names = modality.replace("+", ",").split(",")
        modality = sum(Modality[name.strip().upper()] for name in names)
    colour, marker = _MODALITIES.get(Modality(modality), _FUSED)
    return {"color": colour, "marker": marker}


def plot_history(
    history: Iterable[Mapping[str, float]],
    labels: Mapping[str, str],
    ax: Axes | None = None,
    null: tuple[str, float] | None = None,
    title: str = "",
    ylabel: str = "loss (nats)",
) -> Axes:
    """Training curves: one line per logged name, labelled at its end.

    Args
        history  rows with "step" and logged values, as `Trainer.state.log_history`; rows without
                 a name are left out of its line
        labels   {logged name: label}; a label that is a modality ("image", "text+image") has the
                 modality's colour and marker
        null     (what, value): dashed line, such as ("chance", 1 / 64)
    Raises ValueError naming a value that was never logged.
    """
    ax = ax or plt.gca()
    rows, ends = list(history), []
    for name, label in labels.items():
        points = [(row["step"], row[name]) for row in rows if name in row]
        if not points:
            logged = sorted({key for row in rows for key in row} - {"step"})
            raise ValueError(f"{name!r} was never logged; logged were {', '.join(logged)}")
        steps, values = zip(*points, strict=True)
        known = {part.upper() for part in label.split("+")} <= set(Modality.__members__)
        style = modality_style(label) if known else {}
        (line,) = ax.plot(steps, values, markevery=max(1, len(steps) // 8), label=label, **style)
        ends.append((values[-1], steps[-1], label, line.get_color()))
    _label_ends(ax, ends)
    if null:
        _null_line(ax, *null)
    ax.set(xlabel="step", ylabel=ylabel)
    ax.set_title(title)
    ax.margins(x=0.02)
    return ax


def plot_scores(
    rows: Sequence[Mapping], models: Sequence[str], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Scores of several models by task, in percent, with intervals and chance levels.

    Args
        rows    as `scores.comparison` gives: task, split, n, chance, and a `Score` per model
        models  the models' names, at most 4, in the order of the legend
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
        values = 100 * np.array([(s.value, s.value - s.low, s.high - s.value) for s in scores])
        colour, marker = MODEL_COLOURS[number], _MODEL_MARKERS[number]
        ax.errorbar(values[:, 0], np.arange(len(rows)) + shift, xerr=values[:, 1:].T,
                    fmt=marker, color=colour, elinewidth=1, label=model)  # fmt: skip
    ax.plot([], [], "--", color="0.4", lw=1, label="chance")
    names = [f"{row['task']}, {row['split']}  (n {row['n']})" for row in rows]
    ax.set_yticks(range(len(rows)), names)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    ax.set_xlabel(f"{_metric_of(rows, models)} (%), 95 % interval over families")
    ax.set_title(title)
    _legend_below(ax, len(models) + 1)
    return ax


def plot_pools(
    single: Sequence[Mapping],
    mixed: Sequence[Mapping],
    model: str,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """What a task loses when its candidates share the index with all other modalities.

    `single` and `mixed` are `scores.comparison` rows of the same tasks in the two pools.
    """
    ax = ax or plt.gca()
    if [(r["task"], r["split"]) for r in single] != [(r["task"], r["split"]) for r in mixed]:
        raise ValueError("single and mixed rows are of different tasks; compare the same ones")
    pairs = [
        (100 * a[model].value, 100 * b[model].value) for a, b in zip(single, mixed, strict=True)
    ]
    for place, (own, shared) in enumerate(pairs):
        ax.plot([own, shared], [place, place], color="0.6", lw=1, zorder=1)
    places = range(len(pairs))
    ax.scatter([own for own, _ in pairs], places, facecolor="white", edgecolor="#000000",
               zorder=2, label="single-modality pool")  # fmt: skip
    ax.scatter([shared for _, shared in pairs], places, color="#000000", zorder=2,
               label="mixed pool")  # fmt: skip
    names = [f"{row['task']}, {row['split']}  (n {row['n']})" for row in single]
    ax.set_yticks(places, names)
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    ax.set_xlabel(f"{_metric_of(single, [model])} of {model} (%)")
    ax.set_title(title)
    _legend_below(ax, 2)
    return ax


def plot_similarity(
    similarity,
    queries: Sequence[Mapping],
    candidates: Sequence[Mapping],
    ax: Axes | None = None,
    media_root: str | Path = ".",
    title: str = "",
) -> Axes:
    """Cosines [Q, N] as a heat-map with numbers; items label the rows and columns.

    Texts are written, images shown small, of a clip the middle frame is shown.
    """
    ax = ax or plt.gca()
    similarity = np.asarray(similarity, float)
    if similarity.shape != (len(queries), len(candidates)):
        raise ValueError(
            f"similarity {similarity.shape} is not {len(queries)} queries x "
            f"{len(candidates)} candidates"
        )
    picture = ax.imshow(similarity, aspect="auto")
    ax.grid(visible=False)
    middle = (similarity.min() + similarity.max()) / 2
    for (row, column), value in np.ndenumerate(similarity):
        ink = "white" if value < middle else "black"
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=7)
    _label_items(ax, "y", queries, media_root)
    _label_items(ax, "x", candidates, media_root)
    ax.figure.colorbar(picture, ax=ax, label="cosine", shrink=0.8)
    ax.set_title(title)
    return ax


def plot_retrieved(
    queries: Sequence[Mapping],
    retrieved: Sequence[Sequence[Mapping]],
    hits: Sequence[Sequence[bool]],
    ax: Axes | None = None,
    media_root: str | Path = ".",
    title: str = "",
) -> Axes:
    """Each query in a row with its K first results; right answers are framed and ticked.

    queries [Q] items, retrieved [Q][K] items, hits [Q][K] whether each is right.
    """
    ax = ax or plt.gca()
    columns = 1 + max(len(items) for items in retrieved)
    for row, (query, items, marks) in enumerate(zip(queries, retrieved, hits, strict=True)):
        _draw_item(ax, query, -0.25, row, media_root, "0.15")
        for column, (item, hit) in enumerate(zip(items, marks, strict=True), 1):
            _draw_item(ax, item, column, row, media_root, _HIT if hit else _MISS)
            if hit:
                ax.text(column + 0.4, row - 0.4, "✓", color="white", ha="right", va="top",
                        fontsize=8, bbox={"color": _HIT, "pad": 0.8})  # fmt: skip
    ax.set(xlim=(-0.8, columns - 0.45), ylim=(len(queries) - 0.45, -0.55), aspect="equal")
    ax.set_xticks([-0.25, *range(1, columns)], ["query", *map(str, range(1, columns))])
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.xaxis.tick_top()
    ax.set_title(title)
    return ax


def _draw_item(ax: Axes, item: Mapping, x: float, y: float, media_root, colour: str) -> None:
    """An item in the cell of half-width 0.45 around (x, y)."""
    pictures, kind = _pictures(item, media_root)
    text = (item.get("text") or "").replace("<|IMAGE|>", "").replace("<|VIDEO|>", "").strip()
    height = 0.62 if text and pictures else 0.9
    top = y - 0.45
    if pictures:
        half = height / 2 if text else 0.45
        ax.imshow(pictures[0], extent=(x - half, x + half, top + height, top), zorder=1)
        if kind == "video":
            ax.text(x - half + 0.04, top + height - 0.04, "▶", fontsize=7, color="white",
                    va="bottom", bbox={"color": "0.15", "pad": 0.8})  # fmt: skip
    if text:
        lines = textwrap.wrap(text, 15)[: 2 if pictures else 6]
        middle = (top + height + y + 0.45) / 2 if pictures else y
        ax.text(x, middle, "\n".join(lines), ha="center", va="center", fontsize=5.5)
    frame = plt.Rectangle((x - 0.45, top), 0.9, 0.9, fill=False, edgecolor=colour, lw=1.4, zorder=3)
    ax.add_patch(frame)


def _label_items(ax: Axes, axis: str, items: Sequence[Mapping], media_root) -> None:
    labels = []
    for place, item in enumerate(items):
        pictures, _ = _pictures(item, media_root)
        labels.append("" if pictures else textwrap.fill(item["text"], 22))
        if pictures:
            thumbnail = OffsetImage(np.asarray(pictures[0].resize((48, 48))), zoom=0.5)
            where, shift, coordinates = (
                ((0, place), (-4, 0), ("axes fraction", "data"))
                if axis == "y"
                else ((place, 0), (0, -4), ("data", "axes fraction"))
            )
            ax.add_artist(
                AnnotationBbox(
                    thumbnail, where, shift, xycoords=coordinates, boxcoords="offset points",
                    box_alignment=(1, 0.5) if axis == "y" else (0.5, 1), frameon=False, pad=0,
                )
            )  # fmt: skip
    if axis == "y":
        ax.set_yticks(range(len(items)), labels)
    else:
        turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if any(labels) else {}
        ax.set_xticks(range(len(items)), labels, **turned)


def _pictures(item: Mapping, media_root) -> tuple[list, str]:
    """The item's images, or the middle frames of its videos, and which of the two they are."""
    images = [load_image(image, media_root) for image in images_of(item)]
    if images:
        return images, "image"
    clips = [load_video(video, media_root) for video in videos_of(item)]
    return [frames[len(frames) // 2] for frames in clips], "video"


def _metric_of(rows: Sequence[Mapping], models: Sequence[str]) -> str:
    return rows[0][models[0]].metric if rows else "score"


def _legend_below(ax: Axes, columns: int) -> None:
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=columns, borderaxespad=0)


def _label_ends(ax: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Labels at the ends of lines, moved apart where they would lie on each other."""
    low, high = ax.get_ylim()
    free = low
    for value, step, label, colour in sorted(ends):
        free = max(value, free)
        ax.annotate(label, (step, free), (5, 0), textcoords="offset points", color=colour,
                    va="center", fontsize=8, annotation_clip=False)  # fmt: skip
        free += 0.06 * (high - low)


def _null_line(ax: Axes, what: str, value: float) -> None:
    ax.axhline(value, ls="--", color="0.4", lw=1)
    where = ("axes fraction", "data")
    ax.annotate(f"{what} = {value:.3g}", (1, value), (-2, 2), xycoords=where,
                textcoords="offset points", ha="right", color="0.4", fontsize=7)  # fmt: skip
