"""Drawings of ideas show the numbers they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from unite_core import plots
from unite_core.plots import modality_style


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def words(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_a_circle_joins_pairs_and_means(ax):
    texts = np.array([[0.8, 0.6], [0.8, -0.6]])
    points = {"text": texts, "image": texts * [-1, 1]}
    assert plots.plot_circle(points, ax, labels={"text": ["one", "two"]}, means=True) is ax
    lines = [np.transpose(line.get_data()) for line in ax.lines]
    assert any(np.allclose(line, [[0.8, 0], [-0.8, 0]]) for line in lines), "the gap"
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata().tolist() for line in dotted] == [[0.8, -0.8]] * 2
    assert {"one", "two"} <= set(words(ax))
    marks = {line.get_label(): line.get_color() for line in ax.lines}
    assert marks["image"] == modality_style("image")["color"]


@pytest.mark.parametrize("k, found", [(1, 1), (3, 2), (10, 4)])
def test_ranks_within_k_are_found(ax, k, found):
    plots.plot_ranks([1, 2, 4, 8], k, ax)
    assert words(ax) == ["found"] * found + ["missed"] * (4 - found)
    black = [line.get_xdata()[0] for line in ax.lines if line.get_color() == "black"]
    assert black == [1, 2, 4, 8]
    (frame,) = ax.patches
    assert frame.get_x() < 1 and k < frame.get_x() + frame.get_width() < k + 1


def test_bars_are_probabilities(ax):
    plots.plot_pull({"cold": [0.8, 0.1, 0.1], "warm": [0.4, 0.3, 0.3]}, ax)
    assert [bar.get_height() for bar in ax.patches] == [0.8, 0.1, 0.1, 0.4, 0.3, 0.3]
    assert words(ax)[:3] == ["0.80", "0.10", "0.10"]


def test_the_parts_of_the_chain_rule_multiply(ax):
    plots.plot_chain_rule({"text": [4, 2], "image": [3, 1]}, ax)
    *bars, frame = ax.patches
    widths = [bar.get_width() for bar in bars]
    assert widths == pytest.approx([0.6, 0.4, 0.2, 0.4, 0.3, 0.1]), "modality, then its candidates"
    assert frame.get_width() == pytest.approx(0.6 * 4 / 6), "the whole is the product"
    assert {"text 0.60", "0.67", "positive: $p(c|q)$ = 0.40"} <= set(words(ax))


def test_scores_have_their_rank_among_all(ax):
    scores = {"text": [0.7, 0.6], "image": [0.65, 0.1]}
    plots.plot_scores_by_modality(scores, ("image", 0), ax)
    assert words(ax) == ["1", "3", "2", "4"]
    assert ax.lines[-1].get_xdata()[0] == 0.65 and ax.lines[-1].get_ydata()[0] == 1


def test_what_is_left_and_what_is_gone_add_up(ax):
    plots.plot_remaining({"leak": 1, "copy": 2}, 8, ax)
    assert [bar.get_width() for bar in ax.patches] == [8, 8, 8, 7, 7, 5], "pale, then left"
    assert words(ax) == ["8", "7  (leak: −1)", "5  (copy: −2)"]
