"""UMAP of several modalities, several seeds, with what its picture cannot show beside it."""

# Shapes: N items of a modality.

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from .gap.views import neighbour_graph

__all__ = ["umap_views"]


def umap_views(
    vectors: Mapping[str, np.ndarray], seeds: Sequence[int] = (0, 1, 2), neighbours: int = 15
) -> list[dict]:
    """UMAP (cosine) of all modalities together, once per seed.

    vectors {modality: [N, D]}. Returns rows of `seed`, `points` {modality: [N, 2]}, and of the
    neighbour graph `components` and `cross_edges` (see `gap.views.neighbour_graph`).
    """
    with warnings.catch_warnings():  # that there is no Tensorflow
        warnings.simplefilter("ignore", ImportWarning)
        from umap import UMAP

    graph = neighbour_graph(vectors, neighbours)
    pooled = np.concatenate(list(vectors.values())).astype(np.float32)
    ends = np.cumsum([len(rows) for rows in vectors.values()])[:-1]
    views = []
    for seed in seeds:
        with warnings.catch_warnings():  # that one seed means one thread
            warnings.filterwarnings("ignore", message="n_jobs value")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            model = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
            points = np.split(model.fit_transform(pooled), ends)
        views.append({"seed": seed, "points": dict(zip(vectors, points, strict=True))} | graph)
    return views
