"""The candidates of one modality in an index: search, moments and log partition.

A log partition is the sum over all vectors in a flat index, and in a small group of any index; else
it is estimated (`partitions`) from the best `partition_depth` and a sample of `partition_sample`.
"""

# Shapes: Q queries, n candidates, D embedding size, k results, R distinct candidates drawn.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .config import IndexConfig
from .exact import search_past_ties
from .factorised import log_partition, places_in
from .partitions import LogPartition, estimate_log_partition

__all__ = ["IndexGroup"]


_CHUNK = 16384  # vectors whose moments are computed at a time
_QUERIES = 1024  # queries whose log partitions are estimated at a time


@dataclass(eq=False)
class IndexGroup:
    """The candidates of one modality.

    code   of the modality
    index  of faiss, which keeps all vectors
    rows   [n] numbers of the candidates among all of the index, ascending
    """

    code: int
    index: object
    rows: np.ndarray
    config: IndexConfig

    def best(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Inner products [Q, k] and places in `rows` of the best; padded with -inf and -1."""
        k = min(k, len(self.rows))
        if self.config.kind == "flat":
            return search_past_ties(self.index, queries, k)
        if self.config.kind == "hnsw":
            self.index.hnsw.efSearch = max(self.config.search_depth, k)
        else:
            self.index.nprobe = min(self.config.probes, self.index.nlist)
        scores, places = self.index.search(queries, k)
        return np.where(places < 0, -np.inf, scores), places

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [D] and covariance [D, D] in float64; the first access reads all vectors."""
        n, total, squares = len(self.rows), 0.0, 0.0
        for start in range(0, n, _CHUNK):
            vectors = self._read(start, min(start + _CHUNK, n)).astype(np.float64)
            total = total + vectors.sum(0)
            squares = squares + vectors.T @ vectors
        mean = total / n
        return mean, squares / n - np.outer(mean, mean)

    def log_partition(self, queries: np.ndarray, temperature: float,
                      hidden: Sequence[Sequence[int]] | None = None) -> LogPartition:  # fmt: skip
        """Log of the sum of exp(s / temperature) over the candidates, exact or estimated.

        Args
            hidden  [Q] rows of the whole index that do not count for a query
        """
        places = None if hidden is None else [places_in(self.rows, found) for found in hidden]
        n = len(self.rows)
        if self.config.kind == "flat" or n <= self.config.partition_sample:
            return LogPartition.exact(log_partition(queries, self._read, n, temperature, places))
        parts = []
        for start in range(0, len(queries), _QUERIES):
            end = start + _QUERIES
            parts.append(self._estimate(queries[start:end], temperature,
                                        places[start:end] if places else None))  # fmt: skip
        return LogPartition(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _estimate(self, queries, temperature, hidden) -> LogPartition:
        drawn, counts, vectors = self._sample
        scores, found = self.best(queries, self.config.partition_depth)
        weights = np.broadcast_to(counts, (len(queries), len(drawn))).copy()
        for row, places in enumerate(hidden or ()):
            weights[row, np.isin(drawn, places)] = 0
            scores[row, np.isin(found[row], places)] = -np.inf
        for row, places in enumerate(found):
            weights[row, np.isin(drawn, places)] = 0
        rest = len(self.rows) - np.isfinite(scores).sum(1)
        rest -= [len(np.unique(places)) for places in hidden] if hidden else 0
        return estimate_log_partition(scores, queries @ vectors.T, weights, rest, temperature)

    @cached_property
    def _sample(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distinct places drawn with replacement, how often each, and their vectors [R, D]."""
        rng = np.random.default_rng(len(self.rows))
        drawn = rng.integers(len(self.rows), size=self.config.partition_sample)
        places, counts = np.unique(drawn, return_counts=True)
        self._make_readable()
        return places, counts, self.index.reconstruct_batch(places)

    def _read(self, start: int, stop: int) -> np.ndarray:
        self._make_readable()
        return self.index.reconstruct_n(start, stop - start)

    def _make_readable(self) -> None:
        if hasattr(self.index, "make_direct_map"):  # of cells: done once, then free
            self.index.make_direct_map()
