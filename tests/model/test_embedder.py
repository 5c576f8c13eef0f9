"""The embedder reproduces the authors' vectors, and LoRA changes only what it should."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from unite_core import UniteEmbedder
from unite_core.data.items import ItemError
from unite_core.data.media import MediaError
from unite_core.model.checkpoint import CheckpointError

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
ITEMS = {
    name: entry["item"]
    for name, entry in json.loads((FOLDER / "reference.json").read_text("utf-8"))["items"].items()
}
REFERENCE = load_file(FOLDER / "reference.safetensors")
EXPECTED = np.stack([REFERENCE[f"{name}.embedding"].numpy() for name in ITEMS])
LORA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def embedder() -> UniteEmbedder:
    return UniteEmbedder.load(FOLDER)


@pytest.fixture
def adapted() -> UniteEmbedder:
    """With a LoRA whose update is not zero."""
    embedder = UniteEmbedder.load(FOLDER)
    embedder.attach_lora(rank=4, alpha=8, dropout=0.1, seed=1)
    for name, weight in embedder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return embedder


def embed_all(embedder: UniteEmbedder, **options) -> np.ndarray:
    return embedder.embed(list(ITEMS.values()), FOLDER, progress=False, **options)


@pytest.mark.parametrize("name", ITEMS)
def test_each_item_alone_equals_the_authors(embedder, name):
    (vector,) = embedder.embed([ITEMS[name]], FOLDER, progress=False)
    np.testing.assert_allclose(vector, REFERENCE[f"{name}.embedding"], atol=1e-5)


@pytest.mark.parametrize("batch_size", [None, 1, 3, 10])
def test_mixed_batches_equal_the_authors(embedder, batch_size):
    vectors = embed_all(embedder, batch_size=batch_size)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, EXPECTED, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("batch_size", [-1, 0, 1.5, "2"])
def test_batches_of_no_items_are_refused(embedder, batch_size):
    with pytest.raises(ValueError, match="batch_size must be a number from 1 on, or None"):
        embed_all(embedder, batch_size=batch_size)


ODD = [
    None, 5, "x", b"", [], {}, {"text": 5}, {"text": ["a"]}, {"image": {}}, {"image": [None]},
    {"video": [[]]}, {"video": [["a.png", 5]]}, {"video": 5}, {"image": "\0"}, {"image": "\ud800"},
    {"video": [[["a.png"]]]}, {"text": "\ud800"}, {"text": "<|video_pad|>"}, {1: 2}, np.zeros(()),
    {"image": b"x"}, {"video": iter([1])}, {"image": "a" * 300}, {"video": "."},
    {"image": np.zeros((4, 4, 3))}, {"video": np.zeros((2, 0, 4, 3), np.uint8)},
    Image.new("F", (3, 3)), Image.new("RGB", (0, 3)), Image.new("RGB", (30, 6001)),
    {"video": [Image.new("RGB", (3, 3)), Image.new("RGB", (3, 4))]},
]  # fmt: skip


@pytest.mark.parametrize("item", ODD, ids=range(len(ODD)))
def test_odd_items_are_item_or_media_errors(embedder, item):
    plan = embedder.plan([{"text": "a"}, item], ["first", "second"], FOLDER)
    assert list(plan.bad) == [1] and str(plan.bad[1]).startswith("second: ")
    with pytest.raises((ItemError, MediaError), match="^item 1: "):
        embedder.embed([{"text": "a"}, item], FOLDER, progress=False)


def test_order_of_items_does_not_matter(embedder):
    backwards = embedder.embed(list(ITEMS.values())[::-1], FOLDER, progress=False)
    np.testing.assert_allclose(backwards[::-1], EXPECTED, atol=1e-5)


def test_token_budget_is_kept():
    embedder = UniteEmbedder.load(FOLDER, batch_tokens=150)
    shapes = []
    handle = embedder.register_forward_pre_hook(
        lambda _, args, batch: shapes.append(batch["input_ids"].shape), with_kwargs=True
    )
    np.testing.assert_allclose(embed_all(embedder), EXPECTED, atol=1e-5)
    handle.remove()
    assert max(rows * tokens for rows, tokens in shapes) <= 150
    assert sum(rows for rows, _ in shapes) == len(ITEMS) and max(rows for rows, _ in shapes) > 1


def test_positions_matter(embedder):
    other = embed_all(UniteEmbedder.load(FOLDER, positions="mrope"))
    cosines = (other * EXPECTED).sum(1)
    texts = [set(item) == {"text"} for item in ITEMS.values()]
    assert (cosines[texts] > 0.99999).all()
    assert (cosines[np.logical_not(texts)] < 0.995).all()


def test_padding_side_does_not_matter(embedder):
    processor = embedder.processor
    encoded = [processor.encode(ITEMS[name], FOLDER) for name in ("text_short", "image_wide")]
    left = processor.collate(encoded)
    right = dict(left)
    for key in ("input_ids", "attention_mask"):
        short = len(encoded[0].input_ids)
        right[key] = torch.stack([left[key][0].roll(short), left[key][1]])
    assert not torch.equal(left["attention_mask"], right["attention_mask"])
    for batch in (left, right):  # padding that is no copy of the pooled token
        batch["input_ids"] = batch["input_ids"].where(batch["attention_mask"].bool(), 5)
    with torch.no_grad():
        torch.testing.assert_close(embedder(**left), embedder(**right), atol=1e-5, rtol=0)


def test_no_items_no_vectors(embedder):
    assert embedder.embed([]).shape == (0, 64)


def test_progress_is_shown_only_when_asked(embedder, capsys):
    embedder.embed([{"text": "a"}], progress=False)
    assert capsys.readouterr().err == ""
    embedder.embed([{"text": "a"}])
    assert "1/1" in capsys.readouterr().err


def test_training_mode_is_restored_and_dropout_is_off(adapted):
    adapted.train()
    first = embed_all(adapted)
    assert adapted.training and adapted.backbone.training
    np.testing.assert_array_equal(first, embed_all(adapted))
    with pytest.raises(ItemError):
        adapted.embed([{}], progress=False)
    assert adapted.training
    assert not UniteEmbedder.load(FOLDER).training


def test_memory_items(embedder):
    with Image.open(FOLDER / "inputs" / "image0.png") as image:
        image.load()
    vectors = embedder.embed([image, np.asarray(image)], progress=False)
    np.testing.assert_allclose(vectors, EXPECTED[[2, 2]], atol=1e-5)


def test_errors_name_the_index(embedder):
    cut = Image.new("RGB", (1000, 2))
    with pytest.raises(ItemError, match="item 1: the item is empty"):
        embedder.embed([{"text": "a"}, {}], progress=False)
    with pytest.raises(MediaError, match="item 0: image in memory: sides of more than 200 : 1"):
        embedder.embed([cut], progress=False)
    with pytest.raises(MediaError, match="item 2: ../b.png: lies outside"):
        embedder.embed([{"text": "a"}] * 2 + [{"image": "../b.png"}], FOLDER, progress=False)
    with pytest.raises(TypeError, match="must be a list of items, not dict"):
        embedder.embed({"text": "a"})


def test_saved_and_loaded_gives_the_same_vectors(tmp_path, embedder):
    changed = UniteEmbedder.load(FOLDER, max_frames=8, fps=2.0)
    changed.save(tmp_path / "new")
    again = UniteEmbedder.load(tmp_path / "new")
    assert again.config == changed.config and again.config.max_frames == 8
    np.testing.assert_array_equal(embed_all(again), embed_all(embedder))
    again.save(tmp_path / "new")  # over itself
    np.testing.assert_array_equal(
        embed_all(UniteEmbedder.load(tmp_path / "new")), embed_all(embedder)
    )
    assert not list(tmp_path.rglob(".partial"))


def test_bfloat16_weights_give_float32_vectors(embedder):
    small = UniteEmbedder.load(FOLDER, dtype=torch.bfloat16)
    vectors = embed_all(small)
    assert next(small.parameters()).dtype == torch.bfloat16 and vectors.dtype == np.float32
    assert ((vectors * EXPECTED).sum(1) > 0.99).all()


def test_fresh_lora_changes_nothing_and_repeats(embedder):
    first, second = UniteEmbedder.load(FOLDER), UniteEmbedder.load(FOLDER)
    before = torch.random.get_rng_state()
    for model in (first, second):
        model.attach_lora(rank=4, alpha=8, seed=3)
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(embed_all(first), embed_all(embedder))
    for (name, one), (_, two) in zip(
        first.named_parameters(), second.named_parameters(), strict=True
    ):
        assert torch.equal(one, two), name


def test_gradients_reach_lora_of_the_language_model_only(adapted):
    names = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert len(names) == 3 * len(LORA) * 2
    assert all("language_model.layers" in name and "lora_" in name for name in names)
    processor = adapted.processor
    batch = processor.collate([processor.encode(item, FOLDER) for item in ITEMS.values()])
    adapted(**batch)[:, 0].sum().backward()
    for name, weight in adapted.named_parameters():
        assert (weight.grad is not None and weight.grad.abs().sum() > 0) == (name in names), name


def test_merged_lora_equals_unmerged(adapted, tmp_path):
    with pytest.raises(ValueError, match="merge_lora"):
        adapted.save(tmp_path)
    vectors = embed_all(adapted)
    assert np.abs(vectors - EXPECTED).max() > 1e-2
    adapted.merge_lora()
    np.testing.assert_allclose(embed_all(adapted), vectors, atol=1e-5)
    adapted.save(tmp_path)
    np.testing.assert_allclose(embed_all(UniteEmbedder.load(tmp_path)), vectors, atol=1e-5)


def test_adapter_is_saved_loaded_and_trains_on(adapted, tmp_path):
    vectors = embed_all(adapted)
    adapted.save_lora(tmp_path)
    onto = UniteEmbedder.load(FOLDER)
    onto.load_lora(tmp_path)
    whole = UniteEmbedder.load(tmp_path)  # the adapter names its base
    for model in (onto, whole):
        np.testing.assert_array_equal(embed_all(model), vectors)
        assert sum(weight.requires_grad for weight in model.parameters()) == 3 * len(LORA) * 2
    assert whole.config == adapted.config


def test_adapter_of_the_released_code_loads(adapted, tmp_path):
    """Its keys lack `language_model`, since UniteQwen2VL held the layers in `model`."""
    adapted.save_lora(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    old = {name.replace("language_model.", "model."): weight for name, weight in weights.items()}
    assert not set(old) & set(weights)
    save_file(old, path)
    np.testing.assert_array_equal(embed_all(UniteEmbedder.load(tmp_path)), embed_all(adapted))


def drop_module(weights, name):
    weights.pop(name), weights.pop(name.replace("lora_A", "lora_B"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, n: w.pop(n), "missing: base_model.*q_proj.lora_A"),
        (drop_module, "missing: base_model.*q_proj.lora_A.weight, .*q_proj.lora_B.weight"),
        (lambda w, n: w.update(stray=w[n].clone()), "not of this model: base_model.model.stray"),
        (lambda w, n: w.update({n: w[n][:2].clone()}), r"misshapen: .*\[2, 64\] instead of"),
        (lambda w, n: w[n].fill_(float("nan")), "NaN or infinite values: base_model"),
    ],
)
def test_bad_adapters_are_refused_by_name(change, message, adapted, tmp_path):
    adapted.save_lora(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    change(weights, next(name for name in weights if "q_proj.lora_A" in name))
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=message):
        UniteEmbedder.load(FOLDER).load_lora(tmp_path)


def test_lora_out_of_turn(adapted, embedder):
    with pytest.raises(ValueError, match="attached already"):
        adapted.attach_lora(rank=2, alpha=2)
    for act in (embedder.merge_lora, lambda: embedder.save_lora("unused")):
        with pytest.raises(ValueError, match="no LoRA is attached"):
            act()


def test_importing_the_package_is_cheap():
    code = (
        "import sys, time; start = time.perf_counter(); import unite_core; "
        "spent = time.perf_counter() - start; "
        "assert 'torch' not in sys.modules and 'PIL' not in sys.modules; "
        "assert len(unite_core.__all__) <= 20; assert spent < 0.3, spent"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_activations_are_checkpointed_in_trained_parts_also_by_an_older_transformers(monkeypatch):
    from transformers import PreTrainedModel

    called = []
    embedder = UniteEmbedder.load(FOLDER, device="cpu")
    embedder.attach_lora(4, 8)  # the tower is frozen
    name = "activation_checkpointing_enable"
    monkeypatch.setattr(PreTrainedModel, name, lambda part: called.append(("new", part)))
    monkeypatch.setattr(PreTrainedModel, "gradient_checkpointing_enable",
                        lambda part: called.append(("old", part)))  # fmt: skip
    embedder.checkpoint_activations()
    monkeypatch.delattr(PreTrainedModel, name)
    embedder.checkpoint_activations()
    assert called == [("new", embedder.base.language_model), ("old", embedder.base.language_model)]
