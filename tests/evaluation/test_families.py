"""Families: effective numbers by hand, joint resampling against explicit resampling, coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unite_core.evaluation.families import (
    MINIMUM_FAMILIES,
    effective_families,
    enough_families,
    joint_effective_families,
    joint_family_bootstrap,
    joint_family_draws,
    macro,
    macro_resamples,
)
from unite_core.evaluation.metrics import bootstrap_interval

labels = st.lists(st.sampled_from("abcdefghijklmno"), min_size=1, max_size=60)


def test_effective_families_by_hand():
    assert effective_families(list("aaab")) == pytest.approx(16 / 10)
    assert effective_families([str(n) for n in range(7)]) == pytest.approx(7)
    assert enough_families([str(n) for n in range(MINIMUM_FAMILIES)])
    assert not enough_families([str(n) for n in range(MINIMUM_FAMILIES)] + ["0"] * 3)


@given(labels, st.integers(1, 5))
def test_effective_families_lie_between_one_and_their_number(families, times):
    number = effective_families(families)
    assert 1 - 1e-9 <= number <= len(set(families)) + 1e-9
    assert effective_families(families * times) == pytest.approx(number)
    assert joint_effective_families({"a": families, "b": families}) == pytest.approx(number)


@given(st.lists(labels, min_size=1, max_size=4))
def test_a_mean_over_tasks_rests_on_at_least_the_share_of_each(tasks):
    joint = joint_effective_families(dict(enumerate(tasks)))
    shares = [{f: task.count(f) / len(task) for f in task} for task in tasks]
    weights = [np.mean([share.get(f, 0) for share in shares]) for f in "abcdefghijklmno"]
    assert joint == pytest.approx(1 / np.square(weights).sum())


def test_every_task_counts_the_same():
    assert macro({"a": [1, 1, 1, 0], "b": [0]}) == 0.375
    with pytest.raises(ValueError, match="no tasks to average over"):
        macro({})


def test_one_task_is_resampled_as_its_own_interval():
    rng = np.random.default_rng(0)
    values, families = rng.random(60), [f"{n % 20:02d}" for n in range(60)]
    joint = joint_family_bootstrap({"a": values}, {"a": families, "unused": ["x"]}, seed=3)
    assert joint == pytest.approx((values.mean(), *bootstrap_interval(values, families, seed=3)))


def test_a_family_brings_its_queries_in_all_tasks():
    families = {"a": list("xxyz"), "b": list("zyw")}
    counts = joint_family_draws(families, 200, seed=1)
    drawn = {task: dict(zip(names, counts[task].T, strict=True))
             for task, names in families.items()}  # fmt: skip
    for shared in "yz":
        assert (drawn["a"][shared] == drawn["b"][shared]).all()
    assert (counts["a"][:, 0] == counts["a"][:, 1]).all()
    total = drawn["a"]["x"] + drawn["a"]["y"] + drawn["a"]["z"] + drawn["b"]["w"]
    assert (total == 4).all() and (counts["a"] == 0).any()


def test_joint_resamples_equal_explicit_ones():
    families = {"a": np.array(list("xxyz")), "b": np.array(list("zyyx"))}
    values = {"a": np.array([1.0, 0, 0, 1]), "b": np.array([0.0, 1, 0, 1])}
    draws = np.random.default_rng(5).integers(3, size=(40, 3))
    expected = []
    for draw in draws:
        parts = {t: np.concatenate([values[t][families[t] == "xyz"[f]] for f in draw])
                 for t in values}  # fmt: skip
        expected.append(np.mean([part.mean() for part in parts.values()]))
    found = macro_resamples(values, families, 40, seed=5)
    np.testing.assert_allclose(found, expected)


def test_a_task_without_a_drawn_query_is_left_out_of_that_resample():
    families = {"a": list("xy"), "b": ["z"]}
    values = {"a": [1.0, 1.0], "b": [0.0]}
    found = macro_resamples(values, families, 300)
    assert set(found) == {0.0, 0.5, 1.0}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_order_of_tasks_and_names_of_families_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    families = {t: [f"{n:02d}" for n in rng.integers(0, 20, 30)] for t in "ab"}
    values = {t: rng.random(30) for t in "ab"}
    turned = joint_family_bootstrap(dict(reversed(values.items())), families, 100, seed)
    assert joint_family_bootstrap(values, families, 100, seed) == pytest.approx(turned)
    named = {t: [f"family {f}" for f in labels] for t, labels in families.items()}
    assert joint_family_bootstrap(values, named, 100, seed) == pytest.approx(turned)


def test_joint_intervals_cover_where_separate_ones_do_not():
    """Tasks that share families err together, which intervals of independent tasks miss."""
    rng = np.random.default_rng(2)
    names = [f"{n:02d}" for n in range(40)]
    families = dict.fromkeys("abc", names)
    covered = narrow = 0
    for trial in range(200):
        common = 0.3 * rng.standard_normal(40)
        values = {t: common + 0.1 * rng.standard_normal(40) for t in "abc"}
        value, low, high = joint_family_bootstrap(values, families, 300, seed=trial)
        covered += low <= 0 <= high
        apart = {t: [f"{t} {n}" for n in names] for t in "abc"}
        value, low, high = joint_family_bootstrap(values, apart, 300, seed=trial)
        narrow += low <= 0 <= high
    assert covered >= 180 > 170 > narrow


def test_values_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"a: values \(1,\) and families \(2,\)"):
        joint_family_bootstrap({"a": [1.0]}, {"a": ["x", "y"]})
    with pytest.raises(ValueError, match="no families"):
        effective_families([])
