"""The search box asks what its controls say and draws what the index finds."""

import io
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from unite_core.notebook.widgets import draw_results, make_query, search_box, searching
from unite_core.search.index import build_index
from unite_core.search.scorers import COSINE, Standardised
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
    with pytest.raises(ValueError, match="An empty query"):
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


@pytest.fixture
def box(world):
    index, root = world
    made = search_box(index, Words(), ITEMS, {"the red one": ITEMS["red"]}, root, 2, "blue things")
    query, pool, picture = made.children
    names = ("text", "medium", "upload", "modality", "standardise")
    return SimpleNamespace(
        picture=picture, **dict(zip(names, query.children + pool.children, strict=True))
    )


def test_the_box_follows_its_controls_and_says_what_it_found(box):
    assert box.modality.options == ("any modality", "text", "image")
    assert box.picture.alt == "Found for blue things: 1. blue.png; 2. something blue"
    box.text.value = "red things"
    assert box.picture.alt == "Found for red things: 1. red.png; 2. something red"
    box.modality.value = "text"
    assert box.picture.alt == "Found for red things: 1. something red; 2. something blue"
    box.text.value, box.medium.value, box.modality.value = "", "the red one", "image"
    assert box.picture.alt == "Found for the red one: 1. red.png; 2. blue.png"


def test_scores_are_standardised_on_demand(box, monkeypatch):
    asked = []
    found = searching.search_items
    monkeypatch.setattr(
        searching, "search_items", lambda *a: asked.append(a[5]) or found(*a)
    )  # fmt: skip
    box.standardise.value = True
    box.standardise.value = False
    assert asked == [Standardised(), COSINE]


def test_an_empty_query_is_told_and_leaves_the_picture(box):
    before = box.picture.png
    box.text.value = "  "
    assert box.picture.note.startswith("An empty query") and box.picture.png == before
    box.text.value = "red"
    assert box.picture.note == "" and box.picture.png != before


def upload(box, name, content):
    about = {"name": name, "type": "image/png", "size": len(content)}
    box.upload.value = (about | {"content": memoryview(content), "last_modified": datetime.now()},)


def test_an_uploaded_picture_is_asked_at_once_and_can_be_chosen_again(box, monkeypatch):
    asked = []
    monkeypatch.setattr(Words, "embed", lambda self, items, *_, **__: asked.extend(items)
                        or np.eye(3, dtype=np.float32)[: len(items)])  # fmt: skip
    drawn = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(drawn, "PNG")
    box.text.value = ""
    upload(box, "mine.png", drawn.getvalue())
    assert box.medium.value == "upload 1: mine.png"
    assert set(asked[-1]) == {"image"} and asked[-1]["image"].getpixel((0, 0)) == (255, 0, 0)
    assert box.picture.alt.startswith("Found for upload 1: mine.png: 1. red.png")
    upload(box, "broken.png", drawn.getvalue()[:40])
    assert box.picture.note.startswith("upload 2: broken.png: no picture that can be read")
    box.medium.value = "upload 1: mine.png"
    assert box.picture.note == "" and len(asked) == 2
