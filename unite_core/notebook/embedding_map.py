"""Embedding maps of several models side by side: laid out, linked, with pictures on hover.

A map per model: vectors of different models share no space, so one UMAP of all of them would
compare what cannot be compared. Each map starts from the one before, so that a thing stays near its
place unless its neighbours changed.
"""

# Shapes: N items, D embedding size.

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..data.modality import modality_of
from ..data.records import content_id
from ..data.shown import item_name
from ..files import read_json
from ..plots.common import label_style
from ..plots.embedding_map import contact_sheet_html, picture_uri

__all__ = ["MapItems", "kinds_of", "lay_out", "linked_maps", "map_items", "nearest_rows"]


_MOST_SHOWN = 48  # items of a selection
_MOST_COLOURS = 9
_PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#44AA99",
    "#882255", "#BBBBBB",
)  # fmt: skip
_POINT, _SMALL, _MANY = 6, 3, 5000  # pixels of a point, and of one of many
_DISTANCE = 1.4  # of the camera: a map is seen whole although its canvas is wider than high
_HELP = "Drag around points to select them; the wheel zooms, the cross at the left moves a map."
_KIND = re.compile(r"^.+\. A kind of (.+?):")


class MapItems:
    """Items of a map, in one order for all models.

    items     [N], each content once
    modality  [N] "text", "image", "video", ...
    words     [N] the text of the thing that an item shows
    """

    def __init__(self, things: Iterable[Mapping[str, Mapping]]):
        found, said = {}, {}
        for thing in things:
            for item in thing.values():
                found.setdefault(content_id(item), item)
                said.setdefault(content_id(item), item_name(thing.get("text", item)))
        self.items = list(found.values())
        self.modality = [modality_of(item).label for item in self.items]
        self.words = [said[identity] for identity in found]
        self._place = {identity: row for row, identity in enumerate(found)}

    def rows(self, roles: Mapping[str, Sequence[Mapping]]) -> np.ndarray:
        """Rows [things, roles] of a group {role: items} of `find_counterparts`."""
        columns = [[self._place[content_id(item)] for item in items] for items in roles.values()]
        return np.array(columns).T


def map_items(groups: Mapping[str, Mapping[str, Sequence[Mapping]]]) -> MapItems:
    """The things of `find_counterparts`' groups "pairs" and "three" as items of a map."""
    return MapItems(
        dict(zip(roles, thing, strict=True))
        for roles in (groups.get(name, {}) for name in ("pairs", "three"))
        for thing in zip(*roles.values(), strict=True)
    )


def lay_out(
    vectors: Mapping[str, np.ndarray], seed: int = 0, neighbours: int = 15
) -> dict[str, np.ndarray]:
    """Lay out the vectors of each model by UMAP (cosine), each map started from the one before.

    Args
        vectors     {model: [N, D]}, row i the same item in all, in the order of training
        neighbours  of the graph, less than N
    Returns {model: float32 [N, 2]}, centred, with the largest coordinate 1. The same vectors and
    seed give the same maps. ValueError where rows differ in number or are too few.
    """
    counts = {name: len(rows) for name, rows in vectors.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"maps of the same items are needed, not of {counts}")
    if min(counts.values()) <= neighbours:
        raise ValueError(f"{neighbours} neighbours need more items than {min(counts.values())}")
    with warnings.catch_warnings():  # of a missing Tensorflow
        warnings.simplefilter("ignore", ImportWarning)
        from umap import UMAP

    points, start = {}, "spectral"
    for name, rows in vectors.items():
        with warnings.catch_warnings():  # of one thread because of the seed, of its own imports
            warnings.filterwarnings("ignore", message="n_jobs value")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            model = UMAP(n_neighbors=neighbours, metric="cosine", init=start, random_state=seed,
                         n_jobs=1)  # fmt: skip
            found = model.fit_transform(np.asarray(rows, np.float32))
        found = found - (found.max(0) + found.min(0)) / 2
        points[name] = (found / np.abs(found).max()).astype(np.float32)
        start = points[name]
    return points


def nearest_rows(points: np.ndarray, row: int, count: int) -> np.ndarray:
    """The `count` rows of a map [N, 2] nearest to one of them, itself first: a round lasso."""
    distance = np.linalg.norm(points - points[row], axis=1)
    return np.argsort(distance, kind="stable")[:count]


def kinds_of(root: str | Path, words: Sequence[str]) -> list[str]:
    """Kind of what words say, by the concepts that a corpus trains on; "" if unknown.

    The corpus of emoji says kinds in its sentences, "… A kind of mammals: …"; elsewhere a kind is
    the concept's family. Words are known as they are, without what follows a colon (a skin tone),
    or by a family that they name.
    """
    kinds, families = {}, {}
    for concept in read_json(Path(root, "concepts.json")):
        said = filter(None, map(_KIND.match, concept["texts"]))
        kind = next((match[1] for match in said), "") or concept["family"]
        families.setdefault(concept["family"], kind)
        for text in concept["texts"]:
            kinds.setdefault(text, kind)
    return [
        kinds.get(each) or kinds.get(each.partition(":")[0])
        or next((kind for family, kind in families.items() if family in each), "")
        for each in words
    ]  # fmt: skip


def linked_maps(
    points: Mapping[str, np.ndarray],
    items: Sequence[Mapping],
    root: str | Path = ".",
    words: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    height: int = 300,
):
    """Maps side by side as one widget: zoom, hover and lasso go together.

    Args
        points  {model: [N, 2]} of `lay_out`
        items   [N] what the points are
        words   [N] what they are called; None: by their own texts or files
        kinds   [N] names to colour by instead of modality; the commonest nine have a colour each
    The thing below the pointer is shown under the maps; what a lasso selects (drag) as a contact
    sheet, with its rows in the box's `selected`. Pictures are read when they are shown, so
    100 000 points are no more work than a thousand. Display the box as the last value of a cell.
    """
    import ipywidgets as widgets

    words = list(map(item_name, items)) if words is None else words
    scatters = _scatters(points, items, kinds, height)
    with _quiet():
        import jscatter

        maps = jscatter.link([(scatter, name) for name, scatter in scatters.items()],
                             row_height=height)  # fmt: skip
    hovered, sheet = widgets.HTML(), widgets.HTML(_HELP)
    box = widgets.VBox([maps, hovered, sheet])
    box.selected = np.zeros(0, np.int64)

    def hover(change) -> None:
        row = change["new"]
        hovered.value = "" if row is None or row < 0 else _shown(items[row], words[row], root)

    def select(change) -> None:
        rows = np.sort(np.asarray(change["new"], np.int64))
        if not np.array_equal(rows, box.selected):  # linked maps tell it in turn
            box.selected = rows
            sheet.value = _sheet([items[row] for row in rows], [words[row] for row in rows], root)

    for scatter in scatters.values():
        scatter.widget.observe(hover, "hovering")
        scatter.widget.observe(select, "selection")
    choice = [_colour_choice(scatters.values())] if kinds else []
    box.children = [*choice, maps, hovered, sheet]
    return box


def _scatters(points, items, kinds, height: int) -> dict:
    with _quiet():
        import jscatter
        import pandas as pd

    modality = pd.Categorical([modality_of(item).label for item in items])
    colours = {name: label_style(name)["color"] for name in modality.categories}
    kind = None if kinds is None else pd.Categorical(_commonest(kinds))
    scatters = {}
    for name, rows in points.items():
        frame = pd.DataFrame({"x": rows[:, 0], "y": rows[:, 1], "modality": modality})
        if kind is not None:
            frame["kind"] = kind
        with _quiet():
            scatter = jscatter.Scatter(
                data=frame, x="x", y="y", color_by="modality", color_map=colours, height=height,
                legend=True, axes=False, mouse_mode="lasso", camera_distance=_DISTANCE,
                size=_POINT if len(items) < _MANY else _SMALL,
            )  # fmt: skip
        scatter.unite_colours = {"modality": colours}
        if kind is not None:
            scatter.unite_colours["kind"] = dict(zip(kind.categories, _PALETTE, strict=False))
        scatters[name] = scatter
    return scatters


def _colour_choice(scatters):
    """A control that says what colours mean, for all maps."""
    import ipywidgets as widgets

    control = widgets.ToggleButtons(options=["modality", "kind"], description="colour by")

    def recolour(change) -> None:
        for scatter in scatters:
            with _quiet():
                scatter.color(by=change["new"], map=scatter.unite_colours[change["new"]])

    control.observe(recolour, "value")
    return control


def _commonest(kinds: Sequence[str]) -> list[str]:
    names, counts = np.unique([kind for kind in kinds if kind], return_counts=True)
    kept = set(names[np.argsort(-counts, kind="stable")[:_MOST_COLOURS]].tolist())
    return [kind if kind in kept else "others" for kind in kinds]


def _shown(item: Mapping, words: str, root: str | Path) -> str:
    words, uri = html.escape(words), picture_uri(item, root)
    picture = f'<img src="{uri}" alt="{words}" height="72"> ' if uri else ""
    return f"{picture}{modality_of(item).label}: {words}"


def _sheet(chosen: Sequence[Mapping], words: Sequence[str], root: str | Path) -> str:
    if not chosen:
        return "Nothing is selected."
    names = [modality_of(item).label for item in chosen]
    counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    more = f"; the first {_MOST_SHOWN}" if len(chosen) > _MOST_SHOWN else ""
    shown = contact_sheet_html(chosen[:_MOST_SHOWN], root, words[:_MOST_SHOWN])
    return f"<b>{len(chosen)} selected: {counts}{more}</b>{shown}"


@contextmanager
def _quiet() -> Iterator[None]:
    """jupyter-scatter uses pandas in ways that pandas 3 warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
