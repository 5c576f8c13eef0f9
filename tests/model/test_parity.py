"""`parity="released"` repeats the authors' choices where ours differ; `describe` says which."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unite_core import UniteEmbedder
from unite_core.data.media import image_shape, load_image
from unite_core.model.config import EmbedConfig
from unite_core.model.prompts import build_prompt

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
CLIP = np.zeros((4, 60, 60, 3), np.uint8)


@pytest.fixture
def pictures(tmp_path) -> Path:
    pixels = np.arange(80 * 120 * 3, dtype=np.uint8).reshape(80, 120, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    hidden = np.concatenate([pixels, np.zeros((80, 120, 1), np.uint8)], axis=2)
    Image.fromarray(hidden).save(tmp_path / "clear.png")
    return tmp_path


def test_pictures_as_stored(pictures):
    assert load_image("turned.png", pictures).size == (80, 120)
    assert load_image("turned.png", pictures, as_stored=True).size == (120, 80)
    assert image_shape("turned.png", pictures) == (120, 80)
    assert image_shape("turned.png", pictures, as_stored=True) == (80, 120)
    assert np.asarray(load_image("clear.png", pictures)).min() == 255
    stored = np.asarray(load_image("clear.png", pictures, as_stored=True))
    np.testing.assert_array_equal(stored, np.asarray(Image.open(pictures / "clear.png"))[..., :3])


def test_an_embedder_takes_pictures_as_stored(pictures):
    released = UniteEmbedder.load(FOLDER, parity="released")
    items = [{"image": str(name)} for name in ("turned.png", "clear.png")]
    bare = [
        {"image": Image.fromarray(np.asarray(Image.open(pictures / item["image"]))[..., :3])}
        for item in items
    ]
    np.testing.assert_array_equal(
        released.embed(items, pictures, progress=False), released.embed(bare, progress=False)
    )
    corrected = released.configured(parity="corrected")
    assert (np.abs(corrected.embed(items, pictures, progress=False)
                   - released.embed(bare, progress=False)).max(1) > 1e-3).all()  # fmt: skip


def test_images_precede_videos_whatever_the_order_of_keys():
    item = {"video": "a.mp4", "image": "b.png"}
    prompt = build_prompt(item, images_first=True)
    assert prompt.index("image_pad") < prompt.index("video_pad")
    assert "video and image in one word" in prompt, "the words follow the keys in both"
    processor = UniteEmbedder.load(FOLDER, parity="released").processor
    ids = processor.encode({"video": CLIP, "image": CLIP[0]}).input_ids
    assert ids.index(processor.image_id) < ids.index(processor.video_id)


def test_times_of_videos_follow_from_fps():
    processor = UniteEmbedder.load(FOLDER, parity="released", fps=4.0).processor
    assert processor.encode({"video": CLIP}).video_step == [0.5]
    assert EmbedConfig().parity == "corrected"


def test_describe_says_what_was_loaded():
    embedder = UniteEmbedder.load(FOLDER, parity="released", dtype="bfloat16")
    found = embedder.describe()
    assert found["family"] == "qwen2_vl (Qwen2VLModel)" and found["embedder"] == "UNITE"
    assert found["positions"] == "sequential" and found["dtype"] == "bfloat16"
    assert "{instruction}\n{text}\nSummary above" in found["template"]
    assert "released" in found["pixels"] and found["attention"] == "sdpa"
    assert "none known" in embedder.configured(prompt="raw").describe()["embedder"]
    assert all(isinstance(value, str) for value in found.values())
