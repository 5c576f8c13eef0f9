"""Words and pictures of items, as tables and sheets show them."""

import pytest
from PIL import Image

from unite_core.data.media import MediaError
from unite_core.data.shown import item_name, item_picture, item_text

COLOURS = ("red", "lime", "blue")


@pytest.fixture
def root(tmp_path):
    for name in COLOURS:
        Image.new("RGB", (40, 20), name).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize(("item", "text", "name"), [
    ({"text": "<|IMAGE|>\nin  blue", "image": "a.png"}, "in blue", "in blue"),
    ({"text": "one<|VIDEO|>two", "video": "a.mp4"}, "one two", "one two"),
    ({"text": "<|IMAGE|>", "image": "a.png"}, "", "a"), ({"image": "far/cat.png"}, "", "cat"),
    ({"video": ["x0.png", "x1.png"]}, "", "x0"),
    ({"image": Image.new("RGB", (2, 2))}, "", "picture"),
])  # fmt: skip
def test_an_item_has_a_text_and_a_name(item, text, name):
    assert (item_text(item), item_name(item)) == (text, name)


def test_a_clip_is_its_middle_frame_or_a_sheet(root):
    clip = {"video": [f"{name}.png" for name in COLOURS]}
    assert item_picture(clip, root).getcolors() == [(800, (0, 255, 0))]
    sheet = item_picture(clip, root, frames=3)
    assert sheet.size == (80, 40)
    corners = [sheet.getpixel(place) for place in ((5, 5), (60, 5), (5, 30), (60, 30))]
    assert corners == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    ends = item_picture(clip, root, frames=2)
    assert (ends.getpixel((5, 5)), ends.getpixel((60, 5))) == ((255, 0, 0), (0, 0, 255))


def test_a_picture_comes_before_a_clip_and_a_text_has_none(root):
    both = {"video": ["red.png", "lime.png"], "image": "blue.png"}
    assert item_picture(both, root).getpixel((0, 0)) == (0, 0, 255)
    assert item_picture({"text": "none"}, root) is None
    with pytest.raises(MediaError):
        item_picture({"image": "gone.png"}, root)


def test_making_it_smaller_leaves_the_given_picture_alone():
    given = Image.new("RGB", (40, 20))
    item_picture({"image": given}).thumbnail((10, 10))
    assert given.size == (40, 20)
