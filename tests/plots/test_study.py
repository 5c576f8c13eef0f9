"""Figures of studies show the numbers that they are given, and frame only what is clear of 0."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from unite_core.plots.study import (
    arm_style,
    draw_endpoints,
    plot_arm_curve,
    plot_arms,
    plot_block_differences,
    plot_gap_and_index,
    plot_power,
    plot_rates,
)
from unite_core.study.arms import STUDIES
from unite_core.study.verdicts import PLANS


def result(effect, low, high, p_holm=0.01, **more):
    row = {"test": "1 mask", "contrast": "mamcl − info_nce", "endpoint": "P1a", "kind": "two-sided",
           "margin": 0.0, "effect": effect, "low": low, "high": high, "p": 0.2, "p_holm": p_holm,
           "differences": [effect - 0.01, effect + 0.01], "blocks": 2,
           "verdict": "supported"}  # fmt: skip
    return row | more


NOT_RUN = result(np.nan, np.nan, np.nan, 1.0, p=np.nan, differences=[], blocks=0, verdict="not run")


def runs(*arms):
    return [{"arm": arm, "x": 0.2 + 0.1 * block + 0.01 * place}
            for place, arm in enumerate(arms) for block in range(3)]  # fmt: skip


def dots(ax):
    return [found.get_offsets() for found in ax.collections]


def test_block_differences_are_framed_only_where_the_interval_is_clear_of_0(ax):
    rows = [result(0.05, 0.02, 0.08), result(-0.05, -0.08, -0.02), result(0.01, -0.01, 0.03, None),
            NOT_RUN]  # fmt: skip
    assert plot_block_differences(rows, ax, "the mask") is ax
    np.testing.assert_allclose(dots(ax)[0][:, 0], [4, 6])
    frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    np.testing.assert_allclose([(f.get_x(), f.get_width()) for f in frames], [(2, 6), (-8, 6)])
    assert [text.get_text() for text in ax.texts] == [
        "p = 0.010\nsupported",
        "p = 0.010\nsupported",
        "p = 0.200\nsupported",
        "not run",
    ]
    assert ax.get_yticklabels()[0].get_text() == "1 mask\nmamcl − info_nce on P1a  (2 blocks)"


@pytest.mark.parametrize(("kind", "marks"), [("non-inferior", [-3]), ("equivalent", [-3, 3])])
def test_margins_are_marked(ax, kind, marks):
    plot_block_differences([result(0.0, -0.02, 0.02, kind=kind, margin=0.03)], ax)
    dotted = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert sorted(dotted) == marks


def test_arms_have_a_dot_for_each_block_and_a_bar_at_the_mean(ax):
    plot_arms(runs("mamcl", "info_nce"), "x", {"info_nce": "InfoNCE", "mamcl": "MAMCL"}, ax)
    np.testing.assert_allclose(dots(ax)[0], [[21, 0], [31, 0], [41, 0]])
    assert [line.get_xdata()[0] for line in ax.lines] == pytest.approx([31, 30])
    assert to_hex(ax.lines[1].get_color()) == to_hex(arm_style("mamcl")["color"])


def test_endpoints_stand_side_by_side():
    rows = [row | {"y": row["x"] / 2} for row in runs("TV", "TI")]
    figure = draw_endpoints(rows, {"x": "still", "y": "moving"}, {"TV": "clips"}, "what")
    assert [ax.get_title() for ax in figure.axes] == ["still", "moving"]
    assert [dots(ax)[0][0, 0] for ax in figure.axes] == pytest.approx([20, 10])
    assert figure.axes[0].get_xlim() != figure.axes[1].get_xlim()
    same = draw_endpoints(rows, {"x": "still", "y": "moving"}, {"TV": "clips"}, one_scale=True)
    assert same.axes[0].get_xlim() == same.axes[1].get_xlim()
    plt.close("all")


def test_a_curve_goes_through_the_means_of_arms_that_have_run(ax):
    curves = {"share": {0.0: "TI", 1.0: "TV", 0.5: "TI_TV", 0.25: "TV_25"}}
    plot_arm_curve(runs("TI", "TV", "TI_TV"), "x", curves, ax, "clips", "more clips")
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 30], [50, 32], [100, 31]])
    assert sum(map(len, dots(ax))) == 9


def test_power_shows_what_was_simulated_on_the_formula(ax):
    rows = [
        {"blocks": 6, "level": level, "effect": x, "power": x * 10, "formula": x * 9}
        for level in (0.05, 0.01)
        for x in (0.0, 0.05)
    ]
    plot_power(rows, ax)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0], [5, 45]])
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[0, 0], [5, 50]])
    assert ax.get_legend_handles_labels()[1] == ["6 blocks, 5 %", "6 blocks, 1 %"]


def test_rates_stand_beside_the_nominal_one(ax):
    plot_rates({"a": {0.0: 0.05, 0.5: 0.1}}, 0.05, ax, "share", "errors")
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 5], [0.5, 10]])
    assert ax.get_legend_handles_labels()[1] == ["a", "nominal, 5 %"]


def test_every_arm_looks_like_itself():
    arms = {arm.name for study in STUDIES for arm in STUDIES[study].arms}
    arms |= {name for test in PLANS["data"].tests for name in (test.first, test.second)}
    looks = {tuple(arm_style(arm).values()) for arm in arms}
    assert len(looks) == len(arms) and tuple(arm_style("unknown").values()) not in looks


def test_each_run_has_a_hollow_and_a_filled_mark_at_its_gap(ax):
    rows = [{"arm": "mamcl", "gap": 0.2, "a": 0.3, "b": 0.5},
            {"arm": "mamcl", "gap": 0.3, "a": 0.4, "b": 0.5},
            {"arm": "info_nce", "gap": 1.0, "a": 0.4, "b": 0.6}]  # fmt: skip
    plot_gap_and_index(rows, ("a", "b"), {"info_nce": "InfoNCE", "mamcl": "MAMCL"}, ax)
    marks = [line for line in ax.lines if len(line.get_xdata()) == 1]
    hollow = [line for line in marks if line.get_markerfacecolor() == "none"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in hollow] == [
        (1.0, 40), (0.2, 30), (0.3, 40),
    ]  # fmt: skip
    filled = [line.get_ydata()[0] for line in marks if line not in hollow]
    assert filled == [60, 50, 50] and to_hex(hollow[1].get_color()) == "#e69f00"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["InfoNCE", "MAMCL"]
