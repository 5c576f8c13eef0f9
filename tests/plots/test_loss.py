"""Figures of the loss draw what they are given into the axes they are given."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from unite_core import plots
from unite_core.loss import reference
from unite_core.loss.contrastive import surviving_share
from unite_core.notebook.batches import FIGURE_2B
from unite_core.plots import modality_style

CODES = FIGURE_2B
LOG_P = reference.log_probabilities(np.eye(8), 0.5, reference.weights_of("modality", CODES))


def words(ax):
    return [text.get_text() for text in ax.texts]


def test_a_batch_leaves_masked_cells_empty_and_names_the_targets(ax):
    shown = np.where(np.isfinite(LOG_P), np.exp(LOG_P), np.nan)
    assert plots.plot_batch(shown, CODES, ax, "P") is ax
    assert len(words(ax)) == 18 and words(ax).count("1.00") == 1
    labels = ax.get_xticklabels()
    assert [label.get_text() for label in labels] == ["T", "I", "V", "T+I", "T", "T", "I", "V"]
    assert labels[1].get_color() == modality_style("image")["color"]
    assert ax.images[0].get_clim() == (0, 1)


def test_a_large_batch_has_neither_numbers_nor_names(ax):
    plots.plot_batch(np.eye(30) * -1, [1] * 30, ax, kind="gradient")
    assert not words(ax) and "T" not in [label.get_text() for label in ax.get_xticklabels()]


def test_pushes_stack_up_to_the_pull(ax):
    push = reference.push_by_modality(LOG_P, CODES)
    assert plots.plot_push({"a": push, "b": push}, ax) is ax
    assert len(ax.patches) == 2 * 4 * 4
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[:2] == ["text target, a", "text target, b"]
    ends = max(patch.get_x() + patch.get_width() for patch in ax.patches[:4])
    assert ends == pytest.approx(1 - np.exp(LOG_P).diagonal()[[0, 4, 5]].mean())
    assert to_hex(ax.patches[0].get_facecolor()) == modality_style(1)["color"].lower()


def test_shares_fall_and_leave_out_what_is_masked(ax):
    rows = {tau: np.exp(LOG_P[0]) for tau in (0.03, 1)}
    assert plots.plot_probabilities(rows, ax) is ax
    first = ax.lines[0].get_ydata()
    assert len(first) == 3 and (np.diff(first) <= 0).all()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0.03", "1"]
    assert "1 / 3" in words(ax)


def test_curves_over_the_temperature_show_limits_and_where_one_is(ax):
    curves = {"x": [1, 2, 3], "y": [3, 2, 1]}
    assert plots.plot_by_temperature([0.01, 0.1, 1], curves, ax, now=0.1) is ax
    assert ax.get_xscale() == "log" and ax.lines[-1].get_xdata()[0] == 0.1
    plots.plot_by_temperature([0.01, 0.1, 1], curves, ax, limits={"x": 7, "y": 2})
    assert words(ax) == ["all alike: 7.0", "all alike: 2.0"]


def test_the_mask_leaves_exactly_the_surviving_pairs(ax):
    codes = np.array([1, 1, 2, 4, 2, 1, 3])
    assert plots.plot_mask(codes, ax, "mask") is ax
    picture = ax.images[0].get_array()
    coloured = (np.asarray(picture) < 1).any(-1)
    assert coloured.mean() == pytest.approx(surviving_share(codes))
    assert (coloured == coloured.T).all() and coloured.diagonal().all()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["text (3)", "image (2)", "text+image (1)", "video (1)"]


def test_history_has_a_labelled_line_per_name(ax):
    log = [{"step": 1, "loss": 4.0, "a": 0.1}, {"step": 2, "loss": 3.0}, {"step": 3, "a": 0.3}]
    labels = {"loss": "InfoNCE", "a": "image"}
    assert plots.plot_history(log, labels, ax, ("chance", math.log(64)), "Title", "nats") is ax
    loss, image, null = ax.lines
    assert loss.get_xydata().tolist() == [[1, 4.0], [2, 3.0]]
    assert image.get_xydata().tolist() == [[1, 0.1], [3, 0.3]]
    assert to_hex(image.get_color()) == modality_style("image")["color"].lower()
    assert image.get_marker() == "s" and null.get_linestyle() == "--"
    assert words(ax) == ["image", "InfoNCE", "chance = 4.16"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("step", "nats", "Title")
    with pytest.raises(ValueError, match="'lost' was never logged; logged were a, loss"):
        plots.plot_history(log, {"lost": "x"}, ax)


def test_history_labels_do_not_lie_on_each_other(ax):
    log = [{"step": step, "a": 1.0, "b": 1.0, "c": 0.0} for step in (1, 2)]
    plots.plot_history(log, {"a": "one", "b": "two", "c": "three"}, ax)
    heights = sorted(text.xy[1] for text in ax.texts)
    assert min(np.diff(heights)) > 0.05
