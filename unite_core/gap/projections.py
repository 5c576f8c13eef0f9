"""What figures of a gap show, apart from drawing: projections, histograms, spectra, graphs.

`to_scale` shows the gap at its true size. A map by UMAP does not: the distance between its clusters
says nothing about the gap as soon as the neighbour graph falls apart (see `neighbour_graph`).
"""

# Shapes: N items of a modality, D embedding size.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import svdvals
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .offsets import first_axis

__all__ = ["Projection", "blend", "cosine_samples", "neighbour_graph", "spectra", "to_scale"]


@dataclass(frozen=True)
class Projection:
    """Positions to draw to scale, in units of the embedding space.

    points  {modality: [N, 2]}; axis 1 is the unit difference of the first two modalities' means,
            axis 2 the first principal axis of what remains within modalities
    gap     distance of the two means, along axis 1
    null    distance of means of this n by chance
    kept    share of all variance that the two axes show
    axes    [2, D] orthonormal
    middle  [D] what is drawn at (0, 0)
    """

    points: dict[str, np.ndarray]
    gap: float
    null: float
    kept: float
    axes: np.ndarray
    middle: np.ndarray


def to_scale(
    vectors: Mapping[str, np.ndarray], paired: bool = True, like: Projection | None = None
) -> Projection:
    """Project onto the difference of the first two modalities' means and the main axis across it.

    Args
        vectors  {modality: [N, D]}
        paired   row i of the first two is the same thing, so that their means vary together
        like     a projection whose axes and middle are used, to show changes in the same space
    Unlike in UMAP no distance is exaggerated, and the first two clouds are as far apart on axis 1
    as their means (without `like`).
    """
    names = list(vectors)
    rows = [np.asarray(vectors[name], np.float64) for name in names]
    means = [part.mean(0) for part in rows]
    within = [part - mean for part, mean in zip(rows, means, strict=True)]
    gap = float(np.linalg.norm(means[0] - means[1]))
    axes = _axes(means[0] - means[1], np.concatenate(within)) if like is None else like.axes
    middle = (means[0] + means[1]) / 2 if like is None else like.middle
    points = {name: (part - middle) @ axes.T for name, part in zip(names, rows, strict=True)}
    spread = [part / len(part) for part in within[:2]]
    noise = (
        np.square(spread[0] - spread[1]).sum()
        if paired
        else sum(np.square(part).sum() for part in spread)
    )
    pooled, shown = np.concatenate(rows), np.concatenate(list(points.values()))
    kept = np.square(shown - shown.mean(0)).sum() / np.square(pooled - pooled.mean(0)).sum()
    return Projection(points, gap, float(noise**0.5), float(kept), axes, middle)


def _axes(difference: np.ndarray, within: np.ndarray) -> np.ndarray:
    """[2, D] the unit difference (any axis where there is none) and the first axis across it."""
    size = np.linalg.norm(difference)
    first = difference / size if size > 0 else np.eye(len(difference))[0]
    return np.stack([first, first_axis(within - np.outer(within @ first, first))])


def cosine_samples(x: np.ndarray, y: np.ndarray, limit: int = 20000, seed: int = 0) -> dict:
    """Cosines for histograms: of pairs, of other items across, within x and within y.

    x, y [N, D] unit vectors of pairs. Returns {name: at most `limit` values}, no item with itself.
    """
    upper = np.triu_indices(len(x), 1)
    rng = np.random.default_rng(seed)
    samples = {
        "pairs": np.einsum("nd,nd->n", x, y), "across": (x @ y.T)[upper],
        "within x": (x @ x.T)[upper], "within y": (y @ y.T)[upper],
    }  # fmt: skip
    return {name: values[rng.permutation(len(values))[:limit]] for name, values in samples.items()}


def spectra(vectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{modality: share of variance along each principal axis, descending, with sum 1}."""
    result = {}
    for name, rows in vectors.items():
        values = svdvals(np.asarray(rows, np.float64) - np.mean(rows, axis=0)) ** 2
        result[name] = values / values.sum()
    return result


def neighbour_graph(vectors: Mapping[str, np.ndarray], k: int = 15) -> dict[str, float]:
    """Connectivity of the graph of k nearest by cosine, which is all that UMAP gets to see.

    Returns `components`, connected ones, and `cross_edges`, the share of edges between modalities.
    With as many components as modalities the distance between clusters in the picture is a constant
    of UMAP's initialisation and says nothing about the gap.
    """
    pooled = np.concatenate([np.asarray(rows, np.float64) for rows in vectors.values()])
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    code = np.repeat(np.arange(len(vectors)), [len(rows) for rows in vectors.values()])
    away = -(pooled @ pooled.T)
    np.fill_diagonal(away, np.inf)
    best = np.argpartition(away, k - 1, axis=1)[:, :k]
    rows = np.repeat(np.arange(len(pooled)), k)
    graph = coo_array((np.ones(best.size), (rows, best.ravel())), shape=away.shape)
    count, _ = connected_components(graph, directed=False)
    crossing = float(np.mean(code[rows] != code[best.ravel()]))
    return {"components": int(count), "cross_edges": crossing}


def blend(x: np.ndarray, y: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Move both modalities towards each other along the difference of their means; unit again.

    share of the gap that is closed: 0 leaves them, 1 makes the means equal (before norms are made 1
    again), a negative one opens the gap (Liang et al. 2022).
    """
    step = share * (x.mean(0) - y.mean(0)) / 2
    moved = x - step, y + step
    return tuple(side / np.linalg.norm(side, axis=1, keepdims=True) for side in moved)
