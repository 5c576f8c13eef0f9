"""The embedders that come with the package load by name, add up, and train on."""

import json
from dataclasses import replace

import numpy as np
import pytest

from unite_core.model import UniteEmbedder
from unite_core.model.checkpoint import locate
from unite_core.model.router import ModalityRouter
from unite_core.model.shipped import SHIPPED, shipped_folder, write_shipped_stage
from unite_core.model.weights import CheckpointError
from unite_core.tiny import TINY
from unite_core.train.config import STAGES

ITEMS = [{"text": "a waving hand"}, {"text": "a red apple"}, {"text": "Find a picture of: a cat"}]


@pytest.fixture(scope="module")
def vectors():
    return {name: UniteEmbedder.load(name).embed(ITEMS, progress=False) for name in SHIPPED}


def test_names_are_folders_and_stages_differ(vectors):
    assert shipped_folder("tiny") == TINY
    np.testing.assert_array_equal(
        vectors["tiny"], UniteEmbedder.load(TINY).embed(ITEMS, progress=False)
    )
    names = list(SHIPPED)
    for first, second in zip(names, names[1:], strict=False):
        assert (vectors[first] * vectors[second]).sum(1).max() < 0.99
    with pytest.raises(FileNotFoundError, match="take one that comes with the package: tiny, tiny"):
        locate("tiny-stage3")


def test_stages_are_small_and_whole():
    files = [file for name in list(SHIPPED)[1:] for file in shipped_folder(name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 6e6
    assert {file.name for file in files} == {
        "adapter_model.safetensors", "adapter_config.json", "router.safetensors", "unite.json",
    }  # fmt: skip


def test_the_second_stage_knows_which_modality_a_query_asks_for():
    queries = [
        {"text": "Find a picture of: a red apple"},
        {"text": "Find a moving clip of: a red apple"},
    ]
    router = ModalityRouter.load("tiny-stage2")
    found = router.log_probabilities(
        UniteEmbedder.load("tiny-stage2").embed(queries, progress=False)
    )
    assert [router.labels[column] for column in found.argmax(1)] == ["image", "video"]
    assert router.temperature == STAGES["tiny-stage2"].temperature


def test_a_shipped_stage_can_be_trained_on_and_saved(tmp_path, vectors):
    embedder = UniteEmbedder.load("tiny-stage2")
    assert not embedder.has_lora
    embedder.save(tmp_path / "whole")
    again = UniteEmbedder.load(tmp_path / "whole")
    np.testing.assert_array_equal(again.embed(ITEMS, progress=False), vectors["tiny-stage2"])
    again.attach_lora(2, 4)
    np.testing.assert_allclose(
        again.embed(ITEMS, progress=False), vectors["tiny-stage2"], atol=1e-6
    )


def test_what_is_written_is_the_stage_up_to_rounding(tmp_path):
    embedder = UniteEmbedder.load("tiny")
    embedder.attach_lora(4, 8, seed=3)
    for name, weight in embedder.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.02)
    embedder.save_lora(tmp_path / "adapter")
    wanted = embedder.embed(ITEMS, progress=False)
    (tmp_path / "weights").symlink_to(TINY)
    router = ModalityRouter(256, (1, 2), temperature=0.05)
    router.save(tmp_path)
    folder = write_shipped_stage(tmp_path / "adapter", "tiny-stage1", tmp_path, tmp_path)
    assert ModalityRouter.load(folder).temperature == 0.05
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == (
        "../weights"
    )
    found = UniteEmbedder.load(folder)
    assert found.has_lora  # an adapter of one's own stays one
    np.testing.assert_allclose(found.embed(ITEMS, progress=False), wanted, atol=2e-3)


def test_adapters_in_a_circle_are_refused(tmp_path):
    for here, there in (("a", "b"), ("b", "a")):
        (tmp_path / here).mkdir()
        settings = {"base_model_name_or_path": f"../{there}"}
        (tmp_path / here / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="leads back to itself"):
        UniteEmbedder.load(tmp_path / "a")


def test_training_goes_on_from_a_shipped_stage(tmp_path):
    from unite_core.data.records import write_records
    from unite_core.tiny import TINY_STAGE_2
    from unite_core.train.config import TrainConfig
    from unite_core.train.run import train

    rows = [{"query": {"text": f"q {n}"}, "candidate": {"text": f"c {n}"}} for n in range(8)]
    write_records(tmp_path / "pairs.jsonl", rows)
    stage = replace(TINY_STAGE_2, batch_size=4, max_steps=1)
    model = train(TrainConfig("tiny-stage1", (str(tmp_path / "pairs.jsonl"),),
                              str(tmp_path / "run"), stage))  # fmt: skip
    assert UniteEmbedder.load(model).dim == 256
