"""Retrieval from one index of all modalities: what a modality gap costs in search.

Row i of every modality is the same thing, so a query's counterparts are its positives and no
relevance judgements are needed. The pool of a query is everything but the query itself. A
counterpart that ties with other candidates gets the mean of their ranks.
"""

# Shapes: N things, M modalities, D embedding size, B queries of a block, K results.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .corrections import fit, standardise_scores
from .distribution import held_out_hits
from .moments import Moments, debiased_cka, debiased_gap_squared, relative_gap

__all__ = [
    "MixedPool", "compare_corrections", "consequences", "mixed_pool", "recall",
    "replacement_curve",
]  # fmt: skip


_BLOCK = 512


@dataclass(frozen=True)
class MixedPool:
    """What queries of each modality find among all items; [q, m] is query by found modality.

    names      modalities, in the order of rows and columns
    confusion  [M, M] share of modality m among the K best; the diagonal is the share of the
               query's modality
    by_chance  [M, M] the same for a random order
    ranks      {(q, m): [N]} rank of the counterpart of modality m in the mixed pool, from 1
    single     {(q, m): [N]} its rank among candidates of modality m only
    own_share  {q: [N]} share of the query's own modality among its K best
    k          K
    """

    names: tuple[str, ...]
    confusion: np.ndarray
    by_chance: np.ndarray
    ranks: dict[tuple[str, str], np.ndarray]
    single: dict[tuple[str, str], np.ndarray]
    own_share: dict[str, np.ndarray]
    k: int

    @property
    def same_modality_share(self) -> dict[str, float]:
        """{modality: share of its own items among the K best of its queries}."""
        return dict(zip(self.names, np.diag(self.confusion).tolist(), strict=True))


def mixed_pool(
    vectors: Mapping[str, np.ndarray], k: int = 10, standardise: bool = False
) -> MixedPool:
    """Search with every item among all others, by inner product.

    Args
        vectors      {modality: [N, D]}, row i the same thing in all; two modalities or more
        k            results whose modality is counted
        standardise  make scores comparable first (`corrections.standardise_scores`)
    """
    names, stacked = _stacked(vectors)
    n = len(stacked) // len(names)
    if not 1 <= k < n:
        raise ValueError(f"k must be at least 1 and below the {n} things, not {k}")
    code = np.repeat(np.arange(len(names)), n)
    confusion = np.zeros((len(names), len(names)))
    ranks = {(q, m): np.empty(n) for q in names for m in names if q != m}
    single = {pair: np.empty(n) for pair in ranks}
    own = {name: np.empty(n) for name in names}
    for start in range(0, len(stacked), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(stacked)))
        scores = stacked[rows] @ stacked.T  # [B, M N]
        scores[np.arange(len(rows)), rows] = np.nan  # the query itself
        if standardise:
            scores = standardise_scores(scores, code)
        scores[np.arange(len(rows)), rows] = -np.inf
        shares = _shares(scores, code, len(names), k)
        for modality in np.unique(code[rows]):
            here = code[rows] == modality
            confusion[modality] += shares[here].sum(0) / n
            own[names[modality]][rows[here] % n] = shares[here, modality]
            for other in range(len(names)):
                if other != modality:
                    pair, thing = (names[modality], names[other]), rows[here] % n
                    found = _ranks(scores[here], other * n + thing)
                    ranks[pair][thing] = found
                    single[pair][thing] = _ranks(scores[here][:, code == other], thing)
    size = len(stacked) - 1
    by_chance = (n - np.eye(len(names))) / size
    return MixedPool(tuple(names), confusion, by_chance, ranks, single, own, k)


def replacement_curve(
    queries: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    shares: Sequence[float] = (0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1),
    repeats: int = 10,
    seed: int = 0,
) -> list[dict[str, float]]:
    """nDCG@10 as a growing share of documents is replaced by its other modality (GR-CLIP's U).

    Args
        queries, first, second  [N, D]: the positive of query i is document i, which is first[i],
                                or second[i] where it is replaced
        shares                  of documents replaced, drawn again in each of `repeats`
    Returns rows of share, ndcg (mean), low and high (over repeats), and the nDCG of queries whose
    positive was `replaced` and was `kept` (NaN where there is none). Without a gap the curve is a
    straight line between its ends; with one it is a U.
    """
    rng, rows = np.random.default_rng(seed), []
    parts = [np.asarray(part, np.float64) for part in (queries, first, second)]
    if len({part.shape for part in parts}) != 1:
        raise ValueError(f"all three must be [N, D], not {[part.shape for part in parts]}")
    to_first, to_second = parts[0] @ parts[1].T, parts[0] @ parts[2].T
    n = len(to_first)
    for share in shares:
        values = []
        for _ in range(repeats):
            replaced = np.isin(np.arange(n), rng.permutation(n)[: round(share * n)])
            ranks = _ranks(np.where(replaced, to_second, to_first), np.arange(n))
            gains = _gains(ranks, 10)
            values.append([gains.mean(), _mean(gains[replaced]), _mean(gains[~replaced])])
        means = np.array(values)
        rows.append({
            "share": float(share), "ndcg": float(means[:, 0].mean()),
            "low": float(means[:, 0].min()), "high": float(means[:, 0].max()),
            "replaced": float(means[:, 1].mean()), "kept": float(means[:, 2].mean()),
        })  # fmt: skip
    return rows


def compare_corrections(
    x: np.ndarray, y: np.ndarray, kinds: Sequence[str], names: tuple[str, str] = ("x", "y"),
    k: int = 10, seed: int = 0,
) -> list[dict]:  # fmt: skip
    """Compare corrections, fitted on one half of the pairs and measured on the other.

    Args: x, y [N, D] unit vectors of pairs, kinds of `corrections.KINDS`.
    Returns `consequences` per kind. The last row, "scores", is `standardise_scores` on uncorrected
    vectors: what it does not change is None.
    """
    order = np.random.default_rng(seed).permutation(len(x))
    calibrate, test = np.sort(order[: len(x) // 2]), np.sort(order[len(x) // 2 :])
    rows = []
    for kind in kinds:
        correction = fit(kind, dict(zip(names, (x[calibrate], y[calibrate]), strict=True)))
        moved = [correction(name, side[test]) for name, side in zip(names, (x, y), strict=True)]
        rows.append({"kind": kind} | consequences(*moved, names, k, seed))
    pool = mixed_pool(dict(zip(names, (x[test], y[test]), strict=True)), k, standardise=True)
    empty = dict.fromkeys(rows[0]) if rows else {}
    return [*rows, empty | {"kind": "scores"} | _retrieval(pool, names)]


def recall(ranks: np.ndarray, k: int) -> float:
    """Recall@k: share of ranks that are at most k."""
    return float(np.mean(ranks <= k))


def consequences(
    x: np.ndarray, y: np.ndarray, names: tuple[str, str] = ("x", "y"), k: int = 10, seed: int = 0
) -> dict[str, float]:
    """The gap beside its cost in retrieval, for vectors of pairs [N, D].

    Returns gap, rmg (defined for unit vectors) and cka, and in percent single-pool recall@1 both
    ways, same-modality share of the k best, recall@10 in the mixed pool and held-out
    separability.
    """
    m = Moments.of_vectors(x, y, paired=True)
    hits = held_out_hits(x, y, paired=True, folds=5, seed=seed)
    pool = mixed_pool(dict(zip(names, (x, y), strict=True)), k)
    return {
        "gap": max(debiased_gap_squared(m), 0.0) ** 0.5, "rmg": relative_gap(m),
        **_retrieval(pool, names), "separability": 100 * float(hits.mean()),
        "cka": debiased_cka(m),
    }  # fmt: skip


def _retrieval(pool: MixedPool, names) -> dict[str, float]:
    ways = (tuple(names), tuple(names)[::-1])
    values = {f"R@1 {a} → {b}": 100 * recall(pool.single[a, b], 1) for a, b in ways}
    mixed = [recall(pool.ranks[way], 10) for way in ways]
    values["same modality"] = 100 * float(np.mean(list(pool.same_modality_share.values())))
    return values | {"mixed R@10": 100 * float(np.mean(mixed))}


def _stacked(vectors: Mapping[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
    shapes = {name: np.shape(rows) for name, rows in vectors.items()}
    if len(vectors) < 2 or len(set(shapes.values())) != 1:
        raise ValueError(
            f"a mixed pool needs two or more modalities of the same things, [N, D] each, not "
            f"{shapes}"
        )
    stacked = np.concatenate(list(vectors.values())).astype(np.float64)
    if not np.isfinite(stacked).all():
        raise ValueError("some vectors are not finite: the model that embedded them has diverged")
    return list(vectors), stacked


def _shares(scores, code, modalities: int, k: int) -> np.ndarray:
    """[B, M] share of each modality among the K best; ties for the last places in proportion."""
    last = np.partition(scores, -k, axis=1)[:, -k, None]
    above, tied = scores > last + 1e-9, np.abs(scores - last) <= 1e-9
    counts = np.stack([above[:, code == m].sum(1) for m in range(modalities)], 1)
    ties = np.stack([tied[:, code == m].sum(1) for m in range(modalities)], 1)
    left = k - counts.sum(1, keepdims=True)
    return (counts + left * ties / ties.sum(1, keepdims=True)) / k


def _ranks(scores, answer) -> np.ndarray:
    """[B] rank of each row's answer from 1; the mean rank of those that tie with it."""
    score = scores[np.arange(len(scores)), answer][:, None]
    above, tied = (scores > score + 1e-9).sum(1), (np.abs(scores - score) <= 1e-9).sum(1)
    return above + (tied + 1) / 2


def _gains(ranks, k) -> np.ndarray:
    return np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)


def _mean(values) -> float:
    return float(values.mean()) if len(values) else float("nan")
