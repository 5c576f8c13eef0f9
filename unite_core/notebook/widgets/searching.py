"""Search in an index of all modalities with words, media or both, and controls for it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...data.items import files_of, media_first
from ...model.embedder import UniteEmbedder
from ...search.index import VectorIndex
from ...search.query import search_items
from ...search.scorers import COSINE, Scorer, Standardised
from .controls import follow, text_box

__all__ = ["ANY_MODALITY", "draw_results", "make_query", "search_box"]


ANY_MODALITY = "any modality"
_NOTHING = "(none)"


def make_query(text: str = "", media: Mapping | None = None) -> dict:
    """A query item of words, of a media item, or of both, media first; ValueError if empty.

    >>> make_query("in red", {"image": "hat.png"})
    {'image': 'hat.png', 'text': '<|IMAGE|>\\nin red'}
    """
    item = dict(media or {})
    if text.strip():
        item["text"] = media_first(item | {"text": text.strip()})
    if not item:
        raise ValueError("An empty query: give words, media, or both.")
    return item


def draw_results(
    index: VectorIndex, embedder: UniteEmbedder, items: Mapping[str, Mapping],
    queries: Sequence[Mapping], k: int = 6, modality: str = ANY_MODALITY, scorer: Scorer = COSINE,
    root: str | Path = ".", ax=None, title: str = "",
):  # fmt: skip
    """Draw queries in rows, each with its k best candidates; returns the axes.

    Args
        items     {id: item} of the index's candidates
        modality  of the candidates, or "any modality" for a mixed pool
        scorer    how a mixed pool is ranked
    """
    return _draw(queries, _find(index, embedder, items, queries, k, modality, scorer, root), root,
                 ax, title)  # fmt: skip


def search_box(
    index: VectorIndex, embedder: UniteEmbedder, items: Mapping[str, Mapping],
    media: Mapping[str, Mapping], root: str | Path = ".", k: int = 6, words: str = "a red circle",
):  # fmt: skip
    """Controls to search with words, media or both, in one modality or in all.

    `media` {name: item} are the media to choose from, beside pictures that are uploaded; `words`
    stand in the box at first. Returns an ipywidgets box; display it as the last value of a cell.
    """
    import ipywidgets
    import matplotlib.pyplot as plt

    query = {
        "text": text_box("words", words, "what to search for"),
        "medium": ipywidgets.Dropdown(options=[_NOTHING, *media], description="media"),
    }
    button, uploads = _upload_into(query["medium"])
    pool = {
        "modality": ipywidgets.Dropdown(options=[ANY_MODALITY, *index.counts], description="find"),
        "standardise": ipywidgets.Checkbox(value=False, description="standardise scores"),
    }
    pool["standardise"].indent = False

    def draw(text: str, medium: str, modality: str, standardise: bool):
        chosen = _opened(medium, uploads[medium]) if medium in uploads else media.get(medium)
        asked = make_query(text, chosen)
        scorer = Standardised() if standardise else COSINE
        found = _find(index, embedder, items, [asked], k, modality, scorer, root)
        figure, ax = plt.subplots(figsize=(1.1 * (k + 1), 1.7))
        _draw([asked], found, root, ax)
        best = "; ".join(f"{n}. {_said(item)}" for n, item in enumerate(found[0], 1))
        return figure, f"Found for {text.strip() or medium}: {best}"

    box = follow(draw, query, pool)
    box.children[0].children += (button,)
    return box


def _upload_into(choice) -> tuple:
    """A button that adds pictures to a dropdown and chooses them, and {choice: file's content}."""
    import ipywidgets

    button = ipywidgets.FileUpload(accept="image/*", description="upload a picture")
    button.layout.width = "auto"
    contents: dict[str, bytes] = {}

    def add(change) -> None:
        for file in change.new:
            name = f"upload {len(contents) + 1}: {file['name']}"
            contents[name] = bytes(file["content"])
            choice.options = [*choice.options, name]
            choice.value = name

    button.observe(add, "value")
    return button, contents


def _opened(name: str, content: bytes) -> dict:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return {"image": image.convert("RGBA" if image.has_transparency_data else "RGB")}
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}: no picture that can be read; take a PNG or JPEG") from error


def _find(index, embedder, items, queries, k, modality, scorer, root) -> list[list[Mapping]]:
    wanted = None if modality == ANY_MODALITY else [modality]
    found = search_items(index, embedder, queries, k, wanted, scorer, root)
    return [[items[name] for name in ids] for ids in index.names(found.rows)]


def _draw(queries, found, root, ax=None, title: str = ""):
    from ...plots.items import plot_retrieved

    hits = [[False] * len(row) for row in found]  # no ground truth is given
    return plot_retrieved(queries, found, hits, ax, root, title)


def _said(item: Mapping) -> str:
    """An item in words: what its text says, and the names of its media."""
    media = [Path(file).name for file in files_of(item)]
    return " ".join(filter(None, [item.get("text", ""), *media])) or "a picture in memory"
