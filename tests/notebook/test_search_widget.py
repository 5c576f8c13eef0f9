"""The search box asks what its controls say and draws what the index finds."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from unite_core.notebook import widgets
from unite_core.notebook.widgets import draw_results, make_query, search_box
from unite_core.search.index import build_index
from unite_core.search.scorers import Standardised
from unite_core.search.shards import Shard

ITEMS = {
    "red": {"image": "red.png"},
    "blue": {"image": "blue.png"},
    "t-red": {"text": "something red"},
    "t-blue": {"text": "something blue"},
}
VECTORS = np.array([[1, 0, 0], [0, 1, 0], [0.8, 0, 0.6], [0, 0.8, 0.6]], np.float32)


class Words:
    """Red things and red words along one axis, blue ones along another."""

    def embed(self, items, *_, **__):
        return np.array([[1, 0, 0] if "red" in str(item) else [0, 1, 0] for item in items],
                        np.float32)  # fmt: skip


@pytest.fixture
def world(tmp_path):
    for name in ("red", "blue"):
        Image.new("RGB", (56, 56), name).save(tmp_path / f"{name}.png")
    codes = np.array([2, 2, 1, 1], np.uint8)
    return build_index([Shard(list(ITEMS), VECTORS, codes)]), tmp_path


def test_words_come_after_the_medium_and_something_must_be_asked():
    assert make_query(" a cat ") == {"text": "a cat"}
    assert make_query("", {"image": "a.png"}) == {"image": "a.png"}
    both = make_query("bluer", {"image": "a.png"})
    assert list(both) == ["image", "text"] and both["text"] == "<|IMAGE|>\nbluer"
    with pytest.raises(ValueError, match="an empty query"):
        make_query("  ")


@pytest.mark.parametrize("modality, expected", [("text", ["something red", "something blue"]),
                                                ("any modality", ["something red"])])  # fmt: skip
def test_results_are_drawn_best_first(world, ax, modality, expected):
    index, root = world
    assert (
        draw_results(index, Words(), ITEMS, [{"text": "red"}], 2, modality, root=root, ax=ax) is ax
    )
    drawn = [text.get_text().replace("\n", " ") for text in ax.texts]
    assert [text for text in drawn if text.startswith("something")] == expected
    assert not any("✓" in text for text in drawn)


def test_the_box_follows_its_controls(world, monkeypatch, capsys):
    index, root = world
    asked = []
    monkeypatch.setattr(widgets, "draw_results",
                        lambda *arguments, **_: asked.append(arguments[3:7]))  # fmt: skip
    box = search_box(index, Words(), ITEMS, {"the red one": ITEMS["red"]}, root, k=2)
    (text, medium), (modality, standardise) = (row.children for row in box.children[:2])
    assert modality.options == ("any modality", "text", "image")
    medium.value, modality.value, standardise.value = "the red one", "image", True
    (query,), k, chosen, scorer = asked[-1]
    assert query == {"image": "red.png", "text": "<|IMAGE|>\na red circle"}
    assert (k, chosen, scorer) == (2, "image", Standardised())
    text.value, medium.value = "", "(none)"
    assert asked[-1][0] == [{"image": "red.png"}], "an empty query is not searched"
    plt.close("all")
