"""The static picture of an embedding map, and items as a contact sheet.

`notebook.embedding_map` lays the points out and has the interactive view.
"""

# Shapes: N items, M of them marked.

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from ..data.media import MediaError
from ..data.shown import item_name, item_picture
from .common import label_style

__all__ = ["contact_sheet_html", "picture_of", "picture_uri", "plot_contact_sheet", "plot_map"]


_FRAMES = 4  # of a clip, in its sheet
_OTHER = "0.8"


def plot_map(
    points: np.ndarray,
    modality: Sequence[str],
    ax: Axes | None = None,
    title: str = "",
    note: str = "",
    pairs: np.ndarray | None = None,
    marked: np.ndarray | None = None,
) -> Axes:
    """Plot items [N, 2] with the colour and mark of their modality.

    Args
        modality  [N] "text", "image", "video", ...
        note      below the map, such as the gap in the space that the map is of
        pairs     [P, 2] rows that grey lines join, such as texts and their pictures
        marked    [M] rows with a black ring, such as a selection
    Axes have no ticks: in UMAP only neighbours mean something, not directions or white space.
    """
    ax = ax or plt.gca()
    points, modality = np.asarray(points), np.asarray(modality)
    for first, second in () if pairs is None else np.asarray(pairs):
        ends = points[[first, second]]
        ax.plot(*ends.T, color="0.6", alpha=0.3, lw=0.6, zorder=1)
    for name in dict.fromkeys(modality.tolist()):
        style = label_style(name) or {"color": "0.45", "marker": "o"}
        ax.scatter(*points[modality == name].T, s=9, alpha=0.7, lw=0, zorder=2, label=name, **style)
    if marked is not None:
        ring = {"facecolor": "none", "edgecolor": "black", "lw": 1.1}
        ax.scatter(*points[np.asarray(marked)].T, s=44, zorder=3, **ring)
    ax.set(xticks=[], yticks=[], xlabel=note, title=title)
    ax.set_aspect("equal", adjustable="datalim")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return ax


def plot_contact_sheet(
    items: Sequence[Mapping],
    ax: Axes | None = None,
    media_root: str | Path = ".",
    title: str = "",
    captions: Sequence[str] | None = None,
    columns: int = 6,
) -> Axes:
    """Plot items in rows of `columns`: pictures, clips as sheets of four frames, texts as words.

    `captions` stand below the items, each line of them in at most two; None: what text an item
    with a picture has.
    """
    ax = ax or plt.gca()
    rows = -(-len(items) // columns)
    for place, item in enumerate(items):
        row, column = divmod(place, columns)
        picture, words = picture_of(item, media_root), item_name(item)
        below = (words if picture else "") if captions is None else captions[place]
        if picture is None:
            shown = textwrap.fill(words, 18, max_lines=6, placeholder=" …")
            ax.text(column, row - 0.1, shown, ha="center", va="center", fontsize=7)
        else:
            scale = 0.37 / max(picture.size)
            wide, high = picture.width * scale, picture.height * scale
            box = (column - wide, column + wide, row - 0.1 + high, row - 0.1 - high)
            ax.imshow(picture, extent=box, zorder=1)
        if picture is None and below == words:
            continue
        lines = [textwrap.fill(line, 22, max_lines=2, placeholder=" …")
                 for line in below.splitlines()]  # fmt: skip
        ax.text(column, row + 0.29, "\n".join(lines), ha="center", va="top", fontsize=6)
    ax.set(xlim=(-0.55, columns - 0.45), ylim=(max(rows, 1) - 0.35, -0.6), aspect="equal")
    ax.set_axis_off()
    ax.set_title(title)
    return ax


def contact_sheet_html(
    items: Sequence[Mapping],
    media_root: str | Path = ".",
    captions: Sequence[str] | None = None,
    side: int = 72,
) -> str:
    """Items as an HTML sheet whose pictures are inside it and have alternative texts.

    Args
        captions  below the items; None: an item's own text
        side      pixels of a picture
    """
    cells = []
    for place, item in enumerate(items):
        below = html.escape(item_name(item) if captions is None else captions[place])
        uri = picture_uri(item, media_root, side)
        words = below or html.escape(item_name(item))
        shown = f'<img src="{uri}" alt="{words}" height="{side}">' if uri else ""
        cells.append(
            f'<figure style="margin:2px;max-width:{2 * side}px;'
            'font:11px/1.2 sans-serif;text-align:center">'
            f"{shown}<figcaption>{below}</figcaption></figure>"
        )
    style = "display:flex;flex-wrap:wrap;align-items:end"
    return f'<div style="{style}">{"".join(cells)}</div>'


def picture_of(item: Mapping, media_root: str | Path = ".", side: int = 0) -> Image.Image | None:
    """The item's first picture, or four frames of its first clip, two in a row; None for a text.

    `side` in pixels makes it smaller, if it is larger; 0 leaves it. Media that cannot be read are
    grey.
    """
    try:
        picture = item_picture(item, media_root, _FRAMES)
    except MediaError:
        picture = Image.new("RGB", (56, 56), (200, 200, 200))
    if picture is not None and side:
        picture.thumbnail((picture.width, side))
    return picture


def picture_uri(item: Mapping, media_root: str | Path = ".", side: int = 96) -> str:
    """`picture_of` as a data URI for HTML; "" for a text."""
    picture = picture_of(item, media_root, side)
    if picture is None:
        return ""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
