"""The ready recipes are the table of the authors' scripts, but for the corrections stated here."""

import importlib
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.train.test_resume import config_of, corpus  # noqa: F401 - a fixture
from unite_core.cli import measuring
from unite_core.evaluation.benchmarks import find_tasks
from unite_core.evaluation.benchmarks.published import read_published
from unite_core.files import read_json
from unite_core.model.config import EmbedConfig
from unite_core.model.embedder import UniteEmbedder
from unite_core.notebook.runs import project_root
from unite_core.settings import read_config
from unite_core.train.config import TrainConfig
from unite_core.train.run import train
from unite_core.train.trainer import UniteTrainer

FOLDER = project_root() / "unite_core" / "train" / "recipes"
# As released (docs/method.md): learning rate, LoRA alpha, pairs per GPU, GPUs, dual loss, mask.
RELEASED = {
    "multi_node_2b_stage1": (1e-4, 16, 64, 64, True, False),
    "multi_node_7b_stage1": (1e-4, 16, 16, 64, True, False),
    "multi_node_2b_stage2": (2e-5, 64, 64, 64, False, True),
    "multi_node_7b_stage2": (2e-5, 64, 16, 64, False, True),
    "multi_gpu_2b_stage1": (1e-4, 16, 64, 8, True, False),
    "multi_gpu_7b_stage1": (1e-4, 16, 16, 8, False, True),
    "multi_gpu_2b_stage2": (2e-5, 64, 64, 8, False, True),
    "multi_gpu_7b_stage2": (2e-5, 64, 64, 8, False, True),
}
CORRECTED = {
    "multi_gpu_7b_stage1": (1e-4, 16, 16, 8, True, False),  # stage 1 is InfoNCE everywhere else
    "multi_gpu_7b_stage2": (
        2e-5,
        64,
        16,
        8,
        False,
        True,
    ),  # 7B has 16 pairs everywhere else
}
EVALUATED = [f"evaluate_{kind}_{size}" for kind in ("base", "instruct") for size in ("2b", "7b")]
PAIRS = {1: 6_379_600, 2: 1_268_200}
STEPS = {  # of one epoch (docs/method.md); of the corrected recipe, its batch being a quarter
    "multi_node_2b_stage1": 1_558, "multi_node_7b_stage1": 6_230, "multi_node_2b_stage2": 310,
    "multi_node_7b_stage2": 1_238, "multi_gpu_2b_stage1": 12_460, "multi_gpu_7b_stage1": 49_841,
    "multi_gpu_2b_stage2": 2_477, "multi_gpu_7b_stage2": 4 * 2_477,
}  # fmt: skip


def recipe(name: str) -> TrainConfig:
    return read_config(TrainConfig, FOLDER / f"{name}.json")


def test_there_is_a_recipe_for_each_script_and_no_other():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(RELEASED) | set(EVALUATED)


@pytest.mark.parametrize("name", RELEASED)
def test_a_recipe_is_its_row_of_the_table(name):
    config, stage = recipe(name), recipe(name).stage
    rate, alpha, batch, gpus, dual, masked = CORRECTED.get(name, RELEASED[name])
    assert (stage.learning_rate, stage.lora_alpha, stage.batch_size) == (rate, alpha, batch)
    assert config.global_batch_size == batch * gpus
    assert (stage.symmetric, stage.loss) == (dual, "mamcl" if masked else "info_nce")
    number = int(name[-1])
    assert PAIRS[number] / config.global_batch_size == pytest.approx(STEPS[name], abs=4)
    assert stage.name == f"stage{number}" and config.output == f"runs/{name}"


@pytest.mark.parametrize("name", RELEASED)
def test_what_all_scripts_share_is_in_every_recipe(name):
    config, stage = recipe(name), recipe(name).stage
    assert (stage.warmup_ratio, stage.weight_decay, stage.temperature) == (0.03, 0, 0.03)
    assert (stage.lora_rank, stage.lora_dropout) == (8, 0.05)
    assert (stage.epochs, stage.max_steps, stage.save_steps) == (1, -1, 100)
    embed = replace(EmbedConfig(), **config.embed)
    assert (embed.max_length, embed.max_frames, embed.positions) == (2048, 12, "sequential")
    assert config.bf16 and config.gradient_checkpointing and config.workers == 8
    assert set(stage.visual_parts.values()) == {"frozen"} and not config.weights


def test_little_is_padded_in_any_recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(project_root() / "speed"))
    padding = importlib.import_module("padding")
    found = padding.recipes()
    assert set(RELEASED) < set(found)
    for name, config in found.items():
        ratio, _, most, before = padding.measure(config, 5)
        assert ratio <= 1.15 < before, name
        assert most <= config.forward_tokens


def test_stage_2_starts_from_the_merged_weights_of_stage_1():
    for name in (name for name in RELEASED if name.endswith("stage2")):
        first = recipe(name.replace("stage2", "stage1"))
        assert Path(recipe(name).model) == Path(first.output, "model")
        assert re.fullmatch(r"Qwen/Qwen2-VL-[27]B-Instruct", first.model)
        assert f"-{name.split('_')[2].upper()}-" in first.model


@pytest.mark.parametrize("name", EVALUATED)
def test_an_evaluation_is_one_command_beside_published_lines(name):
    recipe = read_json(FOLDER / f"{name}.json")
    kind, size = name.split("_")[1:]
    assert recipe["checkpoint"] == f"friedrichor/Unite-{kind.title()}-Qwen2-VL-{size.upper()}"
    assert shlex.split(recipe["command"]) == [
        "unite", "evaluate", recipe["checkpoint"], *recipe["tasks"],
        "--data-root", recipe["data_root"], "--output", recipe["output"],
    ]  # fmt: skip
    own = {line.task for line in read_published() if line.checkpoint == recipe["checkpoint"]}
    assert set(recipe["compare"]) <= own
    groups = {re.split("[- ]recall|[- /]", task)[0] for task in recipe["compare"]} - {"webvid"}
    assert groups <= set(recipe["tasks"])
    assert recipe["run_here"] is False and recipe["caution"]
    assert f"`{name}.json`" in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EVALUATED)
def test_the_command_of_an_evaluation_is_understood(name):
    words = shlex.split(read_json(FOLDER / f"{name}.json")["command"])
    given = measuring.evaluate().make_context("evaluate", words[2:]).params
    assert find_tasks(given["tasks"]) and given["output"] and given["model"] == words[2]


def test_the_table_of_corrections_names_each_corrected_recipe():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.json`" in text for name in RELEASED)
    corrections = text.split("## Corrected")[1]
    assert all(f"`{name}`" in corrections for name in CORRECTED)


def test_a_model_that_is_not_merged_is_refused(corpus, tmp_path):  # noqa: F811
    config = replace(
        config_of(corpus, tmp_path, "stage1"), model=str(tmp_path / "runs" / "s1" / "model")
    )
    with pytest.raises(ValueError, match=r"no merged weights: the stage with output .*s1 comes"):
        train(config)
    (tmp_path / "runs" / "s1").mkdir(parents=True)
    (tmp_path / "runs" / "s1" / "train.json").write_text("{}")
    with pytest.raises(ValueError, match=r"output of a training run: give .*s1.model"):
        train(replace(config, model=str(tmp_path / "runs" / "s1")))
    assert not Path(config.output).exists()


def test_a_global_batch_of_another_size_is_refused(corpus, tmp_path):  # noqa: F811
    config = replace(config_of(corpus, tmp_path, "stage1"), global_batch_size=12)
    with pytest.raises(
        ValueError, match="6 in 1 processes makes 6 pairs, not global_batch_size 12"
    ):
        train(config)
    with pytest.raises(ValueError, match="13 is not a multiple of batch_size 6"):
        replace(config, global_batch_size=13)


def test_fields_of_the_embedder_reach_the_trained_model(corpus, tmp_path):  # noqa: F811
    config = config_of(corpus, tmp_path, "stage1")
    config = replace(config, embed={"positions": "mrope", "max_frames": 5})
    config = replace(config, stage=replace(config.stage, max_steps=1))
    saved = UniteEmbedder.load(train(config)).config
    assert (saved.positions, saved.max_frames) == ("mrope", 5)
    with pytest.raises(ValueError, match="embed.max_frame is no field"):
        replace(config, embed={"max_frame": 5})


def loss_and_gradients(config):
    """Of the first batch; how often a layer of the language model began, forward and backward."""
    trainer = UniteTrainer.from_config(config)
    batch = next(iter(trainer.get_train_dataloader()))
    model = trainer.accelerator.prepare_model(trainer.model).train()
    calls = []
    layer = trainer.model.embedder.base.language_model.layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    loss = trainer.compute_loss(model, batch)
    forward = len(calls)
    loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in trained.values())
    return (
        loss.detach(),
        {name: p.grad for name, p in trained.items()},
        (forward, len(calls) - forward),
    )


@pytest.mark.parametrize("train_vision", [False, True])
def test_gradient_checkpointing_runs_layers_again_and_changes_no_gradient(
    corpus, tmp_path, train_vision  # noqa: F811
):  # fmt: skip
    config = config_of(corpus, tmp_path, "stage1")
    stage = replace(config.stage, lora_dropout=0.0, train_vision=train_vision)
    config = replace(config, stage=stage)
    loss, kept, calls = loss_and_gradients(config)
    again, recomputed, more = loss_and_gradients(replace(config, gradient_checkpointing=True))
    assert calls[0] > 0 == calls[1] and more == (2, 2)  # 12 items in forwards of 8
    torch.testing.assert_close(again, loss)
    assert any(grad.abs().max() > 1e-3 for grad in kept.values())
    torch.testing.assert_close(recomputed, kept, rtol=1e-4, atol=1e-5)


def test_bf16_computes_near_float32_with_trained_weights_and_loss_in_float32(
    corpus, tmp_path  # noqa: F811
):  # fmt: skip
    config = config_of(corpus, tmp_path, "stage1")
    config = replace(config, stage=replace(config.stage, lora_dropout=0.0))
    exact, _, _ = loss_and_gradients(config)
    rounded, _, _ = loss_and_gradients(replace(config, bf16=True))
    assert rounded.dtype == torch.float32
    assert exact != rounded
    torch.testing.assert_close(exact, rounded, rtol=0.2, atol=0.2)
