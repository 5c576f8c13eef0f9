"""Do query and candidate belong together? Similarity, mutual rank and hardness by pair type.

Scores of different pair types are never compared: the modality gap shifts each of them by its own
amount, so one threshold for all would drop a modality, not the bad pairs. What a pair should score
more than is measured on mismatched pairs of its own type.
"""

# Shapes: N pairs, D embedding size, P pairs of a pool.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["AlignConfig", "Alignment", "BANDS", "TypeReport", "align", "cross_fitted"]


BANDS = ("easy", "medium", "hard", "suspect")


@dataclass(frozen=True)
class AlignConfig:
    """Which pairs are kept; criteria that are 0 or empty are not applied."""

    cost: float = 1.0  # of dropping a pair that fits, per mismatched pair dropped; 0: drop none
    most_mismatched: float = 0.2  # estimated share above which the scores are not trusted
    thresholds: Mapping[str, float] = field(default_factory=dict)  # pair type -> least similarity
    most_rank: float = 0.0  # largest share of others that may beat a pair in both directions
    pool: int = 4096  # P: pairs of its type that a pair competes with
    seed: int = 0

    def __post_init__(self):
        if self.cost < 0 or not all(0 <= s <= 1 for s in (self.most_mismatched, self.most_rank)):
            raise ValueError(
                f"cost {self.cost} is at least 0, most_mismatched {self.most_mismatched} and "
                f"most_rank {self.most_rank} from 0 to 1"
            )
        if self.pool < 2:
            raise ValueError(f"pool {self.pool}: a pair needs others to compete with")


@dataclass(frozen=True)
class TypeReport:
    """One pair type: how its pairs and mismatched pairs score, and where the cut lies."""

    pair_type: str
    pairs: int
    threshold: float  # -inf where nothing is dropped by similarity
    mismatched_share: float  # estimate, an upper bound, of pairs that do not belong together
    dropped: int
    similarity: np.ndarray  # [pairs]
    null: np.ndarray  # similarities of mismatched pairs


@dataclass(frozen=True)
class Alignment:
    """Scores and decisions of N pairs."""

    similarity: np.ndarray  # [N] cosines
    rank: np.ndarray  # [N] share of the pool that beats the pair, in its better direction
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
    """Score pairs against mismatched pairs of their type, and decide which stay.

    With F the distribution of the similarities of N pairs and F0 that of mismatched pairs, at most
    a share  pi = F(m) / F0(m)  is mismatched, m the median of F0. The threshold t is where most is
    won:  max over t of  pi F0(t) - cost (F(t) - pi F0(t)),  mismatches dropped less what they cost.
    Pairs that the embedder knows nothing of count as mismatched in pi. Where it exceeds
    `most_mismatched` this says more of the embedder than of the pairs, and none is dropped.

    Args
        query, candidate  [N, D]  vectors of any embedder; they are normalized here
        pair_types        [N]     such as "image > text"; types are judged apart
        contents          two [N] arrays of group numbers of queries and candidates: pairs of equal
                          content are no mismatches and do not compete
    Returns
        an `Alignment`. `rank` is mutual: the smaller of a pair's two, query to candidates and
        candidate to queries. Bands are by rank: easy (beats all), medium (the best 1 %), hard (the
        better half), suspect (half of the others fit better, or below the threshold).

    A generic candidate ("a photo") is beaten by many in one direction only; a swapped one in both.
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
    own = np.arange(len(query))
    groups = contents or (own, own)
    similarity = np.einsum("nd,nd->n", query, candidate)
    rank, kept = np.zeros(len(query)), np.ones(len(query), bool)
    band, reports = np.zeros(len(query), np.int8), []
    for code, name in enumerate(names.tolist()):
        rows = np.flatnonzero(codes == code)
        sides = query[rows], candidate[rows], *(each[rows] for each in groups)
        rank[rows], null = _compete(*sides, similarity[rows], config)
        threshold, share = _threshold(name, similarity[rows], null, config)
        fits = similarity[rows] >= threshold
        band[rows] = np.where(fits, np.digitize(rank[rows], (1e-12, 0.01, 0.5)), 3)
        kept[rows] = fits & ((rank[rows] <= config.most_rank) if config.most_rank else True)
        dropped = int((~kept[rows]).sum())
        report = (name, len(rows), threshold, share, dropped, similarity[rows], null)
        reports.append(TypeReport(*report))
    return Alignment(similarity, rank, band, kept, reports)


def cross_fitted(
    source: np.ndarray,
    target: np.ndarray,
    groups: np.ndarray,
    folds: int = 5,
    ridge: float = 0.3,
) -> tuple[np.ndarray, np.ndarray]:
    """What one side says of the other by a linear map that was learned on other pairs.

    Args
        source, target  [N, D], [N, E]  features of the two sides, from any embedder or none
        groups          [N]     equal for pairs that share content: they stay in one fold
        folds           >= 2    parts; each is predicted from the others
        ridge           > 0     penalty, as a share of the features' mean variance
    Returns
        predicted [N, E], each column around its mean in units of its own spread, and target [N, E].
        The columns of both are weighted by how well the prediction follows the target (their
        correlation, 0 if negative). So their cosine tells whether what a pair's target *has* is
        what its source leads to expect; what a target leaves out does not count against it.

    Mismatched pairs teach the map nothing systematic, so it can be learned on dirty data. It needs
    a few hundred pairs, and only finds what a linear map of the given features can see.
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
    """[D, E], solved in the smaller of the two spaces."""
    count, size = source.shape
    penalty = ridge * max(float((source**2).sum()) / size, 1e-12)
    if count >= size:
        return np.linalg.solve(source.T @ source + penalty * np.eye(size), source.T @ target)
    return source.T @ np.linalg.solve(source @ source.T + penalty * np.eye(count), target)


def _compete(query, candidate, query_group, candidate_group, similarity, config: AlignConfig):
    """Mutual ranks as shares [N], and similarities of mismatched pairs."""
    rng = np.random.default_rng(config.seed)
    size = min(config.pool, len(query))
    pool = np.sort(rng.permutation(len(query))[:size])
    ranks, null = np.zeros((2, len(query))), []
    for start in range(0, len(query), 1024):
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


def _threshold(name: str, similarity, null, config: AlignConfig) -> tuple[float, float]:
    """Where the cut lies, and at most which share of pairs is mismatched."""
    if name in config.thresholds:
        return config.thresholds[name], _mismatched_share(similarity, null)
    share = _mismatched_share(similarity, null)
    if not (config.cost and 0 < share <= config.most_mismatched):
        return -np.inf, share
    places = np.sort(similarity)
    dropped = np.arange(1, len(places) + 1) / len(places)  # by a cut just above each place
    mismatched = share * np.searchsorted(np.sort(null), places, "right") / len(null)
    gain = mismatched - config.cost * (dropped - mismatched)
    cut = int(gain.argmax())
    return (float(np.nextafter(places[cut], np.inf)) if gain[cut] > 0 else -np.inf), share


def _mismatched_share(similarity: np.ndarray, null: np.ndarray) -> float:
    """F(m) / F0(m) at the median of mismatched pairs; aligned pairs there make it too large."""
    if len(null) < 2:
        return 0.0
    middle = np.median(null)
    return min(1.0, float((similarity <= middle).mean()) / float((null <= middle).mean()))


def _unit(name: str, vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError(f"{name}: vectors are finite and [N, D], not {vectors.shape}")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
