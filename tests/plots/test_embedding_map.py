"""The static map and the contact sheet draw what they are given."""

import base64
import io

import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import Image

from unite_core import plots
from unite_core.plots.embedding_map import (
    contact_sheet_html,
    picture_of,
    picture_uri,
    plot_contact_sheet,
    plot_map,
)

POINTS = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
MODALITY = ["text"] * 12 + ["image"] * 12 + ["video"] * 6


@pytest.fixture
def root(tmp_path):
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (40, 20), colour).save(tmp_path / f"{name}.png")
    return tmp_path


def test_modalities_have_their_colour_and_mark_and_rows_their_ring(ax):
    pairs = np.array([[0, 12], [1, 13]])
    plot_map(POINTS, MODALITY, ax, "T", "gap 0.5", pairs, np.array([3, 4, 20]))
    *clouds, rings = ax.collections
    assert [len(cloud.get_offsets()) for cloud in clouds] == [12, 12, 6]
    colours = [plots.modality_style(name)["color"] for name in ("text", "image", "video")]
    assert all(
        same_color(c.get_facecolor()[0][:3], k) for c, k in zip(clouds, colours, strict=True)
    )
    assert np.allclose(rings.get_offsets(), POINTS[[3, 4, 20]])
    assert np.allclose(ax.lines[1].get_xydata(), POINTS[[1, 13]])
    assert (ax.get_title(), ax.get_xlabel()) == ("T", "gap 0.5")


def test_a_sheet_has_a_cell_for_each_item(ax, root):
    items = [{"image": "a.png"}, {"text": "words"}, {"video": ["a.png", "b.png"]}]
    plot_contact_sheet(items, ax, root, "S", columns=2)
    assert len(ax.images) == 2
    assert "words" in [text.get_text() for text in ax.texts]
    plot_contact_sheet(items, ax, root, "S", captions=["one", "two", "three"])
    assert {"one", "two", "three"} <= {text.get_text() for text in ax.texts}


def test_a_clip_is_a_sheet_of_its_frames(root):
    strip = picture_of({"video": ["a.png", "b.png"]}, root)
    assert strip.size == (80, 20)
    assert strip.getpixel((5, 5)) == (255, 0, 0) and strip.getpixel((60, 5)) == (0, 0, 255)
    sheet = picture_of({"video": ["a.png", "a.png", "b.png"]}, root)
    assert sheet.size == (80, 40) and sheet.getpixel((5, 30)) == (0, 0, 255)
    assert picture_of({"text": "none"}, root) is None


def test_what_cannot_be_read_is_grey(root):
    (root / "bad.png").write_bytes(b"no picture")
    assert picture_of({"image": "bad.png"}, root).getcolors() == [(56 * 56, (200, 200, 200))]


def test_pictures_in_html_are_inside_it_and_have_words(root):
    page = contact_sheet_html([{"image": "a.png"}, {"text": "<b> & more"}], root, side=10)
    assert page.count("<img") == 1 and 'alt="a"' in page
    assert "&lt;b&gt; &amp; more" in page
    data = picture_uri({"image": "a.png"}, root, 10).partition(",")[2]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (20, 10)
