"""Part 6: which attention kernels run, and what packed batches save."""

# Shapes: B items of a batch, T tokens of the longest, H heads, d size of a head.

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from unite_core.model.loading import LoadConfig
from unite_core.model.packing import attend, choose_attention
from unite_core.model.positions import token_positions
from unite_core.model.vision import visual_tokens

from .devices import kernels_of, times_of
from .model import random_embedder, text
from .part import Report, Setup

__all__ = ["run"]


FAMILIES = {  # first match wins; names of kernels, and of torch's operators on a CPU
    "cudnn": r"cudnn.*(sdpa|flash|attention)",
    "flash": r"flash_(fwd|bwd)|flash_attention|pytorch_flash",
    "memory-efficient": r"fmha|efficient_attention|mem_eff|attention_kernel",
    "softmax of whole scores": r"softmax",
}


def run(report: Report, setup: Setup) -> None:
    embedder = random_embedder(setup)
    items = texts(6 if setup.tiny else 256)
    lengths = decoder(report, setup, embedder, items)
    tower(report, setup, embedder)
    packed(report, setup, lengths)


def texts(count: int) -> list[dict]:
    rng = np.random.default_rng(3)
    return [{"text": text(rng, 3, 120)} for _ in range(count)]


def family(kernels) -> str:
    """Which kinds of attention kernels ran, with their share of the kernels' time."""
    total = sum(kernels.spent.values()) or 1.0
    shares = dict.fromkeys(FAMILIES, 0.0)
    for name, seconds in kernels.spent.items():
        kind = next((k for k, known in FAMILIES.items() if re.search(known, name, re.I)), None)
        if kind:
            shares[kind] += seconds / total
    return ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items() if share) or "none"


def a_row(report: Report, setup: Setup, name: str, call: Callable, tokens: int) -> torch.Tensor:
    result = call()
    seconds = min(times_of(call, setup.device, 3))
    found = kernels_of(call, setup.device)
    report.row(name, ms=1e3 * seconds, tokens_s=tokens / seconds, device_waits=found.waits,
               kernels=found.count, attention=family(found))  # fmt: skip
    return result


@torch.inference_mode()
def decoder(report: Report, setup: Setup, embedder, items: list[dict]) -> list[int]:
    """The language model on one batch of texts: ours, transformers' padded, and without padding.

    Returns the lengths of the items.
    """
    encoded = [embedder.processor.encode(item) for item in items]
    batch = {name: part.to(setup.device)
             for name, part in embedder.processor.collate(encoded).items()}  # fmt: skip
    ids, mask = batch["input_ids"], batch["attention_mask"]
    positions = token_positions(embedder.base, "sequential", ids, mask)
    lengths = mask.sum(1).tolist()
    tokens = sum(lengths)
    report.row("batch of texts", items=len(items), tokens=tokens, longest=max(lengths),
               padding=1 - tokens / mask.numel())  # fmt: skip

    def padded():
        hidden = embedder.base(input_ids=ids, attention_mask=mask, position_ids=positions,
                               use_cache=False).last_hidden_state[:, -1]  # fmt: skip
        return F.normalize(hidden.float(), dim=-1)

    def alike():
        return embedder.base(input_ids=ids, position_ids=positions, use_cache=False)

    embedder.base.language_model.config._attn_implementation = "sdpa"
    ours = a_row(report, setup, "ours, padded, prefix once", lambda: embedder(**batch), tokens)
    plain = a_row(report, setup, "transformers, padded, mask", padded, tokens)
    a_row(report, setup, "transformers, as if nothing were padded", alike, mask.numel())
    how = LoadConfig(attention="packed")
    choose_attention(embedder.base, how, torch.device(setup.device), setup.dtype)
    dense = a_row(report, setup, "ours, packed", lambda: embedder(**batch), tokens)
    report.check("ours against transformers, 1 - cosine", (1 - (ours * plain).sum(1)).max(), 0.05)
    report.check("packed against transformers, 1 - cosine", (1 - (dense * plain).sum(1)).max(),
                 0.05)  # fmt: skip
    return lengths


@torch.inference_mode()
def tower(report: Report, setup: Setup, embedder) -> None:
    """The vision tower on pictures of one size and of many."""
    sides = [(8, 8)] * 2 if setup.tiny else [(32, 32)] * 16
    mixed = [(8, 8), (4, 12)] if setup.tiny else [(16 + 2 * n, 48 - 2 * n) for n in range(16)]
    visual = embedder.base.visual
    for name, shapes in (("one size", sides), ("many sizes", mixed)):
        grids = torch.tensor([(1, *shape) for shape in shapes], device=setup.device)
        count = int(grids.prod(1).sum())
        patches = torch.randn(count, 1176, device=setup.device).to(setup.dtype)
        ours = a_row(report, setup, f"tower, {name}, ours",
                     lambda p=patches, g=grids: visual_tokens(visual, p, g), count)  # fmt: skip
        plain = a_row(report, setup, f"tower, {name}, transformers",
                      lambda p=patches, g=grids: visual(p, grid_thw=g).pooler_output,
                      count)  # fmt: skip
        cosine = F.cosine_similarity(ours.float(), plain.float(), dim=-1)
        report.check(f"tower, {name}, 1 - cosine", (1 - cosine).max(), 0.05)


@torch.inference_mode()
def packed(report: Report, setup: Setup, lengths: list[int]) -> None:
    """One layer's attention on these lengths: padded with a mask, and packed."""
    heads, size = (4, 16) if setup.tiny else (12, 128)
    parts = [[torch.randn(length, heads, size, device=setup.device).to(setup.dtype)
              for length in lengths] for _ in range(3)]  # fmt: skip
    query, key, value = (
        pad_sequence(part, batch_first=True, padding_side="left").transpose(1, 2) for part in parts
    )
    longest = max(lengths)
    steps = torch.arange(longest, device=setup.device)
    inside = steps >= longest - torch.tensor(lengths, device=setup.device)[:, None]
    mask = (steps[:, None] >= steps) & inside[:, None] | (steps[:, None] == steps)

    def padded():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None])

    wanted = a_row(report, setup, "attention, padded, mask", padded, sum(lengths))
    rows = [wanted[n, :, longest - length :].transpose(0, 1) for n, length in enumerate(lengths)]
    whole = [torch.cat(part) for part in parts]
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=setup.device)

    def together():
        return attend(*whole, starts, longest, size**-0.5, causal=True)

    try:
        found = a_row(report, setup, "attention, packed", together, sum(lengths))
    except Exception as error:  # a new interface of torch: a finding, not a failure
        report.note("attention, packed", f"failed: {type(error).__name__}: {str(error)[:200]}")
        return
    report.check("attention, packed against padded", (found - torch.cat(rows)).abs().max(), 0.05)
