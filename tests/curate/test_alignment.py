"""Mismatched pairs are told from matching ones, within each pair type; the map is cross-fitted."""

import numpy as np
import pytest

from unite_core.curate.alignment import align, cross_fitted
from unite_core.curate.config import AlignConfig


def paired_vectors(rng, count=600, size=24, swapped=40, noise=0.6, shift=0.0):
    query = rng.standard_normal((count, size)) + shift
    candidate = query + noise * rng.standard_normal((count, size))
    bad = rng.choice(count, swapped, replace=False)
    candidate[bad] = candidate[np.roll(bad, 1)]
    mask = np.zeros(count, bool)
    mask[bad] = True
    return query, candidate, mask


def test_mismatched_pairs_are_found_with_few_others():
    query, candidate, bad = paired_vectors(np.random.default_rng(0))
    found = align(query, candidate, ["a"] * len(query))
    dropped = ~found.kept
    assert (dropped & bad).sum() / bad.sum() > 0.95
    assert (dropped & bad).sum() / dropped.sum() > 0.95
    assert found.types[0].mismatched_share == pytest.approx(bad.mean(), rel=0.4)


def test_clean_pairs_lose_next_to_nothing():
    query, candidate, _ = paired_vectors(np.random.default_rng(1), swapped=0)
    assert (~align(query, candidate, ["a"] * len(query)).kept).mean() < 0.01


def test_a_blind_embedder_drops_nothing():
    rng = np.random.default_rng(2)
    query, candidate = rng.standard_normal((2, 500, 16))
    found = align(query, candidate, ["a"] * 500)
    assert found.kept.all() and found.types[0].mismatched_share > 0.5
    assert found.types[0].threshold == -np.inf


def test_pair_types_are_scored_apart_whatever_their_gap():
    rng = np.random.default_rng(3)
    near, far = paired_vectors(rng), paired_vectors(rng, shift=1.5)
    query, candidate = (np.concatenate([near[k], far[k]]) for k in (0, 1))
    types = ["text > text"] * 600 + ["text > image"] * 600
    both = align(query, candidate, types)
    alone = align(*near[:2], types[:600])
    assert (both.kept[:600] == alone.kept).all()
    cut = {report.pair_type: report.threshold for report in both.types}
    assert cut["text > image"] > cut["text > text"] + 0.1, "one threshold for all would be wrong"


def test_stated_thresholds_win_and_unknown_types_are_refused():
    query, candidate, _ = paired_vectors(np.random.default_rng(0))
    found = align(query, candidate, ["a"] * 600, AlignConfig(thresholds={"a": 0.5}))
    assert (found.kept == (found.similarity >= 0.5)).all() and found.types[0].threshold == 0.5
    with pytest.raises(ValueError, match="thresholds of b"):
        align(query, candidate, ["a"] * 600, AlignConfig(thresholds={"b": 0.5}))


def test_mutual_rank_spares_pairs_that_are_beaten_in_one_direction_only():
    query = np.eye(4, 6)
    candidate = query.copy()
    hub = query.sum(0) * 0.6
    candidate[3] = hub  # fits everyone, its own query included
    found = align(query, candidate, ["a"] * 4, AlignConfig(cost=0, most_rank=0.1))
    assert found.kept.all() and found.rank.max() == 0
    candidate[[0, 1]] = candidate[[1, 0]]
    swapped = align(query, candidate, ["a"] * 4, AlignConfig(cost=0, most_rank=0.1))
    assert (~swapped.kept).tolist() == [True, True, False, False]
    assert swapped.band[:2].tolist() == [2, 2] and swapped.band[2] == 0


def test_equal_contents_are_no_mismatches():
    query = np.repeat(np.random.default_rng(0).standard_normal((50, 8)), 4, axis=0)
    groups = np.repeat(np.arange(50), 4)
    known = align(query, query, ["a"] * 200, contents=(groups, groups))
    assert known.types[0].null.max() < 1 - 1e-6
    assert align(query, query, ["a"] * 200).types[0].null.max() > 1 - 1e-6


def test_alignment_is_the_same_twice_and_scales_do_not_matter():
    query, candidate, _ = paired_vectors(np.random.default_rng(0))
    first = align(query, candidate, ["a"] * 600, AlignConfig(pool=100))
    again = align(3 * query, 7 * candidate, ["a"] * 600, AlignConfig(pool=100))
    assert (first.kept == again.kept).all() and np.allclose(first.rank, again.rank)


@pytest.mark.parametrize(
    ("query", "types", "message"),
    [
        (np.zeros((3, 2)), ["a"] * 2, "do not match"),
        (np.full((3, 2), np.nan), ["a"] * 3, "finite"),
        (np.zeros(3), ["a"] * 3, "finite"),
    ],
)
def test_wrong_vectors_are_refused(query, types, message):
    with pytest.raises(ValueError, match=message):
        align(query, np.zeros((3, 2)), types)


def test_the_cross_fitted_map_is_blind_to_a_pair_s_own_fold():
    rng = np.random.default_rng(0)
    source = rng.standard_normal((300, 10))
    target = source @ rng.standard_normal((10, 6))
    groups = np.arange(300) // 2
    before, _ = cross_fitted(source, target, groups)
    swapped = target.copy()
    swapped[:2] = 100.0  # one whole group: it must not teach its own prediction
    after, _ = cross_fitted(source, swapped, groups)
    cosine = (before[:2] * after[:2]).sum(1) / np.linalg.norm(before[:2], axis=1)
    cosine /= np.linalg.norm(after[:2], axis=1)
    assert cosine.min() > 0.5, "a prediction follows the other pairs"
    with pytest.raises(ValueError, match="too few"):
        cross_fitted(source, target, np.zeros(300))


def test_the_map_is_the_same_in_either_space():
    from unite_core.curate.alignment import _ridge

    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((40, 40)), rng.standard_normal((40, 3))
    direct = _ridge(source, target, 0.1)
    wide = _ridge(np.concatenate([source, np.zeros((40, 1))], 1), target, 0.1 * 41 / 40)
    assert np.allclose(wide[:-1], direct) and np.allclose(wide[-1], 0)
