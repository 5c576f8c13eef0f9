"""Tests and intervals of block differences agree with scipy, closed forms and their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from unite_core.evaluation.families import joint_effective_families, joint_family_bootstrap
from unite_core.study.statistics import (
    blind_deviation,
    block_differences,
    blocks_families_interval,
    blocks_needed,
    detectable_difference,
    power,
    t_interval,
    t_test,
    unit_means,
)

DIFFERENCES = np.array([0.02, 0.05, -0.01, 0.04, 0.03, 0.0])
some_differences = arrays(float, st.tuples(st.integers(1, 4), st.integers(2, 9)),
                          elements=st.integers(-100, 100).map(lambda n: n / 100))  # fmt: skip


def run(arm, block, value):
    return {"arm": arm, "block": block, "P1": value, "P1 probe": value + 0.1}


def test_differences_are_first_minus_second_in_blocks_that_have_both():
    rows = [
        run("b", 4, 0.2),
        run("a", 1, 0.5),
        run("a", 4, 0.7),
        run("b", 1, 0.1),
        run("a", 2, 0.9),
    ]
    found = block_differences(rows, "a", "b", "P1")
    np.testing.assert_allclose(found.values, [0.4, 0.5])
    assert found.blocks == (1, 4)
    np.testing.assert_allclose(block_differences(rows, "a", "b", "P1 probe", "P1").values,
                               [0.5, 0.6])  # fmt: skip
    assert len(block_differences(rows, "a", "c", "P1").values) == 0


def test_runs_that_are_no_block_are_named():
    with pytest.raises(ValueError, match="arm 'a' has two rows of block 1"):
        block_differences([run("a", 1, 0.5), run("a", 1, 0.6)], "a", "b", "P1")


@given(some_differences)
def test_the_two_sided_test_and_interval_are_those_of_scipy(values):
    p, (low, high) = t_test(values), t_interval(values)
    for row, of_row, l, h in zip(values, p, low, high, strict=True):  # noqa: E741
        if np.ptp(row) == 0:
            assert l == h == pytest.approx(row[0])
            assert of_row == 1 if row[0] == 0 else np.isnan(of_row)
            continue
        scipy = stats.ttest_1samp(row, 0)
        assert of_row == pytest.approx(scipy.pvalue, rel=1e-6)
        interval = scipy.confidence_interval(0.95)
        assert (l, h) == pytest.approx((interval.low, interval.high), abs=1e-9)
        assert (of_row < 0.05) == (l > 0 or h < 0)


def test_tests_with_a_margin_are_one_sided_tests_at_the_margin():
    below = stats.ttest_1samp(DIFFERENCES, -0.03, alternative="greater").pvalue
    above = stats.ttest_1samp(DIFFERENCES, 0.03, alternative="less").pvalue
    assert t_test(DIFFERENCES, "non-inferior", 0.03) == pytest.approx(below)
    assert t_test(DIFFERENCES, "equivalent", 0.03) == pytest.approx(max(below, above))
    assert above > below
    for kind, margin in (("two-sided", 0.03), ("equivalent", 0), ("non-inferior", -0.1)):
        with pytest.raises(ValueError, match="margin"):
            t_test(DIFFERENCES, kind, margin)


def test_what_has_no_spread_is_equal_by_construction_or_untested():
    assert t_test(np.zeros(6)) == 1
    assert t_test(np.zeros(6), "non-inferior", 0.03) == t_test(np.zeros(6), "equivalent", 0.03) == 0
    for kind, margin in (("two-sided", 0), ("non-inferior", 0.03), ("equivalent", 0.03)):
        assert np.isnan(t_test(np.full(2, 0.05), kind, margin))
        assert np.isnan(t_test(np.array([0.05]), kind, margin))
    assert np.isnan(t_interval(np.array([0.05]))).all()


@pytest.mark.parametrize(("n", "level", "points"), [(6, 0.05, 2.9), (6, 0.05 / 6, 4.4)])
def test_the_plan_states_what_six_blocks_show(n, level, points):
    assert round(detectable_difference(n, 2.0, level), 1) == points


@given(st.integers(2, 12), st.floats(0.2, 5), st.sampled_from([0.05, 0.01]), st.booleans())
def test_the_detectable_difference_has_the_wanted_power(n, deviation, level, two_sided):
    shown = detectable_difference(n, deviation, level, 0.8, two_sided)
    assert power(shown, n, deviation, level, two_sided) == pytest.approx(0.8, abs=1e-6)
    assert power(0.0, n, deviation, level, two_sided) == pytest.approx(level, rel=1e-6)
    assert shown > detectable_difference(n + 1, deviation, level, 0.8, two_sided)


def test_nothing_is_detectable_with_one_block():
    assert np.isnan(detectable_difference(1, 2.0))
    assert np.isnan(detectable_difference(0, float("nan")))
    assert detectable_difference(3, 0.0) == 0


@given(some_differences, st.integers(-50, 50))
def test_the_blind_deviation_knows_no_means(values, shift):
    moved = values + np.arange(len(values))[:, None] * shift
    assert blind_deviation(list(moved)) == pytest.approx(blind_deviation(list(values)), abs=1e-9)


def test_the_blind_deviation_decides_the_number_of_blocks():
    assert blind_deviation([np.array([0.0, 2.0]), np.array([1.0, 1.0])]) == pytest.approx(1)
    assert (blocks_needed(0.025), blocks_needed(0.0251)) == (6, 10)
    with pytest.raises(ValueError, match="two blocks"):
        blind_deviation([np.array([1.0, 2.0]), np.array([1.0])])


def test_units_are_averaged_in_the_order_they_appear():
    values = np.arange(12.0).reshape(2, 6)
    np.testing.assert_allclose(unit_means(values, [2, 0, 1, 2, 0, 1]),
                               [[1.5, 2.5, 3.5], [7.5, 8.5, 9.5]])  # fmt: skip


def queries(blocks=6, seed=0):
    rng = np.random.default_rng(seed)
    families = {"a": [f"f{i}" for i in range(20) for _ in range(1 + i % 3)],
                "b": [f"f{i}" for i in range(10, 30)]}  # fmt: skip
    differences = {name: rng.integers(-1, 2, size=(blocks, len(labels))).astype(float)
                   for name, labels in families.items()}  # fmt: skip
    return differences, families


def test_without_spread_over_blocks_the_interval_is_that_over_families():
    differences, families = queries(1)
    same = {name: np.repeat(values, 8, axis=0) for name, values in differences.items()}
    effect, low, high = blocks_families_interval(same, families, n_resamples=4000)
    value, narrow_low, narrow_high = joint_family_bootstrap(
        {name: values[0] for name, values in differences.items()}, families, 4000
    )
    assert effect == pytest.approx(value)
    # t with F - 1 degrees of freedom and variance · F / (F - 1) instead of percentiles
    effective = joint_effective_families(families)
    wider = (effective / (effective - 1)) ** 0.5 * stats.t.ppf(0.975, effective - 1) / 1.96
    assert 1.06 < wider < 1.09
    assert (high - low) / (narrow_high - narrow_low) == pytest.approx(wider, abs=0.03)


def test_without_spread_over_families_the_interval_is_that_of_t():
    _, families = queries()
    same = {name: np.repeat(DIFFERENCES[:, None], len(labels), axis=1)
            for name, labels in families.items()}  # fmt: skip
    effect, low, high = blocks_families_interval(same, families)
    assert (effect, low, high) == pytest.approx((DIFFERENCES.mean(), *t_interval(DIFFERENCES)))
    seeds = [0, 1, 2, 0, 1, 2]
    _, low, high = blocks_families_interval(same, families, seeds)
    assert (low, high) == pytest.approx(t_interval(unit_means(DIFFERENCES, seeds)))


def test_many_replicates_at_once_are_those_one_by_one():
    pairs = [queries(4, seed) for seed in range(3)]
    families = pairs[0][1]
    stacked = {name: np.stack([pair[0][name] for pair in pairs]) for name in families}
    at_once = np.array(blocks_families_interval(stacked, families, n_resamples=50))
    for place, (differences, _) in enumerate(pairs):
        alone = blocks_families_interval(differences, families, n_resamples=50)
        np.testing.assert_allclose(at_once[:, place], alone)


def test_arms_that_are_equal_have_an_interval_without_width():
    differences, families = queries()
    equal = {name: np.zeros_like(values) for name, values in differences.items()}
    assert blocks_families_interval(equal, families) == (0, 0, 0)


def test_one_block_has_an_effect_and_no_interval():
    differences, families = queries(1)
    effect, low, high = blocks_families_interval(differences, families)
    assert np.isfinite(effect) and np.isnan([low, high]).all()
