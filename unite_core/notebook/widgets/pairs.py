"""Curated pairs by verdict and pair type, page by page."""

# Shapes: N records.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...curate.filter import directed_pair_type
from ...curate.reasons import Reasons
from ..figures import words_of
from .controls import follow

__all__ = ["browse", "draw_page", "select_rows"]


KEPT, ANY = "kept", "all pair types"
_PAGE = 4  # pairs


def select_rows(
    rows: Sequence[Mapping], reasons: Reasons, reason: str = KEPT, kind: str = ANY,
    order: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Numbers of the records with a verdict and a pair type.

    Args
        reason  "kept" or one of `reasons.REASONS`
        kind    "all pair types", or one such as "text > image"
        order   [N] values to sort by, ascending; NaN comes last
    """
    chosen = reasons.kept if reason == KEPT else reasons.has(reason)
    found = np.flatnonzero(chosen)
    if kind != ANY:
        found = np.array(
            [n for n in found.tolist() if directed_pair_type(rows[n]) == kind], np.int64
        )
    return found if order is None else found[np.argsort(order[found], kind="stable")]


def draw_page(
    rows: Sequence[Mapping], reasons: Reasons, numbers: np.ndarray, page: int, root: str | Path,
    ax=None, title: str = "",
):  # fmt: skip
    """Draw one page of pairs, four of `numbers`; pages past the end start over. Returns the axes.

    Unreadable media are replaced by a text that says so. Without a title the page is named.
    """
    import matplotlib.pyplot as plt

    from ...plots.items import plot_pairs

    ax = ax or plt.gca()
    if not len(numbers):
        ax.set_axis_off()
        ax.set_title(f"{title}: no such pair" if title else "no such pair")
        return ax
    pages = -(-len(numbers) // _PAGE)
    page %= pages
    shown = np.asarray(numbers)[page * _PAGE : (page + 1) * _PAGE].tolist()
    pairs = [tuple(_readable(rows[n][side], root) for side in ("query", "candidate"))
             for n in shown]  # fmt: skip
    plot_pairs(pairs, ax, root, title or f"page {page + 1} of {pages}")
    for place, number in enumerate(shown):
        why = "\n".join(reasons.of(number)) or "kept"
        ax.annotate(f"record {number}\n{why}", (1.55, place), va="center", fontsize=6.5,
                    annotation_clip=False)  # fmt: skip
    return ax


def browse(
    rows: Sequence[Mapping], reasons: Reasons, root: str | Path = ".",
    order: np.ndarray | None = None,
):  # fmt: skip
    """Controls to page through kept and dropped pairs, by reason and pair type.

    Returns an ipywidgets box; display it as the last value of a cell. `order` as in `select_rows`.
    """
    import ipywidgets
    import matplotlib.pyplot as plt

    met = [row["reason"] for row in reasons.report()]
    kinds = sorted({directed_pair_type(row) for row in rows})
    controls = {
        "reason": ipywidgets.Dropdown(options=[KEPT, *met], description="verdict"),
        "kind": ipywidgets.Dropdown(options=[ANY, *kinds], description="pair type"),
        "page": ipywidgets.BoundedIntText(min=1, max=10**6, value=1, description="page"),
    }

    def draw(reason: str, kind: str, page: int):
        figure, ax = plt.subplots(figsize=(5, 4.6))
        numbers = select_rows(rows, reasons, reason, kind, order)
        draw_page(rows, reasons, numbers, page - 1, root, ax)
        words = ", ".join(text.get_text().replace("\n", " ") for text in ax.texts)
        return figure, f"{words_of(figure)}: {words}"

    return follow(draw, controls)


def _readable(item: Mapping, root: str | Path) -> Mapping:
    """The item, or a text in its place if one of its media cannot be read."""
    from ...curate.media_stats import media_of
    from ...data.media import MediaError, load_image
    from ...data.videos import load_video

    for kind, path in media_of(item):
        try:
            (load_image if kind == "image" else load_video)(path, root)
        except MediaError:
            return {"text": f"[unreadable {kind}] {Path(path).name}"}
    return item
