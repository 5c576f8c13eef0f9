"""Verdicts follow the written rules, whatever part of a study has been run."""

import numpy as np
import pytest
from scipy import stats

from unite_core.evaluation.significance import holm
from unite_core.study.arms import STUDIES
from unite_core.study.statistics import blind_deviation
from unite_core.study.verdicts import (
    CONFIRMED,
    CONTRADICTED,
    NOT_CONFIRMED,
    NOT_RUN,
    PLANS,
    SUPPORTED,
    UNDECIDED,
    Cell,
    blind_deviation_of,
    choose_winner,
    confirmation_of,
    endpoint_column,
    mask_conclusions,
    verdicts,
)

MASK, DATA = PLANS["mask"], PLANS["data"]
ARMS = ("info_nce", "mamcl", "random_mask", "router")
LUCK = np.random.default_rng(3).normal(0, 0.004, (6, 4, 4))
LUCK -= LUCK.mean(0)  # six blocks show the very effect


def study(effects, blocks=6, split="concept", score="cosine"):
    """Rows in which arms differ by {(arm, endpoint): effect}, with little luck."""
    rows = []
    for block in range(blocks):
        for number, arm in enumerate(ARMS):
            row = {"arm": arm, "block": block}
            for place, endpoint in enumerate(("P1a", "P1b", "P2", "P3")):
                value = 0.4 + effects.get((arm, endpoint), 0) + LUCK[block, number, place]
                row[endpoint_column(split, endpoint)] = value
                row[endpoint_column(split, endpoint, score)] = value
            rows.append(row)
    return rows


def by_number(results):
    return {row["test"].split()[0]: row for row in results}


def test_the_plans_are_those_of_the_page():
    assert [t.contrast for t in MASK.tests] == [
        "mamcl − info_nce", "mamcl − info_nce", "mamcl − info_nce", "mamcl − random_mask",
        "winner − info_nce", "winner − mamcl",
    ]  # fmt: skip
    assert [t.endpoint for t in MASK.tests] == ["P1a", "P1b", "P3", "P1b", "P3", "P1b"]
    assert [(t.kind, t.margin) for t in MASK.tests] == [("two-sided", 0)] * 5 + [
        ("non-inferior", 0.03)
    ]
    assert [(t.endpoint, t.kind, t.margin) for t in MASK.beside] == [("P2", "equivalent", 0.03)]
    assert [t.contrast for t in DATA.tests] == ["TV − TV_frame", "TV − TI", "clean_30 − noise_30"]
    assert (MASK.blocks, DATA.blocks) == (6, 5)
    assert PLANS["confirmation"].tests == MASK.tests[4:]
    sizes = {name: STUDIES[name].sizes["small"] for name in ("mask", "confirmation")}
    assert set(sizes["mask"].seeds).isdisjoint(sizes["confirmation"].seeds)
    assert sizes["confirmation"].steps_2 == 950 and sizes["confirmation"].blocks == 2
    known = {arm.name for arm in STUDIES["mask"].arms} | {"winner"}
    assert {t.first for t in MASK.tests} | {t.second for t in MASK.tests} <= known


def test_supported_contradicted_undecided():
    effects = {("mamcl", "P1a"): 0.1, ("mamcl", "P1b"): -0.1, ("router", "P3"): 0.1,
               ("router", "P1b"): -0.11}  # fmt: skip
    found = by_number(verdicts(study(effects), MASK, Cell("router")))
    assert found["1"]["verdict"] == SUPPORTED and found["2"]["verdict"] == CONTRADICTED
    assert found["3"]["verdict"] == UNDECIDED and found["4"]["verdict"] == CONTRADICTED
    assert found["5"]["verdict"] == SUPPORTED
    assert found["6"]["verdict"] == SUPPORTED, "1 point worse than MAMCL"
    assert found["mask,"]["verdict"] == SUPPORTED and found["mask,"]["p_holm"] is None
    assert found["1"]["effect"] == pytest.approx(0.1, abs=0.01)
    assert found["1"]["low"] < 0.1 < found["1"]["high"]
    assert found["5"]["contrast"] == "router (cosine) − info_nce"


def test_worse_by_more_than_the_margin_is_contradicted_and_near_it_is_undecided():
    results = {}
    for worse in (0.06, 0.03):
        effects = {("router", "P1b"): -worse, ("mamcl", "P2"): worse}
        results[worse] = by_number(verdicts(study(effects), MASK, Cell("router")))
    assert results[0.06]["6"]["verdict"] == results[0.06]["mask,"]["verdict"] == CONTRADICTED
    assert results[0.03]["6"]["verdict"] == results[0.03]["mask,"]["verdict"] == UNDECIDED


def test_correction_is_over_all_tests_of_the_plan_run_or_not():
    rows = study({("mamcl", "P1a"): 0.005})
    without = verdicts(rows, MASK)
    assert [row["verdict"] for row in without[4:6]] == ["not run"] * 2
    p = [row["p"] for row in without[:4]]
    assert [row["p_holm"] for row in without[:4]] == pytest.approx(holm([*p, 1, 1])[:4])
    assert without[0]["p_holm"] > without[0]["p"]


def test_a_score_that_keeps_the_order_of_one_modality_is_equal_there():
    rows = study({}, score="probe")
    found = by_number(verdicts(rows, MASK, Cell("mamcl", "probe")))
    assert found["6"]["effect"] == 0 and found["6"]["verdict"] == SUPPORTED
    assert endpoint_column("concept", "P1b", "centred") != endpoint_column("concept", "P1b")


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_part_of_a_study_says_how_much_of_it_there_is(blocks):
    first = verdicts(study({("mamcl", "P1a"): 0.1}, blocks), MASK)[0]
    assert (first["blocks"], first["planned"]) == (blocks, 6)
    assert first["effect"] == pytest.approx(0.1, abs=0.01)
    if blocks == 1:
        assert np.isnan([first["low"], first["p"], first["detectable"]]).all()
        assert first["verdict"] == "no test of one independent block"


def test_the_interval_over_families_needs_ten():
    def queries(first, second, endpoint, split, blocks):
        n = {"P1a": 40, "P1b": 6}.get(endpoint, 20)
        drawn = np.random.default_rng(0).integers(-1, 2, (len(blocks), n))
        return {endpoint: drawn}, {endpoint: [str(i) for i in range(n)], "other": ["x"]}

    found = verdicts(study({}), MASK, queries=queries)
    assert (found[0]["families"], found[0]["effective_families"]) == (40, pytest.approx(40))
    assert found[0]["wide_low"] < found[0]["effect"] < found[0]["wide_high"]
    few, enough = (verdicts(study({}, n), MASK, queries=queries)[0]["wide_low"] for n in (4, 5))
    assert np.isnan(few) and not np.isnan(enough)
    assert found[1]["families"] == 6 and np.isnan(found[1]["wide_low"])
    assert "families" not in found[4], "not run"


def test_the_winner_is_the_best_in_one_index_among_those_that_keep_stage_1():
    effects = {("info_nce", "P3"): 0.2, ("info_nce", "P1b"): -0.1, ("router", "P3"): 0.1,
               ("router", "P1b"): -0.02}  # fmt: skip
    rows = study(effects, split="development")
    cells = [Cell(arm) for arm in ARMS]
    assert choose_winner(rows, cells) == Cell("router")
    assert choose_winner(rows, cells, margin=0.2) == Cell("info_nce")
    late = [row for row in rows if row["arm"] != "router" or row["block"] == 5]
    assert choose_winner(late, cells) == Cell("router")
    with pytest.raises(ValueError, match="no block has all of info_nce, mamcl, random"):
        choose_winner([row for row in rows if row["arm"] != "router"], cells)
    with pytest.raises(ValueError, match="keeps P1b"):
        choose_winner(rows, [Cell("info_nce")])


def test_the_blind_deviation_pools_the_tests_with_fixed_arms():
    rows = study({("mamcl", "P1a"): 0.3}, blocks=2)
    pooled = blind_deviation([np.array(r["differences"]) for r in verdicts(rows, MASK)[:4]])
    assert blind_deviation_of(rows, MASK) == pytest.approx(pooled)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [(0.02, [SUPPORTED, SUPPORTED]), (0.09, [SUPPORTED, CONTRADICTED]),
     (-0.1, [CONTRADICTED, SUPPORTED])],
)  # fmt: skip
def test_the_sentences_follow_from_the_verdicts(asked, expected):
    effects = {("mamcl", "P1a"): 0.1, ("mamcl", "P1b"): asked}
    results = verdicts(study(effects), MASK)
    found = mask_conclusions(results)
    assert [row["claim"] for row in found] == [
        "the mask keeps stage 1", "it was the prompt", "best of both"]  # fmt: skip
    assert [row["verdict"] for row in found[:2]] == expected
    bare, asked = (np.array(results[number]["differences"]) for number in (0, 1))
    again = stats.ttest_1samp(asked - bare / 2, 0).confidence_interval()
    assert found[1]["because"].endswith(f"[{100 * again.low:+.1f}, {100 * again.high:+.1f}]")
    assert found[2]["verdict"] == UNDECIDED


def test_a_winner_is_confirmed_if_every_block_of_its_own_runs_agrees():
    def confirmed(blocks=2, **of_block_1):
        rows = study({("router", "P3"): 0.1, ("router", "P1b"): -0.02}, blocks)
        for row in rows:
            if row["arm"] == "router" and row["block"] == 1:
                row.update({f"concept/{name}/cosine": value for name, value in of_block_1.items()})
        return confirmation_of(verdicts(rows, PLANS["confirmation"], Cell("router")))

    assert confirmed() == CONFIRMED
    assert confirmed(P3=0.0) == NOT_CONFIRMED
    assert confirmed(P1b=0.0) == NOT_CONFIRMED
    assert confirmed(blocks=1) == NOT_RUN
    assert confirmation_of(verdicts([], PLANS["confirmation"])) == NOT_RUN


@pytest.mark.parametrize(
    ("said", "expected"),
    [(CONFIRMED, SUPPORTED), (NOT_CONFIRMED, UNDECIDED), (NOT_RUN, UNDECIDED)],
)
def test_the_best_of_both_needs_its_confirmation(said, expected):
    results = verdicts(study({("router", "P3"): 0.1}), MASK, Cell("router"))
    last = mask_conclusions(results, said)[2]
    assert (last["verdict"], last["because"]) == (
        expected, f"test 5 supported; test 6 supported; at full length {said}")  # fmt: skip


def test_without_a_clear_difference_there_is_none_to_explain():
    assert mask_conclusions(verdicts(study({}), MASK))[1]["verdict"] == UNDECIDED
