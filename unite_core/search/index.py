"""Search index over encoded vectors: one faiss index for each modality of candidates.

A search in one modality uses its index alone; a mixed pool merges several. Scores of different
modalities need not be comparable (MAMCL never compares them), so a mixed pool can be ranked by z
instead, for a query q and the candidates' mean m and covariance C in each modality:

    z = (s - q.m) / sqrt(q C q),   s = q.c

q.m and q C q are the mean and variance of q's scores over all candidates of that modality, so z is
exactly the score standardised per query and modality, without computing any further score.
"""

# Shapes: Q queries, N candidates, n of one modality, D embedding size, k results.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.modality import Modality, parse_modality
from ..settings import make
from .config import IndexConfig
from .exact import checked_vectors, drop_excluded, ranked, search_past_ties, whole_number
from .index_files import IndexFiles, read_index_files, write_index_files
from .shards import Shard

__all__ = ["SearchResult", "VectorIndex", "build_index", "load_index"]


_POINTS_PER_CELL = 64  # training vectors of "ivf"
_CHUNK = 16384  # vectors whose moments are computed at a time


class SearchResult(NamedTuple):
    """Results of Q queries, best first, padded where fewer than k were found."""

    scores: np.ndarray  # [Q, k] inner products or z; padded with -inf
    rows: np.ndarray  # [Q, k] numbers of candidates in the order they were added; padded with -1
    modality: np.ndarray  # [Q, k] codes of `Modality`; padded with 0


@dataclass
class _Part:
    """The candidates of one modality."""

    index: object  # faiss
    rows: np.ndarray  # [n] their numbers among all

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [D] and covariance [D, D] in float64; the first access reads all vectors."""
        n, total, squares = len(self.rows), 0.0, 0.0
        if hasattr(self.index, "make_direct_map"):
            self.index.make_direct_map()
        for start in range(0, n, _CHUNK):
            vectors = self.index.reconstruct_n(start, min(_CHUNK, n - start)).astype(np.float64)
            total = total + vectors.sum(0)
            squares = squares + vectors.T @ vectors
        mean = total / n
        return mean, squares / n - np.outer(mean, mean)


@dataclass(eq=False)
class VectorIndex:
    """Candidates to search, made by `build_index` or `load_index`.

    ids    of all candidates, in the order in which they were added
    parts  {modality code: candidates of that modality}
    model  `model_key` of the model that embedded them, "" if unknown
    """

    config: IndexConfig
    ids: list[str]
    parts: dict[int, _Part] = field(repr=False)
    model: str = ""

    def __post_init__(self):
        self._modality = np.zeros(len(self.ids), dtype=np.uint8)
        for code, part in self.parts.items():
            self._modality[part.rows] = code

    @property
    def dim(self) -> int:
        """Size D of the vectors."""
        return next(iter(self.parts.values())).index.d

    @property
    def counts(self) -> dict[str, int]:
        """{modality: number of candidates}."""
        return {Modality(code).label: len(part.rows) for code, part in self.parts.items()}

    def search(self, query_vectors: np.ndarray, k: int,
               modalities: Sequence[str | Modality] | None = None, standardise: bool = False,
               excluded: Sequence[Sequence[int]] | None = None) -> SearchResult:  # fmt: skip
        """Find the k best candidates of each query.

        Args
            query_vectors  [Q, D]  finite; unit norm makes the score a cosine
            k              >= 1
            modalities     of candidates, such as ["image", "text+video"]; None: all, mixed
            standardise    rank by z, see above; within one modality this keeps the order
            excluded       [Q] rows that a query must not find (such as itself)
        Equal scores are in the order of rows. ValueError for a modality that no candidate has.

        >>> vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)
        >>> modality = np.array([Modality.TEXT, Modality.IMAGE, Modality.IMAGE], dtype=np.uint8)
        >>> index = build_index([Shard(["caption", "cat", "dog"], vectors, modality)])
        >>> index.names(index.search(np.array([[1.0, 0.0]]), k=2).rows)
        [['caption', 'cat']]
        >>> index.search(np.array([[1.0, 0.0]]), k=2, modalities=["image"]).scores
        array([[0.6, 0. ]], dtype=float32)
        """
        queries, k = checked_vectors("query_vectors", query_vectors), whole_number("k", k)
        if queries.shape[1] != self.dim or k < 1:
            raise ValueError(
                f"query_vectors {queries.shape} and k {k}: the index holds vectors of size "
                f"{self.dim}, k must be at least 1"
            )
        margin = max(map(len, excluded), default=0) if excluded is not None else 0
        scores, rows = [], []
        for part in map(self.parts.get, self._codes(modalities)):
            found, places = self._best(part, queries, k + margin)
            if standardise:
                found = _standardised(found, queries, part)
            scores.append(found)
            rows.append(np.where(places < 0, -1, part.rows[places]))
        scores, rows = np.concatenate(scores, axis=1), np.concatenate(rows, axis=1)
        if excluded is not None:
            drop_excluded(scores, rows, excluded)
        scores, rows = ranked(scores, rows, k)
        return SearchResult(scores, rows, np.where(rows < 0, 0, self._modality[rows]))

    def names(self, rows: np.ndarray) -> list[list[str]]:
        """Ids of the rows of a result, best first, without padding."""
        return [[self.ids[row] for row in found if row >= 0] for found in rows.tolist()]

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder, in the place of one that is there; see `index_files`.

        A save that is killed loses neither the old index nor the right to be repeated.
        """
        parts = {Modality(code).label: part for code, part in self.parts.items()}
        files = IndexFiles(
            self.ids,
            {label: part.index for label, part in parts.items()},
            {label: part.rows for label, part in parts.items()},
            asdict(self.config),
            self.model,
        )
        write_index_files(folder, files)

    def _codes(self, modalities: Sequence[str | Modality] | None) -> list[int]:
        if modalities is None:
            return sorted(self.parts)
        if isinstance(modalities, str):
            raise TypeError(f"modalities is a list of names, such as [{modalities!r}]")
        codes = {int(parse_modality(m) if isinstance(m, str) else m) for m in modalities}
        lacking = [Modality(code).label for code in sorted(codes - set(self.parts))]
        if lacking or not codes:
            raise ValueError(
                f"no candidate has the modality {', '.join(lacking) or '(none given)'}; the index "
                f"has {', '.join(self.counts)}"
            )
        return sorted(codes)

    def _best(self, part: _Part, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, len(part.rows))
        if self.config.kind == "flat":
            return search_past_ties(part.index, queries, k)
        if self.config.kind == "hnsw":
            part.index.hnsw.efSearch = max(self.config.search_depth, k)
        else:
            part.index.nprobe = min(self.config.probes, part.index.nlist)
        scores, places = part.index.search(queries, k)
        return np.where(places < 0, -np.inf, scores), places


def build_index(shards: Iterable[Shard], config: IndexConfig | None = None) -> VectorIndex:
    """Build an index of all vectors in shards.

    Args
        shards  `ShardFolder(folder)` or a list; read one at a time, several times for "ivf"
    Takes the memory of the index: 4 N D bytes, with "hnsw" 8 N neighbours more. The same shards
    give the same index; with "hnsw" on one thread only.

    >>> vectors = np.eye(3, dtype=np.float32)
    >>> modality = np.array([Modality.TEXT, Modality.IMAGE, Modality.IMAGE], dtype=np.uint8)
    >>> build_index([Shard(["a", "b", "c"], vectors, modality)]).counts
    {'text': 1, 'image': 2}
    """
    config = config or IndexConfig()
    if isinstance(shards, Iterator):
        raise TypeError("shards are iterated more than once: give a list or a ShardFolder")
    shards = _CheckedShards(shards)
    parts = _trained(shards, config) if config.kind == "ivf" else {}
    ids: list[str] = []
    rows: dict[int, list[np.ndarray]] = {}
    for shard in shards:
        for code in np.unique(shard.modality).tolist():
            here = np.flatnonzero(shard.modality == code)
            vectors = shard.vectors if len(here) == len(shard.vectors) else shard.vectors[here]
            if not np.isfinite(np.vdot(vectors, vectors)):  # faster than testing each number
                checked_vectors(shard.name, vectors)
            if code not in parts:
                parts[code] = _empty(vectors.shape[1], config, None)
            parts[code].add(vectors)
            rows.setdefault(code, []).append(here + len(ids))
        ids += shard.ids
    if not ids:
        raise ValueError("the shards hold no vectors: there is nothing to search")
    if len(set(ids)) < len(ids):
        twice = next(name for name, count in Counter(ids).items() if count > 1)
        raise ValueError(f"the id {twice!r} is in the shards twice; ids must differ")
    found = {code: _Part(parts[code], np.concatenate(rows[code])) for code in sorted(parts)}
    return VectorIndex(config, ids, found, shards.model)


class _CheckedShards:
    """Shards whose vectors have one size and whose codes are modalities; ValueError otherwise."""

    def __init__(self, shards: Iterable[Shard]):
        self.shards, self.model = shards, getattr(shards, "model", "")

    def __iter__(self) -> Iterator[Shard]:
        dim = None
        for shard in self.shards:
            shard.check()
            dim = dim or shard.vectors.shape[1]
            if shard.vectors.shape[1] != dim:
                raise ValueError(
                    f"{shard.name}: vectors of size {shard.vectors.shape[1]} among others of size "
                    f"{dim}: encode all with one model and one `dim`"
                )
            yield shard


def load_index(folder: str | Path) -> VectorIndex:
    """Load an index that `VectorIndex.save` wrote; ValueError if it is not whole."""
    files = read_index_files(folder)
    config = make(IndexConfig, files.config, str(Path(folder, "index.json")))
    parts = {
        int(parse_modality(label)): _Part(index, files.rows[label])
        for label, index in files.parts.items()
    }
    return VectorIndex(config, list(files.ids), parts, files.model)


def _empty(dim: int, config: IndexConfig, cells: int | None):
    import faiss

    if config.kind == "ivf":
        return faiss.index_factory(dim, f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    if config.kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, config.neighbours, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = config.build_depth
        return index
    return faiss.IndexFlatIP(dim)


def _trained(shards: Iterable[Shard], config: IndexConfig) -> dict[int, object]:
    """Empty "ivf" indexes, their cells trained on an even sample of each modality."""
    counts: dict[int, int] = {}
    for shard in shards:
        for code, n in zip(*np.unique(shard.modality, return_counts=True), strict=True):
            counts[int(code)] = counts.get(int(code), 0) + int(n)
    cells = {code: max(1, min(config.cells or round(4 * n**0.5), n // 39))
             for code, n in counts.items()}  # fmt: skip
    steps = {code: max(1, n // (_POINTS_PER_CELL * cells[code])) for code, n in counts.items()}
    sample, passed = {code: [] for code in counts}, dict.fromkeys(counts, 0)
    for shard in shards:
        for code, step in steps.items():
            vectors = shard.vectors[shard.modality == code]
            sample[code].append(vectors[-passed[code] % step :: step])
            passed[code] += len(vectors)
    parts = {}
    for code, chunks in sample.items():
        vectors = checked_vectors("shards", np.concatenate(chunks))
        parts[code] = _empty(vectors.shape[1], config, cells[code])
        parts[code].train(vectors)
    return parts


def _standardised(scores: np.ndarray, queries: np.ndarray, part: _Part) -> np.ndarray:
    """z of scores [Q, k]; 0 where all candidates of the modality have the same score."""
    q, (mean, covariance) = queries.astype(np.float64), part.moments
    spread = np.sqrt(np.maximum(((q @ covariance) * q).sum(1), 0))[:, None]  # [Q, 1]
    differs = spread > 1e-6 * np.linalg.norm(q, axis=1, keepdims=True)
    z = (scores - (q @ mean)[:, None]) / np.where(differs, spread, 1)
    return np.where(differs | np.isinf(scores), z, 0).astype(np.float32)
