"""Metrics by name: against counting by hand, and chance against all rankings there are."""

from itertools import permutations

import numpy as np
import pytest

from unite_core.evaluation.metrics import chance_value, depth_of, query_metrics, ranking_metrics

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


def test_they_agree_with_the_workbook_s_own_four():
    rng = np.random.default_rng(1)
    ranked = np.array([rng.permutation(30)[:10] for _ in range(20)])
    right = [rng.choice(30, size=3, replace=False).tolist() for _ in range(20)]
    four = query_metrics(ranked, right)
    named = ranking_metrics(ranked, right, list(four))
    for name, values in four.items():
        np.testing.assert_allclose(named[name], values)


def test_a_missing_rank_is_no_hit():
    values = ranking_metrics([[-1, -1], [2, -1]], [[0], [2]], ["recall@1", "precision@2"])
    assert values["recall@1"].tolist() == [0, 1]
    assert values["precision@2"].tolist() == [0, 0.5]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n, m", [(5, 1), (5, 2), (4, 4), (2, 1)])
def test_chance_is_the_mean_over_all_rankings(name, n, m):
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
