"""Browsers for notebooks, of kept and dropped pairs and of the loss: static figures with controls.

Widgets are a second view only: whatever a notebook claims it also draws without them.

A search box for notebooks: what a text, a picture or both find in an index, as pictures.

Widgets are a second view only: whatever a notebook claims it also draws without them.
"""

# Shapes: N records or pairs of a batch, K pairs on a page.
# Shapes: k results.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..curate.filter import directed_pair_type
from ..curate.reasons import Reasons
from ..data.items import media_first
from ..model.embedder import UniteEmbedder
from ..search.index import VectorIndex
from ..search.query import search_items

__all__ = [
    "as_query",
    "browse",
    "page_of",
    "results_of",
    "rows_of",
    "search_box",
    "show_loss",
    "turn_loss",
]


KEPT, ANY = "kept", "all pair types"
TEMPERATURES = tuple(np.geomspace(0.01, 1, 25).round(4).tolist())
_PAGE = 4  # K


def rows_of(
    rows: Sequence[Mapping], reasons: Reasons, reason: str = KEPT, kind: str = ANY,
    order: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Numbers of the records that are kept, or that a reason names, of one pair type or of all.

    Args
        reason  "kept" or one of `reasons.REASONS`
        kind    "all pair types", or one such as "text > image"
        order   [N] numbers to sort by, smallest first; NaN comes last
    """
    chosen = reasons.kept if reason == KEPT else reasons.has(reason)
    found = np.flatnonzero(chosen)
    if kind != ANY:
        found = np.array(
            [n for n in found.tolist() if directed_pair_type(rows[n]) == kind], np.int64
        )
    return found if order is None else found[np.argsort(order[found], kind="stable")]


def page_of(
    rows: Sequence[Mapping], reasons: Reasons, numbers: np.ndarray, page: int, root: str | Path,
    ax=None, title: str = "",
):  # fmt: skip
    """Draw the pairs of one page, `_PAGE` of `numbers`; pages past the end start over.

    Media that cannot be read are shown as a text that says so. Without a title the page is named.
    """
    import matplotlib.pyplot as plt

    from ..plots.items import plot_pairs

    ax = ax or plt.gca()
    if not len(numbers):
        ax.set_axis_off()
        ax.set_title(f"{title}: no such pair" if title else "no such pair")
        return ax
    pages = -(-len(numbers) // _PAGE)
    page %= pages
    shown = np.asarray(numbers)[page * _PAGE : (page + 1) * _PAGE].tolist()
    pairs = [tuple(_visible(rows[n][side], root) for side in ("query", "candidate")) for n in shown]
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
    """Widgets to leaf through kept and dropped pairs, by reason and pair type.

    Returns an ipywidgets box; display it as the last value of a cell. `order` as in `rows_of`.
    """
    import ipywidgets as widgets
    import matplotlib.pyplot as plt
    from IPython.display import display

    met = [row["reason"] for row in reasons.report()]
    reason = widgets.Dropdown(options=[KEPT, *met], description="verdict")
    kinds = sorted({directed_pair_type(row) for row in rows})
    kind = widgets.Dropdown(options=[ANY, *kinds], description="pair type")
    page = widgets.BoundedIntText(min=1, max=10**6, value=1, description="page")

    def show(reason: str, kind: str, page: int) -> None:
        figure, ax = plt.subplots(figsize=(5, 4.6))
        page_of(rows, reasons, rows_of(rows, reasons, reason, kind, order), page - 1, root, ax)
        plt.close(figure)  # else a cell draws it a second time
        display(figure)

    out = widgets.interactive_output(show, {"reason": reason, "kind": kind, "page": page})
    return widgets.VBox([widgets.HBox([reason, kind, page]), out])


def show_loss(
    cosines: np.ndarray, target_modality: Sequence[int], mask: str, temperature: float,
    axes: Sequence, cross_modal_weight: float = 0.1, seed: int = 0,
) -> float:  # fmt: skip
    """Probabilities under a mask and a temperature, and the loss beside that without a mask.

    Args: cosines [N, N], target_modality [N] codes, axes a pair; the others as in
    `reference.weights_of`. Returns the loss in nats.
    """
    from ..loss import reference
    from ..plots.loss import plot_batch, plot_by_temperature

    weights = {name: reference.weights_of(name, target_modality, cross_modal_weight, seed)
               for name in dict.fromkeys(("none", mask))}  # fmt: skip
    log_p = reference.log_probabilities(cosines, temperature, weights[mask])
    loss = reference.loss_of(log_p)
    shown = np.where(weights[mask] > 0, np.exp(log_p), np.nan)
    plot_batch(shown, target_modality, axes[0], f"{reference.MASKS[mask]}: {loss:.2f} nats")
    curves = {
        reference.MASKS[name]: [reference.loss_of(reference.log_probabilities(cosines, tau, weight))
                              for tau in TEMPERATURES]
        for name, weight in weights.items()
    }  # fmt: skip
    plot_by_temperature(TEMPERATURES, curves, axes[1], f"Temperature {temperature:g}",
                        now=temperature)  # fmt: skip
    axes[1].set_ylim(bottom=0)
    return loss


def turn_loss(cosines: np.ndarray, target_modality: Sequence[int], seed: int = 0):
    """Widgets that turn temperature and mask of `show_loss`; an ipywidgets box to be displayed."""
    import ipywidgets as widgets
    import matplotlib.pyplot as plt
    from IPython.display import display

    from ..loss.reference import MASKS

    mask = widgets.Dropdown(options=[(words, name) for name, words in MASKS.items()],
                            value="modality", description="mask")  # fmt: skip
    temperature = widgets.SelectionSlider(options=TEMPERATURES, value=TEMPERATURES[6],
                                          description="temperature")  # fmt: skip
    weight = widgets.FloatSlider(0.1, min=0, max=1, step=0.05, description="soft weight")

    def show(mask: str, temperature: float, weight: float) -> None:
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.8))
        show_loss(cosines, target_modality, mask, temperature, axes, weight, seed)
        plt.close(figure)  # else a cell draws it a second time
        display(figure)

    controls = {"mask": mask, "temperature": temperature, "weight": weight}
    for control in controls.values():
        control.continuous_update = False
        control.style.description_width = "initial"  # else "temperature" is cut
    out = widgets.interactive_output(show, controls)
    return widgets.VBox([widgets.HBox(list(controls.values())), out])


def _visible(item: Mapping, root: str | Path) -> Mapping:
    """The item, or a text in its place if one of its media cannot be drawn."""
    from ..curate.media_stats import media_of
    from ..data.media import MediaError, load_image
    from ..data.videos import load_video

    for kind, path in media_of(item):
        try:
            (load_image if kind == "image" else load_video)(path, root)
        except MediaError:
            return {"text": f"[unreadable {kind}] {Path(path).name}"}
    return item


ANY_MODALITY = "any modality"
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
    queries: Sequence[Mapping], k: int = 6, modality: str = ANY_MODALITY, standardise: bool = False,
    root: str | Path = ".", ax=None, title: str = "",
):  # fmt: skip
    """Draw queries in rows, each with its k best candidates; returns the axes.

    Args
        items     {id: item} of the index's candidates
        modality  that candidates have, or "any modality": a mixed pool
    """
    from ..plots.items import plot_retrieved

    wanted = None if modality == ANY_MODALITY else [modality]
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
    modality = widgets.Dropdown(options=[ANY_MODALITY, *index.counts], description="find")
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
