"""Tokens and pixels are the authors', visual tokens are never cut, the processor travels."""

import json
import pickle
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from unite_core.data.items import ItemError
from unite_core.data.media import MediaError
from unite_core.model.checkpoint import load_processor
from unite_core.model.config import EmbedConfig
from unite_core.model.processor import Processor

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
ITEMS = {
    name: entry["item"]
    for name, entry in json.loads((FOLDER / "reference.json").read_text("utf-8"))["items"].items()
}
REFERENCE = load_file(FOLDER / "reference.safetensors")
CONFIG = EmbedConfig(
    image_min_pixels=3136, image_max_pixels=12544, video_pixels="released", max_frames=8
)
PICTURE = Image.new("RGB", (80, 60), (200, 30, 30))


@pytest.fixture(scope="module")
def processor() -> Processor:
    from transformers import Qwen2VLConfig

    raw = json.loads((FOLDER / "config.json").read_text("utf-8"))
    return load_processor(FOLDER, Qwen2VLConfig.from_dict(raw | {"model_type": "qwen2_vl"}), CONFIG)


def limited(processor: Processor, **changes) -> Processor:
    return Processor(
        processor.tokenizer, replace(CONFIG, **changes), processor.layout, processor.video_time
    )


@pytest.mark.parametrize("name", ITEMS)
def test_tokens_and_pixels_equal_the_authors(processor, name):
    encoded = processor.encode(ITEMS[name], FOLDER)
    batch = processor.collate([encoded])
    assert encoded.input_ids == REFERENCE[f"{name}.input_ids"].tolist()
    pixels = {key for key in batch if key not in ("input_ids", "attention_mask")}
    assert {f"{name}.{key}" for key in pixels} == {
        key for key in REFERENCE if key.startswith(f"{name}.") and ("pixel" in key or "thw" in key)
    }
    for key in pixels:
        torch.testing.assert_close(batch[key], REFERENCE[f"{name}.{key}"], atol=1e-4, rtol=0)


def estimate(processor, item, root=".", where="item") -> int:
    return processor.count_tokens(processor.plan_item(item, where), root, where)


@pytest.mark.parametrize("name", ITEMS)
def test_estimate_from_headers_is_exact_where_frames_are_known(processor, name):
    assert estimate(processor, ITEMS[name], FOLDER) == len(
        processor.encode(ITEMS[name], FOLDER).input_ids
    )


def test_collate_pads_left_and_keeps_the_order_of_media(processor):
    names = ["text_short", "text_image_text", "video", "image_wide"]
    encoded = [processor.encode(ITEMS[name], FOLDER) for name in names]
    batch = processor.collate(encoded)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (4, 68)
    for row, mask, item in zip(batch["input_ids"], batch["attention_mask"], encoded, strict=True):
        assert row[mask.bool()].tolist() == item.input_ids
        assert mask.sum() == mask[-len(item.input_ids) :].sum() == len(item.input_ids)
        assert (row[~mask.bool()] == processor.pad_id).all()
    assert batch["image_grid_thw"].tolist() == [[1, 6, 8], [1, 6, 6], [1, 6, 8]]
    assert len(batch["pixel_values"]) == batch["image_grid_thw"].prod(1).sum()
    assert set(processor.collate(encoded[:1])) == {"input_ids", "attention_mask"}


def test_memory_media_equal_files(processor):
    path = FOLDER / "inputs" / "image0.png"
    with Image.open(path) as image:
        image.load()
    from_file = processor.encode({"image": path}, FOLDER)
    for source in (image, np.asarray(image), {"image": image}):
        encoded = processor.encode(source)
        assert encoded.input_ids == from_file.input_ids
        assert torch.equal(encoded.images[0][0], from_file.images[0][0])
    clip = np.stack([np.asarray(image)] * 3)
    assert processor.encode(clip).videos[0][1] == (2, 6, 8)


def test_long_text_is_cut_at_its_end_with_one_warning(processor):
    short = limited(processor, max_length=60)
    item = {"text": "<|IMAGE|> a red circle " * 2 + "moves left " * 40, "image": [PICTURE] * 2}
    with pytest.warns(UserWarning, match=r"item 7: .* more than max_length 60"):
        encoded = short.encode(item, where="item 7")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert short.encode(item).input_ids == encoded.input_ids
    assert 57 <= len(encoded.input_ids) <= 60
    assert encoded.input_ids.count(processor.image_id) == 2 * 6
    text = processor.tokenizer.decode(encoded.input_ids)
    assert "a red circle" in text and text.count("moves") < 40
    assert text.endswith("in one word:<|im_end|>\n<|im_start|>assistant\n<|endoftext|>")
    assert estimate(short, item) == 60


def test_text_that_fits_is_whole(processor):
    ids = processor.encode(ITEMS["text_long"]).input_ids
    assert limited(processor, max_length=len(ids)).encode(ITEMS["text_long"]).input_ids == ids


@pytest.mark.filterwarnings("ignore:.*more than max_length")
@pytest.mark.parametrize(
    "item", [{"image": [PICTURE] * 9}, {"text": "cat <|IMAGE|>", "image": PICTURE}, {"text": "cat"}]
)
def test_item_that_cannot_fit_is_an_error_that_names_it(processor, item):
    with pytest.raises(ItemError, match=r"item 3: .*max_length 20: raise max_length"):
        limited(processor, max_length=20).encode(item, where="item 3")


def test_errors_name_the_item(processor):
    with pytest.raises(ItemError, match="query of row 5: unknown modality audio"):
        processor.encode({"audio": "a.wav"}, where="query of row 5")
    for method in (processor.encode, partial(estimate, processor)):
        with pytest.raises(MediaError, match=r"item 2: gone.png: no such file"):
            method({"image": "gone.png"}, FOLDER, "item 2")
        with pytest.raises(MediaError, match="item 2: image in memory: sides of more than 200 : 1"):
            method(Image.new("RGB", (1000, 2)), ".", "item 2")


def test_time_stamps_for_qwen3(processor):
    stamped = Processor(processor.tokenizer, CONFIG, processor.layout, video_time="text")
    item = {"text": "<|VIDEO|> twice <|VIDEO|>", "video": [np.zeros((5, 56, 56, 3), np.uint8)] * 2}
    encoded = stamped.encode(item)
    text = stamped.tokenizer.decode(encoded.input_ids).replace("<|video_pad|>", "")
    block = "".join(f"<{t} seconds><|vision_start|><|vision_end|>" for t in ("0.5", "2.5", "4.0"))
    assert f"{block} twice {block}" in text
    assert encoded.input_ids.count(stamped.video_id) == 2 * 3 * 4
    assert estimate(stamped, item) == len(encoded.input_ids)


def test_seconds_per_grid_for_qwen25(processor):
    timed = Processor(
        processor.tokenizer, replace(CONFIG, fps=4.0), processor.layout, video_time="positions"
    )
    batch = timed.collate([timed.encode(np.zeros((5, 56, 56, 3), np.uint8))])
    assert batch["second_per_grid_ts"].tolist() == [0.5]


def test_pickles_and_works_in_loader_workers(processor):
    copy = pickle.loads(pickle.dumps(processor))
    assert (
        copy.encode(ITEMS["image_text"], FOLDER).input_ids
        == processor.encode(ITEMS["image_text"], FOLDER).input_ids
    )
    loader = DataLoader(
        [ITEMS["video"], ITEMS["image_wide"]], batch_size=2, num_workers=1, collate_fn=Encoder(copy)
    )
    (batch,) = loader
    assert batch["input_ids"].shape == (2, 57)
    assert len(pickle.dumps(processor)) < 200_000


class Encoder:
    def __init__(self, processor):
        self.processor = processor

    def __call__(self, items):
        return self.processor.collate([self.processor.encode(item, FOLDER) for item in items])


def test_tokenizer_without_vision_tokens_is_refused(processor):
    class Plain:
        def convert_tokens_to_ids(self, token):
            return 0

        def convert_ids_to_tokens(self, index):
            return "<unk>"

    with pytest.raises(ValueError, match="no <|endoftext|>"):
        Processor(Plain(), CONFIG)
