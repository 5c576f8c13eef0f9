"""Figures of the modality gap: they draw what `gap` computes."""

# Shapes: N items of a modality, M modalities.

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..gap.projections import Projection
from .common import label_style, model_style

__all__ = [
    "plot_corrections", "plot_cosine_histograms", "plot_dimensions", "plot_mean_cosines",
    "plot_pool_confusion", "plot_projection", "plot_replacement", "plot_spectra", "plot_stages",
    "plot_truths", "share_legend",
]  # fmt: skip


_OTHERS = ("0.45", "#56B4E9", "#E69F00", "#000000")


def plot_projection(
    projection: Projection,
    ax: Axes | None = None,
    links: int = 60,
    title: str = "",
    reach: float | None = None,
) -> Axes:
    """Plot both modalities to scale, axis 1 along the difference of means; the main figure.

    `links` pairs are joined by grey lines, the means by a black one. `reach` of both axes from the
    middle gives several figures one scale.
    """
    ax = ax or plt.gca()
    names = list(projection.points)
    first, second = (projection.points[name] for name in names[:2])
    if len(first) == len(second):
        for row in np.linspace(0, len(first) - 1, min(links, len(first))).astype(int):
            ends = np.stack([first[row], second[row]])
            ax.plot(*ends.T, color="0.6", alpha=0.25, lw=0.6, zorder=1)
    for number, name in enumerate(names):
        ax.scatter(*projection.points[name].T, s=7, alpha=0.6, lw=0, zorder=2, label=name,
                   **_style(name, number))  # fmt: skip
    means = np.stack([first.mean(0), second.mean(0)])
    ax.plot(*means.T, "-", color="black", lw=1.6, zorder=4)
    ax.scatter(*means.T, s=22, color="white", edgecolor="black", zorder=5)
    ax.set_aspect("equal", adjustable="box" if reach else "datalim")
    if reach:
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach))
    ax.locator_params(nbins=5)
    note = (
        f"n {len(first)}; gap {projection.gap:.2f} ({projection.null:.2f} by chance);\n"
        f"{100 * projection.kept:.0f} % of the variance is seen"
    )
    ax.set_xlabel(f"along the difference of means\n{note}", fontsize=8)
    ax.set(ylabel="first axis within modalities", title=title)
    return ax


def share_legend(axes: Sequence[Axes]) -> None:
    """One legend for a row of axes that show the same modalities, to the right of the last."""
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=2)


def plot_mean_cosines(similarity: np.ndarray, names: Sequence[str], ax: Axes | None = None,
              title: str = "") -> Axes:  # fmt: skip
    """Plot mean cosines [M, M] between modalities as a heat-map with numbers.

    A squared gap can be read off: both diagonal entries minus twice the one between them.
    """
    return _matrix(similarity, names, ax, title, "mean cosine, pairs left out", "{:.2f}")


def plot_pool_confusion(confusion: np.ndarray, names: Sequence[str], ax: Axes | None = None,
                   title: str = "", k: int = 10) -> Axes:  # fmt: skip
    """Plot shares [M, M] of the k best by modality of query (rows) and of result (columns)."""
    label = f"% of the first {k}"
    ax = _matrix(100 * np.asarray(confusion), names, ax, title, label, "{:.0f}", (0, 100))
    ax.set(xlabel="retrieved", ylabel="query")
    return ax


def plot_cosine_histograms(
    samples: Mapping[str, np.ndarray],
    names: Sequence[str] = ("x", "y"),
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Plot densities of `projections.cosine_samples`: of pairs, of others across and within."""
    ax = ax or plt.gca()
    low = min(values.min() for values in samples.values())
    bins = np.linspace(low, max(values.max() for values in samples.values()), 50)
    looks = {"pairs": ("black", "-"), "across": ("0.5", "--"),
             "within x": (_style(names[0], 0)["color"], "-"),
             "within y": (_style(names[1], 1)["color"], "-")}  # fmt: skip
    titles = {"pairs": "true pairs", "across": "others across",
              "within x": f"within {names[0]}", "within y": f"within {names[1]}"}  # fmt: skip
    for key, values in samples.items():
        colour, line = looks[key]
        ax.hist(values, bins, density=True, histtype="step", color=colour, ls=line, lw=1.4)
        ax.plot([], [], color=colour, ls=line, label=f"{titles[key]} ({values.mean():.2f})")
    ax.set(xlabel="cosine", ylabel="density")
    ax.set_title(title)
    ax.legend(title="mean", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_spectra(shares: Mapping[str, np.ndarray], ax: Axes | None = None,
                 title: str = "") -> Axes:  # fmt: skip
    """Plot shares of variance of `projections.spectra` by principal axis, both axes logarithmic."""
    ax = ax or plt.gca()
    for number, (name, values) in enumerate(shares.items()):
        seen = values[values > 1e-6]
        style = {**_style(name, number), "markevery": 0.1, "ms": 4}
        ax.loglog(np.arange(1, len(seen) + 1), seen, label=name, **style)
    flat = 1 / max(map(len, shares.values()))
    ax.axhline(flat, ls="--", color="0.4", lw=1)
    ax.annotate(f"all alike = {flat:.2g}", (1, flat), (2, 2), textcoords="offset points",
                color="0.4", fontsize=7)  # fmt: skip
    ax.set(xlabel="principal axis", ylabel="share of variance")
    ax.set_title(title)
    ax.legend()
    return ax


def plot_dimensions(offset: Mapping, ax: Axes | None = None, title: str = "") -> Axes:
    """Plot how many dimensions carry the offset, from `gap.offset_direction`.

    Grey is |difference of means| per dimension, sorted; the line, on the right axis, is the
    cumulative share of the squared gap.
    """
    ax = ax or plt.gca()
    sizes = np.sort(np.abs(offset["difference"]))[::-1]
    places = np.arange(1, len(sizes) + 1)
    ax.fill_between(places, sizes, step="mid", color="0.75", lw=0)
    even = np.linalg.norm(sizes) / len(sizes) ** 0.5
    ax.axhline(even, ls="--", color="0.4", lw=1)
    ax.annotate(f"spread out evenly = {even:.2g}", (len(sizes), even), (-2, 2), ha="right",
                textcoords="offset points", color="0.4", fontsize=7)  # fmt: skip
    ax.set(xlabel=f"dimension, sorted (D = {len(sizes)})", ylabel="|difference of means|")
    ax.set(xlim=(1, len(sizes)), ylim=(0, None))
    right = ax.twinx()
    right.plot(places, 100 * offset["dimension_share"], color="black", lw=1.2)
    right.set(ylim=(0, 102), ylabel="% of the squared gap so far")
    right.grid(visible=False)
    ax.set_title(title)
    return ax


def plot_replacement(rows: Sequence[Mapping], ax: Axes | None = None, title: str = "",
                     label: str = "", color: str = "black") -> Axes:  # fmt: skip
    """Plot nDCG@10 by share of replaced documents, from `mixed_pool.replacement_curve`.

    The dashed line is an index without a gap; the band is the range over repeats.
    """
    ax = ax or plt.gca()
    share, ndcg, low, high = (np.array([100 * row[name] for row in rows])
                              for name in ("share", "ndcg", "low", "high"))  # fmt: skip
    ax.plot(share[[0, -1]], ndcg[[0, -1]], "--", color=color, lw=1, alpha=0.6)
    ax.fill_between(share, low, high, color=color, alpha=0.15, lw=0)
    ax.plot(share, ndcg, "o-", color=color, ms=3.5, lw=1.4, label=label or None)
    ax.set(xlabel="% of documents replaced by their other modality", ylabel="nDCG@10 (%)")
    ax.set_ylim(0, max(1.1 * high.max(), ax.get_ylim()[1] if label else 0))
    ax.set_title(title)
    if label:
        ax.legend()
    return ax


_BETTER = {"gap": "← smaller", "same modality": "← fewer", "R@1": "better →", "mixed": "better →"}


def plot_corrections(
    rows: Sequence[Mapping], axes: Sequence[Axes], k: int = 10, chance: float | None = None
) -> Sequence[Axes]:
    """Plot what corrections change, a panel for each measure, which names its better direction.

    Args
        rows    from `mixed_pool.compare_corrections`, the first without correction (dotted line);
                the score correction has no gap
        axes    four, side by side: gap, own modality among the first k, recall@1 in one modality
                (mean of both ways), recall@10 in the mixed pool
        chance  percent of the own modality in a random order (dashed line)
    """
    ways = [name for name in rows[0] if name.startswith("R@1 ")]
    panels = (
        ("gap", "gap", "gap", [np.nan if row["gap"] is None else row["gap"] for row in rows]),
        ("same modality", f"own modality in {k} first", "%",
         [row["same modality"] for row in rows]),
        ("R@1", "R@1, one modality", "%", [np.mean([row[way] for way in ways]) for row in rows]),
        ("mixed", "R@10, mixed pool", "%", [row["mixed R@10"] for row in rows]),
    )  # fmt: skip
    places = np.arange(len(rows))
    for number, (ax, (key, name, unit, values)) in enumerate(zip(axes, panels, strict=True)):
        ax.axvline(values[0], ls=":", color="0.4", lw=1)
        ax.hlines(places, values[0], values, color="0.75", lw=1.2, zorder=1)
        ax.scatter(values, places, color="#000000", s=26, zorder=2)
        ax.set_title(f"{name}\n{_BETTER[key]}", fontsize=9)
        ax.set(xlabel=unit, ylim=(len(rows) - 0.5, -0.5))
        top = max(np.nanmax(values), 1e-9)
        ax.set_xlim(-0.05 * top, 1.1 * top)
        ax.locator_params(axis="x", nbins=4)
        names = [row["kind"] for row in rows] if number == 0 else [""] * len(rows)
        ax.set_yticks(places, names)
    if chance is not None:
        axes[1].axvline(chance, ls="--", color="0.4", lw=1)
    return axes


def plot_stages(tables: Mapping[str, Mapping], names: Sequence[str], axes: Sequence[Axes],
                labels: Mapping[str, str] | None = None, columns: int = 3,
) -> Sequence[Axes]:  # fmt: skip
    """Plot measures of several models, one axes each, with intervals, if any, and nulls (dashed).

    Args
        tables   {model: table of `gap.measure`}, from the top down, in the models' colours
        names    of the measures, one for each of `axes`
        labels   {measure: title of its axes}
        columns  axes in a row; models are named at the first of each
    """
    places = np.arange(len(tables))
    for number, (name, ax) in enumerate(zip(names, axes, strict=True)):
        for place, (model, table) in enumerate(tables.items()):
            row = table[name]
            ends = np.abs(np.subtract(row.interval or [np.nan] * 2, row.value))[:, None]
            ax.errorbar([row.value], [place], xerr=ends, ls="", elinewidth=1.4, ms=6,
                        **model_style(model, place))  # fmt: skip
            ax.plot([row.null] * 2, [place - 0.35, place + 0.35], "--", color="0.4", lw=1)
        ax.set_yticks(places, list(tables) if number % columns == 0 else [""] * len(tables))
        ax.set_ylim(len(tables) - 0.5, -0.5)
        ax.set_title((labels or {}).get(name, name), fontsize=9)
        ax.locator_params(axis="x", nbins=5)
        ax.margins(x=0.12)
    return axes


def plot_truths(rows: Sequence[Mapping], ax: Axes | None = None, title: str = "") -> Axes:
    """Plot how far measures are from their true values, with intervals, in the measures' units.

    Args: rows of measure, truth, found, low, high. An interval without 0 misses the truth and is
    drawn open.
    """
    ax = ax or plt.gca()
    ax.axvline(0, ls="--", color="0.4", lw=1)
    for place, row in enumerate(rows):
        away, low, high = (row[name] - row["truth"] for name in ("found", "low", "high"))
        ax.plot([low, high], [place] * 2, color="0.3", lw=1.4, zorder=1)
        holds = low <= 0 <= high
        ax.plot(away, place, "o", color="black", mfc="black" if holds else "white", zorder=2)
    ax.set_yticks(range(len(rows)), [f"{row['measure']} = {row['truth']:.3g}" for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("found less true")
    ax.set_title(title)
    return ax


def _matrix(values, names, ax, title, label, form, limits=(None, None)) -> Axes:
    ax = ax or plt.gca()
    values = np.asarray(values, float)
    picture = ax.imshow(values, vmin=limits[0], vmax=limits[1])
    ax.grid(visible=False)
    middle = picture.norm.vmin / 2 + picture.norm.vmax / 2
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if value < middle else "black"
        ax.text(column, row, form.format(value), ha="center", va="center", color=ink, fontsize=8)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.figure.colorbar(picture, ax=ax, label=label, shrink=0.8)
    ax.set_title(title)
    return ax


def _style(name: str, number: int) -> dict[str, str]:
    """The modality's colour and marker if the name is one, else the next of four others."""
    return label_style(name) or {"color": _OTHERS[number % 4], "marker": "o"}
