"""Scores that rank a pool of several modalities, all of the form scale * cosine + offset.

Scale and offset belong to a query and a modality of candidates, and the scale is never negative, so
no scorer changes the order inside a modality: they differ in how modalities rank against each
other. MAMCL never compares modalities, so their cosines need not be comparable.

    Cosine              s
    Standardised        (s - q.m) / sqrt(q C q), m and C mean and covariance of the candidates
    CosineWithModality  s + weight * log p(m | q)
    Factorised          log p(m | q) + s / temperature - log Z_m

q.m and q C q are the mean and variance of q's scores over all candidates of that modality, so the
second is exactly the z-score per query and modality.
"""

# Shapes: Q queries, D embedding size, M modalities.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from ..data.modality import Modality
from ..gap.corrections import Correction, fit
from .factorised import FirstFactor, GivenFactor, log_probabilities_among, offsets
from .partitions import LogPartition

__all__ = [
    "COSINE", "Cosine", "CosineWithModality", "Factorised", "Group", "Scorer", "Standardised",
    "Terms", "centre", "fit_centring", "for_queries",
]  # fmt: skip


class Terms(NamedTuple):
    """What makes scores of inner products: scale * s + offset for each query and modality."""

    scale: np.ndarray  # [Q, M], >= 0
    offset: np.ndarray  # [Q, M]; -inf: not to be found
    log_probability: np.ndarray | None = None  # [Q, M] log p(m | q), if the scorer has one


class Group(Protocol):
    """The candidates of one modality, as scorers see them."""

    code: int
    moments: tuple[np.ndarray, np.ndarray]
    """Mean [D] and covariance [D, D]."""

    def log_partition(self, queries: np.ndarray, temperature: float,
                      hidden: Sequence[Sequence[int]] | None) -> LogPartition:  # fmt: skip
        """Log of the sum of exp(s / temperature) over the group for each query."""


class Scorer(Protocol):
    """How a pool is ranked."""

    def terms(self, queries: np.ndarray, groups: Sequence[Group],
              hidden: Sequence[Sequence[int]] | None) -> Terms | None:  # fmt: skip
        """Scale and offset for queries [Q, D] and groups [M]; None: inner products as they are.

        `hidden` [Q] are rows of the pool that a query must not find.
        """


@dataclass(frozen=True)
class Cosine:
    """Inner products as they are: cosines of unit vectors."""

    def terms(self, queries, groups, hidden) -> None:
        """See `Scorer`."""


COSINE = Cosine()
"""The default of every search."""


@dataclass(frozen=True)
class Standardised:
    """z-score of the query's cosines per modality; 0 where all of a modality are the same."""

    def terms(self, queries, groups, hidden) -> Terms:
        """See `Scorer`; hidden candidates still count in mean and variance."""
        q = queries.astype(np.float64)
        scale, offset = np.empty((2, len(q), len(groups)))
        for column, (mean, covariance) in enumerate(group.moments for group in groups):
            spread = np.sqrt(np.maximum(((q @ covariance) * q).sum(1), 0))
            differs = spread > 1e-6 * np.linalg.norm(q, axis=1)
            scale[:, column] = np.where(differs, 1 / np.where(differs, spread, 1), 0)
            offset[:, column] = -(q @ mean) * scale[:, column]
        return Terms(scale, offset)


@dataclass(frozen=True, eq=False)
class CosineWithModality:
    """Cosine with a bonus for probable modalities: s + weight * log p(m | q)."""

    first: FirstFactor
    weight: float = 0.1

    def terms(self, queries, groups, hidden) -> Terms:
        """See `Scorer`."""
        log_p = log_probabilities_among(self.first, queries, [group.code for group in groups])
        return Terms(np.ones_like(log_p), self.weight * log_p, log_p)


@dataclass(frozen=True, eq=False)
class Factorised:
    """log p(m | q) + s / temperature - log Z_m: see `factorised`.

    >>> from unite_core.search.factorised import GivenFactor
    >>> from unite_core.search.pool import rank
    >>> pool, modality = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]]), [1, 2, 2]
    >>> asks_for_images = GivenFactor([1, 2], np.log([[0.1, 0.9]]))
    >>> rank(np.array([[1.0, 0.0]]), pool, modality, k=2)[1]
    array([[0, 1]])
    >>> rank(np.array([[1.0, 0.0]]), pool, modality, 2, None, Factorised(asks_for_images, 0.05))[1]
    array([[1, 0]])
    """

    first: FirstFactor
    temperature: float

    def terms(self, queries, groups, hidden) -> Terms:
        """See `Scorer`; hidden candidates do not count in Z."""
        log_p = log_probabilities_among(self.first, queries, [group.code for group in groups])
        parts = [group.log_partition(queries, self.temperature, hidden).value for group in groups]
        scale = np.full_like(log_p, 1 / self.temperature)
        return Terms(scale, offsets(log_p, np.stack(parts, axis=1)), log_p)


def for_queries(scorer: Scorer, vectors: np.ndarray) -> Scorer:
    """The scorer for queries [Q, D] alone, its first factor read from these vectors.

    For an index of truncated vectors: the first factor needs those of full size.
    """
    first = getattr(scorer, "first", None)
    if first is None:
        return scorer
    return replace(scorer, first=GivenFactor(first.codes, first.log_probabilities(vectors)))


def fit_centring(vectors: np.ndarray, modality: Sequence[int]) -> Correction:
    """Fit the means [D] of each modality on training vectors [N, D], for `centre`."""
    modality = np.asarray(modality)
    parts: Mapping[str, np.ndarray] = {
        Modality(code).label: np.asarray(vectors)[modality == code] for code in np.unique(modality)
    }
    return fit("centre", parts)


def centre(centring: Correction, vectors: np.ndarray, modality: Sequence[int]) -> np.ndarray:
    """Subtract the mean of each vector's own modality and make norms 1 again: [N, D] float64.

    Apply it to queries and candidates and rank by `Cosine`. Unlike the scorers this can change the
    order inside a modality.

    >>> vectors, modality = np.array([[0.6, 0.8], [0.8, 0.6], [1.0, 0.0], [0.0, 1.0]]), [1, 1, 2, 2]
    >>> centre(fit_centring(vectors, modality), vectors, modality).round(2)
    array([[-0.71,  0.71],
           [ 0.71, -0.71],
           [ 0.71, -0.71],
           [-0.71,  0.71]])
    """
    modality, result = np.asarray(modality), np.empty(np.shape(vectors))
    for code in np.unique(modality):
        rows = modality == code
        result[rows] = centring(Modality(code).label, np.asarray(vectors)[rows])
    return result
