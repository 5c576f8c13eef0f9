"""Alignment: whether query and candidate match, by similarity, mutual rank and hardness.

Similarities of different pair types are never compared: the modality gap shifts each type by its
own amount, so a common threshold would drop a modality and not the bad pairs. Each type is compared
with mismatched pairs of the same type.
"""

# Shapes: N pairs, D embedding size, P pairs of a pool.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .config import AlignConfig

__all__ = ["Alignment", "BANDS", "TypeReport", "align", "cross_fitted"]


BANDS = ("easy", "medium", "hard", "suspect")


@dataclass(frozen=True)
class TypeReport:
    """Similarities of the pairs and of mismatched pairs of a pair type, and its threshold."""

    pair_type: str
    pairs: int
    threshold: float  # -inf if none is dropped by similarity
    mismatched_share: float  # estimated upper bound on the share of mismatched pairs
    dropped: int
    similarity: np.ndarray  # [pairs]
    null: np.ndarray  # similarities of mismatched pairs
    note: str = ""  # why none is dropped by similarity


@dataclass(frozen=True)
class Alignment:
    """Scores of N pairs and the decision which to keep."""

    similarity: np.ndarray  # [N] cosines
    rank: np.ndarray  # [N] share of the pool that beats the pair, in the better direction
    band: np.ndarray  # [N] index into BANDS
    kept: np.ndarray  # bool [N]
    types: list[TypeReport]


def align(
    query: np.ndarray,
    candidate: np.ndarray,
    pair_types: Sequence[str],
    config: AlignConfig | None = None,
    contents: tuple[np.ndarray, np.ndarray] | None = None,
) -> Alignment:
    """Score pairs against mismatched pairs of their type, and decide which to keep.

    Let F be the distribution function of the similarities of the pairs and F0 that of mismatched
    pairs, with median m. At most a share  pi = F(m) / F0(m)  of the pairs is mismatched. The
    threshold t maximizes  pi F0(t) - cost (F(t) - pi F0(t)): the mismatched pairs dropped minus the
    cost of the good ones. Pairs that the embedder cannot assess count as mismatched in pi; above
    `most_mismatched` the scores are not trusted and no pair is dropped.

    Args
        query, candidate  [N, D]  vectors of any embedder, normalized here
        pair_types        [N]     such as "image > text"; each type is treated separately
        contents          two [N] arrays of group numbers of queries and candidates; pairs that
                          share a group are neither mismatched nor competitors
    Returns
        an `Alignment`. `rank` is mutual, the smaller of the ranks from query to candidates and
        from candidate to queries: a generic candidate ("a photo") is beaten by many in one
        direction, a swapped one in both. Bands: easy (rank 0), medium (up to 1 %), hard (up to
        half), suspect (the rest, and pairs below the threshold).
    """
    config = config or AlignConfig()
    query, candidate = _unit("query", query), _unit("candidate", candidate)
    if query.shape != candidate.shape or len(pair_types) != len(query):
        raise ValueError(
            f"query {query.shape}, candidate {candidate.shape} and {len(pair_types)} pair types "
            "do not match"
        )
    if unknown := sorted(set(config.thresholds) - set(pair_types)):
        raise ValueError(
            f"thresholds of {', '.join(unknown)}: the pairs are of "
            f"{', '.join(sorted(set(pair_types)))}"
        )
    names, codes = np.unique(np.asarray(pair_types, str), return_inverse=True)
    distinct = np.arange(len(query))
    groups = contents or (distinct, distinct)
    similarity = np.einsum("nd,nd->n", query, candidate)
    rank, kept = np.zeros(len(query)), np.ones(len(query), bool)
    band, reports = np.zeros(len(query), np.int8), []
    for code, name in enumerate(names.tolist()):
        rows = np.flatnonzero(codes == code)
        sides = query[rows], candidate[rows], *(group[rows] for group in groups)
        rank[rows], null = _compete(name, *sides, similarity[rows], config)
        threshold, share, note = _threshold(name, similarity[rows], null, config)
        fits = similarity[rows] >= threshold
        band[rows] = np.where(fits, np.digitize(rank[rows], (1e-12, 0.01, 0.5)), 3)
        kept[rows] = fits & ((rank[rows] <= config.most_rank) if config.most_rank else True)
        dropped = int((~kept[rows]).sum())
        report = (name, len(rows), threshold, share, dropped, similarity[rows], null, note)
        reports.append(TypeReport(*report))
    return Alignment(similarity, rank, band, kept, reports)


def cross_fitted(
    source: np.ndarray,
    target: np.ndarray,
    groups: np.ndarray,
    folds: int = 5,
    ridge: float = 0.3,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict target features by ridge regression with cross-fitting.

    Args
        source, target  [N, D], [N, E]  features of the two sides
        groups          [N]     equal for pairs that share content, which stay in the same fold
        folds           >= 2    each fold is predicted from the others
        ridge           > 0     penalty, relative to the features' mean variance
    Returns
        predicted [N, E], with columns divided by their standard deviation, and target [N, E]. The
        columns of both are weighted by the correlation of prediction and target, 0 if negative, so
        that their cosine tells whether the target contains what the source predicts; what a target
        leaves out does not count against it.

    Mismatched pairs add no systematic signal, so the map can be learned on dirty data. It needs a
    few hundred pairs and only finds what a linear map of these features can express.
    """
    if folds < 2 or ridge <= 0 or len(source) != len(target) or len(groups) != len(source):
        raise ValueError(
            f"{folds} folds, ridge {ridge}, {len(source)} sources, {len(target)} targets, "
            f"{len(groups)} groups: at least 2 folds, a positive ridge, and equal numbers"
        )
    _, codes = np.unique(groups, return_inverse=True)
    count = codes.max(initial=-1) + 1
    if count < folds:
        raise ValueError(f"{count} groups of pairs are too few for {folds} folds")
    fold = np.random.default_rng(0).permutation(count)[codes] % folds
    predicted, around = np.zeros(target.shape), np.zeros(target.shape)
    for part in range(folds):
        held, rest = fold == part, fold != part
        means = source[rest].mean(0), target[rest].mean(0)
        taught = _ridge(source[rest] - means[0], target[rest] - means[1], ridge)
        predicted[held] = (source[held] - means[0]) @ taught
        around[held] = target[held] - means[1]
    spread, actual = predicted.std(0) + 1e-9, around.std(0) + 1e-9
    shared = ((predicted - predicted.mean(0)) * (around - around.mean(0))).mean(0)
    trust = np.clip(shared / (spread * actual), 0, None)  # [E] correlation
    return predicted / spread * trust, target * trust


def _ridge(source: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge coefficients [D, E], solved in the smaller of primal and dual."""
    count, size = source.shape
    penalty = ridge * max(float((source**2).sum()) / size, 1e-12)
    if count >= size:
        return np.linalg.solve(source.T @ source + penalty * np.eye(size), source.T @ target)
    return source.T @ np.linalg.solve(source @ source.T + penalty * np.eye(count), target)


def _compete(
    name: str, query, candidate, query_group, candidate_group, similarity, config: AlignConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Mutual ranks [N], as shares of the pool, and similarities of mismatched pairs."""
    from tqdm import tqdm

    rng = np.random.default_rng(config.seed)
    size = min(config.pool, len(query))
    pool = np.sort(rng.permutation(len(query))[:size])
    ranks, null = np.zeros((2, len(query))), []
    blocks = range(0, len(query), 1024)
    for start in tqdm(blocks, f"aligning {name}", mininterval=2, delay=1):
        rows = slice(start, start + 1024)
        other = (query_group[rows, None] != query_group[pool]) & (
            candidate_group[rows, None] != candidate_group[pool]
        )  # [rows, P]
        sides = (query[rows] @ candidate[pool].T, candidate[rows] @ query[pool].T)
        for way, scores in enumerate(sides):
            beaten = ((scores > similarity[rows, None]) & other).sum(1)
            ranks[way, rows] = beaten / np.maximum(other.sum(1), 1)
        scores = sides[0][other]
        null.append(scores[:: max(1, len(scores) // 4096)])
    return ranks.min(0), np.concatenate(null) if null else np.zeros(0)


def _threshold(name: str, similarity, null, config: AlignConfig) -> tuple[float, float, str]:
    """Similarity threshold, upper bound on the share of mismatched pairs, and why none is cut."""
    share = _mismatched_share(similarity, null)
    if name in config.thresholds:
        return config.thresholds[name], share, ""
    if not config.cost:
        return -np.inf, share, "cost is 0: none is to be dropped"
    if not share:
        return -np.inf, share, "no pair scores like mismatched ones"
    if share > config.most_mismatched:
        return (
            -np.inf,
            share,
            (
                f"{share:.0%} of the pairs score like mismatched ones, more than most_mismatched "
                f"({config.most_mismatched:.0%}): the scores cannot tell them apart"
            ),
        )
    places = np.sort(similarity)
    dropped = np.arange(1, len(places) + 1) / len(places)  # with t just above each similarity
    mismatched = share * np.searchsorted(np.sort(null), places, "right") / len(null)
    gain = mismatched - config.cost * (dropped - mismatched)
    cut = int(gain.argmax())
    if gain[cut] > 0:
        return float(np.nextafter(places[cut], np.inf)), share, ""
    return -np.inf, share, "any cut would cost more good pairs than it drops mismatched ones"


def _mismatched_share(similarity: np.ndarray, null: np.ndarray) -> float:
    """F(m) / F0(m) at the median m of mismatched pairs; matching pairs below m increase it."""
    if len(null) < 2:
        return 0.0
    median = np.median(null)
    return min(1.0, float((similarity <= median).mean()) / float((null <= median).mean()))


def _unit(name: str, vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError(f"{name}: vectors must be finite and [N, D], not {vectors.shape}")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
