"""The reach of a stage, and the stage for a model's size."""

import json
from dataclasses import replace

import pytest

from unite_core.settings import make
from unite_core.train.config import STAGES, StageConfig, TrainConfig
from unite_core.train.reach import LEAST_REACH, hidden_size, short_reach, stage_for, stage_reach


def run(stage, model="tiny"):
    return TrainConfig(model, "pairs.jsonl", "out", stage)


@pytest.mark.parametrize("model", ["tiny", "tiny-stage1", "tiny-stage2"])
def test_shipped_models_are_narrow_through_their_adapters(model):
    assert hidden_size(model) == 256 and stage_for(model, "stage2") == "tiny-stage2"


def test_a_wide_or_unknown_model_keeps_the_paper_s_stage(tmp_path):
    assert hidden_size("owner/name") is None and stage_for("owner/name") == "stage1"
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 1536}))
    assert hidden_size(tmp_path) == 1536 and stage_for(tmp_path) == "stage1"
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"hidden_size": 128}}))
    assert stage_for(tmp_path, "stage2") == "tiny-stage2"


def test_a_stage_that_cannot_move_a_narrow_model_is_said_so():
    stage = replace(STAGES["stage1"], max_steps=100)
    assert stage_reach(stage, 1) == pytest.approx(1e-4 * 16 * 100)
    assert LEAST_REACH > 0.16
    assert "0.16 hardly moves" in short_reach(run(stage), 1)
    assert "take --stage tiny-stage1" in short_reach(run(stage), 1)
    assert not short_reach(run(replace(stage, max_steps=400)), 1)
    assert not short_reach(run(replace(STAGES["tiny-stage1"], max_steps=100)), 1)
    assert not short_reach(run(stage, "owner/wide"), 1)
    assert not short_reach(run(replace(stage, lora=None)), 1)


def test_epochs_count_in_steps():
    stage = replace(STAGES["tiny-stage1"], epochs=2.0, batch_size=10)
    assert stage_reach(stage, 100) == pytest.approx(1e-3 * 128 * 20)


def test_a_stage_is_found_by_name_whatever_is_changed():
    paths = {"model": "m", "data": "d", "output": "o"}
    named = make(TrainConfig, paths | {"stage": "tiny-stage2"}, "")
    assert named.stage == STAGES["tiny-stage2"] and named.stage.name == "stage2"
    values = paths | {"stage": {"name": "tiny-stage1", "max_steps": 5}}
    assert make(TrainConfig, values, "").stage == replace(STAGES["tiny-stage1"], max_steps=5)
    own = make(TrainConfig, values | {"stage": {"name": "mine"}}, "").stage
    assert own == StageConfig(name="mine")
