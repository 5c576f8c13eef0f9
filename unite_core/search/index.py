"""Search index over encoded vectors: one faiss index for each modality of candidates.

A search in one modality uses its index alone; a mixed pool merges several. Cosines of different
modalities need not be comparable (MAMCL never compares them), so a mixed pool can be ranked by
other scores (`scorers`) that keep the order inside each modality.
"""

# Shapes: Q queries, N candidates, n of one modality, M modalities, D embedding size, k results.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.modality import Modality, parse_modality
from ..settings import make
from .config import IndexConfig
from .exact import checked_vectors, drop_excluded, ranked, whole_number
from .groups import IndexGroup
from .index_files import IndexFiles, read_index_files, write_index_files
from .partitions import LogPartition
from .scorers import COSINE, Scorer, Terms
from .shards import Shard

__all__ = ["SearchResult", "VectorIndex", "build_index", "load_index"]


_POINTS_PER_CELL = 64  # training vectors of "ivf"


class SearchResult(NamedTuple):
    """Results of Q queries, best first, padded where fewer than k were found."""

    scores: np.ndarray  # [Q, k] inner products, or what the scorer makes of them; padded with -inf
    rows: np.ndarray  # [Q, k] numbers of candidates in the order they were added; padded with -1
    modality: np.ndarray  # [Q, k] codes of `Modality`; padded with 0
    probability: np.ndarray | None = None  # [Q, k] p(m | q) of that modality, if the scorer has it


@dataclass(eq=False)
class VectorIndex:
    """Candidates to search, made by `build_index` or `load_index`.

    ids    of all candidates, in the order in which they were added
    groups {modality code: candidates of that modality}
    model  `model_key` of the model that embedded them, "" if unknown
    """

    config: IndexConfig
    ids: list[str]
    groups: dict[int, IndexGroup] = field(repr=False)
    model: str = ""

    def __post_init__(self):
        self._modality = np.zeros(len(self.ids), dtype=np.uint8)
        for code, group in self.groups.items():
            self._modality[group.rows] = code

    @property
    def dim(self) -> int:
        """Size D of the vectors."""
        return next(iter(self.groups.values())).index.d

    @property
    def counts(self) -> dict[str, int]:
        """{modality: number of candidates}."""
        return {Modality(code).label: len(group.rows) for code, group in self.groups.items()}

    def search(self, query_vectors: np.ndarray, k: int,
               modalities: Sequence[str | Modality] | None = None, scorer: Scorer = COSINE,
               excluded: Sequence[Sequence[int]] | None = None) -> SearchResult:  # fmt: skip
        """Find the k best candidates of each query.

        Args
            query_vectors  [Q, D]  finite; unit norm makes the inner product a cosine
            k              >= 1
            modalities     of candidates, such as ["image", "text+video"]; None: all, mixed
            scorer         how a mixed pool is ranked: `Cosine`, `Standardised`, `Factorised`, ...;
                           within one modality all keep the order
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
        queries, k = self._checked(query_vectors), whole_number("k", k)
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        groups = self._groups(modalities)
        terms = scorer.terms(queries, groups, excluded)
        margin = max(map(len, excluded), default=0) if excluded is not None else 0
        scores, rows = [], []
        for column, group in enumerate(groups):
            found, places = group.best(queries, k + margin)
            found, at = _scored(found, terms, column), np.where(places < 0, -1, group.rows[places])
            scores.append(found)
            rows.append(np.where(np.isneginf(found), -1, at))
        scores, rows = np.concatenate(scores, axis=1), np.concatenate(rows, axis=1)
        if excluded is not None:
            drop_excluded(scores, rows, excluded)
        scores, rows = ranked(scores, rows, k)
        modality = np.where(rows < 0, 0, self._modality[rows])
        return SearchResult(scores, rows, modality, _probability(modality, groups, terms))

    def log_partitions(
        self, query_vectors: np.ndarray, temperature: float,
        modalities: Sequence[str | Modality] | None = None,
        excluded: Sequence[Sequence[int]] | None = None,
    ) -> dict[int, LogPartition]:  # fmt: skip
        """Log partition of each modality, with an interval: {modality code: [Q] of each}.

        Exact in a "flat" index and in groups of at most `partition_sample` candidates, estimated
        in others; see `partitions` for what the interval promises.
        """
        queries = self._checked(query_vectors)
        return {
            group.code: group.log_partition(queries, temperature, excluded)
            for group in self._groups(modalities)
        }

    def names(self, rows: np.ndarray) -> list[list[str]]:
        """Ids of the rows of a result, best first, without padding."""
        return [[self.ids[row] for row in found if row >= 0] for found in rows.tolist()]

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder, in the place of one that is there; see `index_files`.

        A save that is killed loses neither the old index nor the right to be repeated.
        """
        groups = {Modality(code).label: group for code, group in self.groups.items()}
        files = IndexFiles(
            self.ids,
            {label: group.index for label, group in groups.items()},
            {label: group.rows for label, group in groups.items()},
            asdict(self.config),
            self.model,
        )
        write_index_files(folder, files)

    def _checked(self, query_vectors: np.ndarray) -> np.ndarray:
        queries = checked_vectors("query_vectors", query_vectors)
        if queries.shape[1] != self.dim:
            raise ValueError(
                f"query_vectors {queries.shape}: the index holds vectors of size {self.dim}"
            )
        return queries

    def _groups(self, modalities: Sequence[str | Modality] | None) -> list[IndexGroup]:
        if modalities is None:
            return [self.groups[code] for code in sorted(self.groups)]
        if isinstance(modalities, str):
            raise TypeError(f"modalities is a list of names, such as [{modalities!r}]")
        codes = {int(parse_modality(m) if isinstance(m, str) else m) for m in modalities}
        lacking = [Modality(code).label for code in sorted(codes - set(self.groups))]
        if lacking or not codes:
            raise ValueError(
                f"no candidate has the modality {', '.join(lacking) or '(none given)'}; the index "
                f"has {', '.join(self.counts)}"
            )
        return [self.groups[code] for code in sorted(codes)]


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
    groups = {
        code: IndexGroup(code, parts[code], np.concatenate(rows[code]), config)
        for code in sorted(parts)
    }
    return VectorIndex(config, ids, groups, shards.model)


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
    groups = {}
    for label, index in files.parts.items():
        code = int(parse_modality(label))
        groups[code] = IndexGroup(code, index, files.rows[label], config)
    return VectorIndex(config, list(files.ids), groups, files.model)


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


def _scored(scores: np.ndarray, terms: Terms | None, column: int) -> np.ndarray:
    """What a scorer makes of the inner products [Q, k] with one modality's candidates."""
    if terms is None:
        return scores
    nothing = np.isneginf(scores)  # padding
    values = np.where(nothing, 0, scores).astype(np.float64) * terms.scale[:, [column]]
    return np.where(nothing, -np.inf, values + terms.offset[:, [column]])


def _probability(modality, groups, terms: Terms | None) -> np.ndarray | None:
    """p(m | q) of the modalities [Q, k] of results; 0 for padding."""
    if terms is None or terms.log_probability is None:
        return None
    columns = np.searchsorted([group.code for group in groups], modality)
    values = np.take_along_axis(
        np.exp(terms.log_probability), columns.clip(max=len(groups) - 1), axis=1
    )
    return np.where(modality == 0, 0, values)
