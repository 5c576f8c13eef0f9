"""Figures draw what they are given into the axes they are given."""

import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from unite_core.data.modality import Modality
from unite_core.plots.common import (
    modality_style,
    plot_history,
    plot_pools,
    plot_retrieved,
    plot_scores,
    plot_similarity,
    use_style,
)

IMAGE = {"image": Image.new("RGB", (20, 10), "red")}
CLIP = {"video": [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]}
TEXT = {"text": "a red circle at the top left on white"}
EDIT = {"text": "<|IMAGE|>\nthe same in green", "image": IMAGE["image"]}


def texts(ax):
    return [text.get_text() for text in ax.texts]


def rows(values, chance=0.1):
    def score(value):
        return SimpleNamespace(value=value, low=value - 0.1, high=value + 0.2, metric="recall@1")

    return [
        {"task": f"task {number}", "split": "style", "n": 30, "chance": chance}
        | {model: score(value + number / 10) for model, value in values.items()}
        for number in range(3)
    ]


def test_a_modality_has_one_colour_and_marker_under_every_name():
    styles = [modality_style(modality) for modality in (1, 2, 4, 3)]
    assert len({style["color"] for style in styles}) == 4
    assert len({style["marker"] for style in styles}) == 4
    assert modality_style("image") == modality_style(Modality.IMAGE) == styles[1]
    assert modality_style("text+image") == modality_style("image,text") == styles[3]
    assert modality_style(Modality.TEXT | Modality.VIDEO) == styles[3], "all mixtures are fused"


def test_history_has_a_labelled_line_per_name(ax):
    log = [{"step": 1, "loss": 4.0, "a": 0.1}, {"step": 2, "loss": 3.0}, {"step": 3, "a": 0.3}]
    labels = {"loss": "InfoNCE", "a": "image"}
    assert plot_history(log, labels, ax, ("chance", math.log(64)), "Title", "nats") is ax
    loss, image, null = ax.lines
    assert loss.get_xydata().tolist() == [[1, 4.0], [2, 3.0]]
    assert image.get_xydata().tolist() == [[1, 0.1], [3, 0.3]]
    assert to_hex(image.get_color()) == modality_style("image")["color"].lower()
    assert image.get_marker() == "s" and null.get_linestyle() == "--"
    assert texts(ax) == ["image", "InfoNCE", "chance = 4.16"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("step", "nats", "Title")
    with pytest.raises(ValueError, match="'lost' was never logged; logged were a, loss"):
        plot_history(log, {"lost": "x"}, ax)


def test_history_labels_do_not_lie_on_each_other(ax):
    log = [{"step": step, "a": 1.0, "b": 1.0, "c": 0.0} for step in (1, 2)]
    plot_history(log, {"a": "one", "b": "two", "c": "three"}, ax)
    heights = sorted(text.xy[1] for text in ax.texts)
    assert min(np.diff(heights)) > 0.05


def test_scores_show_value_interval_chance_and_n(ax):
    assert plot_scores(rows({"base": 0.1, "stage 1": 0.5}), ["base", "stage 1"], ax, "T") is ax
    assert len(ax.containers) == 2
    points, _, bars = ax.containers[1].lines
    assert points.get_xdata() == pytest.approx([50, 60, 70])
    ends = np.array(bars[0].get_segments())[:, :, 0]
    assert ends == pytest.approx(np.array([[40, 70], [50, 80], [60, 90]]))
    assert texts(ax) == ["10.0"] * 3
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [f"task {number}, style  (n 30)" for number in range(3)]
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


def test_similarity_writes_numbers_and_shows_items(ax):
    values = np.array([[1.0, -0.25, 0.5], [0.0, 0.125, 0.75]])
    assert plot_similarity(values, [TEXT, IMAGE], [CLIP, TEXT, EDIT], ax, title="T") is ax
    assert texts(ax) == ["1.00", "-0.25", "0.50", "0.00", "0.12", "0.75"]
    assert ax.images[0].get_array().tolist() == values.tolist()
    labels = [label.get_text().replace("\n", " ") for label in ax.get_xticklabels()]
    assert labels == ["", TEXT["text"], ""]
    assert len(ax.artists) == 3, "a small picture for every item that has one"
    with pytest.raises(ValueError, match=r"\(2, 3\) is not 3 queries x 3 candidates"):
        plot_similarity(values, [TEXT] * 3, [TEXT] * 3, ax)


def test_retrieved_frames_and_ticks_the_right_answers(ax):
    hits = [[True, False], [False, True]]
    retrieved = [[IMAGE, CLIP], [TEXT, CLIP]]
    assert plot_retrieved([TEXT, EDIT], retrieved, hits, ax) is ax
    assert len(ax.images) == 4
    assert texts(ax).count("✓") == 2 and texts(ax).count("▶") == 2
    assert "the same in\ngreen" in texts(ax), "placeholders are not shown"
    colours = [to_hex(patch.get_edgecolor()) for patch in ax.patches]
    assert colours.count("#009e73") == 2 and len(colours) == 6
    assert [label.get_text() for label in ax.get_xticklabels()] == ["query", "1", "2"]


def test_the_current_axes_are_the_default_and_the_style_is_ours(tmp_path):
    with plt.rc_context():
        use_style()
        figure = plt.figure()
        ax = plot_history([{"step": 0, "loss": 1.0}], {"loss": "loss"})
        assert ax is figure.gca()
        assert not ax.spines["top"].get_visible()
        figure.savefig(tmp_path / "figure.png")
        plt.close(figure)
    assert plt.rcParams["svg.hashsalt"] is None
