"""Figures of the gap draw what they are given into the axes they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from unite_core import gap, plots
from unite_core.gap import projections
from unite_core.gap.mixed_pool import compare_corrections, replacement_curve
from unite_core.plots import modality_style

DRAWN = gap.SyntheticGap(
    {"text": (0.6, 0.0), "image": (-0.3, 0.5)}, spectrum=((12, 0.8), (20, 0.2)), signal=0.7
).draw(80, 0)
X, Y = DRAWN.values()


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_projection_keeps_the_gap_to_scale(ax):
    projection = projections.to_scale(DRAWN)
    assert projection.gap == pytest.approx(np.linalg.norm(X.mean(0) - Y.mean(0)))
    first, second = projection.points.values()
    assert first[:, 0].mean() - second[:, 0].mean() == pytest.approx(projection.gap)
    assert abs(first[:, 1].mean() - second[:, 1].mean()) < 0.2
    plane = np.linalg.norm(first[0] - second[0])
    assert plane <= np.linalg.norm(X[0] - Y[0]) + 1e-12, "never longer than it is"
    assert 0 < projection.null < projection.gap and 0.3 < projection.kept < 1
    assert plots.plot_projection(projection, ax, links=20, title="T", reach=1.2) is ax
    assert len(ax.lines) == 21, "links and the line between the means"
    assert len(ax.collections) == 3 and ax.get_xlim() == (-1.2, 1.2)
    assert ax.get_aspect() == 1 and "n 80; gap 1.03" in ax.get_xlabel()
    colour = to_hex(ax.collections[0].get_facecolor()[0])
    assert colour == modality_style("text")["color"].lower()
    plots.share_legend([ax])
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["text", "image"]


def test_another_state_can_be_seen_on_the_same_axes():
    before = projections.to_scale(DRAWN)
    closed = dict(zip(DRAWN, projections.blend(X, Y, 1.0), strict=True))
    after = projections.to_scale(closed, like=before)
    assert (after.axes == before.axes).all() and (after.middle == before.middle).all()
    away = [points[:, 0].mean() for points in after.points.values()]
    assert abs(away[0] - away[1]) < 0.1 * before.gap
    assert before.axes @ before.axes.T == pytest.approx(np.eye(2), abs=1e-9)


def test_a_third_modality_is_projected_into_the_same_plane(ax):
    projection = projections.to_scale(DRAWN | {"video": X[:50] * 0.5}, paired=False)
    assert projection.null > projections.to_scale(DRAWN).null, "pairs vary together"
    assert [len(points) for points in projection.points.values()] == [80, 80, 50]
    plots.plot_projection(projection, ax)
    assert ax.get_adjustable() == "datalim"


def test_heat_and_confusion_write_their_numbers(ax):
    heat = gap.matrix(DRAWN, resamples=2)["similarity"]
    assert plots.plot_mean_cosines(heat, list(DRAWN), ax, "T") is ax
    assert texts(ax) == [f"{value:.2f}" for value in heat.ravel()]
    figure, other = plt.subplots()
    plots.plot_pool_confusion(np.array([[0.9, 0.1], [0.25, 0.75]]), list(DRAWN), other, k=5)
    assert texts(other) == ["90", "10", "25", "75"]
    assert (other.get_xlabel(), other.get_ylabel()) == ("retrieved", "query")
    plt.close(figure)


def test_histograms_have_a_line_for_each_kind_of_pair(ax):
    samples = projections.cosine_samples(X, Y, 500)
    assert len(samples["pairs"]) == 80 and len(samples["across"]) == 500
    assert samples["pairs"].mean() == pytest.approx((X * Y).sum(1).mean())
    every = projections.cosine_samples(X, Y)
    assert every["within x"].mean() == pytest.approx((X @ X.T)[np.triu_indices(80, 1)].mean())
    assert plots.plot_cosine_histograms(samples, ["text", "image"], ax) is ax
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [label.split(" (")[0] for label in labels] == [
        "true pairs", "others across", "within text", "within image",
    ]  # fmt: skip
    assert len(ax.patches) == 4


def test_spectra_add_up_and_show_what_even_would_be(ax):
    shares = projections.spectra(DRAWN)
    for values in shares.values():
        assert values.sum() == pytest.approx(1) and (np.diff(values) <= 0).all()
    assert plots.plot_spectra(shares, ax) is ax
    assert ax.get_xscale() == ax.get_yscale() == "log" and len(ax.lines) == 3


def test_dimensions_end_at_the_whole_gap(ax):
    plots.plot_dimensions(gap.offset_direction(X, Y), ax)
    right = [one for one in ax.figure.axes if one is not ax][0]
    assert right.lines[0].get_ydata()[-1] == pytest.approx(100)


def test_replacement_compares_with_a_straight_line(ax):
    rows = replacement_curve(X, Y, X, shares=(0, 0.5, 1), repeats=2)
    assert plots.plot_replacement(rows, ax, "T", "stage 2") is ax
    straight, curve = ax.lines
    assert straight.get_linestyle() == "--" and len(curve.get_xdata()) == 3
    top = ax.get_ylim()[1]
    plots.plot_replacement([row | {"high": 3.0} for row in rows], ax, label="higher")
    assert ax.get_ylim()[1] > max(top, 300) and ax.get_ylim()[0] == 0
    assert curve.get_ydata() == pytest.approx([100 * row["ndcg"] for row in rows])


def test_corrections_have_a_panel_for_each_measure_that_says_what_is_better(ax):
    rows = compare_corrections(X, Y, ["none", "centre"])
    figure, axes = plt.subplots(1, 4)
    assert plots.plot_corrections(rows, axes, k=5, chance=49.0) is axes
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["none", "centre", "scores"]
    assert {label.get_text() for label in axes[1].get_yticklabels()} == {""}
    titles = [one.get_title() for one in axes]
    assert titles[:2] == ["gap\n← smaller", "own modality in 5 first\n← fewer"]
    assert all(title.endswith("better →") for title in titles[2:])
    dots = [one.collections[-1].get_offsets() for one in axes]
    np.testing.assert_allclose(dots[0][:2, 0], [row["gap"] for row in rows[:2]])
    assert dots[0].mask[2, 0], "scores have no gap"
    np.testing.assert_allclose(dots[3][:, 0], [row["mixed R@10"] for row in rows])
    assert axes[1].lines[-1].get_xdata()[0] == 49
    figure.canvas.draw()
    plt.close(figure)


def test_stages_show_intervals_and_nulls():
    tables = {name: gap.measure(X, Y, resamples=3, seed=seed) for seed, name in enumerate("ab")}
    figure, axes = plt.subplots(1, 2)
    plots.plot_stages(tables, ["gap", "rmg"], axes, {"gap": "the gap"})
    assert axes[0].get_title() == "the gap" and axes[1].get_title() == "rmg"
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["a", "b"]
    assert [label.get_text() for label in axes[1].get_yticklabels()] == ["", ""]
    ends = axes[0].containers[0].lines[2][0].get_segments()
    assert ends[0][:, 0] == pytest.approx(tables["a"]["gap"].interval)
    assert sum(line.get_linestyle() == "--" for line in axes[1].lines) == 2
    figure.canvas.draw()
    plt.close(figure)


def test_stages_without_an_interval_show_value_and_null():
    with pytest.warns(UserWarning, match="no interval"):
        table = gap.measure(X, Y, resamples=3, groups=np.arange(len(X)) % 8)
    figure, ax = plt.subplots()
    plots.plot_stages({"few families": table}, ["gap"], [ax])
    figure.canvas.draw()
    dot, null = ax.containers[0].lines[0], ax.lines[-1]
    assert dot.get_xdata() == pytest.approx([table["gap"].value])
    assert list(null.get_xdata()) == [0, 0]
    assert all(bar.size == 0 for bar in ax.containers[0].lines[2][0].get_segments())
    plt.close(figure)


def test_a_missed_truth_is_drawn_open(ax):
    rows = [{"measure": "gap", "truth": 0.5, "found": 0.6, "low": 0.4, "high": 0.8},
            {"measure": "cka", "truth": 0.5, "found": 0.6, "low": 0.55, "high": 0.8}]  # fmt: skip
    assert plots.plot_truths(rows, ax) is ax
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_mfc() for dot in dots] == ["black", "white"]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx([0.1, 0.1])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["gap = 0.5", "cka = 0.5"]


def test_blending_closes_the_gap():
    closed = projections.blend(X, Y, 1.0)
    gaps = [np.linalg.norm(a.mean(0) - b.mean(0)) for a, b in ((X, Y), closed)]
    assert gaps[1] < 0.1 * gaps[0]
    opened = projections.blend(X, Y, -0.5)
    assert np.linalg.norm(opened[0].mean(0) - opened[1].mean(0)) > gaps[0]
    assert np.abs(projections.blend(X, Y, 0)[0] - X).max() < 1e-12


def test_the_neighbour_graph_tells_apart_from_mixed():
    far = gap.SyntheticGap({"a": (0.7,), "b": (-0.7,)}).draw(80, 0)
    got = projections.neighbour_graph(far, 10)
    assert got == {"components": 2, "cross_edges": 0}
    mixed = projections.neighbour_graph({"a": X[:40], "b": X[40:]}, 10)
    assert mixed["components"] == 1 and mixed["cross_edges"] == pytest.approx(0.5, abs=0.1)
