"""Simulated studies have the effects they claim, and the statistics keep their promises on them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from unite_core.evaluation.families import joint_effective_families
from unite_core.study.endpoints import endpoint_tasks_of
from unite_core.study.rows import read_table
from unite_core.study.simulation import (
    STUDY_FAMILIES,
    Noise,
    coverage,
    family_wise_errors,
    interval_coverage,
    re_estimated_rejections,
    rejections,
    simulate,
    winner_rejections,
)
from unite_core.study.statistics import power
from unite_core.study.verdicts import PLANS

STORED = Path(__file__).parents[2] / "figures" / "study"
LUCK = Noise(block=0.003, family_by_arm=0.05)


@pytest.mark.parametrize("endpoint", STUDY_FAMILIES)
def test_families_are_those_of_the_stored_study(endpoint):
    name = {"P1": "P1b"}.get(endpoint, endpoint)
    study, split = ("data", PLANS["data"].split) if name == "plain" else ("mask", "concept")
    stored = endpoint_tasks_of(read_table(STORED / study), name, split)
    sizes = {task.removesuffix(", asked"): dict(Counter(Counter(labels).values()))
             for task, labels in stored.items()}  # fmt: skip
    assert sizes == STUDY_FAMILIES[endpoint]
    drawn = simulate(LUCK, replicates=1, endpoint=endpoint).families
    simulated = joint_effective_families({task: of.tolist() for task, of in drawn.items()})
    assert simulated == pytest.approx(joint_effective_families(stored), rel=0.05)


@pytest.mark.parametrize("endpoint", STUDY_FAMILIES)
def test_studies_have_the_families_and_the_effect_they_are_given(endpoint):
    studies = simulate(LUCK, 0.05, blocks=4, replicates=400, endpoint=endpoint)
    for name, sizes in STUDY_FAMILIES[endpoint].items():
        assert studies.differences[name].shape == (400, 4, sum(n * k for n, k in sizes.items()))
        assert len(set(studies.families[name].tolist())) == sum(sizes.values())
    by_block = studies.by_block()
    for values in (by_block.mean(1), studies.expected.astype(float)):  # 400 of each
        assert values.mean() == pytest.approx(0.05, abs=3 * values.std() / 20)
    again = simulate(LUCK, 0.05, blocks=4, replicates=400, endpoint=endpoint)
    np.testing.assert_array_equal(by_block, again.by_block())


def test_without_arms_that_suit_families_the_effect_is_that_on_the_very_queries():
    np.testing.assert_allclose(simulate(Noise(), replicates=3).expected, 0, atol=1e-7)
    assert np.ptp(simulate(LUCK, replicates=3).expected) > 0


def test_stage_1_moves_the_blocks_that_share_it_together():
    studies = simulate(Noise(stage_1=0.05), seeds=3, replicates=200)
    by_block = studies.by_block()
    assert studies.seeds.tolist() == [0, 1, 2, 0, 1, 2]
    assert np.corrcoef(by_block[:, 0], by_block[:, 3])[0, 1] > 0.5
    assert abs(np.corrcoef(by_block[:, 0], by_block[:, 1])[0, 1]) < 0.2


@pytest.mark.parametrize(("blocks", "endpoint"), [(3, "P1"), (6, "P1"), (6, "P3"), (5, "plain")])
def test_false_positives_and_coverage_keep_their_bounds(blocks, endpoint):
    studies = simulate(Noise(block=0.003), blocks=blocks, replicates=3000, endpoint=endpoint)
    assert rejections(studies.by_block()) <= 0.06
    found = interval_coverage(studies, 0.0, 200)
    assert min(found["t"], found["resampled"]) >= 0.93


@pytest.mark.parametrize("endpoint", STUDY_FAMILIES)
def test_intervals_cover_effects_that_differ_by_family(endpoint):
    studies = simulate(LUCK, 0.03, replicates=3000, endpoint=endpoint)
    found = interval_coverage(studies, 0.03, 200)
    assert min(found["t"], found["resampled"]) >= 0.93


def test_blocks_of_a_shared_stage_1_are_sound_as_means_and_unsound_alone():
    studies = simulate(Noise(block=0.002, stage_1=0.006), seeds=3, replicates=1500)
    by_block = studies.by_block()
    assert rejections(by_block, studies.seeds) <= 0.06 < 0.08 < rejections(by_block)
    assert interval_coverage(studies, 0.0, 200)["resampled"] >= 0.91  # three units: no study


def test_percentiles_of_few_blocks_cover_too_little():
    found = interval_coverage(simulate(Noise(block=0.03), blocks=3, replicates=400), 0.0, 200)
    assert found["percentiles"] < 0.9 < 0.92 < found["resampled"]


def test_power_is_that_of_the_noncentral_t():
    by_block = simulate(Noise(), 0.03, replicates=1000).by_block()
    expected = power(0.03, 6, by_block.var(-1, ddof=1).mean() ** 0.5)
    assert rejections(by_block) == pytest.approx(expected, abs=0.04)


def test_tests_with_a_margin_err_rarely_at_the_margin():
    by_block = simulate(Noise(), -0.03, replicates=1000).by_block()
    assert rejections(by_block, kind="non-inferior", margin=0.03) <= 0.06
    assert rejections(by_block, kind="equivalent", margin=0.03) <= 0.06
    assert rejections(by_block + 0.03, kind="equivalent", margin=0.03) > 0.7


@pytest.mark.parametrize("effects", [[0] * 6, [0.04, 0.04, 0, 0, 0, 0]])
def test_holm_keeps_the_family_of_six(effects):
    corrected, uncorrected = family_wise_errors(effects)
    assert corrected <= 0.06 < 0.1 < uncorrected


@pytest.mark.parametrize("deviation", [0.015, 0.025])
def test_more_blocks_by_the_blind_rule_cost_no_error(deviation):
    errors, more = re_estimated_rejections(deviation)
    assert errors <= 0.06 and 0.01 < more < 0.9


def test_a_winner_tested_in_its_own_runs_is_found_too_often():
    assert winner_rejections(0.75) > 0.04 > 0.03 > winner_rejections(0.75, held_out=True)


def test_coverage_counts_intervals_that_hold_the_truth():
    assert coverage(np.array([0.0, 1, 2]), np.array([1.0, 2, 3]), 1) == pytest.approx(2 / 3)
