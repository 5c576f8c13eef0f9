"""A search box for notebooks: what a text, a picture or both find in an index, as pictures.

Widgets are a second view only: whatever a notebook claims it also draws without them.
"""

# Shapes: k results.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .embedder import UniteEmbedder
from .index import VectorIndex
from .prompts import media_first
from .search import search_items

__all__ = ["as_query", "results_of", "search_box"]

ANY = "any modality"
_NOTHING = "(none)"


def as_query(text: str = "", medium: Mapping | None = None) -> dict:
    """A query of words, of a medium, or of both, the words after the medium."""
    item = dict(medium or {})
    if text.strip():
        item["text"] = media_first(item | {"text": text.strip()})
    if not item:
        raise ValueError("an empty query: give words, a medium, or both")
    return item


def results_of(
    index: VectorIndex, embedder: UniteEmbedder, items: Mapping[str, Mapping],
    queries: Sequence[Mapping], k: int = 6, modality: str = ANY, standardise: bool = False,
    root: str | Path = ".", ax=None, title: str = "",
):  # fmt: skip
    """Draw queries in rows, each with its k best candidates; returns the axes.

    Args
        items     {id: item} of the index's candidates
        modality  that candidates have, or "any modality": a mixed pool
    """
    from .plots import plot_retrieved

    wanted = None if modality == ANY else [modality]
    found = search_items(index, embedder, queries, k, wanted, standardise, root)
    retrieved = [[items[name] for name in ids] for ids in index.names(found.rows)]
    unmarked = [[False] * len(row) for row in retrieved]  # nobody says what is right
    return plot_retrieved(queries, retrieved, unmarked, ax, root, title)


def search_box(
    index: VectorIndex, embedder: UniteEmbedder, items: Mapping[str, Mapping],
    media: Mapping[str, Mapping], root: str | Path = ".", k: int = 6,
):  # fmt: skip
    """Widgets to ask with words, with one of some media, or with both, in one modality or in all.

    Args
        media  {name: item} to choose from
    Returns an ipywidgets box; display it as the last value of a cell.
    """
    import ipywidgets as widgets
    import matplotlib.pyplot as plt
    from IPython.display import display

    text = widgets.Text(value="a red circle", description="words", continuous_update=False)
    medium = widgets.Dropdown(options=[_NOTHING, *media], description="medium")
    modality = widgets.Dropdown(options=[ANY, *index.counts], description="find")
    standardise = widgets.Checkbox(value=False, description="standardise scores")

    def show(text: str, medium: str, modality: str, standardise: bool) -> None:
        try:
            query = as_query(text, media.get(medium))
        except ValueError as error:
            print(error)
            return
        figure, ax = plt.subplots(figsize=(1.1 * (k + 1), 1.7))
        results_of(index, embedder, items, [query], k, modality, standardise, root, ax)
        plt.close(figure)  # else a cell draws it a second time
        display(figure)

    controls = {"text": text, "medium": medium, "modality": modality, "standardise": standardise}
    out = widgets.interactive_output(show, controls)
    return widgets.VBox([widgets.HBox([text, medium]), widgets.HBox([modality, standardise]), out])
