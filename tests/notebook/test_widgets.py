"""The browsers show the pairs and the losses that they are asked for, and follow."""

import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from unite_core.corpora.scenes import Scene, draw, draw_clip
from unite_core.curate.reasons import Reasons
from unite_core.gap.moments import Moments, debiased_gap_squared
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


def shown(picture):
    """The picture's pixels, which must be those of its width and height."""
    image = Image.open(io.BytesIO(picture.png))
    assert image.width / image.height == pytest.approx(picture.width / picture.height, rel=0.01)
    return np.asarray(image)


def test_controls_draw_what_they_say_and_leave_no_figure_open(rows, reasons, root):
    before = plt.get_fignums()
    line, picture = widgets.browse(rows, reasons, root).children
    reason, kind, page = line.children
    assert reason.options == ("kept", "unreadable", "misaligned")
    assert set(kind.options) >= {"all pair types", "video > text", "text+image > image"}
    told = [picture.alt]
    for control, value in ((page, 2), (reason, "misaligned"), (kind, "video > text")):
        control.value = value
        told.append(picture.alt)
    assert ["record 5 kept" in each for each in told] == [False, True, False, False]
    assert [each.count("record") for each in told] == [4, 1, 3, 1]
    assert plt.get_fignums() == before


def test_a_slider_keeps_value_and_place_together_and_knows_its_values():
    slider = widgets.Slider("temperature", (0.01, 0.1, 1), 0.1)
    slider.index = 0
    assert slider.value == 0.01
    slider.value = 1
    assert slider.index == 2
    with pytest.raises(ValueError, match="'temperature': 0.5 is none of its values"):
        widgets.Slider("temperature", (0.01, 0.1), 0.5)


def test_a_picture_follows_and_keeps_its_size_and_a_mistake_is_told_below_it():
    slider = widgets.Slider("bars", (1, 2, 3), 1, ("one", "two", "none"))

    def draw(bars):
        if bars == 3:
            raise ValueError("three are too many")
        figure, ax = plt.subplots(figsize=(3, 2))
        ax.bar(range(bars), range(1, bars + 1))
        ax.set_title(f"{bars} bars" if bars == 1 else "two bars, " * 30, loc="left")
        return figure

    *_, picture = widgets.follow(draw, {"bars": slider}).children
    first, size = shown(picture), (picture.width, picture.height)
    assert (picture.alt, picture.note) == ("1 bars", "")
    slider.value = 2
    second = shown(picture)
    assert picture.alt.startswith("two bars, two bars") and (first != second).any()
    assert (picture.width, picture.height) == size, "a long title does not make it jump"
    slider.value = 3
    assert picture.note == "three are too many" and (shown(picture) == second).all()
    slider.value = 1
    assert picture.note == "" and (shown(picture) == first).all()


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


def test_turning_mask_and_temperature_draws_again(batch):
    before = plt.get_fignums()
    line, picture = widgets.loss_controls(*batch).children
    mask, temperature, weight = line.children
    told = [picture.alt]
    for control, value in ((mask, "soft"), (weight, 0.5), (temperature, 1.0)):
        control.value = value
        told.append(picture.alt)
    assert [each.split(",")[0] for each in told] == ["MAMCL", "Soft", "Soft", "Soft"]
    assert ["Temperature 0.0316" in each for each in told] == [True, True, True, False]
    assert len(set(told)) == 4, "each draw has a loss of its own"
    assert temperature.words[temperature.index] == "1" and temperature.label == "temperature"
    assert plt.get_fignums() == before


@pytest.fixture
def pairs():
    draw = np.random.default_rng(0)
    content = draw.normal(size=(80, 8))
    sides = (content + draw.normal(size=(80, 8)) * 0.1 for _ in "xy")
    moved = [side + shift * np.eye(8)[0] for side, shift in zip(sides, (2, -2), strict=True)]
    return [side / np.linalg.norm(side, axis=1, keepdims=True) for side in moved]


def gap_in(words):
    return float(re.search(r"gap (?:of )?([\d.]+) beyond chance", words)[1])


def test_the_slider_closes_the_gap_and_says_what_one_means(pairs):
    line, meaning, picture = widgets.closing_controls(*pairs, ("text", "image")).children
    (slider,) = line.children
    left = {}
    for slider.value in (-1.0, 0.0, 1.0):
        left[slider.value] = gap_in(picture.alt)
        assert f"{slider.value:.0%} of the means' difference" in picture.alt
    before = debiased_gap_squared(Moments.of_vectors(*pairs, paired=True)) ** 0.5
    assert left[0.0] == pytest.approx(before, abs=1e-3)
    assert left[-1.0] > left[0.0] > left[1.0]
    assert gap_in(meaning.value) == left[1.0]
    assert slider.words[list(slider.words).index("1, means equal")]
    assert "same modality" in picture.alt and "separability" in picture.alt


def test_a_picture_of_the_closed_gap_has_the_scale_of_the_first(pairs):
    figures = [widgets.draw_closed(*pairs, ("text", "image"), share)[0] for share in (-1, 1)]
    assert len({figure.axes[0].get_xlim() for figure in figures}) == 1
    for figure in figures:
        plt.close(figure)
