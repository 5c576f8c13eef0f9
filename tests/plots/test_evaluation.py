"""Figures of evaluations show the numbers that they are given."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex

from unite_core.evaluation.confusion import Confusion
from unite_core.plots import (
    plot_gains,
    plot_modality_confusion,
    plot_pools,
    plot_scores,
    plot_sign_flips,
)

CONFUSION = Confusion(
    kinds=[("text", "image"), ("image", "text or text+image")],
    columns=["text", "text+image", "image"],
    share=np.array([[0.7, 0.1, 0.2], [0.25, 0.5, 0.25]]),
    chance=np.array([[0.4, 0.2, 0.4], [0.45, 0.2, 0.35]]),
    n=[12, 7],
    k=10,
)


def test_the_confusion_has_every_share_and_says_what_is_asked_for(ax):
    assert plot_modality_confusion(CONFUSION, ax, "texts find texts") is ax
    texts = [text.get_text() for text in ax.texts]
    assert texts[::2] == ["70", "10", "20", "25", "50", "25"]
    assert texts[1::2] == [
        "chance 40", "chance 20", "asked for, chance 40",
        "asked for, chance 45", "asked for, chance 20", "chance 35",
    ]  # fmt: skip
    bold = [text.get_text() for text in ax.texts if text.get_weight() == "bold"]
    assert bold == ["20", "25", "50"]
    assert [label.get_text() for label in ax.get_xticklabels()] == CONFUSION.columns
    assert ax.get_yticklabels()[0].get_text() == "text → image\nn 12"
    assert ax.get_xlabel() == "modality of the first 10 results (%)"


def row(gain, p, name="t"):
    return {"task": name, "split": "style", "n": 40, "families": 20,
            "effective_families": 17.0, "gain": gain, "low": gain - 0.1, "high": gain + 0.1,
            "p": p / 2, "p_holm": p}  # fmt: skip


def test_gains_are_filled_only_where_the_adjusted_p_is_small(ax):
    rows = [row(0.3, 0.01), row(-0.3, 0.0004), row(0.2, 1.0)]
    assert plot_gains(rows, ax, "one better, one worse") is ax
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx([30, -30, 20])
    filled = [to_hex(dot.get_markerfacecolor()) == to_hex(dot.get_color()) for dot in dots]
    assert filled == [True, True, False]
    assert len({to_hex(dot.get_color()) for dot in dots}) == 2, "clear or open"
    bars = [line.get_xdata() for line in ax.lines if line.get_marker() == "None"][1:]
    np.testing.assert_allclose(bars, [[20, 40], [-40, -20], [10, 30]])
    assert [text.get_text() for text in ax.texts] == [".010", "< .001", "1", "p (Holm)"]
    assert ax.get_yticklabels()[0].get_text() == "t\nn 40, families 20 (17.0)"


def test_splits_are_named_where_they_differ(ax):
    plot_gains([row(0.3, 0.01), row(0.1, 0.2) | {"split": "concept"}], ax)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["t, style\nn 40, families 20 (17.0)", "t, concept\nn 40, families 20 (17.0)"]


def test_few_families_have_no_interval_in_any_figure(ax):
    none = {"low": None, "high": None}
    plot_gains([row(0.3, 0.01) | none, row(0.1, 0.2)], ax)
    bars = [line.get_xdata() for line in ax.lines if line.get_marker() == "None"][1:]
    np.testing.assert_allclose(bars, [[0, 20]], atol=1e-9)
    ax.clear()
    table = rows({"base": 0.1})
    table[1]["base"].low = table[1]["base"].high = None
    plot_scores(table, ["base"], ax)
    ends = np.array(ax.containers[0].lines[2][0].get_segments())[:, :, 0]
    assert ends == pytest.approx(np.array([[0, 30], [20, 20], [20, 50]]))
    (open_mark,) = [
        line for line in ax.lines if line.get_mfc() == "white" and len(line.get_xdata())
    ]
    assert open_mark.get_xdata() == pytest.approx([20])
    assert open_mark.get_zorder() > ax.containers[0].lines[0].get_zorder(), "not below the filled"


def rows(values, chance=0.1):
    def score(value):
        return SimpleNamespace(value=value, low=value - 0.1, high=value + 0.2, metric="recall@1")

    return [
        {
            "task": f"task {number}",
            "split": "style",
            "n": 30,
            "chance": chance,
            "families": 20,
            "effective_families": 12.0,
        }
        | {model: score(value + number / 10) for model, value in values.items()}
        for number in range(3)
    ]


def test_scores_show_value_interval_chance_and_n(ax):
    assert plot_scores(rows({"base": 0.1, "stage 1": 0.5}), ["base", "stage 1"], ax, "T") is ax
    assert len(ax.containers) == 2
    points, _, bars = ax.containers[1].lines
    assert points.get_xdata() == pytest.approx([50, 60, 70])
    ends = np.array(bars[0].get_segments())[:, :, 0]
    assert ends == pytest.approx(np.array([[40, 70], [50, 80], [60, 90]]))
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"][:3]
    assert [line.get_xdata() for line in dashed] == [pytest.approx([10, 10])] * 3
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [f"task {number}\nn 30, families 20 (12.0) !" for number in range(3)]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first task is on top"
    assert "recall@1 (%)" in ax.get_xlabel()
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(legend) == ["base", "chance", "stage 1"]
    with pytest.raises(ValueError, match="7 models: at most 6"):
        plot_scores(rows({}), list("abcdefg"), ax)


def test_six_models_stay_in_their_row_and_differ(ax):
    """Base, both stages and the controls of `make controls` are five."""
    plot_scores(rows(dict.fromkeys("abcdef", 0.5)), list("abcdef"), ax)
    lines = [container.lines[0] for container in ax.containers]
    places = np.array([line.get_ydata() for line in lines])  # [models, tasks]
    assert (np.abs(places - np.arange(places.shape[1])) < 0.42).all(), "within the row's marks"
    assert len(np.unique(places)) == places.size
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 6


def test_pools_link_the_two_values_of_a_task(ax):
    single, mixed = rows({"m": 0.6}), rows({"m": 0.3})
    assert plot_pools(single, mixed, "m", ax) is ax
    assert [sorted(line.get_xdata()) for line in ax.lines] == [
        pytest.approx([30 + 10 * number, 60 + 10 * number]) for number in range(3)
    ]
    assert len(ax.collections) == 2
    with pytest.raises(ValueError, match="different tasks"):
        plot_pools(single, mixed[:2], "m", ax)


def test_sign_flips_as_far_from_0_as_the_one_found_are_black(ax):
    assert plot_sign_flips([2, 1, 0, -1, 1, 0, -1, -2], 2, ax) is ax
    dots = {(dot.get_xdata()[0], dot.get_ydata()[0]): dot.get_mfc() for dot in ax.lines}
    assert len(dots) == 8
    assert {place for place, colour in dots.items() if colour == "black"} == {(2, 1), (-2, 1)}
    assert (0, 2) in dots and (0, 3) not in dots
