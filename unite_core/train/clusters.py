"""Clusters of pairs that are hard for each other, which a batch can take as a whole.

A pair's hard negatives, such as those that `unite mine` writes, are candidates of other pairs: an
edge to each of these. METIS cuts the graph into clusters of one size, with few edges between them
(Thirukovalluru et al., arXiv 2505.11293). A pair then meets its hard negatives as other pairs'
candidates, without embedding them twice.

Cutting runs on one core, so a run keeps the clusters: its first process cuts them once, the others
and later starts read them.
"""

# Shapes: N pairs, E edges, R pairs that are clustered.

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..data.modality import parse_modality
from ..data.pairs import PairDataset, content_number
from ..distributed import processes, rank_zero_first
from ..files import replacing
from .config import SamplingConfig

__all__ = ["cluster_rows", "negative_edges", "pair_clusters"]


_FORMAT = 1  # of the file, and of what is cut


def pair_clusters(dataset: PairDataset, config: SamplingConfig, weights: np.ndarray,
                  file: str | Path | None = None) -> np.ndarray:  # fmt: skip
    """Cluster number of each pair, [N] int32; with quotas each modality is numbered by itself.

    Args
        weights  [N] of `pair_weights`: 1, or 0 for a pair that is left out, whose number is -1
        file     where the first process keeps them and all read them, `.npz`; it is made again
                 where pairs, weights, configuration or METIS are others. None: every process cuts
    ValueError for other weights, or where no pair has a neighbour.
    """
    if not np.isin(weights, (0, 1)).all():
        raise ValueError("group_by cluster needs weights of 1, or of 0 for what is left out")
    if file is None:
        return _cut(dataset, config, weights)
    file = Path(file)
    with rank_zero_first():
        if processes()[0] == 0:
            _keep(file, dataset, config, weights)
    with np.load(file) as kept:
        return kept["number"]


def _keep(file: Path, dataset: PairDataset, config: SamplingConfig, weights: np.ndarray) -> None:
    """Cut the clusters into `file`, unless they are there."""
    key = _key(dataset, config, weights)
    if file.is_file():
        with np.load(file) as kept:
            if kept["key"] == key:
                return
    number = _cut(dataset, config, weights)
    with replacing(file) as partial, partial.open("wb") as stream:
        np.savez(stream, key=key, number=number)


def _key(dataset: PairDataset, config: SamplingConfig, weights: np.ndarray) -> str:
    """A hash of all that decides the clusters."""
    named = [_FORMAT, version("pymetis"), config.sub_batch, sorted(_used(config))]
    digest = hashlib.sha256(f"{named} {dataset.pairs.digest()}".encode())
    digest.update(np.packbits(weights > 0).tobytes())
    return digest.hexdigest()


def _cut(dataset: PairDataset, config: SamplingConfig, weights: np.ndarray) -> np.ndarray:
    edges = negative_edges(dataset)
    number = np.full(len(weights), -1, dtype=np.int32)
    target = dataset.table.target_modality
    for code in _used(config):
        rows = np.flatnonzero((weights > 0) & ((target == code) if code else True))
        if len(rows):
            number[rows] = cluster_rows(edges, rows, config.sub_batch)
    return number


def _used(config: SamplingConfig) -> set[int]:
    """Codes of the modalities that have a share in a batch; 0 where they are clustered together."""
    return {int(parse_modality(name)) for name, share in config.quotas.items() if share} or {0}


def negative_edges(dataset: PairDataset) -> np.ndarray:
    """Edges [E, 2] from each pair to those whose candidates are its hard negatives.

    A negative that is the candidate of several pairs leads to one of them, by turns; one that is no
    pair's candidate leads nowhere. ValueError where no pair has a neighbour.
    """
    candidates = dataset.contents[1]
    order = np.argsort(candidates, kind="stable")
    rows = np.flatnonzero(dataset.table.negatives).tolist()
    flat = (n for row in rows for item in dataset[row].negatives
            for n in (row, content_number(item)))  # fmt: skip
    row, number = np.fromiter(flat, dtype=np.int64).reshape(-1, 2).T
    first = np.searchsorted(candidates[order], number)
    count = np.searchsorted(candidates[order], number, side="right") - first
    place = (first + row % np.maximum(count, 1)).clip(max=len(order) - 1)
    edges = np.stack([row, order[place]], axis=1)[count > 0]
    edges = edges[edges[:, 0] != edges[:, 1]]
    if not len(edges):
        raise ValueError(
            "group_by cluster needs hard negatives that are other records' candidates: write them "
            "with unite mine"
        )
    return edges


def cluster_rows(edges: np.ndarray, rows: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    """Cluster numbers [R] of the pairs `rows` [R]: each has `size` pairs, the last has the rest.

    An edge in both directions counts twice. A function of its arguments, with one version of METIS.
    """
    import pymetis

    count = -(-len(rows) // size)
    if count < 2:
        return np.zeros(len(rows), dtype=np.int32)
    graph = _graph(edges, rows)
    arrays = (graph.indptr, graph.indices, graph.data)
    starts, ends, weights = (array.astype(np.int32) for array in arrays)
    adjacency = pymetis.CSRAdjacency(starts, ends)
    _, parts = pymetis.part_graph(
        count, adjacency, eweights=weights, options=pymetis.Options(seed=seed)
    )
    return _evened(graph, np.array(parts), size)


def _graph(edges: np.ndarray, rows: np.ndarray):
    """Symmetric csr matrix [R, R] of the edges between `rows`, with their number."""
    from scipy.sparse import coo_array

    place = np.full(max(edges.max(), rows.max()) + 1, -1)
    place[rows] = np.arange(len(rows))
    inside = place[edges]
    first, second = inside[(inside >= 0).all(axis=1)].T
    graph = coo_array((np.ones(len(first), np.int64), (first, second)), (len(rows), len(rows)))
    return (graph + graph.T).tocsr()


def _evened(graph, part: np.ndarray, size: int) -> np.ndarray:
    """Move pairs with few edges to their part from parts that are too large to ones too small."""
    counts = np.bincount(part, minlength=-(-len(part) // size))
    by_size = np.argsort(-counts, kind="stable")
    part, counts = np.argsort(by_size)[part], counts[by_size]  # the smallest is the last
    room = np.full(len(counts), size)
    room[-1] = len(part) - size * (len(counts) - 1)
    entry = graph.tocoo()
    same = part[entry.row] == part[entry.col]
    inside = np.bincount(entry.row[same], entry.data[same], len(part))
    order = np.lexsort((-inside, part))  # the best connected of each part first
    rank = np.arange(len(part)) - (np.cumsum(counts) - counts)[part[order]]
    moved = order[rank >= room[part[order]]]
    part[moved] = np.repeat(np.arange(len(counts)), np.maximum(room - counts, 0))
    return part.astype(np.int32)
