"""Each family names classes that exist; a family registered elsewhere loads like the others."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from unite_core import UniteEmbedder
from unite_core.model.backbones import BACKBONES, backbone_of, has_fast_path

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"


@pytest.mark.parametrize("name", BACKBONES)
def test_classes_are_transformers_own(name):
    family = BACKBONES[name]
    config = getattr(transformers, family.config)
    assert config.model_type == name
    assert getattr(transformers, family.model).config_class is config


@pytest.mark.parametrize(("name", "paths"), [("qwen2_vl", 2), ("qwen2_5_vl", 1), ("qwen3_vl", 0)])
def test_fast_paths_hold_for_the_classes_that_are_named(name, paths):
    family = BACKBONES[name]
    config = getattr(transformers, family.config)()
    for part in (config.text_config, config.vision_config):
        for field in ("num_hidden_layers", "depth"):
            if hasattr(part, field):
                setattr(part, field, 1)
    if name == "qwen3_vl":
        config.vision_config.deepstack_visual_indexes = [0]
    with torch.device("meta"):
        model = getattr(transformers, family.model)(config)
    assert backbone_of(model) is family
    decoder, tower = model.language_model, model.visual
    held = [
        has_fast_path("pooled_decoder", decoder, decoder.layers),
        has_fast_path("plain_tower", tower, tower.blocks),
    ]
    assert sum(held) == paths
    assert not has_fast_path("pooled_decoder", decoder, [*decoder.layers, torch.nn.Linear(1, 1)])
    model.__class__ = type("FSDPModel", (type(model),), {})  # as FSDP does
    assert backbone_of(model) is None


def test_another_package_can_register_a_family(tmp_path, monkeypatch):
    monkeypatch.setattr(BACKBONES, "_things", dict(BACKBONES._things))
    BACKBONES.register("ours_vl")(replace(BACKBONES["qwen2_vl"], plain_tower=None))
    folder = tmp_path / "ours"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("inputs", "reference.*"))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"model_type": "ours_vl"}))
    ours = UniteEmbedder.load(folder)
    items = [{"text": "a cat"}, {"image": np.full((60, 60, 3), 90, np.uint8)}]
    expected = UniteEmbedder.load(FOLDER).embed(items, progress=False)
    np.testing.assert_allclose(ours.embed(items, progress=False), expected, atol=1e-5)
