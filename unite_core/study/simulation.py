"""Simulated studies with known effects: how often tests and intervals of `statistics` err.

`simulate` draws hits of two arms, query by query, with what moves them in the studies: families of
queries (few large ones, many of one), queries that are hard in every run, what a block's order of
data does, and what a stage 1 does to the difference of the arms.
"""

# Shapes: T replicates of a study, B blocks, Q queries of all tasks, R resamples.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ..evaluation.families import joint_family_draws
from ..evaluation.significance import holm
from .statistics import (
    Kind,
    blocks_families_interval,
    blocks_needed,
    t_interval,
    t_test,
    unit_means,
)

__all__ = [
    "STUDY_FAMILIES", "Noise", "Simulated", "coverage", "family_wise_errors", "interval_coverage",
    "rejections", "re_estimated_rejections", "simulate", "winner_rejections",
]  # fmt: skip


STUDY_FAMILIES = {
    "P1": {
        "text → image": {1: 104, 2: 2, 3: 4, 4: 4, 5: 2, 6: 2, 8: 2, 9: 1, 12: 3, 13: 3, 14: 3},
        "image → text": {1: 114, 2: 4, 3: 4, 4: 5, 5: 2, 7: 1, 8: 1, 9: 3, 10: 2, 11: 1, 12: 2,
                         13: 3},
        "text → video": {1: 44, 2: 1, 3: 1, 4: 1, 5: 8, 6: 2, 12: 2, 13: 1, 15: 5, 16: 3, 17: 1,
                         18: 1},
        "image → image": {1: 105, 2: 3, 3: 2, 4: 6, 5: 2, 6: 2, 7: 2, 9: 2, 10: 4, 11: 2, 13: 1,
                          14: 1, 16: 1},
    },
    "P3": {
        "image + tone → image": {5: 13, 15: 13},
        "image + gender → image": {3: 1, 18: 13},
        "image + style → image": {1: 110, 2: 3, 3: 2, 4: 4, 5: 3, 6: 1, 9: 3, 10: 4, 11: 2, 12: 1,
                                  13: 2, 14: 1},
        "image + moving → video": {1: 43, 2: 1, 3: 1, 5: 7, 6: 4, 9: 1, 11: 1, 14: 1, 15: 4, 16: 3,
                                   17: 3},
        "video + change → video": {1: 2, 2: 3, 3: 1, 4: 2, 6: 4, 9: 1, 16: 2, 18: 1, 19: 2, 20: 1,
                                   21: 1, 22: 1, 23: 1, 24: 2, 26: 1},
        "image + question → text": {1: 102, 2: 1, 3: 2, 4: 6, 5: 3, 6: 2, 7: 1, 10: 6, 11: 1,
                                    12: 4, 13: 1},
        "text → image + text": {1: 109, 2: 6, 3: 3, 4: 4, 5: 2, 8: 1, 10: 4, 11: 3, 12: 2, 13: 3},
    },
    "plain": {
        "text → image": {1: 207, 2: 3, 3: 5, 4: 4, 5: 2, 6: 3, 8: 2, 9: 1, 12: 3, 13: 3, 14: 3,
                         18: 7},
        "image → text": {1: 217, 2: 5, 3: 5, 4: 5, 5: 2, 6: 1, 7: 1, 8: 1, 9: 3, 10: 2, 11: 1,
                         12: 2, 13: 3, 18: 7},
        "text → video": {1: 79, 2: 1, 3: 2, 4: 1, 5: 8, 6: 3, 12: 4, 13: 1, 15: 5, 16: 3, 17: 1,
                         18: 6},
        "image → image": {1: 208, 2: 4, 3: 3, 4: 6, 5: 2, 6: 3, 7: 2, 9: 2, 10: 4, 11: 2, 13: 1,
                          14: 1, 16: 1, 18: 7},
    },
}  # fmt: skip
"""{endpoint: {task: {queries of a family: families of that size}}}: plain queries (P1) and
instructions (P3) as in the study of the mask on the concept split, and the plain queries of the
study of data."""
_REPLICATES_AT_ONCE = 100
_DEVIATION = 0.02  # of a block's difference, as docs/study.md assumes
_MARGIN = 0.03


@dataclass(frozen=True)
class Noise:
    """Variances of what decides whether a query finds its answer; a run's own noise has 1.

    A query is a hit where the sum of all falls below a threshold.
    """

    family: float = 0.5
    """Families that are hard for both arms in every run."""
    query: float = 0.5
    """Queries that are."""
    order: float = 0.3
    """Queries that are hard for both arms of a block."""
    family_by_arm: float = 0.0
    """Families that one arm is better at: real differences between queries."""
    block: float = 0.0
    """An arm's luck in a block, for all of its queries."""
    stage_1: float = 0.0
    """An arm's luck with a stage 1, for all blocks that start from it."""


@dataclass(frozen=True)
class Simulated:
    """Replicates of a comparison of two arms."""

    differences: dict[str, np.ndarray]
    """{task: [T, B, Q of the task]} second arm minus first: -1, 0 or 1."""
    families: dict[str, np.ndarray]
    """{task: [Q of the task]} labels, shared by tasks."""
    seeds: np.ndarray
    """[B] seeds of stage 1."""
    expected: np.ndarray
    """[T] true difference for the very queries of a replicate, over endlessly many blocks."""

    def by_block(self) -> np.ndarray:
        """[T, B] endpoint's differences."""
        return np.mean([values.mean(-1) for values in self.differences.values()], axis=0)


def simulate(
    noise: Noise,
    effect: float = 0.0,
    blocks: int = 6,
    seeds: int | None = None,
    replicates: int = 1000,
    seed: int = 0,
    recall: float = 0.5,
    endpoint: str = "P1",
) -> Simulated:
    """Draw studies in which the second arm finds `effect` more than the first.

    Args
        effect    difference of recall over endlessly many blocks, families and queries
        seeds     number of stages 1 that blocks take in turn; None: one for each block
        recall    mean of the two arms
        endpoint  of `STUDY_FAMILIES`, whose tasks are asked
    """
    generator = np.random.default_rng(seed)
    tasks = STUDY_FAMILIES[endpoint]
    member, task = _queries(tasks.values())
    of_block = np.arange(blocks) % (seeds or blocks)
    parts = [
        _replicates(noise, effect, recall, of_block, min(_REPLICATES_AT_ONCE, replicates - done),
                    member, task, generator)
        for done in range(0, replicates, _REPLICATES_AT_ONCE)
    ]  # fmt: skip
    drawn = np.concatenate([part[0] for part in parts])
    places = {name: task == number for number, name in enumerate(tasks)}
    return Simulated(
        {name: drawn[..., where] for name, where in places.items()},
        {name: member[where] for name, where in places.items()},
        of_block,
        np.concatenate([part[1] for part in parts]),
    )


def rejections(
    by_block: np.ndarray,
    units: Sequence | None = None,
    kind: Kind = "two-sided",
    margin: float = 0.0,
    level: float = 0.05,
) -> float:
    """Share of the replicates [T, B] whose `t_test` is below `level`."""
    values = by_block if units is None else unit_means(by_block, units)
    return float((t_test(values, kind, margin) < level).mean())


def coverage(low: np.ndarray, high: np.ndarray, truth: np.ndarray | float) -> float:
    """Share of intervals [T] that hold the truth."""
    return float(((low <= truth) & (truth <= high)).mean())


def interval_coverage(
    studies: Simulated, effect: float, n_resamples: int = 1000
) -> dict[str, float]:
    """Coverage of the intervals of a simulated comparison.

    t               over independent blocks, of the effect on these queries
    resampled       `blocks_families_interval`, of the effect on all queries
    percentiles     percentiles of draws of blocks and families, of the same
    """
    low, high = t_interval(unit_means(studies.by_block(), studies.seeds))
    found = {"t": coverage(low, high, studies.expected)}
    _, low, high = blocks_families_interval(
        studies.differences, studies.families, studies.seeds, n_resamples
    )
    found["resampled"] = coverage(low, high, effect)
    return found | {"percentiles": coverage(*_percentiles(studies, n_resamples), effect)}


def family_wise_errors(
    effects: Sequence[float], blocks: int = 6, replicates: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Share of replicates in which any test without an effect is clear: after Holm, and before.

    Args: effects, the true differences of the six tests of the mask, with the margin added to the
    sixth; only tests with an effect of 0 can err.
    """
    true = np.asarray(effects, float)
    drawn = _six_tests(blocks, replicates, np.random.default_rng(seed)) + true[:, None]
    p = t_test(drawn)  # [T, 6]
    p[:, 5] = t_test(drawn[:, 5] - _MARGIN, "non-inferior", _MARGIN)
    adjusted = np.array([holm(row) for row in p])
    null = true == 0
    return tuple(float((values[:, null] < 0.05).any(1).mean()) for values in (adjusted, p))


def re_estimated_rejections(
    deviation: float, replicates: int = 20000, seed: int = 0
) -> tuple[float, float]:
    """Errors of a two-sided test whose number of blocks follows `blocks_needed` after two blocks.

    The blind deviation is pooled over four contrasts that are as correlated as the fixed tests
    of the mask. Returns (share of false positives of the first contrast, share with more blocks).
    """
    generator = np.random.default_rng(seed)
    drawn = _six_tests(10, replicates, generator)[:, :4] * deviation / _DEVIATION
    blind = np.sqrt(drawn[..., :2].var(-1, ddof=1).mean(1))  # [T]
    more = np.array([blocks_needed(value) for value in blind]) == 10
    p = np.where(more, t_test(drawn[:, 0]), t_test(drawn[:, 0, :6]))
    return float((p < 0.05).mean()), float(more.mean())


def winner_rejections(
    correlation: float,
    arms: int = 7,
    blocks: int = 6,
    held_out: bool = False,
    replicates: int = 20000,
    seed: int = 0,
) -> float:
    """Share of positive findings for a winner among arms that do not differ.

    The winner has the highest mean on development, and is tested against the first arm on other
    queries of the same runs.

    Args
        correlation  of a run's two scores around the mean of its arm
        held_out     whether the winner is tested in as many other blocks
    """
    generator = np.random.default_rng(seed)
    development = generator.standard_normal((replicates, arms, blocks))
    fresh = generator.standard_normal((replicates, arms, blocks))
    shared = 0.0 if held_out else correlation
    test = shared * development + (1 - shared**2) ** 0.5 * fresh
    winner = development.mean(-1).argmax(1)
    differences = test[np.arange(replicates), winner] - test[:, 0]
    clear = t_test(differences) < 0.05
    return float((clear & (differences.mean(-1) > 0)).mean())


def _queries(tasks: Iterable[dict[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """[Q] family and task of each query; the largest families of the tasks are the same."""
    member, task = [], []
    for number, sizes in enumerate(tasks):
        large_first = sorted(sizes, reverse=True)
        of_family = np.repeat(large_first, [sizes[size] for size in large_first])
        member.append(np.repeat(np.arange(len(of_family)), of_family))
        task.append(np.full(of_family.sum(), number))
    return np.concatenate(member), np.concatenate(task)


def _replicates(noise, effect, recall, of_block, n, member, task, generator):
    """Differences [n, B, Q] and the true mean difference [n] on their queries."""

    def draw(variance: float, *shape: int) -> np.ndarray:
        return np.float32(variance**0.5) * generator.standard_normal(shape, dtype=np.float32)

    blocks, queries, families = len(of_block), len(member), member.max() + 1
    run = 1 + noise.order + noise.block + noise.stage_1  # what differs between blocks
    total = run + noise.family + noise.query + noise.family_by_arm
    hard = draw(noise.family, n, families)[:, member] + draw(noise.query, n, queries)
    ordered = hard[:, None] + draw(noise.order, n, blocks, queries)
    hits, expected = [], []
    for mean in (recall - effect / 2, recall + effect / 2):
        threshold = np.float32(total**0.5 * special.ndtri(mean))
        own = draw(noise.family_by_arm, n, families)[:, member]
        luck = draw(noise.block, n, blocks)
        luck += draw(noise.stage_1, n, of_block.max() + 1)[:, of_block]
        sums = ordered + own[:, None] + luck[..., None] + draw(1.0, n, blocks, queries)
        hits.append(sums < threshold)
        expected.append(special.ndtr((threshold - hard - own) / run**0.5))
    gain = expected[1] - expected[0]
    by_task = [gain[:, task == number].mean(1) for number in range(task.max() + 1)]
    return hits[1].astype(np.int8) - hits[0], np.mean(by_task, axis=0)


def _percentiles(studies: Simulated, n_resamples: int, seed: int = 0):
    """Percentiles of the endpoint over draws of units, and of families jointly across tasks."""
    families = studies.families
    resampled = []
    for name, counts in joint_family_draws(families, n_resamples, seed).items():
        shares = counts / counts.sum(1, keepdims=True)
        resampled.append(studies.differences[name].astype(float) @ shares.T)  # [T, B, R]
    by_block = np.mean(resampled, axis=0).swapaxes(1, 2)
    by_unit = unit_means(by_block, studies.seeds)  # [T, R, U]
    n = by_unit.shape[-1]
    often = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
    return np.quantile((by_unit * often).sum(-1) / n, [0.025, 0.975], axis=-1)


def _six_tests(blocks: int, replicates: int, generator) -> np.ndarray:
    """[T, 6, B] block differences of the tests of the mask without any effect.

    Four arms (InfoNCE, MAMCL, random mask, winner) with endpoints P1a, P1b, P3 that correlate
    with .5 within a run.
    """
    run = generator.standard_normal((replicates, 4, 1, blocks))
    own = generator.standard_normal((replicates, 4, 3, blocks))
    infonce, mamcl, random, winner = np.moveaxis((run + own) / 2, 1, 0)  # [T, 3, B]
    pairs = ((mamcl, infonce, 0), (mamcl, infonce, 1), (mamcl, infonce, 2), (mamcl, random, 1),
             (winner, infonce, 2), (winner, mamcl, 1))  # fmt: skip
    return _DEVIATION * np.stack([a[:, e] - b[:, e] for a, b, e in pairs], 1)
