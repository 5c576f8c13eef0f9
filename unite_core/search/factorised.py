"""Factorised search scores: which modality is wanted, and which candidate of that modality.

For any scores s and any temperature t, the softmax over a pool of several modalities is a product:

    p(c | q) = p(m | q) p(c | q, m),    p(c | q, m) = exp(s / t) / Z_m,    Z_m = sum over c' in m

with p(m | q) = Z_m / sum of all Z. MAMCL trains the second factor and leaves the first to chance.
A mixed pool can take the first factor from elsewhere and keep the second:

    score = log p(m | q) + s / t - log Z_m

Everything here works on vectors of any embedder. docs/factorised.md says when it helps.
"""

# Shapes: Q queries, N candidates, n of one modality, D embedding size, M modalities.

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..data.modality import Modality

__all__ = [
    "FirstFactor", "GivenFactor", "factorised_scores", "fit_temperature", "group_log_partitions",
    "known_modality", "log_partition", "log_probabilities_among", "log_sum_exp", "offsets",
    "places_in",
]  # fmt: skip


_BLOCK = 1 << 21  # scores held at a time: 16 MB in float64, and as much again for exp
_QUERIES = 1024  # queries of a block


class FirstFactor(Protocol):
    """What gives p(m | q): a fitted probe, a head trained with the model, or known answers."""

    codes: Sequence[int]
    """[M] codes of `Modality`, distinct."""

    def log_probabilities(self, query_vectors: np.ndarray) -> np.ndarray:
        """Log probabilities [Q, M] of the modality that each query [Q, D] asks for."""


@dataclass(frozen=True, eq=False)
class GivenFactor:
    """A first factor that is known for the queries of one search, row by row.

    codes   [M]     codes of `Modality`
    values  [Q, M]  log probabilities, -inf for a modality that must not be found
    """

    codes: Sequence[int]
    values: np.ndarray

    def log_probabilities(self, query_vectors: np.ndarray) -> np.ndarray:
        """`values`; ValueError unless there is one row per query."""
        if len(query_vectors) != len(self.values):
            raise ValueError(
                f"the first factor is given for {len(self.values)} queries, not for "
                f"{len(query_vectors)}: search the same queries"
            )
        return self.values


def known_modality(target_modality: Sequence[int], codes: Sequence[int]) -> GivenFactor:
    """First factor of queries whose target modality is known: the same as a filter.

    Args
        target_modality  [Q] code of the modality that each query asks for
        codes            [M] of all modalities that the pool may have

    >>> known_modality([1, 2], codes=[1, 2]).values
    array([[  0., -inf],
           [-inf,   0.]])
    """
    target = np.asarray(target_modality)
    return GivenFactor(codes, np.where(target[:, None] == np.asarray(codes), 0.0, -np.inf))


def log_probabilities_among(
    first: FirstFactor, query_vectors: np.ndarray, codes: Sequence[int]
) -> np.ndarray:
    """Log probabilities [Q, M] among the modalities that a pool has.

    Modalities that the pool lacks are left out and the rest sum to 1 again. A query that gives
    probability 0 to all that are left keeps -inf. ValueError for a modality of the pool that the
    first factor does not know.

    >>> first = GivenFactor([1, 2, 4], np.log([[0.2, 0.3, 0.5]]))
    >>> np.exp(log_probabilities_among(first, np.zeros((1, 8)), codes=[1, 2])).round(2)
    array([[0.4, 0.6]])
    """
    known = list(map(int, first.codes))
    lacking = [Modality(code).label for code in codes if code not in known]
    if lacking:
        raise ValueError(
            f"the first factor gives no probability for {', '.join(lacking)}: its probe was fitted "
            "(or its router trained) on queries that never ask for that. Fit a probe on queries "
            "that do, or search only among the others"
        )
    columns = [known.index(code) for code in codes]
    values = np.asarray(first.log_probabilities(query_vectors), np.float64)[:, columns]
    total = log_sum_exp(values.copy())[:, None]
    return values - np.where(np.isfinite(total), total, 0)


def group_log_partitions(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    modality: Sequence[int],
    temperature: float,
    hidden: Sequence[Sequence[int]] | None = None,
    block: int = _BLOCK,
) -> tuple[np.ndarray, np.ndarray]:
    """Log partition of each modality, log of the sum of exp(s / temperature), exactly.

    Args
        query_vectors      [Q, D]
        candidate_vectors  [N, D]
        modality           [N] codes of the candidates
        temperature        > 0
        hidden             [Q] candidate indices that do not count for a query (such as itself)
        block              scores that are held in memory at a time; changes no result
    Returns
        codes [M], ascending, and log partitions [Q, M] float64; -inf where all are hidden.
        Scores are computed in the vectors' own precision.

    >>> codes, values = group_log_partitions([[1.0]], [[0.5], [0.5], [0.0]], [1, 1, 2], 1.0)
    >>> codes, values.round(3)
    (array([1, 2]), array([[1.193, 0.   ]]))
    """
    queries, candidates, modality = _checked(query_vectors, candidate_vectors, modality)
    codes = np.unique(modality)
    values = np.empty((len(queries), len(codes)))
    for column, code in enumerate(codes):
        rows = np.flatnonzero(modality == code)
        vectors = candidates[rows]
        places = None if hidden is None else [places_in(rows, found) for found in hidden]
        values[:, column] = log_partition(
            queries, lambda a, b, v=vectors: v[a:b], len(rows), temperature, places, block
        )
    return codes, values


def log_partition(
    queries: np.ndarray,
    read: Callable[[int, int], np.ndarray],
    count: int,
    temperature: float,
    hidden: Sequence[np.ndarray] | None = None,
    block: int = _BLOCK,
) -> np.ndarray:
    """Log partition [Q] of one group of candidates that is read piece by piece.

    Args
        queries  [Q, D]
        read     vectors of the candidates from one place up to, not including, another
        count    of candidates
        hidden   [Q] places of candidates that do not count for a query
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, not {temperature}")
    if hidden is not None and len(hidden) != len(queries):
        raise ValueError(f"hidden has {len(hidden)} rows for {len(queries)} queries")
    total = np.full(len(queries), -np.inf)
    for first, last in _ranges(len(queries), min(_QUERIES, block)):
        for start, stop in _ranges(count, max(1, block // (last - first))):
            scores = (queries[first:last] @ read(start, stop).T).astype(np.float64)
            scores /= temperature
            for row, places in enumerate(hidden[first:last] if hidden is not None else ()):
                inside = np.asarray(places, dtype=np.int64)
                scores[row, inside[(inside >= start) & (inside < stop)] - start] = -np.inf
            total[first:last] = np.logaddexp(total[first:last], log_sum_exp(scores))
    return total


def factorised_scores(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    modality: Sequence[int],
    first: FirstFactor,
    temperature: float,
    hidden: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """All factorised scores [Q, N] in float64: log p(m | q) + s / temperature - log Z_m.

    Arguments as in `group_log_partitions`. exp of a row sums to 1; hidden candidates are -inf.
    Holds all Q N scores; `rank` finds the best of a large pool.

    >>> queries, pool, modality = [[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], [1, 1, 2]
    >>> first = GivenFactor([1, 2], np.log([[0.25, 0.75]]))
    >>> np.exp(factorised_scores(queries, pool, modality, first, 0.5)).round(3)
    array([[0.22, 0.03, 0.75]])
    """
    queries, candidates, modality = _checked(query_vectors, candidate_vectors, modality)
    codes, partitions = group_log_partitions(queries, candidates, modality, temperature, hidden)
    offset = offsets(log_probabilities_among(first, queries, codes.tolist()), partitions)
    column = np.searchsorted(codes, modality)  # [N]
    scores = (queries @ candidates.T).astype(np.float64) / temperature
    for row, found in enumerate(hidden if hidden is not None else ()):
        scores[row, np.asarray(found, dtype=np.int64)] = -np.inf
    return scores + offset[:, column]


def offsets(log_probabilities: np.ndarray, log_partitions: np.ndarray) -> np.ndarray:
    """What a factorised score adds to s / temperature, [Q, M]; -inf for groups without candidates.

    A probability of 0 gives -inf, too.
    """
    empty = np.isneginf(log_partitions)
    return np.where(empty, -np.inf, log_probabilities - np.where(empty, 0, log_partitions))


def fit_temperature(
    query_vectors: np.ndarray,
    candidate_vectors: np.ndarray,
    modality: Sequence[int],
    positives: Sequence[int],
    hidden: Sequence[Sequence[int]] | None = None,
    limits: tuple[float, float] = (1e-3, 10.0),
) -> float:
    """Temperature that makes the positives most likely among candidates of their modality.

    Maximises the mean of log p(positive | q, m), which is concave in 1 / temperature, so there is
    one maximum. Fit it on training items: with the items that are evaluated it would be chosen to
    suit them.

    Args
        positives  [Q] candidate index of each query's positive
        hidden     [Q] candidate indices that do not count for a query, never its positive
        limits     of the temperature; a value at a limit is returned where the maximum is beyond

    >>> pool = np.eye(3)
    >>> queries = [[0.9, 0.1, 0.0], [0.0, 0.9, 0.1], [0.1, 0.6, 0.5]]  # the last finds another
    >>> round(fit_temperature(queries, pool, [1, 1, 1], [0, 1, 2]), 2)
    0.19
    """
    from scipy.optimize import minimize_scalar

    queries, candidates, modality = _checked(query_vectors, candidate_vectors, modality)
    positives = np.asarray(positives)
    scores = np.einsum("qd,qd->q", queries, candidates[positives]).astype(np.float64)
    groups = []
    for code in np.unique(modality[positives]):
        rows, asked = np.flatnonzero(modality == code), modality[positives] == code
        places = None
        if hidden is not None:
            places = [places_in(rows, hidden[query]) for query in np.flatnonzero(asked)]
        groups.append((asked, queries[asked], candidates[rows], places))

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        values = scores / temperature
        for asked, some, vectors, places in groups:
            values[asked] -= log_partition(
                some, lambda a, b, v=vectors: v[a:b], len(vectors), temperature, places
            )
        return -float(values.mean())

    low, high = np.log(limits)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def log_sum_exp(scores: np.ndarray) -> np.ndarray:
    """log of the sum of exp over each row of float64 scores [Q, N], which it overwrites."""
    if not scores.shape[1]:
        return np.full(len(scores), -np.inf)
    top = scores.max(1)
    top = np.where(np.isneginf(top), 0, top)  # a row of -inf stays one
    scores -= top[:, None]
    np.exp(scores, out=scores)
    with np.errstate(divide="ignore"):
        return top + np.log(scores.sum(1))


def places_in(rows: np.ndarray, found: Sequence[int]) -> np.ndarray:
    """Where those of `found` that are among the ascending `rows` stand in them."""
    found = np.asarray(found, dtype=np.int64)
    return np.searchsorted(rows, found[np.isin(found, rows)])


def _ranges(count: int, step: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + step, count)) for start in range(0, count, step))


def _checked(queries, candidates, modality) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    queries, candidates, modality = map(np.asarray, (queries, candidates, modality))
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"query_vectors {queries.shape} and candidate_vectors {candidates.shape} must be "
            "[Q, D] and [N, D]: embed both with one model"
        )
    if modality.shape != (len(candidates),):
        raise ValueError(f"modality {modality.shape} must have one code for each of the "
                         f"{len(candidates)} candidates")  # fmt: skip
    return queries, candidates, modality
