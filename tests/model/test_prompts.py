"""Prompts are the authors', and items that cannot be read say why."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unite_core.data.items import ItemError, as_item, images_of, videos_of
from unite_core.model.prompts import build_prompt

REFERENCE = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny" / "reference.json"
ITEMS = json.loads(REFERENCE.read_text(encoding="utf-8"))["items"]
PICTURE = Image.new("RGB", (8, 8))


@pytest.mark.parametrize("name", ITEMS)
def test_prompt_equals_the_authors(name):
    assert build_prompt(ITEMS[name]["item"]) == ITEMS[name]["prompt"]


def test_modalities_follow_the_order_of_keys():
    text = "<|IMAGE|> like this"
    assert "above sentence and image in" in build_prompt({"text": text, "image": "a.png"})
    assert "above image and sentence in" in build_prompt({"image": "a.png", "text": text})
    assert "above video and image in" in build_prompt({"video": "a.mp4", "image": "a.png"})


def test_none_counts_as_absent():
    assert build_prompt({"text": "cat", "image": None}) == build_prompt({"text": "cat"})


def test_media_without_placeholder_go_before_the_text_with_a_warning():
    with pytest.warns(UserWarning, match="put before"):
        prompt = build_prompt({"text": "a cat", "image": "a.png", "video": "b.mp4"})
    assert prompt == build_prompt(
        {"text": "<|IMAGE|>\n<|VIDEO|>\na cat", "image": "a.png", "video": "b.mp4"}
    )


def test_media_alone_get_one_block_each_in_the_order_of_keys():
    prompt = build_prompt({"video": "a.mp4", "image": ["a.png", "b.png"]})
    assert prompt.count("<|image_pad|>") == 2
    assert prompt.index("<|video_pad|>") < prompt.index("<|image_pad|>")


def test_raw_template_is_the_turn_without_the_summary():
    prompt = build_prompt({"text": "{braces} stay"}, template="raw")
    assert "user\n{braces} stay<|im_end|>" in prompt
    assert prompt.endswith("<|im_start|>assistant\n<|endoftext|>")
    with pytest.raises(ValueError, match="is no prompt; known: unite, raw"):
        build_prompt({"text": "a"}, template="chat")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({}, "empty: give at least one of text, image, video"),
        ({"text": None}, "empty"),
        ({"text": "  "}, "text is empty"),
        ({"text": 3}, "must be a string, not int"),
        ({"audio": "a.wav"}, "unknown modality audio: an item has text, image, video"),
        ({"image": []}, "image is an empty list"),
        ({"video": []}, "video is an empty list"),
        ({"video": [[]]}, "video is an empty list"),
        ({"text": "<|IMAGE|>"}, "1 <|IMAGE|> and 0 <|VIDEO|>, the item 0 image"),
        ({"text": "<|IMAGE|>", "image": ["a.png", "b.png"]}, "the item 2 image"),
        ({"text": "<|IMAGE|>", "video": "a.mp4"}, "1 video"),
        ({"text": "<|image_pad|>", "image": "a.png"}, "reserved token <|image_pad|>"),
        ({"video": ["a.png", "b.mp4"]}, "nest the frames"),
        (7, "not int"),
        (np.zeros(3, np.uint8), "uint8 array"),
    ],
)
def test_bad_items_say_why(item, message):
    with pytest.raises(ItemError) as caught:
        build_prompt(item)
    assert message in str(caught.value)


def test_bare_pictures_and_arrays_are_items():
    assert as_item(PICTURE) == {"image": PICTURE}
    assert list(as_item(np.zeros((4, 4, 3), np.uint8))) == ["image"]
    assert list(as_item(np.zeros((2, 4, 4, 3), np.uint8))) == ["video"]


def test_videos_as_files_frames_and_several():
    frames = ["f0.png", "f1.jpg"]
    assert videos_of({"video": "a.mp4"}) == ["a.mp4"]
    assert videos_of({"video": ["a.mp4"]}) == ["a.mp4"]
    assert videos_of({"video": ["a.webp", "b.gif"]}) == ["a.webp", "b.gif"]
    assert videos_of({"video": frames}) == [frames]
    assert videos_of({"video": [frames]}) == [frames]
    assert videos_of({"video": [frames, "b.mp4"]}) == [frames, "b.mp4"]
    assert videos_of({"video": [PICTURE, PICTURE]}) == [[PICTURE, PICTURE]]
    assert videos_of({"video": ["0.png"]}) == [["0.png"]]  # a still alone is a one-frame video
    assert images_of({"image": PICTURE}) == images_of({"image": [PICTURE]}) == [PICTURE]
    assert images_of({"text": "a"}) == videos_of({"text": "a"}) == []
