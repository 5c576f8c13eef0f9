"""Time of a training step of unite-tiny on mixed batches beside the plain route, in one run.

    python benchmarks/train_step.py [--root data/emoji] [--steps 5] [--repeats 5]

A step is collating, forward, loss and backward of 64 pairs of text, images and clips with LoRA on
the language model and a frozen tower, for both stages. All routes get the same pairs and adapters
and must return the same loss (checked to 1e-4). Decoded items are cached in every route, so none
pays for reading files. Repeats are interleaved: one of each route, then again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _report import machine, spread, table, versions, write_section

from unite_core import UniteEmbedder
from unite_core.batches import PairCollator, PairDataset, PairSampler
from unite_core.config import StageConfig
from unite_core.emoji.pairs import WEIGHTS
from unite_core.tiny import TINY
from unite_core.train import stage_loss
from unite_core.workbook import TINY_STAGE_1, TINY_STAGE_2

Batch = list  # of pairs


def adapted(stage: StageConfig) -> UniteEmbedder:
    """unite-tiny with an adapter whose update is not zero."""
    embedder = UniteEmbedder.load(TINY)
    embedder.attach_lora(stage.lora_rank, stage.lora_alpha, stage.lora_dropout, seed=0)
    torch.manual_seed(0)
    for name, weight in embedder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    return embedder.train()


def plain(embedder: UniteEmbedder, stage: StageConfig, root: Path) -> Callable[[Batch], float]:
    """transformers' own forward, queries and candidates apart, each padded to its longest; dense
    loss with a mask, as the released code has it.
    """
    collator = PairCollator(embedder.processor, root, forward_items=10**6, cache_mib=4096)

    def side(items):
        encoded: dict = {}
        keys = [collator._encode(item, "item", encoded) for item in items]
        collator._keep(encoded)
        batch = embedder.processor.collate([encoded[key] for key in keys])
        ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
        positions = (mask.cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)
        hidden = embedder.backbone(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, **batch
        ).last_hidden_state[:, -1]
        return torch.nn.functional.normalize(hidden.float(), dim=-1)

    def step(pairs: Batch) -> float:
        query, candidate = (side([pair[place] for pair in pairs]) for place in (0, 1))
        loss = dense(query, candidate, stage, pairs)
        loss.backward()
        return float(loss.detach())

    return step


def dense(query, candidate, stage: StageConfig, pairs: Batch) -> torch.Tensor:
    """The released arithmetic: all scores, then the mask; equal candidates were left out."""
    modality = torch.tensor([pair.target_modality for pair in pairs])
    scores = query @ candidate.T / stage.temperature
    if stage.loss == "mamcl":
        mask = (modality[:, None] == modality).float()
        scores = scores * mask + (1 - mask) * -1e9
    own = torch.arange(len(pairs))
    loss = torch.nn.functional.cross_entropy(scores, own)
    if stage.symmetric:
        loss = (loss + torch.nn.functional.cross_entropy(scores.T, own)) / 2
    return loss


def ours(embedder: UniteEmbedder, stage: StageConfig, root: Path, see: bool):
    """`UniteTrainer`'s way, with or without the frozen tower's tokens kept."""
    collator = PairCollator(embedder.processor, root, 32, 4096, embedder.see if see else None)

    def step(pairs: Batch) -> float:
        batch = collator(pairs)
        vectors = torch.cat([embedder(**group) for group in batch["groups"]])[batch["order"]]
        loss = stage_loss(stage, vectors, batch)
        loss.backward()
        return float(loss.detach())

    return step


def distinct(pairs: Batch) -> Batch:
    """Pairs without a repeated candidate, so that every route has the same negatives."""
    return list({repr(pair.candidate): pair for pair in pairs}.values())


def measure(stage: StageConfig, root: Path, steps: int, repeats: int) -> list[list[str]]:
    dataset = PairDataset([root / f"{stage.name}.jsonl"], root)
    weights = WEIGHTS[stage.name] if root.name.startswith("emoji") else {}
    sampler = PairSampler(dataset, stage.batch_size, steps, weights)
    batches = [distinct([dataset[index] for index in rows]) for rows in sampler]
    embedder = adapted(stage)
    routes = {
        "plain": plain(embedder, stage, root),
        "ours, tower in every step": ours(embedder, stage, root, see=False),
        "ours, tower once per picture (cache_vision)": ours(embedder, stage, root, see=True),
    }
    losses = {name: [step(pairs) for pairs in batches] for name, step in routes.items()}  # warm
    for name, found in losses.items():
        worst = max(abs(a - b) for a, b in zip(found, losses["plain"], strict=True))
        assert worst < 1e-4 * max(1.0, *losses["plain"]), (name, worst)
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(repeats):
        for name, step in routes.items():
            start = time.perf_counter()
            for pairs in batches:
                step(pairs)
            seconds[name].append((time.perf_counter() - start) / steps)
            embedder.zero_grad()
    ratios = {n: [p / o for p, o in zip(seconds["plain"], seconds[n], strict=True)] for n in routes}
    return [[f"{stage.name}, {n}", spread(seconds[n]), spread(ratios[n])] for n in routes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("data/emoji"))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if not (options.root / "stage2.jsonl").is_file():
        raise SystemExit(f"{options.root} holds no corpus: run `make run` once, or name another")
    rows = []
    for stage in (TINY_STAGE_1, TINY_STAGE_2):
        rows += measure(stage, options.root, options.steps, options.repeats)
    text = f"""## Training step (`benchmarks/train_step.py`)

{machine()}; {versions("transformers", "peft")}. Corpus {options.root.name}, batches of 64
pairs less repeated candidates, {options.steps} different batches, {options.repeats} interleaved
repeats. Median [lowest, highest].

{table(["route", "seconds a step", "times faster than plain"], rows)}"""
    write_section("train_step", text)
    print(text)


if __name__ == "__main__":
    main()
