"""The gap's measures against closed forms, nulls, identities and plain definitions."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from unite_core import gap
from unite_core.gap import distribution, moments, pairwise
from unite_core.gap.moments import Moments
from unite_core.loss.contrastive import info_nce, mamcl
from unite_core.notebook import project_root
from unite_core.notebook.counterparts import given_vectors

FIELDS = ("value", "interval", "null", "n", "families", "sphere")
KEYS = {
    "gap", "gap_raw", "rmg", "alignment", "offset_share", "uniformity_x", "uniformity_y",
    "separability", "neighbour_share", "mmd2", "cka", "mutual_knn", "hub_skew", "participation_x",
    "participation_y", "frechet",
}  # fmt: skip


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sphere(n, dim, seed):
    return unit(np.random.default_rng(seed).standard_normal((n, dim)))


def shifted(n, dim, size, seed=0, noise=0.5):
    """Pairs with a common part, y moved by `size` along the first axis before normalisation."""
    common = sphere(n, dim, seed)
    x, y = (common + noise * sphere(n, dim, seed + part) for part in (1, 2))
    y[:, 0] += size
    return unit(x), unit(y)


def values(*arguments, **options):
    options = {"resamples": 4} | options
    return {name: row.value for name, row in gap.measure(*arguments, **options).items()}


@pytest.fixture(scope="module")
def pairs():
    return shifted(160, 24, 0.8)


@pytest.fixture(scope="module")
def table(pairs):
    return gap.measure(*pairs, paired=True, k=10)


def test_every_measure_has_value_interval_null_and_n(table):
    assert set(table) >= KEYS
    for name, row in table.items():
        low, high = row["interval"]
        assert low <= row["value"] <= high, name
        assert np.isfinite([low, high, row["null"]]).all() and row["n"] == 160, name
        assert dict(row) == {key: getattr(row, key) for key in FIELDS}
        assert row.families == 160, "every pair is its own"
        assert (row.sphere is not None) == gap.MEASURES[name].sphere, name
        assert type(row.value) is float and type(low) is float, name
    with pytest.raises(KeyError, match="has value, interval, null, n, families, sphere; not 'p'"):
        row["p"]


def test_every_measure_is_declared_and_documented(table):
    assert list(table) == list(gap.MEASURES), "in the order of the declarations"
    text = (project_root() / "docs" / "gap.md").read_text("utf-8")
    for name, definition in gap.MEASURES.items():
        assert f"### {name}\n" in text, name
        low, high = definition.range
        assert low <= table[name].value <= high and definition.interval in gap.INTERVALS, name
        assert definition.meaning in str(definition) and definition.null in str(definition)


def test_without_pairs_what_needs_them_is_left_out(pairs, table):
    x, y = pairs
    alone = gap.measure(x, y[:150], paired=False, resamples=4)
    assert set(table) == set(gap.MEASURES) and set(table) > gap.PAIRED
    assert set(table) - set(alone) == gap.PAIRED
    assert alone["gap"].n == 150


def test_the_table_does_not_depend_on_anything_but_its_arguments(pairs, table):
    again = gap.measure(*pairs, paired=True, k=10)
    assert again == table
    copies = [side.copy() for side in pairs]
    gap.measure(*copies, resamples=2)
    assert all((a == b).all() for a, b in zip(copies, pairs, strict=True)), "inputs are kept"
    other = gap.measure(*pairs, paired=True, k=10, seed=1)
    assert other["gap"].value == table["gap"].value, "all items, no draw"
    assert other["gap"].interval != table["gap"].interval


# Plain definitions


def test_sums_are_what_the_definitions_say(pairs):
    x, y = pairs
    n = len(x)
    off = ~np.eye(n, dtype=bool)
    m = Moments.of_vectors(x, y, paired=True)
    within_x, within_y = ((side @ side.T)[off].mean() for side in pairs)
    between, pair = (x @ y.T)[off].mean(), (x * y).sum(1).mean()
    assert moments.mean_cosines(m) == pytest.approx((within_x, within_y, between), abs=1e-12)
    expected = within_x + within_y - 2 * between
    assert moments.debiased_gap_squared(m) == pytest.approx(expected, abs=1e-12)
    inside = ((1 - within_x) / 2 + (1 - within_y) / 2) / 2
    rmg = (1 - pair) / 2 / ((1 - pair) / 2 + inside)
    assert moments.relative_gap(m) == pytest.approx(rmg, abs=1e-12)
    assert distribution.frechet(x, y) == pytest.approx(plain_frechet(x, y), abs=1e-9)
    spectrum = np.linalg.eigvalsh(np.cov(x.T))
    ratio = moments.participation_ratio(m.square_x, m.self_x, m.rows_x)
    assert ratio == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum(), rel=1e-10)


def test_unpaired_gaps_take_all_cross_pairs(pairs):
    x, y = pairs[0], pairs[1][:120]
    m = Moments.of_vectors(x, y, paired=False)
    assert moments.mean_cosines(m)[2] == pytest.approx((x @ y.T).mean(), abs=1e-12)


def test_the_alignment_splits_into_offset_and_the_variance_of_differences(pairs):
    x, y = pairs
    got = moments.alignment(Moments.of_vectors(x, y, paired=True))
    apart = x - y
    offset, variance = apart.mean(0), np.var(apart, axis=0, ddof=1).sum()
    assert got["alignment"] == pytest.approx(np.square(apart).sum(1).mean(), abs=1e-12)
    unbiased = offset @ offset - variance / len(x)  # E ||mean||^2 = ||offset||^2 + variance / n
    assert got["alignment"] == pytest.approx(unbiased + variance, abs=1e-12)
    assert got["offset_share"] == pytest.approx(unbiased / got["alignment"], abs=1e-12)


def test_the_gap_is_a_contrast_of_the_heat_map():
    known = gap.SyntheticGap({"a": (0.5, 0), "b": (0, 0.6), "c": (0.1, 0.1)})
    drawn = known.draw(150, 0)
    got = gap.matrix(drawn, resamples=2)
    heat = got["similarity"]
    diagonal = np.diag(heat)
    contrast = diagonal[:, None] + diagonal - 2 * heat
    assert np.abs(contrast - got["gap_squared"])[~np.eye(3, dtype=bool)].max() < 1e-12
    assert np.isnan(np.diag(got["gap"])).all() and (got["cka"] == got["cka"].T)[0, 1]
    assert got["hub_skew"][0, 1] != got["hub_skew"][1, 0], "queries by candidates"
    partial = gap.matrix(drawn, paired=[("b", "a")], resamples=2)
    assert np.isfinite(partial["rmg"][0, 1]) and np.isnan(partial["rmg"][0, 2])
    with pytest.raises(ValueError, match="1 modality has no gap"):
        gap.matrix({"a": drawn["a"]})


def plain_frechet(x, y):
    a, b = np.cov(x.T), np.cov(y.T)
    offset = x.mean(0) - y.mean(0)
    return offset @ offset + np.trace(a + b - 2 * sqrtm(a @ b).real)


def plain_hsic(k, l):  # noqa: E741 - the estimator's letters
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    ones = np.ones(n)
    total = np.trace(k @ l) + ones @ k @ ones * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return (total - 2 / (n - 2) * ones @ k @ l @ ones) / (n * (n - 3))


def test_cka_is_the_unbiased_estimator(pairs):
    x, y = pairs
    k, l = x @ x.T, y @ y.T  # noqa: E741
    expected = plain_hsic(k, l) / np.sqrt(plain_hsic(k, k) * plain_hsic(l, l))
    got = moments.debiased_cka(Moments.of_vectors(x, y, paired=True))
    assert got == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n, dim", [(60, 90), (300, 20)])
def test_vectors_and_cosines_give_the_same_sums(n, dim):
    x, y = shifted(n, dim, 0.5)
    a = Moments.of_vectors(x, y, paired=True)
    b = Moments.of_gram(x @ x.T, y @ y.T, x @ y.T, paired=True)
    for name in Moments.__dataclass_fields__:
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-9, abs=1e-9), name
    assert distribution.frechet(x, y) == pytest.approx(
        distribution.frechet_of_gram(x @ x.T, y @ y.T, x @ y.T), abs=1e-9
    )


def test_neighbours_are_those_of_a_plain_sort(pairs):
    x, y = pairs
    pooled = np.concatenate(pairs)
    cosines = pooled @ pooled.T
    np.fill_diagonal(cosines, -2)
    best = np.argsort(-cosines, axis=1)[:, :10]
    share = np.mean((best < len(x)) == (np.arange(len(pooled)) < len(x))[:, None])
    got = pairwise.neighbour_share(x @ x.T, y @ y.T, x @ y.T, 10)
    assert got == pytest.approx(share, abs=1e-12)
    near = [np.argsort(-(s @ s.T - 3 * np.eye(len(s))), axis=1)[:, :5] for s in pairs]
    overlap = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(*near, strict=True)])
    assert pairwise.mutual_neighbours(x @ x.T, y @ y.T, 5) == pytest.approx(overlap, abs=1e-12)


def test_centred_cosines_are_those_of_centred_vectors(pairs):
    x, y = (unit(side - side.mean(0)) for side in pairs)
    got = pairwise.centred_cosines(*[a @ b.T for a, b in zip(
        (pairs[0], pairs[1], pairs[0]), (pairs[0], pairs[1], pairs[1]), strict=True)])  # fmt: skip
    for part, expected in zip(got, (x @ x.T, y @ y.T, x @ y.T), strict=True):
        assert np.abs(part - expected).max() < 1e-12


def test_hubs_are_skewed_and_equal_shares_are_not():
    cosines = np.random.default_rng(0).random((40, 30)) - 0.5
    cosines[:, 3] += 5  # in every list
    got = pairwise.hubness(cosines, 3)
    assert got["skew"] > 3
    circle = np.array([[1.0 * ((j - i) % 8 < 2) for j in range(8)] for i in range(8)])
    assert pairwise.hubness(circle, 2) == {"skew": 0.0, "never": 0.0}


# Closed forms


def test_equal_vectors_have_no_gap():
    x = sphere(120, 16, 0)
    got = gap.measure(x, x.copy(), resamples=4)
    for name in ("gap_raw", "rmg", "alignment", "offset_share"):
        assert got[name].value == pytest.approx(0, abs=1e-7), name
    assert got["gap"].value == pytest.approx(0, abs=0.08)
    assert got["frechet"].value == pytest.approx(0, abs=1e-9)
    assert got["cka"].value == pytest.approx(1) and got["mutual_knn"].value == 1
    assert got["neighbour_share"].value < 0.5, "ties are shared out, the twin comes first"
    assert 0.4 < got["separability"].value < 0.6


def test_opposite_vectors_are_as_far_as_can_be():
    x = sphere(120, 16, 0)
    got = values(x, -x)
    assert got["pair_cosine"] == pytest.approx(-1) and got["alignment"] == pytest.approx(4)
    assert got["cka"] == pytest.approx(1)


def test_a_growing_offset_moves_the_mixed_index_but_not_search_within():
    gaps, shares, within = [], [], []
    for size in (0.0, 0.3, 0.8, 4.0):
        x, y = shifted(160, 24, size)
        got = values(x, y)
        gaps.append(got["gap"])
        shares.append(got["neighbour_share"])
        within.append(np.mean((x @ y.T).argmax(1) == np.arange(len(x))))
    assert np.diff(gaps).min() > 0.05 and np.diff(shares).min() > 0
    assert shares[0] < 0.55 and shares[-1] > 0.9
    assert np.ptp(within) < 0.15


def test_a_rotated_copy_agrees_in_structure_only():
    x = sphere(200, 16, 0)
    got = values(x, x @ ortho_group.rvs(16, random_state=0))
    assert got["cka"] == pytest.approx(1) and got["mutual_knn"] == 1
    assert abs(got["pair_cosine"]) < 0.35


def test_a_common_rotation_changes_nothing_but_the_dimensions(pairs, table):
    rotation = ortho_group.rvs(24, random_state=1)
    turned = [side @ rotation for side in pairs]
    again = gap.measure(*turned, paired=True, k=10)
    for name, row in table.items():
        if name != "separability" and not name.startswith("hub_never"):
            assert again[name].value == pytest.approx(row.value, abs=1e-7), name
    assert again["separability"].value == pytest.approx(table["separability"].value, abs=0.01)
    shares = [gap.offset_direction(*sides)["dimension_share"][1] for sides in (pairs, turned)]
    assert shares[0] > 0.8 > shares[1] + 0.2


def test_mismatched_pairs_change_only_what_knows_of_pairs(pairs, table):
    x, y = pairs
    mixed = gap.measure(x, y[np.random.default_rng(0).permutation(len(y))], resamples=4)
    for name in ("gap_raw", "uniformity_x", "uniformity_y", "frechet", "neighbour_share"):
        assert mixed[name].value == pytest.approx(table[name].value, abs=1e-9), name
    for name in ("gap", "mmd2"):  # which pairs are left out differs
        assert mixed[name].value == pytest.approx(table[name].value, abs=0.01), name
    assert mixed["alignment"].value > table["alignment"].value + 0.3
    assert mixed["rmg"].value > table["rmg"].value + 0.1
    for name in ("cka", "mutual_knn"):
        assert abs(mixed[name].value) < 0.1 < 0.25 < table[name].value


# Nulls


def test_uniform_vectors_are_at_their_nulls():
    dim, n = 256, 400
    got = gap.measure(sphere(n, dim, 0), sphere(n, dim, 1))
    assert got["gap_raw"].value == pytest.approx((2 / n) ** 0.5, rel=0.1)
    assert got["rmg"].value == pytest.approx(0.5, abs=0.01)
    for name in ("gap_raw", "uniformity_x", "uniformity_y", "participation_x", "rmg", "alignment",
                 "frechet"):  # fmt: skip
        assert got[name].value == pytest.approx(got[name].null, rel=0.1), name
    assert got["participation_x"].value == pytest.approx(got["participation_x"].sphere, rel=0.02)
    for name in ("gap_squared", "mmd2", "cka", "mutual_knn", "pair_excess"):
        low, high = got[name].interval
        assert low <= got[name].null + 1e-3 and got[name].null - 1e-3 <= high, name
        assert abs(got[name].value) < 0.03, name
    assert got["neighbour_share"].value == pytest.approx((n - 1) / (2 * n - 1), abs=0.03)
    assert got["separability"].value == pytest.approx(0.5, abs=0.08)
    assert got["mutual_knn_raw"].null == pytest.approx(10 / (n - 1), abs=0.01)
    skew = got["hub_skew"]
    assert skew.null == pytest.approx(skew.sphere, abs=0.1), "exchanged, they are on the sphere"
    assert skew.value == pytest.approx(skew.sphere, abs=0.3)


def test_the_sphere_has_the_values_of_the_survey():
    for dim, expected in ((512, -3.9844), (1536, -3.9948), (3584, -3.9978)):
        assert distribution.sphere_uniformity(dim) == pytest.approx(expected, abs=5e-5)
    x = sphere(2000, 32, 0)
    assert pairwise.uniformity(x @ x.T) == pytest.approx(
        distribution.sphere_uniformity(32), abs=0.01
    )
    assert distribution.sphere_participation(500, 1536) == pytest.approx(376, abs=1)


def test_noise_is_separable_only_where_it_was_fitted():
    x, y = sphere(64, 400, 0), sphere(64, 400, 1)
    direction, level = distribution._logistic(x, y)
    fitted = np.concatenate([x @ direction < level, y @ direction > level]).mean()
    held_out = distribution.held_out_hits(x, y, paired=True, folds=5, seed=0).mean()
    assert fitted > 0.95 and held_out < 0.65


def test_pairs_are_held_out_together():
    x = sphere(100, 200, 0)
    y = unit(x + 0.05 * sphere(100, 200, 1))
    assert distribution.held_out_hits(x, y, paired=True, folds=5, seed=0).mean() < 0.62
    x[:, 0], y[:, 0] = 0.5, -0.5
    assert distribution.held_out_hits(x, y, paired=True, folds=5, seed=0).mean() == 1


# Ground truth


KNOWN = gap.SyntheticGap(
    {"text": (0.5, 0.1, 0.0), "image": (0.3, -0.3, 0.1)},
    spectrum=((10, 0.6), (24, 0.4)),
    signal=0.7,
)


def test_the_generator_makes_what_it_says():
    drawn = KNOWN.draw(2000, 0)
    x, y = drawn["text"], drawn["image"]
    assert np.abs(np.linalg.norm(x, axis=1) - 1).max() < 1e-12
    truth = KNOWN.truth("text", "image")
    m = Moments.of_vectors(x, y, paired=True)
    assert moments.debiased_gap_squared(m) == pytest.approx(truth["gap_squared"], abs=0.01)
    assert moments.debiased_cka(m) == pytest.approx(0.49, abs=0.02)
    assert pairwise.uniformity(x @ x.T) == pytest.approx(truth["uniformity_x"], abs=0.02)
    got = pairwise.mmd_squared(x @ x.T, y @ y.T, x @ y.T, 1.2, paired=True)
    assert got == pytest.approx(KNOWN.mmd_squared("text", "image", 1.2), abs=0.005)
    ratio = moments.participation_ratio(m.square_x, m.self_x, m.rows_x)
    assert ratio == pytest.approx(KNOWN.participation("text"), rel=0.02)
    with pytest.raises(ValueError, match="norms below 1"):
        gap.SyntheticGap({"a": (1.0,), "b": (0.0,)})
    with pytest.raises(ValueError, match="adding up to 1"):
        gap.SyntheticGap({"a": (0.1,)}, spectrum=((4, 0.5),))
    with pytest.raises(ValueError, match="signal"):
        gap.SyntheticGap({"a": (0.1,)}, signal=2)


SEEDS = 200


@pytest.mark.slow
def test_intervals_hold_the_truth():
    """On 200 samples; values that depend on n are held against their mean over the samples."""
    tables = []
    for seed in range(SEEDS):
        drawn = KNOWN.draw(100, seed)
        tables.append(gap.measure(drawn["text"], drawn["image"], k=5, seed=seed))
    truth = KNOWN.truth("text", "image")
    coverage = {}
    for name in tables[0]:
        mean = np.mean([table[name].value for table in tables])
        right = truth.get(name, mean)
        held = [t[name].interval[0] <= right <= t[name].interval[1] for t in tables]
        coverage[name] = np.mean(held)
    assert min(coverage.values()) >= 0.95, coverage
    for name in truth:  # and the intervals are no wider than the spread asks for
        width = np.mean([np.ptp(table[name].interval) for table in tables])
        spread = np.std([table[name].value for table in tables])
        assert width < 12 * spread, name  # twice as wide as need be where first-order terms vanish


def test_the_prompt_is_told_from_the_modality():
    offsets = {"text": (0, 0), "as image": (0.3, 0), "image": (0.3, 0.4)}
    drawn = gap.SyntheticGap(offsets, signal=0.8).draw(400, 0)
    got = gap.prompt_offset(drawn["text"], drawn["as image"], drawn["image"])
    assert got["prompt"] == pytest.approx(0.3, abs=0.02)
    assert got["without"] == pytest.approx(0.4, abs=0.02)
    assert got["total"] == pytest.approx(0.5, abs=0.02)
    assert got["prompt_share"] == pytest.approx(9 / 25, abs=0.04)
    assert abs(got["cosine"]) < 0.1, "put in at right angles"
    again = [np.concatenate([side, side[:3]]) for side in drawn.values()]
    with pytest.warns(UserWarning, match="3 of 403 rows of text_as_other"):
        assert gap.prompt_offset(*again) == got, "repeats leave all three together"
    alone = gap.prompt_offset(drawn["text"], drawn["as image"], drawn["image"][:300], paired=False)
    assert alone["total"] == pytest.approx(0.5, abs=0.03)


def test_the_offset_direction_is_found():
    drawn = gap.SyntheticGap({"a": (0.7,), "b": (-0.7,)}, spectrum=((40, 1.0),)).draw(400, 0)
    got = gap.offset_direction(drawn["a"], drawn["b"])
    assert got["pc1_cosine"] > 0.999
    assert got["variance_share"] == pytest.approx(0.49, abs=0.02)
    assert got["dimension_share"][-1] == pytest.approx(1)
    assert np.diff(got["dimension_share"]).min() >= 0


def test_mamcl_is_blind_to_an_offset_of_each_modality():
    """No force of the masked loss moves one modality's targets as a whole."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        query, target = torch.randn(2, 24, 8, generator=generator, dtype=torch.float64)
        modality = torch.randint(0, 3, (24,), generator=generator)
        moved = target + torch.randn(3, 8, generator=generator, dtype=torch.float64)[modality]
        masked = [float(mamcl(query, side, modality, 0.5)) for side in (target, moved)]
        plain = [float(info_nce(query, side, 0.5)) for side in (target, moved)]
        assert masked[0] == pytest.approx(masked[1], abs=1e-9)
        assert abs(plain[0] - plain[1]) > 1e-3
        gradient = torch.autograd.functional.jacobian(
            lambda shift, q=query, t=target, m=modality: mamcl(q, t + shift[m], m, 0.5),
            torch.zeros(3, 8, dtype=torch.float64),
        )
        assert gradient.abs().max() < 1e-9, "so it has no gradient towards closing the gap"


# Guards


def test_what_cannot_be_measured_is_refused_with_a_reason():
    x, y = sphere(80, 8, 0), sphere(80, 8, 1)
    bad = x.copy()
    bad[7, 2] = np.nan
    zero = x.copy()
    zero[3] = 0
    for arguments, reason in (
        ((bad, y), "x row 7 is not finite"),
        ((x, zero), "y row 3 is zero"),
        ((x[:40], y[:40]), "x has 40 different vectors: below 50"),
        ((x, np.tile(y[:1], (80, 1))), "all 80 vectors of y are the same"),
        ((x, unit(y[:, :6])), "x has 8 dimensions and y 6"),
        ((x, y[:70]), "x 80 rows and y 70 rows are no pairs"),
        ((x[0], y), r"x must be \[N, D\], not \[8\]"),
    ):
        with pytest.raises(ValueError, match=reason):
            gap.measure(*arguments)
    with pytest.raises(ValueError, match="k = 60 neighbours need halves"):
        gap.measure(x, y, k=60)
    with pytest.raises(ValueError, match="level 1 in"):
        gap.measure(x, y, level=1)


def test_norms_are_mended_before_any_mean_with_a_warning():
    x, y = sphere(80, 8, 0), sphere(80, 8, 1)
    scaled = y * np.linspace(1, 3, 80)[:, None]
    with pytest.warns(UserWarning, match="y: 79 of 80 rows have a norm other than 1"):
        got = gap.measure(x, scaled, resamples=2)
    assert got["gap_raw"].value == pytest.approx(values(x, y)["gap_raw"])
    rounded = values(x.astype(np.float16), y)["gap_raw"]  # no warning: that is rounding
    assert rounded == pytest.approx(values(x, y)["gap_raw"], abs=1e-3)


def test_repeats_leave_with_their_pairs():
    x, y = sphere(80, 8, 0), sphere(80, 8, 1)
    again_x, again_y = np.concatenate([x, x[:5]]), np.concatenate([y, sphere(5, 8, 2)])
    with pytest.warns(UserWarning, match="5 of 85 rows of x, 5 of 85 rows of y"):
        got = gap.measure(again_x, again_y, resamples=2)
    assert got["gap"].n == 80
    with pytest.warns(UserWarning, match="5 of 85 rows of x, 0 of 85 rows of y"):
        assert gap.measure(again_x, again_y, paired=False, resamples=2)["gap"].n == 80


def test_a_large_collection_is_measured_in_parts(pairs):
    x, y = shifted(600, 16, 0.5)
    small = gap.measure(x, y, pairwise=150, resamples=10)
    whole = gap.measure(x, y, resamples=2)
    assert small["gap"].n == 600 and small["mmd2"].n == 150
    for name in ("gap", "rmg", "cka", "frechet", "participation_x", "separability"):
        assert small[name].value == whole[name].value, name
    low, high = small["mmd2"].interval
    assert low < whole["mmd2"].value < high
    part = gap.measure(x[:150], y[:150], resamples=10)
    for name in ("gap", "cka", "rmg"):
        assert np.ptp(small[name].interval) < 0.8 * np.ptp(part[name].interval), name


def test_float32_gives_the_same_table(monkeypatch):
    x, y = shifted(300, 16, 0.5)
    wide = gap.measure(x, y, resamples=3)
    monkeypatch.setattr("unite_core.gap.vectors._WIDE", 100)
    narrow = gap.measure(x, y, resamples=3)
    for name in set(wide) - {"separability"}:
        assert narrow[name].value == pytest.approx(wide[name].value, abs=1e-4, rel=1e-4), name
    assert narrow["separability"].value == pytest.approx(wide["separability"].value, abs=0.05)


def test_vectors_come_from_files(tmp_path):
    from safetensors.numpy import save_file

    x, y = sphere(6, 4, 0).astype(np.float32), sphere(5, 4, 1).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert (gap.load_vectors(tmp_path / "x.npy") == x).all()
    save_file({"x": x, "y": y}, tmp_path / "both.safetensors")
    assert (gap.load_vectors(tmp_path / "both.safetensors", "y") == y).all()
    with pytest.raises(ValueError, match="holds x, y: name one of them as column"):
        gap.load_vectors(tmp_path / "both.safetensors")
    with pytest.raises(ValueError, match="no vectors 'z'; it has x, y"):
        gap.load_vectors(tmp_path / "both.safetensors", "z")
    with pytest.raises(ValueError, match=r"\.npy, \.safetensors, \.parquet, not '\.csv'"):
        gap.load_vectors(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="no such file"):
        gap.load_vectors(tmp_path / "none.npy")
    np.save(tmp_path / "ids.npy", np.arange(4))
    with pytest.raises(ValueError, match=r"floats \[N, D\], not int64 \[4\]"):
        gap.load_vectors(tmp_path / "ids.npy")


def test_vectors_come_from_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    x = sphere(6, 4, 0).astype(np.float32)
    lists = pa.table({"id": ["a"] * 6, "vector": x.tolist()})
    pq.write_table(lists, tmp_path / "lists.parquet")
    assert gap.load_vectors(tmp_path / "lists.parquet") == pytest.approx(x)
    pq.write_table(pa.table({f"d{i}": x[:, i] for i in range(4)}), tmp_path / "columns.parquet")
    assert (gap.load_vectors(tmp_path / "columns.parquet") == x).all()


def test_the_table_is_printed_with_all_its_columns(table):
    text = gap.format_table(table, ["gap", "cka"])
    head, _, first, second = text.splitlines()
    assert head.split() == ["measure", "value", "interval", "null", "sphere", "n", "families"]
    assert first.startswith("gap") and second.startswith("cka") and first.endswith("160       160")


def test_it_is_usable_alone():
    code = (
        "import sys, unite_core.gap, unite_core.gap.corrections, unite_core.gap.mixed_pool;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "faiss", "matplotlib"} & set(done.stdout.split())


# Published embeddings, where they are at hand

CLIP = {  # stored CLIP vectors of Liang et al. 2022, 500 pairs, D = 512
    "gap": 0.8502, "gap_raw": 0.8506, "rmg": 0.591, "offset_share": 0.524, "alignment": 1.380,
    "uniformity_x": -1.79, "uniformity_y": -1.84, "neighbour_share": 1.0, "separability": 1.0,
    "frechet": 1.105, "mmd2": 0.417, "cka": 0.605, "mutual_knn_raw": 0.249, "hub_skew": 1.65,
    "hub_skew_back": 2.36, "pair_excess": 0.148, "participation_x": 42.7,
}  # fmt: skip


@pytest.mark.skipif(
    "UNITE_CLIP_VECTORS" not in os.environ,
    reason='UNITE_CLIP_VECTORS="image: FILE, text: FILE" names the stored vectors',
)
def test_stored_clip_vectors_have_their_known_values():
    vectors = given_vectors(os.environ["UNITE_CLIP_VECTORS"])
    rows = gap.measure(vectors["image"], vectors["text"], k=10)
    for name, known in CLIP.items():
        digits = len(str(known).partition(".")[2])
        assert rows[name].value == pytest.approx(known, abs=0.75 * 10**-digits), name
