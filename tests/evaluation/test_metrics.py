"""Metrics, chance and intervals against brute force, closed forms and simulation."""

from itertools import permutations

import numpy as np
import pytest

from unite_core.evaluation.metrics import (
    METRICS,
    bootstrap_interval,
    chance_level,
    chance_value,
    depth_of,
    paired_interval,
    ranking_metrics,
)


def brute_metrics(indices, positives):
    values = {name: [] for name in METRICS}
    discount = 1 / np.log2(np.arange(2, 12))
    for found, wanted in zip(indices, positives, strict=True):
        hits = np.isin(found, wanted)
        for k in (1, 5, 10, 100):
            values[f"recall@{k}"].append(hits[:k].sum() / len(wanted))
        hits10 = np.pad(hits[:10], (0, max(0, 10 - len(hits))))
        values["ndcg@10"].append((hits10 * discount).sum() / discount[: len(wanted)].sum())
        values["mrr"].append(1 / (1 + hits.argmax()) if hits.any() else 0.0)
    return values


def test_chance_is_the_mean_over_random_rankings():
    generator = np.random.default_rng(0)
    sizes = [(4, 1), (7, 3), (30, 2), (50, 14)]
    for n, m in sizes:
        rankings = generator.permuted(np.tile(np.arange(n), (4000, 1)), axis=1)
        simulated = brute_metrics(rankings, [np.arange(m)] * 4000)
        for name, level in chance_level(n, m).items():
            error = np.std(simulated[name]) / np.sqrt(4000)
            assert abs(np.mean(simulated[name]) - level) <= 5 * error + 1e-9, (n, m, name)


def test_chance_takes_one_pool_per_query():
    levels = chance_level(np.array([100, 50]), np.array([1, 2]))
    np.testing.assert_allclose(levels["recall@5"], [0.05, 0.1])
    assert levels["ndcg@10"][1] == chance_level(50, 2)["ndcg@10"]


def test_interval_covers_the_truth_and_families_widen_it():
    generator = np.random.default_rng(1)
    families = np.repeat(np.arange(40), 5)
    covered, widths = 0, []
    for _ in range(200):
        values = (0.3 + 0.2 * generator.standard_normal(40))[families]
        low, high = bootstrap_interval(values, families, n_resamples=300)
        single = bootstrap_interval(values, np.arange(200), n_resamples=300)
        covered += low <= 0.3 <= high
        widths.append((high - low) / (single[1] - single[0]))
    assert 0.89 <= covered / 200 <= 0.99
    assert np.mean(widths) == pytest.approx(np.sqrt(5), rel=0.1)


def test_interval_is_a_function_of_seed_and_the_partition_only():
    values = np.random.default_rng(0).random(60)
    families = [f"family {i % 20:02d}" for i in range(60)]
    interval = bootstrap_interval(values, families)
    assert interval == bootstrap_interval(values, np.arange(60) % 20)
    assert interval != bootstrap_interval(values, families, seed=1)
    assert interval[0] < values.mean() < interval[1]
    narrow = bootstrap_interval(values, families, level=0.5)
    assert interval[0] < narrow[0] < narrow[1] < interval[1]


def test_interval_equals_explicit_resampling_of_unequal_families():
    values = np.array([1.0, 0, 0, 1, 1, 0])
    families = np.array([0, 0, 0, 1, 1, 2])
    draws = np.random.default_rng(7).integers(3, size=(50, 3))
    means = [
        np.concatenate([values[families == family] for family in draw]).mean() for draw in draws
    ]
    wanted = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose(bootstrap_interval(values, families, 50, seed=7), wanted)


def test_pairing_separates_what_single_intervals_cannot():
    generator = np.random.default_rng(2)
    first = generator.random(100)
    second = first + 0.05 + 0.02 * generator.standard_normal(100)
    families = np.arange(100)
    difference, low, high = paired_interval(first, second, families)
    assert difference == pytest.approx((second - first).mean())
    assert 0 < low < difference < high
    assert bootstrap_interval(first, families)[1] > bootstrap_interval(second, families)[0]
    assert paired_interval(second, first, families)[0] == pytest.approx(-difference)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chance_level(3, 4), "n_positives <= n_candidates"),
        (lambda: bootstrap_interval([0.5, 1], ["a", "a"]), "two families or more"),
        (lambda: bootstrap_interval([0.5, 1], ["a"]), r"must both be \[Q\]"),
        (lambda: bootstrap_interval([0.5, 1], ["a", "b"], level=95), "level.*not 95"),
        (lambda: paired_interval([0.5], [0.5, 1], ["a", "b"]), "not paired"),
    ],
)
def test_bad_input_is_refused_with_its_values(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Metrics by name


NAMES = ("recall@1", "recall@3", "hit@3", "precision@1", "precision@5", "ndcg@4")


def by_hand(name, ranked, right):
    kind, k = name.split("@")
    hits = [c in right for c in ranked[: int(k)]]
    if kind == "recall":
        return sum(hits) / len(right)
    if kind == "precision":
        return sum(hits) / int(k)
    if kind == "hit":
        return float(any(hits))
    gain = 1 / np.log2(np.arange(2, 2 + int(k)))
    return (gain[: len(hits)] * hits).sum() / gain[: min(int(k), len(right))].sum()


def test_values_are_what_counting_gives():
    rng = np.random.default_rng(0)
    ranked = [rng.permutation(8).tolist() for _ in range(40)]
    right = [rng.choice(8, size=rng.integers(1, 5), replace=False).tolist() for _ in range(40)]
    values = ranking_metrics(ranked, right, NAMES)
    assert list(values) == list(NAMES)
    for name in NAMES:
        expected = [by_hand(name, *pair) for pair in zip(ranked, right, strict=True)]
        np.testing.assert_allclose(values[name], expected, atol=1e-9)
        assert 0 < values[name].mean() < 1


def test_a_missing_rank_is_no_hit():
    values = ranking_metrics([[-1, -1], [2, -1]], [[0], [2]], ["recall@1", "precision@2"])
    assert values["recall@1"].tolist() == [0, 1]
    assert values["precision@2"].tolist() == [0, 0.5]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n, m", [(5, 1), (5, 2), (4, 4), (2, 1)])
def test_chance_value_is_the_mean_over_all_rankings(name, n, m):
    all_rankings = [by_hand(name, order, range(m)) for order in permutations(range(n))]
    assert chance_value(name, n, m) == pytest.approx(np.mean(all_rankings))


def test_what_is_no_metric_is_refused():
    assert depth_of(["recall@1", "ndcg@10", "recall@50"]) == 50
    for name in ("recall", "recall@0", "recall@ten", "map@10"):
        with pytest.raises(ValueError, match="write one of recall"):
            depth_of([name])
    with pytest.raises(ValueError, match="query 1 has no positive"):
        ranking_metrics([[0], [0]], [[0], []], ["recall@1"])
    with pytest.raises(ValueError, match="2 rankings for 1"):
        ranking_metrics([[0], [0]], [[0]], ["recall@1"])
    with pytest.raises(ValueError, match="3 positives among 2"):
        chance_value("recall@1", 2, 3)
