"""What each special path of a training step is worth on a real job, in one run.

    python speed/paths.py [--root data/emoji] [--steps 3] [--repeats 3]

A step is collating, forward, loss and backward of 64 pairs of a stage as `make run` trains it
(visual tokens kept). Each route leaves one path out, or takes another; all get the same pairs and
must return the same loss (checked to 1e-4). Repeats are interleaved and ratios paired, step by
step. Counted are processor seconds of one thread, which other programs on the machine disturb
less than the clock. The last table is the window loop of a Qwen2.5-VL tower.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from _report import machine, spread, table, versions, write_section
from train_step import adapted, distinct, read_options

from unite_core.corpora.emoji.pairs import WEIGHTS
from unite_core.data.pairs import PairDataset
from unite_core.model import embedder as embedder_module
from unite_core.model.cost import config_7b
from unite_core.model.loading import LoadConfig
from unite_core.model.lora import fused_lora, keep_input_types
from unite_core.model.packing import choose_attention
from unite_core.tiny import TINY_STAGE_1, TINY_STAGE_2
from unite_core.train.collator import PairCollator
from unite_core.train.config import StageConfig
from unite_core.train.gradcache import embed_groups
from unite_core.train.losses import stage_loss
from unite_core.train.sampler import PairSampler

ALL = "all paths"


def route(stage: StageConfig, root: Path, fused: bool = True, decoder: bool = True,
          packed: bool = False, tokens: int | None = None) -> Callable[[list], float]:  # fmt: skip
    """A step as `UniteTrainer` does it, with or without each path."""
    model = adapted(stage)
    if packed:
        choose_attention(model.base, LoadConfig(attention="packed"), model.device, torch.float32)
    collator = PairCollator(model.processor, root, 32 if tokens is None else 512, 4096,
                            model.encode_vision, forward_tokens=tokens, packed=packed)  # fmt: skip
    weight = next(model.parameters())

    def step(pairs: list) -> float:
        batch = collator(pairs)
        plain = mock.patch.object(embedder_module, "is_plain_decoder", lambda _: False)
        with fused_lora(model) if fused else nullcontext(), nullcontext() if decoder else plain:
            vectors = embed_groups(model, batch["groups"], weight)[batch["order"]]
            loss = stage_loss(stage, vectors, batch)
            loss.backward()
        return float(loss.detach())

    return step


def routes_of(stage: StageConfig, root: Path) -> dict[str, Callable]:
    return {
        ALL: route(stage, root),
        "LoRA as peft computes it (without `fused_lora`)": route(stage, root, fused=False),
        "transformers' decoder, padded (without `pooled_states`)": route(
            stage, root, decoder=False
        ),
        "packed": route(stage, root, packed=True, tokens=2048),
    }


def seconds_of(step: Callable, pairs) -> tuple[float, float]:
    start = time.process_time()
    loss = step(pairs)
    return time.process_time() - start, loss


def measure(stage: StageConfig, root: Path, steps: int, repeats: int) -> list[list[str]]:
    dataset = PairDataset([root / f"{stage.name}.jsonl"], root)
    weights = WEIGHTS[stage.name] if root.name.startswith("emoji") else {}
    sampler = PairSampler(dataset, stage.batch_size, steps, weights)
    batches = [distinct([dataset[index] for index in rows]) for rows in sampler]
    routes = routes_of(replace(stage, lora_dropout=0.0), root)
    for pairs in batches:  # fills caches, too
        losses = [step(pairs) for step in routes.values()]
        if max(losses) - min(losses) > 1e-4 * max(1.0, *losses):
            raise SystemExit(f"losses {losses}")
    found: dict[str, list[float]] = {name: [] for name in routes}
    for _ in range(repeats):
        for pairs in batches:
            for name, step in routes.items():
                found[name].append(seconds_of(step, pairs)[0])
    rows = []
    for name, times in found.items():
        ratios = [own / whole for own, whole in zip(times, found[ALL], strict=True)]
        rows.append([f"{stage.name}, {name}", spread(times), spread(ratios)])
    return rows


def tower(repeats: int) -> list[list[str]]:
    """Qwen2.5-VL's tower, random: a call for each window, and one for all of a size."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

    config = Qwen2_5_VLConfig(
        text_config={"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
                     "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 64},
        vision_config={"depth": 8, "hidden_size": 320, "intermediate_size": 860, "num_heads": 4,
                       "out_hidden_size": 64},
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLModel(config).eval()
    grids = torch.tensor([[1, 32, 32], [1, 24, 40], [4, 16, 20]])
    patches = torch.randn(int(grids.prod(1).sum()), 1176)
    times: dict[str, list[float]] = {"loop": [], "together": []}
    tokens = {}
    with torch.no_grad():
        for _ in range(repeats + 1):
            for name in times:
                model.visual.config._attn_implementation = "sdpa"
                if name == "together":
                    choose_attention(model, LoadConfig(), torch.device("cpu"), torch.float32)
                start = time.process_time()
                tokens[name] = model.visual(patches, grid_thw=grids).pooler_output
                times[name].append(time.process_time() - start)
    apart = (tokens["loop"] - tokens["together"]).abs().max().item()
    loop, together = (values[1:] for values in times.values())
    ratios = [a / b for a, b in zip(loop, together, strict=True)]
    return [[f"{apart:.0e}", *map(spread, (loop, together, ratios))]]


def kept_bytes(tokens: int = 61) -> list[list[str]]:
    """What a decoder layer of 7B with a LoRA keeps for the backward pass, KiB a token."""
    from peft import LoraConfig, get_peft_model
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel

    config = config_7b().text_config
    config.update({"num_hidden_layers": 1, "layer_types": ["full_attention"], "vocab_size": 64,
                   "bos_token_id": 0, "eos_token_id": 0})  # fmt: skip
    model = Qwen2VLTextModel._from_config(config, dtype=torch.bfloat16)
    settings = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules="all-linear")
    model = get_peft_model(model, settings).train()
    hidden = torch.randn(1, tokens, config.hidden_size, dtype=torch.bfloat16)

    def kib() -> float:
        kept = {}

        def keep(saved):
            if tokens in saved.shape:  # no weight has this side
                kept[saved.untyped_storage().data_ptr()] = saved, saved.untyped_storage().nbytes()
            return saved

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved)
        with hooks, torch.autocast("cpu", torch.bfloat16):
            model(inputs_embeds=hidden.clone().requires_grad_(), use_cache=False)
        return sum(size for _, size in kept.values()) / tokens / 1024

    before = kib()
    keep_input_types(model)
    return [[f"{before:.0f}", f"{kib():.0f}"]]


def main() -> None:
    options = read_options(__doc__)
    torch.set_num_threads(1)
    rows = []
    for stage in (TINY_STAGE_1, TINY_STAGE_2):
        rows += measure(stage, options.root, options.steps, options.repeats)
    windows, kept = tower(options.repeats), kept_bytes()
    text = f"""## What special paths are worth (`speed/paths.py`)

{machine()}; {versions("transformers", "peft")}. Corpus {options.root.name}, batches of 64
pairs less repeated candidates, {options.steps} batches, {options.repeats} interleaved repeats.
Processor seconds of one thread, median [lowest, highest]; ratios are paired.

{table(["route", "seconds a step", f"× {ALL}"], rows)}

Qwen2.5-VL's tower (8 layers, width 320) on two pictures and a clip:

{table(["largest difference", "a call per window, s", "one per size, s", "times faster"], windows)}

What one decoder layer of 7B keeps for the backward pass under autocast, KiB a token (LoRA of rank
8, dropout, no checkpointing, attention on a CPU):

{table(["peft's own types", "inputs keep their type (`keep_input_types`)"], kept)}
"""
    write_section("paths", text, options.output)
    print(text)


if __name__ == "__main__":
    main()
