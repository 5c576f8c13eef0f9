"""Mixed pools against plain sorting, corrections against what they are for."""

import numpy as np
import pytest

from unite_core import gap
from unite_core.gap import corrections
from unite_core.gap.mixed_pool import (
    compare_corrections,
    mixed_pool,
    recall,
    replacement_curve,
)
from unite_core.gap.pairwise import neighbour_share

OFFSETS = {"text": (0.6, 0.0), "image": (-0.3, 0.5), "video": (-0.3, -0.4)}
KNOWN = gap.SyntheticGap(OFFSETS, spectrum=((30, 1.0),), signal=0.8)


@pytest.fixture(scope="module")
def drawn():
    return KNOWN.draw(150, 0)


def test_the_mixed_pool_is_a_plain_sort(drawn):
    pool = mixed_pool(drawn, k=7)
    rows = np.concatenate(list(drawn.values()))
    scores = rows @ rows.T
    np.fill_diagonal(scores, -np.inf)
    order = np.argsort(-scores, axis=1)
    best = order[:, :7] // 150
    for number, query in enumerate(pool.names):
        mine = best[150 * number : 150 * (number + 1)]
        shares = [np.mean(mine == other) for other in range(3)]
        assert pool.confusion[number] == pytest.approx(shares)
        assert pool.same_modality_share[query] == pytest.approx(shares[number])
    places = order.argsort(axis=1)
    thing = np.arange(150)
    assert (pool.ranks["text", "video"] == 1 + places[thing, 300 + thing]).all()
    alone = drawn["image"] @ drawn["text"].T
    expected = 1 + (alone > np.diag(alone)[:, None]).sum(1)
    assert (pool.single["image", "text"] == expected).all()
    assert pool.confusion.sum(1) == pytest.approx(1) and pool.by_chance.sum(1) == pytest.approx(1)


def test_two_modalities_give_the_neighbour_share_of_the_gap(drawn):
    x, y = drawn["text"], drawn["image"]
    pool = mixed_pool({"text": x, "image": y}, k=10)
    share = neighbour_share(x @ x.T, y @ y.T, x @ y.T, 10)
    assert np.mean(list(pool.same_modality_share.values())) == pytest.approx(share, abs=1e-12)


def test_shares_by_query_are_those_of_the_table(drawn):
    pool = mixed_pool(drawn)
    assert {name: each.mean() for name, each in pool.own_share.items()} == pytest.approx(
        pool.same_modality_share
    )
    assert recall(np.array([1, 2, 11]), 10) == pytest.approx(2 / 3)


def test_ties_share_their_ranks():
    x = np.eye(3)
    pool = mixed_pool({"a": x, "b": x}, k=1)
    assert (pool.ranks["a", "b"] == 1).all() and pool.same_modality_share["a"] == 0
    flat = mixed_pool({"a": np.ones((4, 2)), "b": np.ones((4, 2))}, k=2)
    assert (flat.ranks["a", "b"] == 4).all(), "the middle of 1 to 7"
    assert flat.confusion == pytest.approx(flat.by_chance)


def test_standardised_scores_forget_what_a_modality_has_in_common(drawn):
    scores, modality = np.random.default_rng(0).random((4, 12)), np.repeat([0, 1, 2], 4)
    scores[0, 0] = np.nan
    got = corrections.standardise_scores(scores, modality)
    again = corrections.standardise_scores(scores * 3 + 5.0 * modality, modality)
    assert np.nanmax(np.abs(got - again)) < 1e-12 and np.isnan(got[0, 0])
    assert (got[1:, :4].argsort(1) == scores[1:, :4].argsort(1)).all()
    plain, fair = mixed_pool(drawn), mixed_pool(drawn, standardise=True)
    assert recall(plain.ranks["text", "image"], 10) < 0.2 < 0.6
    assert recall(fair.ranks["text", "image"], 10) > 0.6
    assert (plain.single["text", "image"] == fair.single["text", "image"]).all()
    with pytest.raises(ValueError, match=r"modality \[N\]"):
        corrections.standardise_scores(scores, modality[:5])


def test_a_gap_makes_the_replacement_curve_a_u():
    signal = gap.SyntheticGap({"query": (0.6,), "same": (0.6,), "other": (-0.6,)},
                          spectrum=((30, 1.0),), signal=0.8).draw(150, 0)  # fmt: skip
    rows = replacement_curve(signal["query"], signal["other"], signal["same"], repeats=4)
    curve = [row["ndcg"] for row in rows]
    assert min(curve[1:-1]) < min(curve[0], curve[-1]) - 0.1
    assert rows[0]["low"] == rows[0]["high"] and np.isnan(rows[0]["replaced"])
    middle = rows[4]
    assert middle["replaced"] > middle["kept"] + 0.3, "the query's own modality comes first"
    none = gap.SyntheticGap({"a": (0.1,), "b": (0.1,), "c": (0.1,)}, signal=0.8).draw(150, 0)
    flat = [row["ndcg"] for row in replacement_curve(none["a"], none["b"], none["c"], repeats=4)]
    assert np.ptp(flat) < 0.1
    with pytest.raises(ValueError, match=r"all three must be \[N, D\]"):
        replacement_curve(none["a"], none["b"], none["c"][:9])


@pytest.mark.parametrize("kind", corrections.KINDS)
def test_corrections_do_what_they_say(drawn, kind):
    correction = corrections.fit(kind, {name: rows[:75] for name, rows in drawn.items()})
    moved = {name: correction(name, rows[75:]) for name, rows in drawn.items()}
    norms = np.linalg.norm(moved["text"], axis=1)
    means = {name: rows.mean(0) for name, rows in moved.items()}
    left = np.linalg.norm(means["text"] - means["image"])
    before = np.linalg.norm(drawn["text"][75:].mean(0) - drawn["image"][75:].mean(0))
    if kind != "subtract":
        assert norms == pytest.approx(1)
    if kind == "none":
        assert (moved["image"] == pytest.approx(drawn["image"][75:])) and left == before
    elif kind == "drop":
        assert (np.sort(np.abs(moved["text"]).max(0))[:2] == 0).all()
        assert left < before
    else:
        assert left < 0.45 * before
    with pytest.raises(ValueError, match="was fitted on text, image, video; not 'sound'"):
        correction("sound", drawn["text"])


def test_whitening_makes_the_spread_even_and_rotation_finds_the_turn(drawn):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 6)) * [5, 3, 2, 1, 1, 0.5]
    white = corrections.fit("whiten", {"x": x}, epsilon=1e-9)
    flat = (x - white.shift["x"]) @ white.map["x"]
    assert np.cov(flat.T) == pytest.approx(np.eye(6), abs=1e-6)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    rotated = corrections.fit("rotate", {"x": x, "y": x @ turn + 3})
    assert rotated("y", x @ turn + 3) == pytest.approx(rotated("x", x))
    assert rotated.map["y"] @ rotated.map["y"].T == pytest.approx(np.eye(6), abs=1e-12)
    standard = corrections.fit("standardise", {"x": x})
    assert ((x - standard.shift["x"]) * standard.map["x"]).std(0) == pytest.approx(1)


def test_a_correction_refuses_what_it_cannot_fit():
    x = np.eye(4)
    with pytest.raises(ValueError, match="kind must be one of none, shift"):
        corrections.fit("center", {"x": x})
    with pytest.raises(ValueError, match="x has 1 rows to fit on"):
        corrections.fit("centre", {"x": x[:1]})
    with pytest.raises(ValueError, match="rotate needs pairs"):
        corrections.fit("rotate", {"x": x, "y": x[:3]})
    with pytest.raises(ValueError, match="x row 0 has no length after centre"):
        corrections.fit("centre", {"x": x})("x", x.mean(0, keepdims=True))


def test_closing_the_gap_is_reported_beside_what_it_does_to_search(drawn):
    rows = compare_corrections(drawn["text"], drawn["image"], list(corrections.KINDS),
                               ("text", "image"))  # fmt: skip
    assert [row["kind"] for row in rows] == [*corrections.KINDS, "scores"]
    by = {row["kind"]: row for row in rows}
    assert by["centre"]["gap"] < 0.3 * by["none"]["gap"]
    assert by["none"]["same modality"] > 99 and by["centre"]["same modality"] < 60
    assert by["centre"]["mixed R@10"] > by["none"]["mixed R@10"] + 50
    assert abs(by["centre"]["R@1 text → image"] - by["none"]["R@1 text → image"]) < 10
    assert by["scores"]["gap"] is None and by["scores"]["mixed R@10"] > 60
    assert by["scores"]["R@1 image → text"] == by["none"]["R@1 image → text"]


def test_a_pool_refuses_what_is_not_aligned(drawn):
    with pytest.raises(ValueError, match="two or more modalities of the same things"):
        mixed_pool({"text": drawn["text"], "image": drawn["image"][:9]})
    with pytest.raises(ValueError, match="k must be at least 1 and below the 150"):
        mixed_pool(drawn, k=150)
    bad = drawn["text"].copy()
    bad[0, 0] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        mixed_pool({"text": bad, "image": drawn["image"]})
