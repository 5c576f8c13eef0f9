"""Frozen weights spread over gloo processes: losses and gradients of the whole model."""

import os
from dataclasses import replace

import pytest
import torch

from tests.train.test_parallel import config_of, corpus, launch, logged, run_processes  # noqa: F401
from unite_core.train.parallel import average_gradients

ROWS = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11]]  # pairs of each process
UNREADABLE = [[0, 1, 2, 3, 4], [14, 15]]
# (fields of the configuration, pairs of each process)
WAYS = {
    "plain": ({}, ROWS),
    "one process without a readable pair": ({}, UNREADABLE),
    "grad_cache": ({"grad_cache": True}, ROWS),
    "checkpointing": ({"gradient_checkpointing": True}, ROWS),
    "both": ({"grad_cache": True, "gradient_checkpointing": True}, ROWS),
}


def step(config, rows):
    """Loss and gradients of some pairs, with an adapter that is not zero; trainer and groups."""
    from unite_core.train.trainer import UniteTrainer

    trainer = UniteTrainer.from_config(config)
    rng = torch.Generator().manual_seed(0)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=rng)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in rows])
    groups = len(batch["groups"])
    loss = trainer.compute_loss(trainer.model.train(), batch)
    loss.backward()
    average_gradients(trainer.model.parameters())
    grads = {name: p.grad for name, p in trainer.model.named_parameters() if p.requires_grad}
    return loss.item() / trainer.processes, grads, trainer, groups


def frozen_bytes(trainer):
    """What this process holds of the layers' frozen weights."""
    layers = trainer.model.embedder.base.language_model.layers
    frozen = [weight for weight in layers.parameters() if not weight.requires_grad]
    return sum(getattr(weight, "_local_tensor", weight).nbytes for weight in frozen)


def steps_of_rank(rank, world, ways):
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {name: str(value) for name, value in place.items()}  # as accelerate wants it
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # of the group that is there
    results = []
    for config, rows in ways:
        config = replace(config, forward_items=(32, 5)[rank])
        loss, grads, trainer, groups = step(config, rows[rank])
        results.append((loss, grads, groups, frozen_bytes(trainer)))
    return results


@pytest.mark.slow
def test_loss_and_gradients_of_parts_are_those_of_the_whole(corpus, tmp_path):  # noqa: F811
    def config(name, **fields):
        return replace(config_of(corpus, tmp_path / name, 6), **fields)

    ways = [(config(name, shard_frozen=True, **fields), rows)
            for name, (fields, rows) in WAYS.items()]  # fmt: skip
    ranks = run_processes(2, steps_of_rank, ways)
    for number, (name, (_, rows)) in enumerate(WAYS.items()):
        loss, wanted, trainer, _ = step(config("one"), sum((r for r in rows if r[0] < 14), []))
        assert max(float(grad.abs().max()) for grad in wanted.values()) > 1e-3, "the guard"
        results = [rank[number] for rank in ranks]
        assert sum(part for part, *_ in results) == pytest.approx(loss, rel=1e-5), name
        assert results[0][2] != results[1][2], "the guard: numbers of groups differ"
        for _, grads, _, held in results:
            for key, grad in grads.items():  # by norm: numbers near zero round as processors do
                assert (grad - wanted[key]).norm() <= 1e-4 * wanted[key].norm(), key
            assert held <= 0.51 * frozen_bytes(trainer)


@pytest.mark.slow
def test_a_sharded_run_trains_goes_on_and_publishes_a_whole_model(corpus, tmp_path):  # noqa: F811
    import shutil

    from unite_core.model.embedder import UniteEmbedder
    from unite_core.train.run import train

    one = train(config_of(corpus, tmp_path / "one", 12))
    config = replace(config_of(corpus, tmp_path / "two", 6), shard_frozen=True)
    launch("torchrun", config, tmp_path)
    for gone in ("checkpoint-6", "model", "adapter"):
        shutil.rmtree(tmp_path / "two" / gone)
    launch("torchrun", config, tmp_path)
    rows = [logged(tmp_path / name) for name in ("one", "two")]
    for first, second in zip(*rows, strict=True):
        assert first == pytest.approx(second, rel=1e-3, abs=1e-5)
    weights, parts = (UniteEmbedder.load(model).state_dict()
                      for model in (one, tmp_path / "two" / "model"))  # fmt: skip
    start = UniteEmbedder.load(config.model).state_dict()
    assert any((weights[name] - start[name]).abs().max() > 1e-3 for name in weights), "the guard"
    assert weights.keys() == parts.keys()
    # Adam turns rounding in a gradient near zero into a step of its own size
    for name in weights:
        torch.testing.assert_close(parts[name], weights[name], rtol=0, atol=2e-3, msg=name)


def test_a_model_that_will_be_sharded_is_loaded_on_the_cpu(corpus, tmp_path, monkeypatch):  # noqa: F811
    from unite_core.train import setup

    monkeypatch.setattr(setup, "processes", lambda: (0, 2))
    config = config_of(corpus, tmp_path, 6)
    places = []
    for sharded in (True, False):
        embedder = setup.adapted_model(replace(config, shard_frozen=sharded), "meta")
        places.append({weight.device.type for weight in embedder.parameters()})
    assert places == [{"cpu"}, {"meta"}]


def test_a_process_waits_for_the_others_as_long_as_asked(monkeypatch):
    import accelerate

    from unite_core import distributed

    waits = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(accelerate, "PartialState", lambda **given: waits.append(given["timeout"]))
    distributed.join_processes(90)
    distributed.join_processes()
    assert [wait.total_seconds() for wait in waits] == [90, 3600]
