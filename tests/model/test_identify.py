"""Which embedder a checkpoint is: files before names, every component of a path, one warning."""

import json
import shutil
from pathlib import Path

import pytest

from unite_core import UniteEmbedder
from unite_core.model.backbones import BACKBONES
from unite_core.model.checkpoint import locate
from unite_core.model.config import EmbedConfig
from unite_core.model.identify import default_config, identify, pixel_settings

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
RECIPES = [
    (name, recipe) for name in BACKBONES for recipe in BACKBONES[name].recipes
]  # fmt: skip
NAMES = {
    "unite": ["friedrichor/Unite-Base-Qwen2-VL-2B", "friedrichor/Unite-Instruct-Qwen2-VL-7B"],
    "gme": ["Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", "Alibaba-NLP/gme-Qwen2-VL-7B-Instruct"],
    "vlm2vec-v2": ["VLM2Vec/VLM2Vec-V2.0"],
    "lamra": ["code-kunkun/LamRA-Ret", "code-kunkun/LamRA-Ret-Pretrained"],
    "gve": ["Alibaba-NLP/GVE-3B", "Alibaba-NLP/GVE-7B"],
    "qwen3-vl-embedding": ["Qwen/Qwen3-VL-Embedding-2B", "Qwen/Qwen3-VL-Embedding-8B"],
    "embedding-gemma-2": ["google/embeddinggemma-2"],
}
PLAIN = {
    "qwen2_vl": "Qwen/Qwen2-VL-2B-Instruct",
    "qwen2_5_vl": "Qwen/Qwen2.5-VL-7B-Instruct",
    "qwen3_vl": "Qwen/Qwen3-VL-4B-Instruct",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A checkpoint whose files say nothing but its family."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    change_json(folder / "config.json", model_type="qwen2_vl", architectures=["Qwen2VLModel"])
    return folder


def change_json(path: Path, **changes) -> None:
    raw = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(raw | changes), "utf-8")


@pytest.mark.parametrize(
    ("family", "recipe"), RECIPES, ids=lambda thing: getattr(thing, "name", "")
)
def test_the_hub_id_a_snapshot_and_a_download_are_known(family, recipe, folder):
    change_json(folder / "config.json", model_type=family)
    for name in NAMES[recipe.name]:
        owner, _, short = name.partition("/")
        cache = f"/cache/hub/models--{owner}--{short}/snapshots/0123456789abcdef"
        for path in (name, cache, f"/data/{short}", f"/data/{short}/checkpoint-10"):
            config = default_config(folder, folder, path)
            assert config == EmbedConfig(prompt=recipe.name, **recipe.config)


@pytest.mark.parametrize("family", PLAIN)
def test_a_plain_checkpoint_of_a_family_needs_no_warning(family, folder):
    change_json(folder / "config.json", model_type=family)
    config = default_config(folder, folder, PLAIN[family])
    assert (config.positions, config.prompt, config.video_pixels) == ("mrope", "unite", "effective")


@pytest.mark.parametrize(
    "name",
    [
        "/unite/models/plain",
        "/home/me/unite-workbook/runs/stage1",
        "me/my-gme",
        "/gme/x",
        "qwen2-vl",
    ],
)
def test_an_unknown_checkpoint_says_once_what_was_assumed(name, folder):
    with pytest.warns(UserWarning, match="assumed prompt unite, positions mrope") as caught:
        config = default_config(folder, folder, name)
    assert len(caught) == 1 and config == EmbedConfig(positions="mrope")
    with pytest.warns(UserWarning, match=r"assumed positions mrope\. Set them in load\(\)"):
        default_config(folder, folder, name, {"prompt": "raw"})
    assert default_config(folder, folder, name, {"prompt": "raw", "positions": "mrope"})


@pytest.mark.parametrize(
    ("config", "prompt"),
    [
        ({"model_type": "unite_qwen2_vl"}, "unite"),
        ({"architectures": ["UniteQwen2VL"]}, "unite"),
        ({"architectures": ["GmeQwen2VL"]}, "gme"),
        ({"auto_map": {"AutoModel": "modeling_gme_qwen2vl.GmeQwen2VL"}}, "gme"),
        ({"auto_map": {"AutoModel": "Alibaba-NLP/gme--modeling.GmeQwen2VL"}}, "gme"),
        ({"_name_or_path": "friedrichor/Unite-Base-Qwen2-VL-2B"}, "unite"),
        ({"_name_or_path": "C:\\models\\gme-Qwen2-VL-2B-Instruct"}, "gme"),
    ],
)
def test_a_copy_that_was_saved_again_under_another_name_is_known(config, prompt, folder):
    change_json(folder / "config.json", **config)
    assert default_config(folder, folder, str(folder)).prompt == prompt


def test_files_overrule_names_with_a_warning(folder):
    change_json(folder / "config.json", architectures=["UniteQwen2VL"])
    with pytest.warns(UserWarning, match="named like GME, but config.json says UNITE, which is"):
        assert default_config(folder, folder, "me/gme-Qwen2-VL-2B-Instruct").prompt == "unite"


def test_a_name_counts_only_for_its_family(folder):
    change_json(folder / "config.json", model_type="qwen2_5_vl")
    with pytest.warns(UserWarning, match=r"a qwen2_5_vl checkpoint of no known embedder \(GVE\)"):
        assert default_config(folder, folder, "Alibaba-NLP/gme-Qwen2-VL-2B").positions == "mrope"


def test_the_last_component_of_a_path_counts_first(folder):
    path = "/models/gme-Qwen2-VL-2B-Instruct/Unite-Base-Qwen2-VL-2B"
    assert default_config(folder, folder, path).prompt == "unite"


def test_an_adapter_is_what_its_base_is(folder, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    base = "friedrichor/Unite-Base-Qwen2-VL-2B"
    change_json(adapter / "adapter_config.json", base_model_name_or_path=base)
    assert default_config(adapter, folder, str(adapter)).positions == "sequential"
    change_json(adapter / "adapter_config.json", base_model_name_or_path=str(folder))
    change_json(folder / "config.json", architectures=["UniteQwen2VL"])
    assert default_config(adapter, folder, str(adapter)).positions == "sequential"
    change_json(folder / "config.json", architectures=["Qwen2VLModel"])
    plain = "Qwen/Qwen2-VL-2B-Instruct"
    change_json(adapter / "adapter_config.json", base_model_name_or_path=plain)
    with pytest.warns(UserWarning, match="no known embedder"):  # trained, with who knows what
        default_config(adapter, folder, str(adapter))


def test_unite_json_says_everything(folder):
    change_json(folder / "unite.json", fps=3.0, prompt="gme")
    config = default_config(folder, folder, "friedrichor/Unite-Base-Qwen2-VL-2B")
    assert config == EmbedConfig(fps=3.0, prompt="gme")


LIMITS = {"size": {"shortest_edge": 784, "longest_edge": 7840}, "patch_size": 14}


@pytest.mark.parametrize(
    ("file", "content", "limits"),
    [
        ("preprocessor_config.json", LIMITS, (784, 7840)),
        ("preprocessor_config.json", {"min_pixels": 3136, "max_pixels": 12544}, (3136, 12544)),
        ("processor_config.json", {"image_processor": LIMITS}, (784, 7840)),
        ("processor_config.json", {"processor_class": "Qwen2VLProcessor"}, (200704, 1003520)),
        (
            "preprocessor_config.json",
            {"min_pixels": 3136, "max_pixels": 16384 * 784},
            (200704, 1003520),
        ),
    ],
)
def test_limits_come_from_either_file_of_the_processor(file, content, limits, folder):
    change_json(folder / file, **content)
    config = default_config(folder, folder, "Unite-Base-Qwen2-VL-2B")
    assert (config.image_min_pixels, config.image_max_pixels) == limits
    assert default_config(folder, folder, "gme-Qwen2-VL-2B").image_min_pixels == 256 * 784
    assert pixel_settings(folder)[0].name == file


def test_colours_of_a_checkpoint_that_transformers_5_saved(tmp_path):
    saved = tmp_path / "unite"
    shutil.copytree(FOLDER, saved, ignore=shutil.ignore_patterns("inputs", "reference.*"))
    pixels = json.loads((saved / "preprocessor_config.json").read_text())
    (saved / "preprocessor_config.json").unlink()
    pixels |= {"image_mean": [0.5, 0.25, 0.75], "image_std": [0.2, 0.3, 0.4]}
    change_json(saved / "processor_config.json", image_processor=pixels)
    processor = UniteEmbedder.load(saved).processor
    assert processor.layout.mean == (0.5, 0.25, 0.75) and processor.layout.std == (0.2, 0.3, 0.4)
    assert processor.config.image_max_pixels == 12544


def test_every_recipe_has_names_and_a_source():
    assert {recipe.name for _, recipe in RECIPES} == set(NAMES)
    for _, recipe in RECIPES:
        assert "/" in recipe.source and recipe.title


def test_what_identify_gives_is_of_the_family():
    family = BACKBONES["qwen2_vl"]
    found = identify(family, {}, Path("/x"), Path("/x"), "a/gme-Qwen2-VL-2B")
    assert found in family.recipes


def test_a_revision_is_passed_to_the_hub_and_refused_for_a_folder(monkeypatch):
    asked = {}

    def fetch(name, revision, allow_patterns):
        asked.update(name=name, revision=revision)
        return str(FOLDER)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert UniteEmbedder.load("a/b", revision="v1.0").config.positions == "sequential"
    assert asked == {"name": "a/b", "revision": "v1.0"}
    with pytest.raises(ValueError, match="is a folder, which has no revision 'v1.0'"):
        locate(FOLDER, "v1.0")
