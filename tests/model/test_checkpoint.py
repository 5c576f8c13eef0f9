"""Checkpoints of every layout load whole; anything missing, extra, misshapen or NaN has a name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from unite_core import UniteEmbedder
from unite_core.model.checkpoint import (
    CheckpointError,
    base_of,
    load_backbone,
    locate,
    publish,
)

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
LIMITS = {  # and what would be assumed of a checkpoint of no known embedder, with a warning
    "positions": "mrope", "prompt": "unite",
    "image_min_pixels": 3136, "image_max_pixels": 12544,
    "video_min_pixels": 3136, "video_max_pixels": 12544,
}  # fmt: skip
TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 448, "bos_token_id": 418, "eos_token_id": 417,
}  # fmt: skip
IDS = {
    "image_token_id": 429, "video_token_id": 430,
    "vision_start_token_id": 426, "vision_end_token_id": 427,
}  # fmt: skip
VISION = {
    "Qwen2VL": {"embed_dim": 32, "hidden_size": 64},
    "Qwen2_5_VL": {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48,
                   "fullatt_block_indexes": [1], "tokens_per_second": 2},
    "Qwen3VL": {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48,
                "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
}  # fmt: skip
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 255, (80, 120, 3), dtype=np.uint8)
CLIP = RNG.integers(0, 255, (5, 64, 96, 3), dtype=np.uint8)
MIXED = [
    {"text": "a red circle"},
    {"image": PICTURE},
    {"video": CLIP},
    {"text": "<|VIDEO|> and <|IMAGE|>", "image": PICTURE, "video": CLIP},
]


def copy_tokenizer(folder: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json"):
        shutil.copy(FOLDER / name, folder)


def plain_checkpoint(family: str, folder: Path, tied=True, **saving):
    """A random ForConditionalGeneration model, saved by transformers itself."""
    torch.manual_seed(0)
    sections = [3, 3, 2] if family == "Qwen3VL" else [2, 3, 3]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    if family == "Qwen3VL":
        rope["mrope_interleaved"] = True
    config = getattr(transformers, f"{family}Config")(
        text_config=TEXT | {"rope_parameters": rope, "head_dim": 16},
        vision_config={"depth": 2, "num_heads": 2} | VISION[family],
        tie_word_embeddings=tied,
        **IDS,
    )
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config).eval()
    with torch.no_grad():  # large enough to make positions matter
        for name, weight in model.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                weight.mul_(20)
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder, **saving)
    copy_tokenizer(folder)
    return model


@pytest.fixture
def broken(tmp_path) -> Path:
    folder = tmp_path / "unite"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("inputs", "reference.*"))
    return folder


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def change_json(path: Path, **changes) -> None:
    raw = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(raw | changes), "utf-8")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", VISION)
def test_plain_checkpoint_gives_transformers_own_states(family, tied, tmp_path):
    model = plain_checkpoint(family, tmp_path, tied, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    embedder = UniteEmbedder.load(tmp_path, **LIMITS)
    assert embedder.config.positions == "mrope" and embedder.dim == 64
    assert embedder.config.video_pixels == "effective"
    vectors = embedder.embed(MIXED, progress=False)
    for item, vector in zip(MIXED, vectors, strict=True):
        batch = embedder.processor.collate([embedder.processor.encode(item)])
        ids = batch["input_ids"]
        kinds = (ids == 429).int() + 2 * (ids == 430).int()
        with torch.no_grad():
            states = model(**batch, mm_token_type_ids=kinds, output_hidden_states=True)
        expected = torch.nn.functional.normalize(states.hidden_states[-1][0, -1], dim=0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)
    sequential = UniteEmbedder.load(tmp_path, **LIMITS | {"positions": "sequential"})
    cosines = (sequential.embed(MIXED, progress=False) * vectors).sum(1)
    assert cosines[0] == pytest.approx(1, abs=1e-5) and (cosines[1:] < 1 - 1e-4).all()


@pytest.mark.parametrize("family", VISION)
def test_saved_again_gives_the_same(family, tmp_path):
    plain_checkpoint(family, tmp_path / "plain")
    first = UniteEmbedder.load(tmp_path / "plain", fps=2.0, **LIMITS)
    first.save(tmp_path / "saved")
    second = UniteEmbedder.load(tmp_path / "saved")
    assert second.config == first.config and second.processor.layout == first.processor.layout
    np.testing.assert_array_equal(
        first.embed(MIXED, progress=False), second.embed(MIXED, progress=False)
    )


@pytest.mark.parametrize("kind", [{"type": "mrope"}, {"rope_type": "default"}])
def test_old_configurations_mean_the_same(kind, broken):
    change_json(broken / "config.json", rope_scaling=kind | {"mrope_section": [2, 3, 3]})
    expected = UniteEmbedder.load(FOLDER).embed(MIXED, progress=False)
    np.testing.assert_array_equal(UniteEmbedder.load(broken).embed(MIXED, progress=False), expected)


@pytest.mark.parametrize("prefixes", [("model.language_model.", "model.visual."),
                                      ("language_model.", "visual.")])  # fmt: skip
def test_newer_key_layouts_load_too(prefixes, broken):
    def rename(weights):
        for name in list(weights):
            old, new = ("visual.", prefixes[1]) if name.startswith("v") else ("model.", prefixes[0])
            weights[name.replace(old, new, 1)] = weights.pop(name)
        weights["lm_head.weight"] = weights[prefixes[0] + "embed_tokens.weight"].clone()

    change_weights(broken, rename)
    model, expected = load_backbone(broken), load_backbone(FOLDER).state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in model.state_dict().items())


NAME = "model.layers.1.mlp.up_proj.weight"
NEW_NAME = "language_model.layers.1.mlp.up_proj.weight"


def poison(value):
    def change(weights):
        weights[NAME][0, 0] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(NAME), f"missing: {NEW_NAME}"),
        (lambda w: w.update(extra=w[NAME].clone()), "not of this model: extra"),
        (
            lambda w: w.update({NAME: w[NAME][:-1].clone()}),
            rf"misshapen: {NEW_NAME} \[159, 64\] instead of \[160, 64\]",
        ),
        (poison(float("nan")), f"with NaN or infinite values: {NEW_NAME}"),
        (poison(float("inf")), f"with NaN or infinite values: {NEW_NAME}"),
        (lambda w: w.update({"model." + NEW_NAME: w[NAME].clone()}), "twice, under two names"),
    ],
)
def test_bad_weights_are_refused_by_name(change, message, broken):
    change_weights(broken, change)
    with pytest.raises(CheckpointError, match=message):
        load_backbone(broken)


def test_files_that_are_missing_or_damaged(broken):
    weights = broken / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="model.safetensors: cannot be read"):
        load_backbone(broken)
    weights.rename(broken / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no such file. Pickled weights .* convert them"):
        load_backbone(broken)
    change_json(broken / "model.safetensors.index.json", weight_map={"a": "../a.safetensors"})
    with pytest.raises(CheckpointError, match="outside its folder"):
        load_backbone(broken)
    (broken / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json: is no JSON"):
        load_backbone(broken)
    (broken / "config.json").unlink()
    with pytest.raises(CheckpointError, match="config.json: no such file"):
        load_backbone(broken)


def test_shards_must_hold_what_their_index_lists(tmp_path):
    plain_checkpoint("Qwen2VL", tmp_path, max_shard_size="100KB")
    path = tmp_path / "model.safetensors.index.json"
    places = json.loads(path.read_text("utf-8"))["weight_map"]
    change_json(path, weight_map=places | {"model.ghost": sorted(places.values())[0]})
    with pytest.raises(CheckpointError, match="no shard has: model.ghost"):
        load_backbone(tmp_path)


def test_other_models_are_refused(broken):
    change_json(broken / "config.json", model_type="bert")
    with pytest.raises(CheckpointError, match="model type 'bert' is unknown; known are qwen2_vl"):
        load_backbone(broken)


def test_tokenizer_of_another_model_is_refused(broken):
    change_json(broken / "config.json", image_token_id=17)
    with pytest.raises(CheckpointError, match=r"<\|image_pad\|> is token 429 .* says 17"):
        UniteEmbedder.load(broken)


def test_missing_tokenizer(broken):
    (broken / "vocab.json").unlink()
    (broken / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        UniteEmbedder.load(broken)


def test_wrong_position_scheme_in_a_saved_checkpoint(broken):
    change_json(broken / "unite.json", positions="rotary")
    allowed = "must be one of sequential, mrope"
    with pytest.raises(ValueError, match=rf"unite.json: positions is 'rotary': {allowed}"):
        UniteEmbedder.load(broken)
    with pytest.raises(ValueError, match=f"positions is '3d': {allowed}"):
        UniteEmbedder.load(FOLDER, positions="3d")


def test_names_that_are_no_folder(monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such folder, and a hub id has the form"):
        locate("./nowhere")
    with pytest.raises(CheckpointError, match="Check the name and the network") as caught:
        locate("nobody/no-such-model-here")
    assert "nobody/no-such-model-here" in str(caught.value)
    asked = {}
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, revision, allow_patterns: asked.update({name: allow_patterns}) or str(FOLDER),
    )
    assert locate("friedrichor/Unite-Base") == FOLDER
    assert not any("bin" in pattern for pattern in asked["friedrichor/Unite-Base"])


def test_publish_is_all_or_nothing(tmp_path):
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    (tmp_path / "keep.txt").touch()
    with pytest.raises(KeyError), publish(tmp_path) as partial:
        (partial / "model.safetensors").touch()
        raise KeyError("killed")
    assert {f.name for f in tmp_path.iterdir()} == {"model-00001-of-00002.safetensors", "keep.txt"}
    with publish(tmp_path) as partial:
        (partial / "model.safetensors").touch()
    assert {f.name for f in tmp_path.iterdir()} == {"model.safetensors", "keep.txt"}


@pytest.mark.parametrize("place", ["", "vision_config"])
@pytest.mark.parametrize(
    "kernel", ["kernels-community/flash-attn", "flash_attention_2", {"": "a/b"}]
)
def test_a_configuration_cannot_ask_for_a_kernel_of_the_hub(place, kernel, broken):
    raw = json.loads((broken / "config.json").read_text())
    for name in ("attn_implementation", "_attn_implementation"):
        (raw.setdefault(place, {}) if place else raw)[name] = kernel
    (broken / "config.json").write_text(json.dumps(raw))

    with pytest.warns(
        UserWarning, match="config.json: asks for the attention .*, which is not used"
    ):
        model = load_backbone(broken)
    assert model.language_model.config._attn_implementation == "sdpa"
    assert model.visual.config._attn_implementation == "sdpa"


def test_an_attention_is_used_where_the_caller_asks():
    embedder = UniteEmbedder.load(FOLDER, attention="eager")
    assert embedder.base.language_model.config._attn_implementation == "eager"
    with pytest.raises(ImportError):  # it would be fetched: the package for kernels is not here
        UniteEmbedder.load(FOLDER, attention="kernels-community/flash-attn")


def test_an_adapter_on_a_base_of_the_hub_says_that_it_is_fetched(tmp_path, monkeypatch):
    settings = {"base_model_name_or_path": "owner/name", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(FOLDER))
    with pytest.warns(UserWarning, match="its base owner/name is no folder here, so it is fetched"):
        assert base_of(tmp_path, "x") == (FOLDER, "owner/name")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", [1]),
        ("config.json", "text"),
        ("config.json", {"model_type": 3}),
        ("config.json", {"model_type": "qwen2_vl", "vision_config": 3}),
        ("config.json", {"model_type": "qwen2_vl", "hidden_size": "x"}),
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"hidden_size": -1}),
        ("config.json", {"architectures": [3], "vision_config": {"patch_size": 0}}),
        ("preprocessor_config.json", [1]),
        ("preprocessor_config.json", {"min_pixels": "a", "max_pixels": "b"}),
    ],
)
def test_a_damaged_description_is_named_with_its_file(tmp_path, file, content):
    folder = tmp_path / "model"
    shutil.copytree(FOLDER, folder)
    (folder / "unite.json").unlink(missing_ok=True)
    if isinstance(content, dict) and "model_type" not in content:
        whole = json.loads((folder / file).read_text())
        inner = content.get("vision_config", {})
        content = whole | content
        if inner:
            content["vision_config"] = whole["vision_config"] | inner
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")) as error:
        UniteEmbedder.load(folder, device="cpu", prompt="unite", positions="mrope")
    assert "\n" not in str(error.value)
