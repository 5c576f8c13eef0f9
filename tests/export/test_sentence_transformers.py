"""An exported folder gives sentence-transformers the model's own vectors, or is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.model import test_embedders as embedders
from tests.model.test_checkpoint import LIMITS, MIXED, plain_checkpoint
from unite_core import UniteEmbedder
from unite_core.export import sentence_transformers as export
from unite_core.export.sentence_transformers import ExportError, check_export, export_model, probes
from unite_core.model.router import ROUTER_FILE, ModalityRouter

pytest.importorskip("sentence_transformers")
from sentence_transformers import SentenceTransformer

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
IMAGES = [FOLDER / "inputs" / f"image{i}.png" for i in (0, 1)]
FEW = {
    "text": {"text": "a cat"},
    "image": {"image": Image.new("RGB", (300, 200), "teal")},
    "both": {"image": Image.new("RGB", (90, 140), "red"), "text": "in green"},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "tiny"
    export_model(FOLDER, folder)
    return folder


@pytest.fixture(scope="module")
def model(exported) -> SentenceTransformer:
    return SentenceTransformer(str(exported), device="cpu", trust_remote_code=True)


@pytest.fixture(scope="module")
def embedder() -> UniteEmbedder:
    return UniteEmbedder.load(FOLDER, device="cpu")


def encode(model, inputs, **options) -> np.ndarray:
    return model.encode(inputs, show_progress_bar=False, **options)


def test_probes_meet_every_modality_and_differ():
    items = probes()
    assert {key for item in items.values() for key in item} == {"text", "image", "video"}
    again = probes()
    assert np.array_equal(items["array of frames"]["video"], again["array of frames"]["video"])


def test_code_is_the_packages_own_and_needs_no_package(exported):
    for file in exported.glob("*.py"):
        assert file.read_text("utf-8") == export.flat_code(export._MODULE)[file.name]
        assert "unite_core" not in {
            line.split()[1].split(".")[0]
            for line in file.read_text("utf-8").splitlines()
            if line.startswith(("import ", "from ")) and not line.startswith("from .")
        }
    assert {"st_module.py", "processor.py", "positions.py"} <= {f.name for f in exported.iterdir()}


@pytest.mark.slow
def test_the_folder_loads_where_unite_core_is_not(exported, tmp_path, embedder):
    code = (
        "import sys; sys.modules['unite_core'] = None\n"
        "from sentence_transformers import SentenceTransformer\n"
        f"model = SentenceTransformer({str(exported)!r}, device='cpu', trust_remote_code=True)\n"
        f"vectors = model.encode(['a cat', {{'image': {str(IMAGES[0])!r}}}])\n"
        f"import numpy; numpy.save({str(tmp_path / 'v.npy')!r}, vectors)"
    )
    env = {"HF_MODULES_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PATH": "/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=env,
                   capture_output=True)  # fmt: skip
    expected = embedder.embed(
        [{"text": "a cat"}, {"image": IMAGES[0].name}], IMAGES[0].parent, progress=False
    )
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-5)


def test_own_code_has_to_be_trusted(exported):
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformer(str(exported), device="cpu")


def test_still_a_checkpoint_of_ours(exported, embedder):
    items = list(FEW.values())
    again = UniteEmbedder.load(exported, device="cpu").embed(items[:2], progress=False)
    np.testing.assert_array_equal(again, embedder.embed(items[:2], progress=False))


def test_inputs_as_sentence_transformers_takes_them(model, embedder, monkeypatch):
    monkeypatch.chdir(IMAGES[0].parent)
    picture = Image.open(IMAGES[0]).convert("RGB")
    inputs = [picture, np.asarray(picture), torch.from_numpy(np.array(picture)), IMAGES[0].name,
              str(IMAGES[0].resolve()), {"image": [str(IMAGES[0])]}]  # fmt: skip
    (expected,) = embedder.embed([picture], progress=False)
    for vector in encode(model, inputs):
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    frames = np.stack([np.asarray(picture)] * 2)
    videos = [frames, {"video": {"array": frames, "video_metadata": None}},
              {"array": frames, "video_metadata": None}]  # fmt: skip
    (expected,) = embedder.embed([frames], progress=False)
    for vector in encode(model, videos):
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_prompts_are_the_beginning_of_the_text(model, embedder):
    found = encode(model, ["a cat", FEW["both"], FEW["image"]], prompt="Find it: ")
    marked = "<|IMAGE|>\nFind it: "
    expected = embedder.embed(
        [
            {"text": "Find it: a cat"},
            {"image": FEW["both"]["image"], "text": "<|IMAGE|>\nFind it: in green"},
            {"text": marked, "image": FEW["image"]["image"]},
        ],
        progress=False,
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"role": "user", "content": "hi"}], "message input is not supported"),
        ({"image": "https://example.org/a.png"}, "remote media are refused"),
        ({"image": "nowhere.png"}, "no such file"),
        ({"audio": np.zeros(9)}, "'audio' is not supported"),
        ({"text": " "}, "text is empty"),
    ],
)
def test_other_inputs_are_refused(model, given, message):
    with pytest.raises(ValueError, match=message):
        encode(model, [given])


def test_the_module_answers_what_sentence_transformers_asks(model):
    assert model.get_embedding_dimension() == 64
    assert model.supports("video") and model.supports(("image", "text"))
    assert not model.supports("audio")
    assert model.max_seq_length == 2048
    short, (text,) = model[0].preprocess(["a b"]), ["word " * 3000]
    model.max_seq_length = 40
    try:
        with pytest.warns(UserWarning, match="max_length 40"):
            assert model[0].preprocess([text])["input_ids"].shape[1] <= 40
    finally:
        model.max_seq_length = 2048
    assert short["input_ids"].shape[1] > 10


def test_trains_and_saves_itself_with_its_code(model, tmp_path):
    features = model(model.preprocess(["a cat", "a dog"]))
    loss = features["sentence_embedding"][0] @ features["sentence_embedding"][1]
    loss.backward()
    grown = [name for name, weight in model.named_parameters() if weight.grad is not None]
    assert any("language_model" in name for name in grown)
    model.zero_grad(set_to_none=True)
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu", trust_remote_code=True)
    items = list(FEW.values())
    np.testing.assert_array_equal(encode(again, items), encode(model, items))


@pytest.mark.parametrize("positions", ["sequential", "mrope"])
def test_positions_of_the_checkpoint_are_kept(tmp_path, positions, embedder):
    UniteEmbedder.load(FOLDER, positions=positions).save(tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "out", items=FEW)
    found = SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=True)
    vectors = encode(found, list(FEW.values())[:2])
    cosines = (vectors * embedder.embed(list(FEW.values())[:2], progress=False)).sum(1)
    assert cosines[0] > 0.99999
    assert (cosines[1] > 0.99999) == (positions == "sequential")


@pytest.mark.parametrize("family", ["Qwen2VL", "Qwen2_5_VL", "Qwen3VL"])
def test_every_family_is_exported(family, tmp_path):
    """With M-RoPE, seconds between frames (Qwen2.5-VL) and time stamps (Qwen3-VL)."""
    plain_checkpoint(family, tmp_path / "plain")
    UniteEmbedder.load(tmp_path / "plain", **LIMITS).save(tmp_path / "model")
    items = {str(number): item for number, item in enumerate(MIXED)}
    differences = export_model(tmp_path / "model", tmp_path / "out", items=items)
    assert max(each.largest for each in differences) < 1e-5


def test_video_files_are_read_by_their_path(model, embedder, tmp_path):
    frames = [Image.new("RGB", (60, 90), colour) for colour in ("red", "blue", "green", "black")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=500)
    expected = embedder.embed([{"video": "a.webp"}], tmp_path, progress=False)
    found = encode(model, [{"video": str(tmp_path / "a.webp")}])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_adapters_are_merged_and_narrow_types_written(tmp_path):
    adapted = UniteEmbedder.load(FOLDER, device="cpu")
    adapted.attach_lora(rank=4, alpha=8, seed=1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted.save_lora(tmp_path / "adapter")
    differences = export_model(tmp_path / "adapter", tmp_path / "out", "bfloat16", FEW)
    assert all(each.cosine > 0.999 for each in differences)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}


def test_the_router_of_a_model_goes_with_its_export(tmp_path):
    export.write_export("tiny-stage2", tmp_path / "out", "float32", text_only=False)
    router = ModalityRouter.load(tmp_path / "out")
    assert router.labels == ModalityRouter.load("tiny-stage2").labels
    export.write_export("tiny-stage2", tmp_path / "texts", "float32", text_only=True)
    assert not (tmp_path / "texts" / ROUTER_FILE).exists()


def test_a_folder_that_gives_other_vectors_is_refused(exported, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    config = json.loads((other / "unite.json").read_text("utf-8"))
    (other / "unite.json").write_text(json.dumps({**config, "positions": "mrope"}), "utf-8")
    with pytest.raises(ExportError, match=r"2 of 3 vectors differ .*: image \(.*both \("):
        check_export(FOLDER, other, items=FEW)
    weights = load_file(exported / "model.safetensors")
    weights["language_model.norm.weight"] = weights["language_model.norm.weight"].clone()
    weights["language_model.norm.weight"][3] *= 1.05
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    shutil.copy(exported / "unite.json", other)
    with pytest.raises(ExportError, match="3 of 3 vectors differ"):
        check_export(FOLDER, other, items=FEW)


def test_nothing_is_left_of_an_export_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_TOLERANCE", {"float32": -1.0})
    with pytest.raises(ExportError, match="3 of 3"):
        export_model(FOLDER, tmp_path / "out", items=FEW)
    assert not list(tmp_path.iterdir())


def test_folders_and_types_are_checked_first(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="export to another folder"):
        export_model(FOLDER, tmp_path / "there")
    with pytest.raises(ValueError, match="dtype must be one of"):
        export_model(FOLDER, tmp_path / "new", "int8")


TEXTS = [
    "a cat",
    "  two words\n",
    "Ein rötlicher Kreis, 赤い丸 🙂",
    "{{ not }} a {% template %}",
    "seven green stars in a row, " * 900,
]


@pytest.mark.parametrize("prompt", ["unite", "raw", "gme", "vlm2vec-v2", "lamra"])
def test_the_text_side_alone_needs_no_code_and_no_trust(prompt, tmp_path):
    UniteEmbedder.load(FOLDER, prompt=prompt, max_length=200).save(tmp_path / "model")
    before = (tmp_path / "model" / "tokenizer_config.json").read_text("utf-8")
    differences = export_model(tmp_path / "model", tmp_path / "out", text_only=True)
    assert [each.item for each in differences] == [
        "text",
        "other scripts",
        "text beyond max_length",
    ]
    assert not list((tmp_path / "out").rglob("*.py"))
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    embedder = UniteEmbedder.load(tmp_path / "model", device="cpu")
    with pytest.warns(UserWarning, match="max_length 200"):
        expected = embedder.embed([{"text": text} for text in TEXTS], progress=False)
    np.testing.assert_allclose(encode(model, TEXTS), expected, atol=1e-5)
    (expected,) = embedder.embed([{"text": "a cat"}], instruction="Find it: ", progress=False)
    np.testing.assert_allclose(model.encode("a cat", prompt="Find it: "), expected, atol=1e-5)
    assert model.max_seq_length == 200
    with pytest.raises(ValueError, match="'image' is not supported"):
        encode(model, [Image.new("RGB", (60, 60))])
    embedder.save(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer_config.json").read_text("utf-8") == before


def test_a_text_side_that_differs_is_refused(tmp_path):
    export_model(FOLDER, tmp_path / "out", text_only=True)
    template = tmp_path / "out" / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("one word", "a word"), "utf-8")
    with pytest.raises(ExportError, match="3 of 3 vectors differ"):
        check_export(FOLDER, tmp_path / "out")


@pytest.mark.parametrize("recipe", embedders.KNOWN)
def test_every_embedder_is_exported_with_its_place_for_an_instruction(recipe, tmp_path):
    family, hub_id, prompt, *_ = embedders.KNOWN[recipe]
    embedders.checkpoint(family, tmp_path / hub_id)
    probes = {name: embedders.item_of(*embedders.ITEMS[name]) for name in ("image", "video")}
    if prompt is not embedders.unite:  # which warns of media without a place
        probes["fused"] = embedders.item_of(*embedders.ITEMS["fused"])
    export_model(tmp_path / hub_id, tmp_path / "out", items=probes)
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=True)
    embedder = UniteEmbedder.load(tmp_path / hub_id, device="cpu")
    (told,) = embedder.embed([{"text": "a cat"}], instruction="Find it: ", progress=False)
    np.testing.assert_allclose(model.encode("a cat", prompt="Find it: "), told, atol=1e-5)


@pytest.mark.parametrize("family", ["Qwen2_5_VL", "Qwen3VL"])
def test_text_sides_that_are_a_qwen2_are_exported(family, tmp_path):
    plain_checkpoint(family, tmp_path / "plain")
    UniteEmbedder.load(tmp_path / "plain", **LIMITS).save(tmp_path / "model")
    if family == "Qwen3VL":
        with pytest.raises(ValueError, match="qwen3_vl_text is no Qwen2"):
            export_model(tmp_path / "model", tmp_path / "out", text_only=True)
        assert not (tmp_path / "out").exists()
    else:
        export_model(tmp_path / "model", tmp_path / "out", text_only=True)


@pytest.mark.parametrize("family", ["Qwen2VL", "Qwen2_5_VL"])
def test_cached_losses_cut_mixed_batches_between_items(family, tmp_path):
    from sentence_transformers.base.losses.gradcache import _create_minibatch

    plain_checkpoint(family, tmp_path / "plain")
    UniteEmbedder.load(tmp_path / "plain", **LIMITS).save(tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "out", items=FEW)
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu", trust_remote_code=True)
    items = [*MIXED, {"video": [MIXED[2]["video"]] * 2}, *MIXED[::-1]]
    whole = model.preprocess(items)
    wanted = model(dict(whole))["sentence_embedding"]
    assert {"pixel_values", "pixel_values_videos"} <= whole.keys(), "the guard: media of both kinds"
    assert ("video_steps" in whole) == (family == "Qwen2_5_VL"), "the guard: seconds matter there"
    for start in range(0, len(items), 2):
        part = _create_minibatch(whole, start, start + 2)
        found = model(part)["sentence_embedding"]
        torch.testing.assert_close(found, wanted[start : start + 2], rtol=0, atol=1e-5)
