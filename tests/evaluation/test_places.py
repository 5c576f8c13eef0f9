"""Metrics in expectation over ties: against every order, against ir_measures, and by hand."""

from itertools import permutations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unite_core.evaluation.metrics import ranking_metrics
from unite_core.evaluation.places import (
    Places,
    expected_metric,
    expected_share,
    places_of,
    reciprocal_of_first,
)

NAMES = ("recall@1", "recall@2", "recall@4", "hit@2", "ndcg@3", "mrr")


def by_hand(name, order, gains):
    """A metric of one order of candidates; `gains` {relevant candidate: gain}."""
    kind, _, k = name.partition("@")
    ranks = sorted(order.index(candidate) + 1 for candidate in gains)
    if kind == "mrr":
        return 1 / ranks[0]
    k = int(k)
    if kind == "recall":
        return sum(rank <= k for rank in ranks) / len(ranks)
    if kind == "hit":
        return float(ranks[0] <= k)
    found = sum(gain / np.log2(order.index(c) + 2) for c, gain in gains.items()
                if order.index(c) < k)  # fmt: skip
    best = sorted(gains.values(), reverse=True)[:k]
    return found / sum(gain / np.log2(rank + 2) for rank, gain in enumerate(best))


def every_order(scores):
    """All orders of the candidates that the scores allow."""
    for order in permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in zip(order, order[1:], strict=False)):
            yield list(order)


cases = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 2), min_size=n, max_size=n),
        st.dictionaries(st.integers(0, n - 1), st.sampled_from([0.5, 1.0]), min_size=1),
    )
)


@settings(deadline=None)
@given(cases)
def test_the_expectation_is_the_mean_over_every_order_of_ties(case):
    scores, gains = case
    places = places_of(np.array([scores], float), [list(gains)], [list(gains.values())])
    for name in NAMES:
        values = [by_hand(name, order, gains) for order in every_order(scores)]
        assert expected_metric(name, places)[0] == pytest.approx(np.mean(values)), name


@settings(deadline=None)
@given(cases, st.integers(1, 4))
def test_shares_are_the_mean_over_every_order_of_ties(case, k):
    scores, wanted = case
    mask = np.array([[row in wanted for row in range(len(scores))]])
    values = [np.mean([c in wanted for c in order[:k]]) for order in every_order(scores)]
    share = expected_share(np.array([scores], float), mask, k)
    assert share[0] == pytest.approx(np.mean(values))


def test_without_ties_the_values_are_those_of_ir_measures():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((40, 150))
    relevant = [rng.choice(150, size=rng.integers(1, 14), replace=False) for _ in range(40)]
    places = places_of(scores, relevant)
    ranked = np.argsort(-scores, axis=1)
    names = ["recall@1", "recall@10", "recall@100", "hit@5", "ndcg@10"]
    for name, values in ranking_metrics(ranked, relevant, names).items():
        np.testing.assert_allclose(expected_metric(name, places), values, atol=1e-12)
    run = {str(q): {str(c): float(s) for c, s in enumerate(row)} for q, row in enumerate(scores)}
    judged = {str(q): {str(c): 1 for c in found} for q, found in enumerate(relevant)}
    rr = {r.query_id: r.value for r in ir_measures.iter_calc([ir_measures.RR], judged, run)}
    np.testing.assert_allclose(expected_metric("mrr", places), [rr[str(q)] for q in range(40)])


def test_graded_gains_are_those_of_ir_measures():
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((30, 40))
    relevant = [rng.choice(40, size=5, replace=False) for _ in range(30)]
    gains = [rng.integers(1, 3, 5) for _ in range(30)]
    places = places_of(scores, relevant, gains)
    run = {str(q): {str(c): float(s) for c, s in enumerate(row)} for q, row in enumerate(scores)}
    judged = {str(q): {str(c): int(g) for c, g in zip(found, gain, strict=True)}
              for q, (found, gain) in enumerate(zip(relevant, gains, strict=True))}  # fmt: skip
    measured = ir_measures.iter_calc([ir_measures.nDCG @ 10], judged, run)
    expected = {result.query_id: result.value for result in measured}
    found = expected_metric("ndcg@10", places)
    np.testing.assert_allclose(found, [expected[str(q)] for q in range(30)], atol=1e-9)


def test_a_tie_of_thirty_at_the_top_by_hand():
    scores = np.zeros((1, 50))
    scores[0, :30] = 1
    places = places_of(scores, [[7]])
    assert (places.above[0], places.tied[0]) == (0, 30)
    values = {
        name: expected_metric(name, places)[0] for name in ("recall@1", "recall@10", "hit@10")
    }
    assert values == pytest.approx({"recall@1": 1 / 30, "recall@10": 1 / 3, "hit@10": 1 / 3})
    harmonic = sum(1 / rank for rank in range(1, 31))
    assert expected_metric("mrr", places)[0] == pytest.approx(harmonic / 30)
    assert expected_metric("recall@100", places)[0] == 1


@given(st.integers(1, 30), st.integers(1, 5))
def test_chance_is_a_tie_of_everything(n, m):
    m = min(n, m)
    random = Places.at_random([n], [[1.0] * m])
    flat = places_of(np.zeros((1, n)), [list(range(m))])
    for name in NAMES:
        assert expected_metric(name, random) == pytest.approx(expected_metric(name, flat))


def test_rounding_does_not_break_a_tie_and_a_difference_is_none():
    near = np.array([[0.9, 0.9 + 1e-15, 0.9 - 1e-15, 0.9 + 1e-6]])
    places = places_of(near, [[0]])
    assert (places.above[0], places.tied[0]) == (1, 3)


def test_what_cannot_be_found_is_never_right():
    scores = np.array([[0.5, -np.inf, -np.inf], [-np.inf, -np.inf, -np.inf]])
    places = places_of(scores, [[1], [2]])
    for name in NAMES:
        np.testing.assert_allclose(expected_metric(name, places), 0, atol=1e-9)
    assert expected_share(scores, np.array([[True] * 3] * 2), 2).tolist() == [1, 0]


def test_many_positives_in_a_large_tie_are_exact():
    value = reciprocal_of_first([3], [2000], [2])[0]
    offsets = np.arange(1, 2000)
    chances = (2000 - offsets) / (2000 * 1999 / 2)
    assert value == pytest.approx((chances / (3 + offsets)).sum(), rel=1e-9)
