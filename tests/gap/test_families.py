"""Families: groups of `measure` in values, nulls and intervals, against known truths."""

import warnings
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unite_core import gap
from unite_core.gap import distribution, moments, pairwise
from unite_core.gap.coverage import POPULATIONS, coverage
from unite_core.gap.families import Families
from unite_core.gap.moments import Moments
from unite_core.gap.synthetic import draw_families

SWAYING = POPULATIONS["swaying gap"]
LABELS = st.lists(st.integers(0, 5), min_size=4, max_size=30).filter(lambda row: len(set(row)) > 1)


def of(labels, paired=True, labels_y=None):
    groups = labels if paired else (labels, labels if labels_y is None else labels_y)
    rows = len(labels), len(labels if labels_y is None else labels_y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Families.of(groups, tuple(np.ones(n, bool) for n in rows), paired)


def family_sample(n=150, families=70, seed=0, population=SWAYING):
    groups = draw_families(n, families, seed)
    drawn = population.draw(n, seed, groups)
    return drawn["text"], drawn["image"], groups


# Draws


@given(LABELS, st.integers(0, 99))
def test_a_half_and_an_exchange_never_part_a_family(labels, seed):
    families, rng = of(labels), np.random.default_rng(seed)
    x, y = families.half(rng)
    labels = np.array(labels)
    assert (x == y).all() and len(set(x)) == len(x)
    chosen = set(labels[x])
    assert len(chosen) == len(set(labels.tolist())) // 2
    assert len(x) == sum(label in chosen for label in labels.tolist()) >= families.least_half
    first, second = families.exchanged(rng)
    n = len(labels)
    assert (np.sort(np.concatenate([first, second])) == np.arange(2 * n)).all()
    assert (first % n == np.arange(n)).all() and (second % n == np.arange(n)).all()
    for label in chosen:
        assert len(set((first >= n)[labels == label])) == 1, "all pairs or none"


@given(LABELS, LABELS, st.integers(0, 99))
def test_without_pairs_an_exchange_keeps_all_items_and_families_of_both_sides(xs, ys, seed):
    families = of(xs, False, ys)
    first, second = families.exchanged(np.random.default_rng(seed))
    n, codes = len(xs), np.array(xs + ys)
    assert (np.sort(np.concatenate([first, second])) == np.arange(len(codes))).all()
    for label in set(xs) & set(ys):
        of_x = np.flatnonzero(codes[:n] == label)
        assert np.isin(of_x, first).all() or np.isin(of_x, second).all()
    if not set(xs) & set(ys):
        assert len(first) == n


@given(LABELS, st.integers(0, 99))
def test_mismatched_pairs_are_of_different_families_and_folds_hold_whole_ones(labels, seed):
    families, rng = of(labels), np.random.default_rng(seed)
    x, y = families.mismatched(rng)
    labels = np.array(labels)
    assert len(x) == len(y) > 0 and (labels[x] != labels[y]).all()
    fold, fold_y = families.folds(2, rng)
    assert (fold == fold_y).all() and set(fold) == {0, 1}
    for label in set(labels.tolist()):
        assert len(set(fold[labels == label])) == 1


def test_a_sample_takes_whole_families_up_to_the_last():
    labels = draw_families(200, 80, 0)
    rows, rows_y, part = of(labels).sample(100, np.random.default_rng(0))
    assert (rows == rows_y).all() and len(rows) == 100 and part.grouped
    inside = np.bincount(labels[rows], minlength=80)
    cut = (inside > 0) & (inside < np.bincount(labels))
    assert cut.sum() <= 1


def test_effective_families_are_the_square_of_the_sum_by_the_sum_of_squares():
    assert of([0] * 6 + [1] * 3 + [2]).effective == pytest.approx(100 / 46)
    assert of(list("aabbcc")).effective == 3 and of(list("aabbcc")).count == 3
    assert Families.alone(70, 60, False).effective == 60


# Values


def test_no_mean_compares_two_items_of_a_family():
    x, y, groups = family_sample()
    apart = groups[:, None] != groups
    table = gap.measure(x, y, k=5, groups=groups, resamples=2)
    means = [(one @ other.T)[apart].mean() for one, other in ((x, x), (y, y), (x, y))]
    for name, mean in zip(("similarity_x", "similarity_y", "similarity_xy"), means, strict=True):
        assert table[name].value == pytest.approx(mean, abs=1e-12)
    assert table["gap_squared"].value == pytest.approx(means[0] + means[1] - 2 * means[2])
    spread = np.exp(-2 * (2 - 2 * x @ x.T))[apart].mean()
    assert table["uniformity_x"].value == pytest.approx(np.log(spread), abs=1e-12)
    kernels = [np.exp(2 * (c - 1) / 0.7) for c in (x @ x.T, y @ y.T, x @ y.T)]
    expected = np.dot([k[apart].mean() for k in kernels], (1, 1, -2))
    cosines = (x @ x.T, y @ y.T, x @ y.T)
    same = (~apart,) * 3
    assert pairwise.mmd_squared(*cosines, 0.7, True, same) == pytest.approx(expected, abs=1e-12)
    gram = Moments.of_gram(*cosines, True, same)
    families = of(groups.tolist())
    vectors = Moments.of_vectors(x, y, True, families)
    assert gram.inside == pytest.approx(vectors.inside)
    assert gram.inside_counts == vectors.inside_counts


def test_the_family_cka_is_a_mean_over_items_of_four_families():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 10, 3))
    k, l = x @ x.T, y @ y.T  # noqa: E741
    code = np.array([0, 1, 1, 2, 3, 3, 3, 4, 5, 5])
    places = np.array(list(permutations(range(10), 4)))

    def plain(k, l):  # noqa: E741
        """Each term over all items that it takes, of different families."""
        total = 0
        for items, weight, other in ((2, 1, (0, 1)), (3, -2, (0, 2)), (4, 1, (2, 3))):
            chosen = np.unique(places[:, :items], axis=0)
            chosen = chosen[[len(set(code[row])) == items for row in chosen]].T
            total += weight * np.mean(
                k[chosen[0], chosen[1]] * l[chosen[other[0]], chosen[other[1]]]
            )
        return total

    expected = plain(k, l) / np.sqrt(plain(k, k) * plain(l, l))
    assert pairwise.family_cka(k, l, code) == pytest.approx(expected, abs=1e-12)
    alone = moments.debiased_cka(Moments.of_gram(k, l, x @ y.T, True))
    assert pairwise.family_cka(k, l, np.arange(10)) == pytest.approx(alone, abs=1e-12)


def test_groups_of_one_change_no_value_and_no_order_matters():
    x, y, groups = family_sample()
    plain, alone = (gap.measure(x, y, k=5, groups=g) for g in (None, np.arange(len(x))))
    for name, row in plain.items():
        assert alone[name].value == pytest.approx(row.value, abs=1e-12), name
        assert alone[name].families == row.families == 150
    told = gap.measure(x, y, k=5, groups=groups)
    order = np.random.default_rng(1).permutation(len(x))
    names = [f"family {number}" for number in groups[order]]
    again = gap.measure(x[order], y[order], k=5, groups=names)
    for name in set(told) - {"separability"}:
        assert again[name].value == pytest.approx(told[name].value, abs=1e-9), name
        assert again[name].families == told[name].families == of(groups.tolist()).effective
    assert np.ptp(told["gap"].interval) > np.ptp(plain["gap"].interval)


def test_values_have_no_bias_from_families():
    """Means over samples; without groups gap, offset share, MMD and CKA are all too large."""
    population = POPULATIONS["no gap"]
    found = {True: [], False: []}
    for seed in range(120):
        x, y, groups = family_sample(100, 30, seed, population)
        gram = x @ x.T, y @ y.T, x @ y.T
        for told, group in found.items():
            families = of(groups.tolist()) if told else None
            m = Moments.of_vectors(x, y, True, families)
            same = (groups[:, None] == groups,) * 3 if told else None
            cka = pairwise.family_cka(*gram[:2], groups) if told else moments.debiased_cka(m)
            mmd = pairwise.mmd_squared(*gram, 1.5, True, same)
            group.append([moments.debiased_gap_squared(m), moments.alignment(m)["offset_share"],
                          mmd, cka])  # fmt: skip
    truth = np.array([0, 0, 0, population.truth("text", "image")["cka"]])
    for told, rows in found.items():
        error = np.std(rows, axis=0) / len(rows) ** 0.5
        away = (np.mean(rows, axis=0) - truth) / error
        assert (np.abs(away) < 3).all() if told else (away > 5).all(), (told, away)


def test_families_are_held_out_together():
    """Families with directions of their own in each modality give nothing away."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 4)
    x, y = (rng.standard_normal((40, 60))[groups] + 0.2 * rng.standard_normal((160, 60))
            for _ in range(2))  # fmt: skip
    apart = distribution.held_out_hits(x, y, True, 5, 0, of(groups.tolist())).mean()
    leaking = distribution.held_out_hits(x, y, True, 5, 0).mean()
    assert leaking > 0.9 and abs(apart - 0.5) < 0.12


# Nulls


def test_the_null_of_frechet_is_that_of_pairs_at_full_n():
    """A true gap of .47 stands out, and without one values are around the null."""
    population = gap.SyntheticGap({"text": (0.235,), "image": (-0.235,)}, ((64, 1.0),), 0.85)
    x, y = population.draw(100, 0).values()
    row = gap.measure(x, y, resamples=2)["frechet"]
    halves = np.mean([distribution.frechet(side[:50], side[50:]) for side in (x, y)])
    assert 2 * row.null < row.value < halves, "halves of one modality, no pairs, would hide it"
    ratios = []
    for seed in range(12):
        drawn = POPULATIONS["no gap"].draw(120, seed)
        row = gap.measure(drawn["text"], drawn["image"], resamples=2, k=5)["frechet"]
        ratios.append(row.value / row.null)
    assert np.mean(ratios) == pytest.approx(1, abs=0.03)


def test_values_without_a_gap_are_at_the_null_of_exchanged_families():
    names = (
        "gap_squared", "gap_raw", "offset_share", "neighbour_share", "neighbour_share_centred",
        "mmd2", "mmd2_centred", "frechet", "participation_x", "hub_skew", "separability",
    )  # fmt: skip
    differences = {name: [] for name in names}
    for seed in range(40):
        x, y, groups = family_sample(100, 40, seed, POPULATIONS["no gap"])
        table = gap.measure(x, y, k=5, groups=groups, resamples=2)
        for name in names:
            differences[name].append(table[name].value - table[name].null)
    for name, values in differences.items():
        assert abs(np.mean(values)) < 4 * np.std(values) / 40**0.5 + 1e-3, name


def test_nulls_after_centring_know_no_offset():
    """The larger the gap, the larger was the null of neighbour_share_centred."""
    rows = []
    for size in (0.0, 0.9):
        population = gap.SyntheticGap({"a": (size, 0), "b": (0, size)}, signal=0.2)
        drawn = population.draw(200, 0)
        rows.append(gap.measure(drawn["a"], drawn["b"], resamples=2))
    for name in ("neighbour_share_centred", "participation_x"):
        near, far = (table[name] for table in rows)
        assert far.null == pytest.approx(near.null, rel=0.02), name
        assert far.value == pytest.approx(near.value, rel=0.05), name


# Intervals

CHECKED = ("gap", "gap_squared", "offset_share", "similarity_x", "similarity_xy", "pair_cosine",
           "pair_excess", "alignment", "rmg", "uniformity_x", "mmd2")  # fmt: skip


@pytest.mark.slow
def test_intervals_over_families_hold_the_truth_as_often_as_they_say():
    told = coverage(SWAYING, 120, 60, repeats=150, names=(*CHECKED, "cka"))
    assert told.pop("cka") >= 0.92, "a half says more than its part of the error: too wide"
    assert {name: share for name, share in told.items() if not 0.92 <= share <= 0.985} == {}
    untold = coverage(SWAYING, 120, 60, given=False, repeats=40, names=("gap", "cka"))
    assert max(untold.values()) < 0.88, "items taken for independent make them too narrow"


@pytest.mark.slow
@pytest.mark.parametrize("population", POPULATIONS)
def test_the_offset_share_is_covered_with_and_without_a_gap(population):
    exact = population == "swaying gap"  # elsewhere first-order terms vanish: too wide, by sqrt(3)
    repeats = 150 if exact else 80
    share = coverage(POPULATIONS[population], 80, repeats=repeats, names=["offset_share"])
    assert 0.92 <= share["offset_share"] <= (0.98 if exact else 1)


def test_few_families_are_warned_of_and_very_few_get_no_interval():
    x, y, _ = family_sample()
    with pytest.warns(UserWarning, match=r"groups make 12.0 effective families \(12 families\)"):
        table = gap.measure(x, y, k=5, groups=np.arange(150) % 12, resamples=3)
    assert all(row.interval is not None for row in table.values())
    with pytest.warns(UserWarning, match="below 10 there is no interval; add families, not items"):
        table = gap.measure(x, y, k=5, groups=np.arange(150) % 9, resamples=3)
    for name, row in table.items():
        assert row.interval is None and np.isfinite([row.value, row.null]).all(), name
        assert row.families == pytest.approx(9, abs=0.1) and row.n == 150
    text = gap.format_table(table, ["gap", "hub_skew"])
    assert text.count("too few families") == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gap.measure(x, y, k=5, groups=np.arange(150) % 16, resamples=2)


def test_groups_follow_their_rows_when_repeats_leave():
    x, y, groups = family_sample()
    again = [np.concatenate([side[:7], side]) for side in (x, y, groups)]
    with pytest.warns(UserWarning, match="7 of 157 rows of x"):
        got = gap.measure(*again[:2], k=5, groups=again[2], resamples=2)
    assert got["gap"] == gap.measure(x, y, k=5, groups=groups, resamples=2)["gap"]


def test_groups_without_pairs_are_of_both_sides():
    x, y, groups = family_sample()
    shared = gap.measure(x, y[:140], False, k=5, groups=(groups, groups[:140]), resamples=4)
    foreign = gap.measure(x, y[:140], False, k=5, groups=(groups, 1000 + groups[:140]), resamples=4)
    apart = groups[:, None] != groups[:140]
    assert shared["similarity_xy"].value == pytest.approx((x @ y[:140].T)[apart].mean(), abs=1e-12)
    assert foreign["similarity_xy"].value == pytest.approx((x @ y[:140].T).mean(), abs=1e-12)
    heat = gap.matrix({"a": x, "b": y}, groups={"a": groups, "b": groups}, k=5, resamples=2)
    assert heat["gap"][0, 1] == gap.measure(x, y, k=5, groups=groups, resamples=2)["gap"].value


def test_groups_that_cannot_be_are_refused():
    x, y, groups = family_sample()
    missing = [None, *map(str, groups[1:])]
    for bad, paired, reason in (
        (groups[:9], True, r"groups must be one label for each of the 150 rows, not \[9\]"),
        (np.eye(150), True, r"one label for each of the 150 rows, not \[150, 150\]"),
        ((groups, groups), True, r"one label for each of the 150 rows, not \[2, 150\]"),
        (groups, False, r"\(labels of x \[N\], labels of y \[M\]\), not ndarray \[150\]"),
        ((groups, groups[:9]), False, r"groups of y must be one label for each of the 150 rows"),
        (missing, True, r"groups row 0 has no label \(1 such rows\)"),
        (np.where(groups == 3, np.nan, groups), True, "has no label"),
        (np.zeros(150), True, "all items of a modality into one family"),
        (np.array(groups, dtype="datetime64[D]"), True, "must be numbers or text"),
    ):
        with pytest.raises(ValueError, match=reason):
            gap.measure(x, y, paired, groups=bad)
    with pytest.raises(ValueError, match="k = 40 neighbours need halves of more than 40 items"):
        gap.measure(x, y, k=40, groups=groups)
    with pytest.raises(ValueError, match="groups have no 'b'; they have a"):
        gap.matrix({"a": x, "b": y}, groups={"a": groups})


# The generator


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 0.6), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_families_and_sway_leave_the_distribution_of_a_pair_alone(sway, family, signal, grouped):
    population = gap.SyntheticGap({"a": (0.5, 0.1), "b": (-0.2, 0.3)}, ((5, 0.5), (9, 0.5)), signal,
                                  sway=sway, family=family)  # fmt: skip
    groups = draw_families(1500, 900, 0) if grouped else None
    drawn, truth = population.draw(1500, 0, groups), population.truth("a", "b")
    x, y = drawn["a"], drawn["b"]
    assert np.abs(np.linalg.norm(x, axis=1) - 1).max() < 1e-12
    got = {name: row for name, row in _linear(x, y, groups).items() if name in truth}
    for name in ("similarity_x", "similarity_y", "similarity_xy", "pair_cosine", "rmg", "cka"):
        assert got[name] == pytest.approx(truth[name], abs=0.08), name
    got = pairwise.mmd_squared(x @ x.T, y @ y.T, x @ y.T, 1.0, paired=True)
    assert got == pytest.approx(population.mmd_squared("a", "b", 1.0), abs=0.03)


def _linear(x, y, groups):
    from unite_core.gap.values import linear_values

    families = None if groups is None else of(groups.tolist())
    return linear_values(Moments.of_vectors(x, y, True, families))


def test_families_have_in_common_what_they_should():
    population = gap.SyntheticGap({"a": (0.3,), "b": (-0.3,)}, ((40, 1.0),), 0.5, family=0.6)
    groups = np.repeat(np.arange(3000), 2)
    drawn = population.draw(6000, 0, groups)
    radius = 1 - 0.3**2
    pairs = {name: np.einsum("nd,nd->n", rows[::2], rows[1::2]) for name, rows in drawn.items()}
    # the shared half has 0.6 in common; the own one nearly, after what is along the shared leaves
    assert pairs["a"].mean() == pytest.approx(0.3**2 + radius * 0.6, abs=0.02)
    across = np.einsum("nd,nd->n", drawn["a"][::2], drawn["b"][1::2]).mean()
    assert across == pytest.approx(-(0.3**2) + radius * 0.5 * 0.6, abs=0.02)
    with pytest.raises(ValueError, match=r"groups must be \[9\], not \[6000\]"):
        population.draw(9, 0, groups)
    with pytest.raises(ValueError, match="sway must be in"):
        gap.SyntheticGap({"a": (0.1,)}, sway=-1)
