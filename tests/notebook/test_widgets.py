"""The browsers show the pairs and the losses that they are asked for, and follow."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from unite_core.corpora.scenes import Scene, draw, draw_clip
from unite_core.curate.reasons import Reasons
from unite_core.loss import reference
from unite_core.notebook import widgets
from unite_core.notebook.batches import FIGURE_2B


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("media")
    draw(Scene("circle", "red"), 84).save(root / "a.png")
    first, *rest = draw_clip(Scene("star", "blue", motion="left"), 84)
    first.save(root / "c.webp", save_all=True, append_images=rest, duration=250)
    (root / "broken.png").write_bytes((root / "a.png").read_bytes()[:60])
    return root


@pytest.fixture
def rows():
    pictures = [{"query": {"text": f"text {n}"}, "candidate": {"image": "a.png"}} for n in range(6)]
    clip = {"query": {"video": "c.webp"}, "candidate": {"text": "a star"}}
    edit = {"query": {"text": "bluer", "image": "broken.png"}, "candidate": {"image": "a.png"}}
    return [*pictures, clip, edit]


@pytest.fixture
def reasons(rows):
    reasons = Reasons(len(rows))
    reasons.mark("unreadable", np.array([7]))
    reasons.mark("misaligned", np.array([2, 6, 7]))
    return reasons


def title(ax):
    return ax.get_title() or ax.get_title(loc="left")  # the workbook's style puts it there


def words(ax):
    return [text.get_text() for text in ax.texts]


def test_rows_are_chosen_by_verdict_and_kind_and_sorted(rows, reasons):
    order = np.array([5, 4, 9, np.nan, 3, 2, 1, 0])
    assert widgets.select_rows(rows, reasons).tolist() == [0, 1, 3, 4, 5]
    assert widgets.select_rows(rows, reasons, order=order).tolist() == [5, 4, 1, 0, 3]
    assert widgets.select_rows(rows, reasons, "misaligned", order=order).tolist() == [7, 6, 2]
    assert widgets.select_rows(rows, reasons, "misaligned", "video > text").tolist() == [6]
    assert widgets.select_rows(rows, reasons, "leak", "video > text", order).tolist() == []


def test_a_page_names_records_and_reasons_and_starts_over(rows, reasons, ax):
    numbers = widgets.select_rows(rows, reasons)
    assert widgets.draw_page(rows, reasons, numbers, 1, "nowhere", ax) is ax
    assert "record 5\nkept" in words(ax) and title(ax) == "page 2 of 2"


def test_pages_past_the_end_start_over(rows, reasons, root, ax):
    widgets.draw_page(rows, reasons, np.arange(5), 2, root, ax, "all")
    assert [text for text in words(ax) if text.startswith("record")] == [
        "record 0\nkept", "record 1\nkept", "record 2\nmisaligned", "record 3\nkept",
    ]  # fmt: skip
    assert title(ax) == "all" and len(ax.images) == 4


def test_media_that_cannot_be_read_are_said_to_be(rows, reasons, root, ax):
    widgets.draw_page(rows, reasons, np.array([6, 7]), 0, root, ax)
    shown = " ".join(words(ax))
    assert "[unreadable" in shown and "record 7\nunreadable\nmisaligned" in words(ax)
    assert len(ax.images) == 2, "the clip and the readable candidate"


def test_no_pair_is_no_error(rows, reasons, ax):
    widgets.draw_page(rows, reasons, np.array([], int), 0, ".", ax, "leak")
    assert title(ax) == "leak: no such pair"


def test_controls_draw_what_they_say_and_leave_no_figure_open(rows, reasons, root, monkeypatch):
    drawn, before = [], plt.get_fignums()
    monkeypatch.setattr("IPython.display.display", drawn.append)
    controls, _ = widgets.browse(rows, reasons, root).children
    reason, kind, page = controls.children
    assert reason.options == ("kept", "unreadable", "misaligned")
    assert set(kind.options) >= {"all pair types", "video > text", "text+image > image"}
    page.value = 2
    reason.value = "misaligned"
    kind.value = "video > text"
    texts = [words(figure.axes[0]) for figure in drawn]
    assert ["record 5\nkept" in each for each in texts] == [False, True, False, False]
    assert [sum("record" in text for text in each) for each in texts] == [4, 1, 3, 1]
    assert plt.get_fignums() == before


@pytest.fixture
def batch():
    cosines = np.random.default_rng(0).uniform(-1, 1, (8, 8))
    return cosines, FIGURE_2B


def test_the_loss_is_shown_beside_the_one_without_a_mask(batch):
    figure, axes = plt.subplots(1, 2)
    loss = widgets.draw_loss(*batch, "random", 0.1, axes, seed=3)
    weights = reference.weights_of("random", batch[1], seed=3)
    assert loss == reference.loss_of(reference.log_probabilities(batch[0], 0.1, weights))
    assert title(axes[0]).endswith(f"{loss:.2f} nats") and len(words(axes[0])) == 18
    plain, masked, now = axes[1].lines
    assert (plain.get_ydata() >= masked.get_ydata()).all() and now.get_xdata()[0] == 0.1
    widgets.draw_loss(*batch, "none", 0.1, axes)
    assert len(axes[1].lines) == 5, "the loss without a mask is drawn once"
    plt.close(figure)


def test_turning_mask_and_temperature_draws_again(batch, monkeypatch):
    drawn, before = [], plt.get_fignums()
    monkeypatch.setattr("IPython.display.display", drawn.append)
    controls, _ = widgets.loss_controls(*batch).children
    mask, temperature, weight = controls.children
    mask.value = "soft"
    weight.value = 0.5
    temperature.value = 1.0
    titles = [[title(ax) for ax in figure.axes[:2]] for figure in drawn]
    assert [each[0].split(",")[0] for each in titles] == ["MAMCL", "Soft", "Soft", "Soft"]
    assert [each[1] for each in titles] == ["Temperature 0.0316"] * 3 + ["Temperature 1"]
    assert len({each[0] for each in titles}) == 4, "each draw has a loss of its own"
    assert plt.get_fignums() == before
