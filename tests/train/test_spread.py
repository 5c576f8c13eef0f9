"""Full fine-tuning spread over gloo processes is full fine-tuning, in value, file and memory."""

# ruff: noqa: F811 - a fixture of another module is an argument
import os
import shutil
from dataclasses import replace

import pytest
import torch

from tests.train.test_parallel import (  # noqa: F401 - a fixture
    config_of,
    corpus,
    launch,
    logged,
    run_processes,
)
from tests.train.test_shard import ROWS
from unite_core.model.embedder import UniteEmbedder
from unite_core.train.checkpoints import whole_weights
from unite_core.train.parallel import average_gradients
from unite_core.train.run import train
from unite_core.train.spread import plain, whole
from unite_core.train.trainer import UniteTrainer

WAYS = {"plain": {}, "both": {"grad_cache": True, "gradient_checkpointing": True}}


def full_config(corpus, output, batch_size, **fields):
    config = config_of(corpus, output, batch_size, lora=None, learning_rate=1e-3)
    return replace(config, **fields)


def steps(config, rows, count=2):
    """Losses, gradients of the last step, weights and moments after it, bytes that are held."""
    trainer = UniteTrainer.from_config(config)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in rows])
    optimizer, losses = trainer.create_optimizer(), []
    model = trainer.model.train()
    for _ in range(count):
        optimizer.zero_grad()
        loss = trainer.compute_loss(model, dict(batch, bad=[]))
        loss.backward()
        average_gradients(model.parameters())
        losses.append(loss.item() / trainer.processes)
        optimizer.step()
    trained = {name: w for name, w in model.named_parameters() if w.requires_grad}
    held = sum(getattr(w, "_local_tensor", w).nbytes for w in trained.values())
    return {
        "losses": losses, "held": held, "plain": len(plain(trained.values())),
        "gradients": {name: whole(w.grad) for name, w in trained.items()},
        "weights": whole_weights(model), "state": optimizer.state_dict()["state"],
    }  # fmt: skip


def steps_of_rank(rank, world, configs):
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {name: str(value) for name, value in place.items()}  # as accelerate wants it
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # of the group that is there
    return [steps(replace(config, forward_items=(32, 5)[rank]), ROWS[rank]) for config in configs]


@pytest.mark.slow
def test_steps_of_parts_are_those_of_the_whole(corpus, tmp_path):
    configs = [full_config(corpus, tmp_path / name, 6, shard_trained=True, **fields)
               for name, fields in WAYS.items()]  # fmt: skip
    ranks = run_processes(2, steps_of_rank, configs)
    one = steps(full_config(corpus, tmp_path / "one", 12), sum(ROWS, []))
    for number in range(len(WAYS)):
        parts = [rank[number] for rank in ranks]
        for step, loss in enumerate(one["losses"]):
            assert sum(part["losses"][step] for part in parts) == pytest.approx(loss, rel=1e-4)
        for part in parts:
            assert part["plain"] == 0 and part["held"] <= 0.51 * one["held"]
            assert part["gradients"].keys() == one["gradients"].keys()
            for name, wanted in one["gradients"].items():
                error = (part["gradients"][name] - wanted).norm()
                assert error <= 1e-3 * max(wanted.norm(), torch.tensor(1e-3)), name
                assert part["weights"][name].shape == wanted.shape
            for state, other in zip(part["state"].values(), one["state"].values(), strict=True):
                assert state["exp_avg"].shape == other["exp_avg"].shape, "moments are given whole"


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits_and_without_being_spread(corpus, tmp_path):
    config = full_config(corpus, tmp_path / "two", 6, shard_trained=True)
    start = UniteEmbedder.load(config.model, "cpu").state_dict()
    launch("torchrun", config, tmp_path)
    first = UniteEmbedder.load(tmp_path / "two" / "model", "cpu").state_dict()
    assert (first["backbone.language_model.norm.weight"].shape
            == start["backbone.language_model.norm.weight"].shape)  # fmt: skip
    assert any((first[name] - start[name]).abs().max() > 1e-3 for name in first), "the guard"
    history = logged(tmp_path / "two")
    shutil.copytree(tmp_path / "two", tmp_path / "alone")
    for name in ("two", "alone"):
        for gone in ("checkpoint-6", "model"):
            shutil.rmtree(tmp_path / name / gone)
    launch("torchrun", config, tmp_path)
    again = UniteEmbedder.load(tmp_path / "two" / "model", "cpu").state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert logged(tmp_path / "two")[:-1] == history[:-1]
    train(full_config(corpus, tmp_path / "alone", 12))
    for row, other in zip(logged(tmp_path / "alone"), history, strict=True):
        assert row == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    "fields",
    [{"lora": {}}, {"train_vision": "lora"}, {"learn_temperature": True}, {"router_weight": 0.1}],
)
def test_what_cannot_be_spread_is_refused(corpus, tmp_path, fields):
    stage = {"lora": None} | fields
    with pytest.raises(ValueError, match="shard_trained needs lora null, train_vision"):
        replace(config_of(corpus, tmp_path, 6, **stage), shard_trained=True)
    config = full_config(corpus, tmp_path, 6)
    with pytest.raises(ValueError, match="eval_data cannot be scored with shard_trained"):
        replace(config, shard_trained=True, eval_data="held_out.jsonl")
    with pytest.raises(ValueError, match="refresh_steps cannot mine with shard_trained"):
        replace(config, shard_trained=True, stage=replace(config.stage, refresh_steps=5))
