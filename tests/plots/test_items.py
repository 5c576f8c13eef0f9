"""Items are drawn as what they are: texts, pictures, middle frames of clips."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from unite_core.plots import draw_results, plot_pairs, plot_retrieved, plot_similarity
from unite_core.search.results import Hit

IMAGE = {"image": Image.new("RGB", (20, 10), "red")}
CLIP = {"video": [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]}
TEXT = {"text": "a red circle at the top left on white"}
EDIT = {"text": "<|IMAGE|>\nthe same in green", "image": IMAGE["image"]}


def texts(ax):
    return [text.get_text() for text in ax.texts]


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


def test_pairs_stand_side_by_side_under_their_names(ax):
    pairs = [({"text": "a"}, {"text": "b"}), ({"text": "c"}, {"text": "d"})]
    assert plot_pairs(pairs, ax, names=("reads", "writes")) is ax
    assert [label.get_text() for label in ax.get_xticklabels()] == ["reads", "writes"]
    assert {text.get_text() for text in ax.texts} == set("abcd")


def test_a_sheet_of_results_is_saved_whatever_can_be_read(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "red.png")
    hits = [
        Hit(1, 0.9, "image", "1", {"image": "red.png"}),
        Hit(2, 0.8, "text", "2", TEXT),
        Hit(3, 0.7, "image", "3", {"image": "gone.png"}),
        Hit(4, 0.6, "image", "4"),
    ]
    draw_results({"text": "red $x$"}, hits, tmp_path / "sheet.png", tmp_path, columns=2)
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert ((pixels == (255, 0, 0)).all(2)).sum() > 1000, "the picture is there"
    assert not plt.get_fignums()
