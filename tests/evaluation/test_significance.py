"""The permutation test against all sign patterns, its error rate, and two models side by side."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from unite_core.evaluation.results import EvaluationResult, Score
from unite_core.evaluation.significance import compare_models, holm, paired_permutation


def exact(first, second, groups):
    """Two-sided p-value over all sign patterns of the families, ties counted on both sides."""
    gain = np.asarray(second, float) - first
    sums = np.array([gain[np.asarray(groups) == g].sum() for g in dict.fromkeys(groups)])
    totals = np.array([np.dot(signs, sums) for signs in product((1, -1), repeat=len(sums))])
    low, high = (totals <= sums.sum() + 1e-9).mean(), (totals >= sums.sum() - 1e-9).mean()
    return min(1, 2 * min(low, high))


@pytest.mark.parametrize("seed", range(8))
def test_it_equals_all_sign_patterns_of_the_families(seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(7, size=30).tolist()
    first, second = rng.integers(2, size=(2, 30))
    gain, p = paired_permutation(first, second, groups)
    assert gain == pytest.approx((second - first).mean())
    assert p == pytest.approx(exact(first, second, groups))
    assert paired_permutation(second, first, groups) == (pytest.approx(-gain), pytest.approx(p))


def test_many_families_are_sampled_with_the_seed():
    rng = np.random.default_rng(0)
    first = rng.integers(2, size=400)
    second = np.where(rng.random(400) < 0.1, 1, first)
    groups = np.arange(400) // 2
    found = [paired_permutation(first, second, groups, 999, seed)[1] for seed in (3, 3, 4)]
    assert found[0] == found[1]
    assert all(0 < p < 0.01 for p in found)


def test_families_are_one_piece_of_evidence():
    """100 queries of two families that improve together prove nothing, of 100 families much."""
    first, second = np.zeros(100), np.ones(100)
    assert paired_permutation(first, second, np.arange(100) % 2)[1] == pytest.approx(0.5)
    assert paired_permutation(first, second, np.arange(100))[1] < 0.001


def test_six_families_cannot_give_less_than_one_in_thirty_two():
    assert paired_permutation(np.zeros(6), np.ones(6), range(6))[1] == pytest.approx(2 / 64)


def test_equal_models_never_differ():
    values = np.random.default_rng(0).random(50)
    assert paired_permutation(values, values, range(50)) == (0, 1)


@pytest.mark.parametrize("differing", [1, 2, 3])
def test_a_few_families_that_differ_are_counted_exactly(differing):
    first = np.zeros(20)
    second = np.where(np.arange(20) < differing, 1, 0)
    gain, p = paired_permutation(first, second, range(20))
    assert gain == pytest.approx(differing / 20)
    assert p == pytest.approx(exact(first[:differing], second[:differing], range(differing)))


def test_models_that_do_not_differ_show_significance_as_rarely_as_it_says():
    rng = np.random.default_rng(0)
    groups = np.arange(60) // 3
    p = []
    for _ in range(200):
        shared = rng.normal(size=20)[groups]  # families differ, models do not
        first, second = (shared + rng.normal(size=60) for _ in range(2))
        p.append(paired_permutation(first, second, groups, 199)[1])
    share = np.mean(np.array(p) <= 0.05)
    assert 0.01 <= share <= 0.09


def test_holm_is_the_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([0.02]) == [0.02]


def test_what_is_not_paired_is_refused():
    with pytest.raises(ValueError, match="same queries"):
        paired_permutation([0, 1], [0, 1, 1], [0, 1])
    with pytest.raises(ValueError, match="finite"):
        paired_permutation([0, np.nan], [0, 1], [0, 1])
    with pytest.raises(ValueError, match="at least one"):
        paired_permutation([], [], [])


def result(*per_query, tasks_hash="a"):
    """A result with a task for each list of values, families of two queries."""
    names = [f"task {i}" for i in range(len(per_query))]
    scores = [
        Score(name, "test", "single", "recall@10", float(np.mean(values)), 0, 1, 0.1, len(values),
              50, -(-len(values) // 2), len(values) / 2, list(values))
        for name, values in zip(names, per_query, strict=True)
    ]  # fmt: skip
    families = {
        name: [str(i // 2) for i in range(len(values))]
        for name, values in zip(names, per_query, strict=True)
    }
    return EvaluationResult(scores, {"test": families}, tasks_hash, {}, 0)


def test_two_models_are_compared_on_every_task():
    better = result([1] * 40, [0, 1] * 20)
    worse = result([0] * 40, [0, 1] * 20)
    first, second = compare_models(worse, better)
    assert (first["task"], first["n"], first["families"]) == ("task 0", 40, 20)
    assert (first["first"], first["second"], first["gain"]) == (0, 1, 1)
    assert first["p"] < 0.001 and first["p_holm"] == pytest.approx(2 * first["p"])
    assert (second["gain"], second["p"], second["p_holm"]) == (0, 1, 1)
    assert first["effective_families"] == 20 and first["low"] == first["high"] == 1
    few = compare_models(result([0, 1] * 9), result([1, 1] * 9))[0]  # nine families
    assert (few["gain"], few["low"], few["high"]) == (0.5, None, None)


def test_other_tasks_or_metrics_are_refused():
    first = result([0, 1, 1, 0])
    with pytest.raises(ValueError, match="other tasks"):
        compare_models(first, replace(first, tasks_hash="b"))
    with pytest.raises(ValueError, match="no task has recall@3"):
        compare_models(first, first, metric="recall@3")
