"""The fingerprint of an embedder has all that decides a vector, and nothing else."""

import json
import shutil
from pathlib import Path

import pytest

from unite_core import UniteEmbedder
from unite_core.search.blocks import model_key

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"


def edit(file: Path, change) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def swap_words(tokenizer) -> None:
    words = tokenizer["model"]["vocab"]
    first, second = list(words)[300:302]
    words[first], words[second] = words[second], words[first]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "saved"
    UniteEmbedder.load(CHECKPOINT).save(folder)
    return folder


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("unite.json", lambda v: v.update(prompt="raw")),
        ("unite.json", lambda v: v.update(max_length=100)),
        ("config.json", lambda v: v["text_config"].update(rms_norm_eps=1e-2)),
        ("config.json", lambda v: v["text_config"]["rope_parameters"].update(rope_theta=7.0)),
        ("preprocessor_config.json", lambda v: v.update(image_mean=[0.1, 0.2, 0.3])),
        ("tokenizer.json", swap_words),
    ],
)
def test_each_part_of_a_model_s_folder_counts(tmp_path, saved, file, change):
    shutil.copytree(saved, tmp_path / "model")
    edit(tmp_path / "model" / file, change)
    assert model_key(UniteEmbedder.load(tmp_path / "model")) != model_key(UniteEmbedder.load(saved))


def test_use_and_another_folder_change_nothing(saved):
    embedder = UniteEmbedder.load(CHECKPOINT)
    key = model_key(embedder)
    embedder.embed([{"text": "a"}, {"text": "some more words"}], progress=False)
    assert model_key(embedder) == model_key(UniteEmbedder.load(saved)) == key
