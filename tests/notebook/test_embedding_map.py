"""Maps of several models: layout, items and pairs, and what the widget shows when it is used."""

import numpy as np
import pytest
from PIL import Image

from unite_core.files import write_json
from unite_core.notebook.embedding_map import (
    kinds_of,
    lay_out,
    linked_maps,
    map_items,
    nearest_rows,
)

RNG = np.random.default_rng(0)
CLOUDS = RNG.normal(size=(2, 24)).repeat(20, axis=0) + 0.1 * RNG.normal(size=(40, 24))


def test_a_map_is_repeatable_scaled_and_keeps_neighbours():
    maps = [lay_out({"base": CLOUDS, "stage 1": CLOUDS}, 3, 8) for _ in range(2)]
    for name in ("base", "stage 1"):
        assert np.array_equal(maps[0][name], maps[1][name])
        points = maps[0][name]
        assert points.shape == (40, 2) and np.abs(points).max() == pytest.approx(1)
        assert np.allclose(points.max(0) + points.min(0), 0, atol=1e-5)
        near = nearest_rows(points, 25, 20)
        assert near[0] == 25 and set(near) == set(range(20, 40)), "a cloud stays together"


def test_the_next_map_starts_from_the_one_before():
    maps = lay_out({"one": CLOUDS, "the same": CLOUDS, "again": CLOUDS}, 0, 8)
    means = [points[:20].mean(0) - points[20:].mean(0) for points in maps.values()]
    cosine = means[1] @ means[2] / np.linalg.norm(means[1]) / np.linalg.norm(means[2])
    assert cosine > 0.8, "clouds keep their places"


@pytest.mark.parametrize(("vectors", "message"), [
    ({"a": CLOUDS, "b": CLOUDS[:30]}, "maps of the same items"),
    ({"a": CLOUDS[:15]}, "15 neighbours need more items than 15"),
])  # fmt: skip
def test_vectors_must_fit(vectors, message):
    with pytest.raises(ValueError, match=message):
        lay_out(vectors)


def test_items_are_listed_once_and_found_again():
    cat, dog = {"text": "cat"}, {"text": "dog"}
    groups = {
        "pairs": {"text": [cat, dog], "image": [{"image": "c.png"}, {"image": "d.png"}]},
        "three": {"text": [cat], "image": [{"image": "c.png"}], "video": [{"video": "c.webp"}]},
    }
    found = map_items(groups)
    assert found.modality == ["text", "image", "text", "image", "video"]
    assert found.words == ["cat", "cat", "dog", "dog", "cat"]
    assert found.rows(groups["pairs"]).tolist() == [[0, 1], [2, 3]]
    assert found.rows(groups["three"]).tolist() == [[0, 1, 4]]


def test_kinds_come_from_the_corpus(tmp_path):
    concepts = [
        {"family": "1f408", "texts": ["cat", "cat. A kind of mammals: pet."]},
        {"family": "blue star", "texts": ["a large blue star on black"]},
    ]
    write_json(tmp_path / "concepts.json", concepts)
    words = ["cat", "cat: dark skin tone", "a small blue star on white", "a green star"]
    assert kinds_of(tmp_path, words) == ["mammals", "mammals", "blue star", ""]


@pytest.fixture
def box(tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    items = [{"image": "a.png"}] * 20 + [{"text": f"word {n}"} for n in range(20)]
    maps = {"base": CLOUDS[:, :2], "stage 1": CLOUDS[:, 2:4]}
    words = ["a <thing>"] * 20 + [f"word {n}" for n in range(20)]
    return linked_maps(maps, items, tmp_path, words, ["cat"] * 10 + ["dog"] * 30)


def plots_of(box):
    grid = next(child for child in box.children if type(child).__name__ == "GridBox")
    return [column.children[1] for column in grid.children]


def test_a_lasso_selects_in_all_maps_and_shows_a_sheet(box):
    first, second = plots_of(box)
    first.selection = np.array([3, 25, 24])
    assert second.selection.tolist() == [3, 25, 24]
    assert box.selected.tolist() == [3, 24, 25]
    sheet = box.children[-1].value
    assert "3 selected: 1 image, 2 text" in sheet
    assert sheet.count("<img") == 1 and "word 4" in sheet and "word 5" in sheet
    second.selection = np.array([], dtype=int)
    assert box.children[-1].value == "Nothing is selected." and not len(box.selected)


def test_what_the_pointer_is_on_is_shown(box):
    first, _ = plots_of(box)
    first.hovering = 2
    assert 'alt="a &lt;thing&gt;"' in box.children[-2].value
    assert "image: a &lt;thing&gt;" in box.children[-2].value
    first.hovering = 21
    assert box.children[-2].value == "text: word 1"


def test_colours_can_be_those_of_kinds(box):
    choice, first = box.children[0], plots_of(box)[0]
    before = list(first.color)
    choice.value = "kind"
    assert first.color_title == "kind" and list(first.color) != before


def test_without_kinds_there_is_no_choice(tmp_path):
    items = [{"text": f"w{n}"} for n in range(40)]
    box = linked_maps({"base": CLOUDS[:, :2]}, items, tmp_path)
    assert [type(child).__name__ for child in box.children] == ["GridBox", "HTML", "HTML"]
