"""Figures of items: texts are written, images shown small, of a clip its middle frame."""

# Shapes: Q queries, N candidates, K results.

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from ..data.items import images_of, videos_of
from ..data.media import load_image
from ..data.shown import item_text
from ..data.videos import load_video
from ..files import replacing
from ..search.results import Hit, item_words, thumbnail_of

__all__ = ["draw_results", "plot_pairs", "plot_retrieved", "plot_similarity"]


_HIT, _MISS = "#009E73", "0.7"


def plot_similarity(
    similarity,
    queries: Sequence[Mapping],
    candidates: Sequence[Mapping],
    ax: Axes | None = None,
    media_root: str | Path = ".",
    title: str = "",
) -> Axes:
    """Plot cosines [Q, N] as a heat-map with numbers; items label the rows and columns."""
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
    """Plot each query in a row with its K first results; hits are framed and ticked.

    queries [Q] items, retrieved [Q][K] items, hits [Q][K] booleans.
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


def plot_pairs(
    pairs: Sequence[tuple[Mapping, Mapping]],
    ax: Axes | None = None,
    media_root: str | Path = ".",
    title: str = "",
    names: Sequence[str] = ("query", "candidate"),
) -> Axes:
    """Plot pairs of items side by side, one pair per row, under the `names` of the two columns."""
    queries, candidates = zip(*pairs, strict=True)
    shown = [[candidate] for candidate in candidates]
    ax = plot_retrieved(queries, shown, [[False]] * len(pairs), ax, media_root, title)
    ax.set_xticks([-0.25, 1], names)
    return ax


def draw_results(
    query: Mapping,
    hits: Sequence[Hit],
    path: str | Path,
    media_root: str | Path = ".",
    query_root: str | Path = ".",
    columns: int = 5,
) -> None:
    """Save a query and its results, best first, as a sheet of pictures; texts are written out.

    What cannot be read is shown by its path. `path` ends in .png, .svg or .pdf.
    """
    shown = [(query, query_root, "query", "")]
    shown += [(hit.item or {"text": hit.words}, media_root, f"{hit.rank}  {hit.score:.3f}  "
               f"{hit.modality}", hit.caption) for hit in hits]  # fmt: skip
    rows = -(-len(shown) // columns)
    figure, ax = plt.subplots(figsize=(1.5 * columns, 1.8 * rows))
    for place, (item, root, words, caption) in enumerate(shown):
        x, y = place % columns, 1.25 * (place // columns)
        picture = thumbnail_of(item, root)
        seen = {"image": picture} if picture else {"text": item_words(item)}
        seen |= {"text": item["text"]} if picture and item.get("text") else {}
        _draw_item(ax, seen, x, y, ".", "0.15" if words == "query" else _MISS)
        below = textwrap.shorten(caption, 30, placeholder="...") or item_words(item)[-26:]
        named = f"{words}\n{below}" if picture else words
        ax.text(x, y + 0.48, named, ha="center", va="top", fontsize=5.5)
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(1.25 * rows - 0.45, -0.5), aspect="equal")
    ax.axis("off")
    with replacing(path) as partial:
        figure.savefig(partial, format=Path(path).suffix[1:] or "png", dpi=200, bbox_inches="tight")
    plt.close(figure)


def _draw_item(ax: Axes, item: Mapping, x: float, y: float, media_root, colour: str) -> None:
    """Draw an item in the cell of half-width 0.45 around (x, y)."""
    pictures, kind = _pictures(item, media_root)
    text = item_text(item)
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
        ax.text(x, middle, "\n".join(lines), ha="center", va="center", fontsize=6.2)
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
    """The item's images, or the middle frames of its videos, and which of the two."""
    images = [load_image(image, media_root) for image in images_of(item)]
    if images:
        return images, "image"
    clips = [load_video(video, media_root) for video in videos_of(item)]
    return [frames[len(frames) // 2] for frames in clips], "video"
