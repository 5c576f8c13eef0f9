"""Interactive views for notebooks: curated pairs, the loss, search.

Each view has a static function that draws into axes and one that puts controls around it. Controls
are a second view only: whatever a notebook claims it also draws without them.
"""

# Shapes: N records, or pairs of a batch.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..curate.filter import directed_pair_type
from ..curate.reasons import Reasons
from ..data.items import media_first
from ..model.embedder import UniteEmbedder
from ..search.index import VectorIndex
from ..search.query import search_items
from ..search.scorers import COSINE, Scorer, Standardised

__all__ = [
    "browse", "draw_loss", "draw_page", "draw_results", "loss_controls", "make_query",
    "search_box", "select_rows",
]  # fmt: skip


KEPT, ANY = "kept", "all pair types"
ANY_MODALITY = "any modality"
TEMPERATURES = tuple(np.geomspace(0.01, 1, 25).round(4).tolist())
_NOTHING = "(none)"
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

    from ..plots.items import plot_pairs

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
    import ipywidgets as widgets
    import matplotlib.pyplot as plt

    met = [row["reason"] for row in reasons.report()]
    kinds = sorted({directed_pair_type(row) for row in rows})
    controls = {
        "reason": widgets.Dropdown(options=[KEPT, *met], description="verdict"),
        "kind": widgets.Dropdown(options=[ANY, *kinds], description="pair type"),
        "page": widgets.BoundedIntText(min=1, max=10**6, value=1, description="page"),
    }

    def draw(reason: str, kind: str, page: int):
        figure, ax = plt.subplots(figsize=(5, 4.6))
        numbers = select_rows(rows, reasons, reason, kind, order)
        draw_page(rows, reasons, numbers, page - 1, root, ax)
        return figure

    return _with_controls(draw, controls)


def draw_loss(
    cosines: np.ndarray, target_modality: Sequence[int], mask: str, temperature: float,
    axes: Sequence, cross_modal_weight: float = 0.1, seed: int = 0,
) -> float:  # fmt: skip
    """Draw probabilities under a mask, and its loss over the temperature beside that of no mask.

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


def loss_controls(cosines: np.ndarray, target_modality: Sequence[int], seed: int = 0):
    """Controls for mask, temperature and soft weight of `draw_loss`; returns an ipywidgets box."""
    import ipywidgets as widgets
    import matplotlib.pyplot as plt

    from ..loss.reference import MASKS

    controls = {
        "mask": widgets.Dropdown(options=[(words, name) for name, words in MASKS.items()],
                                 value="modality", description="mask"),
        "temperature": widgets.SelectionSlider(options=TEMPERATURES, value=TEMPERATURES[6],
                                               description="temperature"),
        "weight": widgets.FloatSlider(0.1, min=0, max=1, step=0.05, description="soft weight"),
    }  # fmt: skip
    for control in controls.values():
        control.continuous_update = False
        control.style.description_width = "initial"  # else "temperature" is cut

    def draw(mask: str, temperature: float, weight: float):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.8))
        draw_loss(cosines, target_modality, mask, temperature, axes, weight, seed)
        return figure

    return _with_controls(draw, controls)


def make_query(text: str = "", media: Mapping | None = None) -> dict:
    """A query item of words, of a media item, or of both, media first; ValueError if empty.

    >>> make_query("in red", {"image": "hat.png"})
    {'image': 'hat.png', 'text': '<|IMAGE|>\\nin red'}
    """
    item = dict(media or {})
    if text.strip():
        item["text"] = media_first(item | {"text": text.strip()})
    if not item:
        raise ValueError("an empty query: give words, media, or both")
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
    from ..plots.items import plot_retrieved

    wanted = None if modality == ANY_MODALITY else [modality]
    found = search_items(index, embedder, queries, k, wanted, scorer, root)
    retrieved = [[items[name] for name in ids] for ids in index.names(found.rows)]
    hits = [[False] * len(row) for row in retrieved]  # no ground truth is given
    return plot_retrieved(queries, retrieved, hits, ax, root, title)


def search_box(
    index: VectorIndex, embedder: UniteEmbedder, items: Mapping[str, Mapping],
    media: Mapping[str, Mapping], root: str | Path = ".", k: int = 6,
):  # fmt: skip
    """Controls to search with words, media or both, in one modality or in all.

    `media` {name: item} are the media to choose from. Returns an ipywidgets box; display it as the
    last value of a cell.
    """
    import ipywidgets as widgets
    import matplotlib.pyplot as plt

    text = widgets.Text(value="a red circle", description="words", continuous_update=False)
    medium = widgets.Dropdown(options=[_NOTHING, *media], description="media")
    modality = widgets.Dropdown(options=[ANY_MODALITY, *index.counts], description="find")
    standardise = widgets.Checkbox(value=False, description="standardise scores")

    def draw(text: str, medium: str, modality: str, standardise: bool):
        try:
            query = make_query(text, media.get(medium))
        except ValueError as error:
            print(error)
            return None
        figure, ax = plt.subplots(figsize=(1.1 * (k + 1), 1.7))
        scorer = Standardised() if standardise else COSINE
        draw_results(index, embedder, items, [query], k, modality, scorer, root, ax)
        return figure

    return _with_controls(
        draw,
        {"text": text, "medium": medium},
        {"modality": modality, "standardise": standardise},
    )


def _with_controls(draw: Callable, *lines: Mapping):
    """Lines of controls {argument: widget} above the figure that `draw` makes of their values."""
    import ipywidgets as widgets
    import matplotlib.pyplot as plt
    from IPython.display import display

    def show(**values) -> None:
        figure = draw(**values)
        if figure is not None:
            plt.close(figure)  # else a cell draws it a second time
            display(figure)

    controls = {name: control for line in lines for name, control in line.items()}
    out = widgets.interactive_output(show, controls)
    return widgets.VBox([*(widgets.HBox(list(line.values())) for line in lines), out])


def _readable(item: Mapping, root: str | Path) -> Mapping:
    """The item, or a text in its place if one of its media cannot be read."""
    from ..curate.media_stats import media_of
    from ..data.media import MediaError, load_image
    from ..data.videos import load_video

    for kind, path in media_of(item):
        try:
            (load_image if kind == "image" else load_video)(path, root)
        except MediaError:
            return {"text": f"[unreadable {kind}] {Path(path).name}"}
    return item
