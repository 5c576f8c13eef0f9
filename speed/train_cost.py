"""Memory, hours and disk of the recipes on 8 GPUs, computed: no GPU and no model file is needed.

    python speed/train_cost.py [--steps 50]

Weights are counted on torch's meta device, what a layer keeps of a token by running one layer of
the true width on the CPU, tokens of batches by the mix of `padding.py`, whose lengths are assumed.
Hours follow from floating point operations and an assumed share of the GPU's peak. The tables go to
docs/training.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from _report import table, write_section
from padding import PROMPT, STAGES, TEXTS, batch, recipes, tokens_of

from unite_core.model.config import EmbedConfig
from unite_core.model.cost import config_2b, config_7b, flops_of
from unite_core.model.preprocessing import Layout
from unite_core.train.config import TrainConfig
from unite_core.train.footprint import count_weights, footprint, saved_per_token

DOCS = Path(__file__).parents[1] / "docs" / "training.md"
GPUS = 8
PEAKS = {"A100": 312e12, "H100": 989e12}  # bfloat16 operations a second, from the data sheets
SHARE = 0.4  # of the peak that a run reaches, assumed
MODELS = {"2b": config_2b, "7b": config_7b}
MODES = {  # name: changes of the run, changes of its stage, GPUs over which the decoder is spread
    "LoRA": ({}, {}, 1),
    "LoRA, `shard_frozen`": ({"shard_frozen": True}, {}, GPUS),
    "all of the language model": ({}, {"lora": None}, 1),
    "the same, spread (FSDP2)": ({}, {"lora": None}, GPUS),
}


def tokens_of_batches(config: TrainConfig, steps: int) -> tuple[int, int]:
    """The most tokens of one process's batch, and of one item, over some batches."""
    rng, embed = np.random.default_rng(0), replace(EmbedConfig(), **config.embed)
    drawn = [batch(config.stage.name, config.stage.batch_size, rng, embed, Layout())
             for _ in range(steps)]  # fmt: skip
    return max(map(sum, drawn)), max(map(max, drawn))


def memory_rows(size: str, found: dict[str, TrainConfig], steps: int) -> list[list[str]]:
    rows, model = [], MODELS[size]()
    saved = {}
    for number in (1, 2):
        recipe = found[f"multi_gpu_{size}_stage{number}"]
        tokens, longest = tokens_of_batches(recipe, steps)
        group = max(longest, min(tokens, recipe.forward_tokens or tokens))
        for mode, (of_run, of_stage, shards) in MODES.items():
            config = replace(recipe, stage=replace(recipe.stage, **of_stage), **of_run)
            kind = config.stage.lora is None
            if kind not in saved:
                saved[kind] = saved_per_token(model, config.stage)
            need = footprint(config, count_weights(model, config.stage), model, tokens, group,
                             saved[kind], shards)  # fmt: skip
            parts = [f"{part / 1e9:.1f}" for part in (*need, need.total)]
            fits = [str(card) for card in (40, 80) if need.total < 0.9e9 * card]
            rows.append([f"{size.upper()}, stage {number}, {mode}", str(tokens), str(group), *parts,
                         ", ".join(fits) or "neither"])  # fmt: skip
    return rows


def flops_of_stage(model, stage: str, whole: bool, draws: int = 400) -> tuple[float, int]:
    """Operations of one epoch, and its pairs: forward, forward again, backward."""
    rng, embed, layout = np.random.default_rng(0), EmbedConfig(max_frames=12), Layout()
    total, pairs = 0.0, 0
    for thousands, *sides in STAGES[stage]:
        for side in sides:
            costs = []
            for _ in range(draws // len(sides)):
                tokens, grids = PROMPT, []
                for part in side:
                    own = tokens_of([part], rng, embed, layout) - PROMPT
                    tokens += own
                    if part not in TEXTS:  # four patches a token, in one picture or six frame pairs
                        times = 1 if part == "image" else 6
                        grids.append((times, 2, max(2, 2 * own // times)))
                tokens = min(tokens, embed.max_length)
                flops = flops_of(model, grids, tokens)
                passes = 4 if whole else 3  # a backward without gradients of weights is one forward
                costs.append(flops.vision + passes * (flops.linear + flops.attention / 2))
            total += 1000 * thousands * float(np.mean(costs))
        pairs += 1000 * thousands
    return total, pairs


def hour_rows() -> list[list[str]]:
    rows = []
    for size, make in MODELS.items():
        for stage in STAGES:
            for whole, name in ((False, "LoRA"), (True, "all of the language model")):
                flops, pairs = flops_of_stage(make(), stage, whole)
                hours = [f"{flops / (GPUS * peak * SHARE) / 3600:.0f}" for peak in PEAKS.values()]
                rows.append([f"{size.upper()}, {stage}, {name}", f"{pairs / 1e6:.2f}",
                             f"{flops / 1e18:.1f}", *hours])  # fmt: skip
    return rows


def disk_rows(found: dict[str, TrainConfig]) -> list[list[str]]:
    rows = []
    for size, make in MODELS.items():
        recipe = found[f"multi_gpu_{size}_stage1"]
        for name, of_stage in (("LoRA", {}), ("all of the language model", {"lora": None})):
            weights = count_weights(make(), replace(recipe.stage, **of_stage))
            whole = of_stage.get("lora", 0) is None
            model = 2 * weights.frozen + (4 if whole else 0) * weights.trained
            checkpoint = 12 * weights.trained  # weights and two moments, float32
            kept = recipe.save_total_limit + 1  # one more while it is written
            start = 2 * (weights.frozen + (weights.trained if whole else 0))
            total = start + 2 * (model + kept * checkpoint)
            parts = (start, checkpoint, model, total)
            rows.append([f"{size.upper()}, {name}", *(f"{part / 1e9:.1f}" for part in parts)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--output", type=Path, default=DOCS)
    options = parser.parse_args()
    found = recipes()
    memory = [row for size in MODELS for row in memory_rows(size, found, options.steps)]
    head = ["GB on each of 8 GPUs", "tokens of a batch", "of a group", "weights", "gradients",
            "AdamW", "gathered", "inputs of layers", "one layer", "sum", "fits GB"]  # fmt: skip
    hours = ["one epoch", "million pairs", "10^18 operations",
             *(f"hours on 8 {name}" for name in PEAKS)]  # fmt: skip
    disk = ["GB", "start", "a checkpoint", "a finished model", "both stages"]
    peaks = ", ".join(f"{name} {peak / 1e12:.0f}" for name, peak in PEAKS.items())
    kept = found["multi_gpu_7b_stage1"].save_total_limit
    text = f"""Computed by `speed/train_cost.py`, not measured: no such GPU was there. Tokens
are the most of {options.steps} batches of the simulated mix of `speed/padding.py`. Not in the sum:
what CUDA and its libraries take (0.5 to 1 GB), what the allocator cannot use, pixels and the
tower's passing values; a card fits where the sum is below 90 % of it.

{table(head, memory)}

Hours, at an assumed {SHARE:.0%} of the peak (bfloat16: {peaks} TFLOP/s); decoding of media and
start are not in them:

{table(hours, hour_rows())}

Disk, without the media, with {kept} checkpoints kept and one being written:

{table(disk, disk_rows(found))}"""
    write_section("train_cost", text, options.output)


if __name__ == "__main__":
    main()
