"""Notebooks and applications in a browser: what moves, types and uploads change on the page."""

import re

import pytest
from playwright.sync_api import expect

from unite_core.corpora.scenes import Scene, draw


@pytest.fixture
def shape(tmp_path):
    file = tmp_path / "mine.png"
    draw(Scene("star", "blue"), 112).save(file)
    return file


def turn_the_loss(page):
    """Reach mask and temperature by keys alone; values, picture and words follow."""
    page.wait_for_picture()
    mask = page.page.get_by_label("mask", exact=True)
    temperature = page.page.get_by_role("slider", name="temperature")
    assert page.expect_spoken_as_shown(temperature) == "0.0316"
    mask.focus()
    page.expect_change(lambda: page.page.keyboard.press("ArrowUp"), r"^InfoNCE.*: [\d.]+ nats")
    page.page.keyboard.press("Tab")
    expect(temperature).to_be_focused()
    press = page.page.keyboard.press
    warmer = page.expect_change(lambda: press("ArrowRight"), "Temperature 0.0383")
    assert page.expect_spoken_as_shown(temperature) == "0.0383"
    hottest = page.expect_change(lambda: press("End"), "Temperature 1$")
    nats = [float(re.search(r"([\d.]+) nats", words)[1]) for words in (warmer, hottest)]
    assert nats[0] != nats[1]
    page.expect_no_flicker()
    page.expect_accessible()


def ask(page, shape):
    """Type, upload and choose; what is found is another thing each time."""
    page.wait_for_picture()
    words = page.page.get_by_label("words", exact=True).last
    assert words.evaluate("box => box.scrollWidth <= box.clientWidth"), "the query is cut off"
    find = page.page.get_by_label("find", exact=True)

    def type_words(text):
        words.fill(text)
        words.press("Enter")

    said = page.expect_change(lambda: type_words("three green triangles"), "^Found for three green")
    images = page.expect_change(lambda: find.select_option("image"), r"1\. .*\.\w+")
    assert images != said

    def upload():
        with page.page.expect_file_chooser() as chooser:
            page.page.get_by_role("button", name="upload a picture").press("Enter")
        chooser.value.set_files(shape)

    with_words = page.expect_change(upload, "^Found for three green")
    alone = page.expect_change(lambda: type_words(""), "^Found for upload 1: mine.png: 1")
    assert alone.partition(": 1")[2] != with_words.partition(": 1")[2]
    expect(page.page.get_by_label("media", exact=True)).to_have_value(re.compile("mine|[0-9]+"))
    page.page.get_by_label("media", exact=True).select_option("(none)")
    expect(page.status).to_have_text(re.compile("^An empty query"))
    expect(page.picture).to_be_visible()
    page.expect_change(lambda: type_words("a blue star"), "^Found for a blue star")
    page.expect_no_flicker()
    page.expect_accessible()


def test_the_tour(page, lab):
    page.run_notebook(lab, "00_tour")
    page.wait_for_picture()
    box = page.page.get_by_role("textbox", name=re.compile("query|words|ask", re.I)).last
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth"), "the query is cut off"

    def type_words():
        box.fill("a blue star")
        box.press("Enter")

    page.expect_change(type_words, "a blue star")
    page.expect_no_flicker()
    page.expect_accessible()


def test_the_loss_by_hand(page, lab):
    page.run_notebook(lab, "03_loss_by_hand")
    turn_the_loss(page)


def test_the_gap_is_closed_by_hand(page, lab):
    page.run_notebook(lab, "09_modality_gap")
    page.wait_for_picture()
    slider = page.page.get_by_role("slider", name="share of the gap that is closed")
    slider.focus()
    press, left = page.page.keyboard.press, {}
    moves = {"0, as they are": ["ArrowLeft"] * 2, "1, means equal": ["ArrowRight"] * 4}
    for share, keys in moves.items():
        for key in keys:
            said = page.expect_change(lambda key=key: press(key), "beyond chance")
        assert page.expect_spoken_as_shown(slider) == share
        left[share] = float(re.search(r"gap ([\d.]+) beyond chance", said)[1])
    assert left["1, means equal"] < left["0, as they are"]
    again = page.page.locator(".widget-html-content", has_text="length 1 again").inner_text()
    assert f"a gap of {left['1, means equal']:.3f} beyond chance" in again
    page.expect_no_flicker()
    page.expect_accessible()


def test_search(page, lab, shape):
    page.run_notebook(lab, "11_search")
    ask(page, shape)


def test_your_data(page, lab, shape):
    page.run_notebook(lab, "12_your_data")
    ask(page, shape)


@pytest.mark.parametrize("name", ["explorer", "loss_by_hand"])
def test_an_application_shows_no_code(page, apps, name, shape):
    page.open_app(apps, name)
    assert page.page.locator(".jp-CodeCell .jp-InputArea:visible").count() == 0
    assert "import" not in page.page.locator("body").inner_text()
    if name == "explorer":
        link = page.page.get_by_role("link", name="Maps of such a collection")
        expect(link).to_have_attribute("href", "maps.ipynb")
        ask(page, shape)
    else:
        turn_the_loss(page)
