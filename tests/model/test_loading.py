"""Settings of loading: defaults by device, names everywhere, devices and four bits."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from unite_core import UniteEmbedder
from unite_core.model.config import EmbedConfig
from unite_core.model.loading import (
    LoadConfig,
    device_of,
    dtype_of,
    load_settings,
    processes_for,
)
from unite_core.search.blocks import model_key
from unite_core.tiny import TINY

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
RNG = np.random.default_rng(0)
ITEMS = [
    {"text": "a cat"},
    {"text": "a longer sentence about a cat on a mat"},
    {"image": RNG.integers(0, 255, (80, 120, 3), dtype=np.uint8)},
    {"text": "<|VIDEO|> moving", "video": RNG.integers(0, 255, (5, 64, 96, 3), dtype=np.uint8)},
]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return UniteEmbedder.load(FOLDER, device="cpu").embed(ITEMS, progress=False)


def test_the_type_is_the_device_s_unless_asked_for():
    assert dtype_of(LoadConfig(), CPU) == torch.float32
    assert dtype_of(LoadConfig(), GPU) == torch.bfloat16
    assert dtype_of(LoadConfig(dtype="float16"), GPU) == torch.float16
    assert dtype_of(load_settings({"dtype": torch.bfloat16})[0], CPU) == torch.bfloat16
    assert device_of(load_settings({"device": torch.device("cpu")})[0]) == CPU
    embedder = UniteEmbedder.load(FOLDER, device="cpu", dtype="bfloat16")
    assert {weight.dtype for weight in embedder.parameters()} == {torch.bfloat16}


def test_names_of_loading_and_of_embedding_do_not_collide():
    names = [{field.name for field in fields(kind)} for kind in (LoadConfig, EmbedConfig)]
    assert not names[0] & names[1]
    how, rest = load_settings({"workers": 3, "batch_tokens": 7, "max_frames": 8})
    assert how == LoadConfig(workers=3, batch_tokens=7) and rest == {"max_frames": 8}
    embedder = UniteEmbedder.load(FOLDER, workers=0, max_frames=8)
    assert embedder.loading.workers == 0 and embedder.config.max_frames == 8
    assert embedder.configured(max_frames=9).loading is embedder.loading


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "int8"}, "dtype is 'int8': must be one of float32, bfloat16, float16"),
        ({"device_map": "every"}, "device_map is 'every': must be one of auto, balanced"),
        ({"quantize": "2bit"}, "quantize is '2bit'"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
    ],
)
def test_mistakes_name_the_setting(values, message):
    with pytest.raises(ValueError, match=message):
        UniteEmbedder.load(FOLDER, **values)


def test_flash_attention_says_what_it_needs():
    with pytest.raises(ValueError, match="flash_attention_2 needs a GPU, .* package flash-attn"):
        UniteEmbedder.load(FOLDER, device="cpu", attention="flash_attention_2")


def test_readers_by_default(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16), raising=False)
    assert processes_for(LoadConfig(), CPU) == 0
    assert processes_for(LoadConfig(), GPU) == 8
    assert processes_for(LoadConfig(workers=3), CPU) == 3
    assert processes_for(LoadConfig(workers=0), GPU) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert processes_for(LoadConfig(), GPU) == 3


@pytest.mark.parametrize(
    "device_map",
    [
        {"": "cpu"},
        {"visual": "cpu", "language_model": "disk"},
        {"visual": "disk", "language_model": "cpu"},
        {"visual": "cpu", "language_model.embed_tokens": "cpu", "language_model.norm": "cpu",
         "language_model.rotary_emb": "cpu", "language_model.layers.0": "disk",
         "language_model.layers.1": "cpu", "language_model.layers.2": "cpu"},
    ],
)  # fmt: skip
def test_a_model_in_several_places_gives_the_same_vectors(device_map, expected):
    embedder = UniteEmbedder.load(FOLDER, device="cpu", device_map=device_map)
    if "disk" in device_map.values():
        assert any(weight.device.type == "meta" for weight in embedder.parameters())
    assert embedder.device == CPU
    assert model_key(embedder) == model_key(UniteEmbedder.load(FOLDER, device="cpu"))
    found = embedder.embed(ITEMS, progress=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    again = embedder.embed(ITEMS[::-1], progress=False)[::-1]
    np.testing.assert_allclose(again, expected, atol=1e-5)


def test_four_bits_without_the_package_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs the package \w+ \(pip install"):
        UniteEmbedder.load(FOLDER, quantize="4bit")


def test_four_bits(tmp_path):
    pytest.importorskip("bitsandbytes")
    expected = UniteEmbedder.load(TINY, device="cpu").embed(ITEMS, progress=False)
    embedder = UniteEmbedder.load(TINY, device="cpu", quantize="4bit")  # of widths that it packs
    kinds = {type(part).__name__ for part in embedder.base.language_model.layers.modules()}
    assert "Linear4bit" in kinds and "Linear" not in kinds
    kinds = {type(part).__name__ for part in embedder.base.visual.modules()}
    assert "Linear4bit" not in kinds
    found = embedder.embed(ITEMS, progress=False)
    cosines = (found * expected).sum(1)
    assert (cosines > 0.8).all() and (cosines < 1 - 1e-6).any()
    with pytest.raises(ValueError, match="four bits are not saved: load without quantize"):
        embedder.save(tmp_path)
    embedder.attach_lora(rank=2, alpha=4)
    np.testing.assert_allclose(embedder.embed(ITEMS, progress=False), found, atol=1e-5)
