"""Part 4: training steps of both stages' recipes, and GradCache's memory."""

# Shapes: B pairs of a batch, N = 2 B items.

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from unittest import mock

import torch
from transformers import TrainerCallback

from unite_core.model.cost import flops_of
from unite_core.model.embedder import UniteEmbedder
from unite_core.settings import read_config
from unite_core.train.config import STAGE_1, TrainConfig
from unite_core.train.gradcache import embed_groups
from unite_core.train.losses import stage_loss
from unite_core.train.trainer import UniteTrainer

from .devices import matmul_peak, measured, release, synchronize
from .model import random_embedder, write_records_of
from .part import Report, Setup

__all__ = ["run"]


STEPS = 3  # the first one compiles and is left out
SIDE = 224  # of the pictures whose memory is measured: 64 visual tokens


def run(report: Report, setup: Setup) -> None:
    peak = matmul_peak(setup, torch.bfloat16)
    report.row("matrix-product peak", bfloat16_tflop_s=peak)
    losses, caches = {}, {}
    for stage in ("stage1", "stage2"):
        for cached in (False, True):
            name = f"{stage} recipe, {'GradCache' if cached else 'all at once'}"
            if setup.left() < 15:
                report.note(name, "not run: no time was left")
                continue
            config = config_of(setup, stage, cached)
            losses[stage, cached] = a_recipe(report, name, config, setup, caches, peak)
            release(setup.device)
        if (stage, True) in losses and (stage, False) in losses:
            plain, cached = losses[stage, False], losses[stage, True]
            report.check(f"{stage}: loss of the first step with and without GradCache",
                         abs(plain - cached) / max(plain, 1e-3), 0.02)  # fmt: skip
    memory(report, setup)


def config_of(setup: Setup, stage: str, cached: bool) -> TrainConfig:
    """The recipe for the 2B model, on this corpus and in one process."""
    with resources.as_file(
        resources.files("unite_core.train") / "recipes" / f"multi_gpu_2b_{stage}.json"
    ) as file:
        recipe = read_config(TrainConfig, file)
    data, embed = data_of(setup, stage), {} if setup.tiny else recipe.embed
    size = 8 if setup.tiny else recipe.stage.batch_size
    return replace(
        recipe, model="random", data=(str(data),), media_root=str(data.parent),
        output=str(setup.scratch / f"{stage}-{cached}"), global_batch_size=None, grad_cache=cached,
        stage=replace(recipe.stage, max_steps=STEPS, batch_size=size), embed=embed, logging_steps=1,
        workers=0, cache_mib=8192, forward_items=4 if setup.tiny else recipe.forward_items,
    )  # fmt: skip


class Clock(TrainerCallback):
    """Seconds and peak memory of each step: forward, backward and optimizer, no reading."""

    def __init__(self, device: torch.device):
        self.device, self.seconds, self.gib, self.start = device, [], [], 0.0

    def on_step_begin(self, *_, **__):
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        synchronize(self.device)
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__):
        synchronize(self.device)
        self.seconds.append(time.perf_counter() - self.start)
        cuda = self.device.type == "cuda"
        self.gib.append(torch.cuda.max_memory_allocated(self.device) / 2**30 if cuda else 0.0)


def a_recipe(report: Report, name: str, config: TrainConfig, setup: Setup, caches: dict,
             peak: float) -> float:  # fmt: skip
    """One row: the trainer itself for a few steps; returns the first loss."""
    trainer = trainer_of(config, setup)
    cache = caches.setdefault(config.stage.name, trainer.data_collator.cache)
    trainer.data_collator.cache = cache  # so that pictures are read for one of the two runs only
    clock, work = Clock(setup.device), Work(trainer)
    trainer.add_callback(clock)
    start = time.perf_counter()
    trainer.train()
    whole = time.perf_counter() - start
    seconds = min(clock.seconds[1:])
    first = next(row["loss"] for row in trainer.state.log_history if "loss" in row)
    flop = work.flop / STEPS
    report.row(name, pairs=config.stage.batch_size, groups=work.groups / STEPS,
               s=seconds, first_s=clock.seconds[0], between_s=(whole - sum(clock.seconds)) / STEPS,
               peak_gib=max(clock.gib), tflop=flop / 1e12,
               mfu=flop / seconds / 1e12 / peak, loss=first, ok=first == first)  # fmt: skip
    return first


def trainer_of(config: TrainConfig, setup: Setup) -> UniteTrainer:
    """The trainer of a run, whose model is random instead of loaded."""
    embedder = random_embedder(setup)

    def load(*_, **overrides):
        return embedder.configured(**overrides)

    with mock.patch.object(UniteEmbedder, "load", load):
        trainer = UniteTrainer.from_config(config)
    trainer.args.save_strategy = "no"
    return trainer


class Work:
    """Counts what the batches of a trainer need: forward, and the gradients of activations.

    Frozen weights need no gradient: twice the language model's forward, once the tower's. Neither
    padding nor what checkpointing and GradCache compute again is counted.
    """

    def __init__(self, trainer: UniteTrainer):
        self.flop = self.groups = 0
        self.config = trainer.model.embedder.base.config
        self.compute_loss, trainer.compute_loss = trainer.compute_loss, self

    def __call__(self, model, inputs, *arguments, **options):
        for group in inputs["groups"]:
            self.groups += 1
            grids = [tuple(grid) for name in ("image_grid_thw", "video_grid_thw")
                     for grid in group.get(name, torch.zeros(0, 3)).int().tolist()]  # fmt: skip
            self.flop += flops_of(self.config, grids, 0).vision
            for tokens in group["attention_mask"].sum(1).tolist():
                found = flops_of(self.config, [], tokens)
                self.flop += 2 * (found.linear + found.attention)
        return self.compute_loss(model, inputs, *arguments, **options)


def data_of(setup: Setup, stage: str) -> Path:
    """The records of a stage, written once."""
    path = setup.scratch / f"{stage}.jsonl"
    return path if path.is_file() else write_records_of(setup.scratch, stage,
                                                        16 if setup.tiny else 128)  # fmt: skip


def memory(report: Report, setup: Setup) -> None:
    """Peak of GradCache on a large batch of pictures against a small one all at once."""
    small, large, group = (4, 16, 2) if setup.tiny else (64, 1024, 16)
    embedder = random_embedder(setup)
    stage = STAGE_1
    embedder.attach_lora(stage.lora_rank, stage.lora_alpha, stage.lora_dropout)
    embedder.checkpoint_activations()
    embedder.train()
    spent, used = {}, {}
    for pairs, cached in ((small, False), (small, True), (large, True)):
        name = f"{pairs} pairs of pictures, {'GradCache' if cached else 'all at once'}"
        expected = spent.get((small, True), 0) * pairs / small
        if setup.left() < 3 + expected:
            report.note(name, f"not run: no time was left, about {expected:.0f} s are needed")
            continue
        groups = [pictures(embedder, group, setup) for _ in range(2)]
        groups = [groups[n % 2] for n in range(2 * pairs // group)]
        step = partial(a_step, embedder, groups, pairs, cached, setup)
        _, spent[pairs, cached], used[pairs, cached] = measured(step, setup.device)
        report.row(name, s=spent[pairs, cached], gib_beyond_model=used[pairs, cached])
        embedder.zero_grad(set_to_none=True)
    if (large, True) in used:
        vectors = 4 * 2 * (2 * large) * embedder.dim / 2**30  # and their gradient, float32
        allowed = used[small, False] + vectors
        report.row(f"{large} under GradCache in the memory of {small}", gib=used[large, True],
                   allowed_gib=allowed,
                   ok=used[large, True] <= allowed or not setup.cuda)  # fmt: skip


def pictures(embedder, count: int, setup: Setup) -> dict:
    """A group of random pictures, its patches in CPU memory."""
    side = 56 if setup.tiny else SIDE
    grid = (1, side // 14, side // 14)
    plan = embedder.processor.plan_item({"image": torch.zeros(side, side, 3).byte().numpy()})
    patches = [torch.randn(grid[1] * grid[2], 3 * 2 * 14 * 14) for _ in range(count)]
    return embedder.processor.collate(
        [embedder.processor.complete(plan, [(patch, grid)], [[]]) for patch in patches]
    )


def a_step(embedder, groups, pairs: int, cached: bool, setup: Setup) -> None:
    labels = {
        "target_modality": torch.full((pairs,), 2, device=setup.device),
        "candidate_ids": torch.arange(pairs, device=setup.device),
    }
    with torch.autocast(setup.device.type, torch.bfloat16):
        weight = next(embedder.parameters())
        vectors = embed_groups(embedder, groups, weight, cached)
        stage_loss(STAGE_1, vectors, labels).backward()
