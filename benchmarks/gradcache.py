"""Peak memory of one training step on images by batch size, with and without GradCache.

The tiny reference checkpoint with LoRA, images of 112 x 112 in groups of 8 items. Each number is of
a fresh process: what the step takes beyond model and encoded batch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from _report import RESULTS, machine, reset_peak, resident, table, write_section

from unite_core.config import STAGE_1
from unite_core.embedder import UniteEmbedder
from unite_core.gradcache import embed_groups
from unite_core.objective import stage_loss

CHECKPOINT = Path(__file__).parents[1] / "tests" / "data" / "unite_qwen2vl_tiny"
GROUP, SIZE = 8, 112


def groups_of(embedder, items):
    """Encoded groups of random images; patches of a group stay in CPU memory."""
    rng = np.random.default_rng(0)
    for start in range(0, items, GROUP):
        count = min(GROUP, items - start)
        pictures = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
        yield embedder.processor.collate(
            [embedder.processor.encode({"image": p}, ".", "image") for p in pictures]
        )


def peak_memory(pairs: int, cached: bool) -> int:
    """Bytes of one forward and backward of `pairs` pairs beyond what was there before."""
    embedder = UniteEmbedder.load(CHECKPOINT, "cpu")
    embedder.attach_lora(STAGE_1.lora_rank, STAGE_1.lora_alpha, STAGE_1.lora_dropout)
    embedder.train()
    groups = list(groups_of(embedder, 2 * pairs))
    numbers = torch.arange(pairs)
    labels = {"target_modality": torch.full((pairs,), 2), "candidate_ids": numbers}
    before, _ = resident()
    reset_peak()
    vectors = embed_groups(embedder, groups, next(embedder.parameters()), cached)
    stage_loss(STAGE_1, vectors, labels).backward()
    _, peak = resident()
    return peak - before


def measured_apart(pairs: int, cached: bool) -> int:
    command = [sys.executable, __file__, "--peak", json.dumps([pairs, cached])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # what a child process measures
    options = parser.parse_args()
    if options.peak:
        print(peak_memory(*json.loads(options.peak)))
        return
    rows = []
    for pairs in options.pairs:
        plain, cached = (measured_apart(pairs, way) / 2**20 for way in (False, True))
        rows.append([str(pairs), f"{plain:.0f}", f"{cached:.0f}", f"{plain / cached:.1f}"])
        print(*rows[-1])
    head = ["Pairs of images", "All at once, MiB", "GradCache, MiB", "Ratio"]
    text = (
        "## Memory of a training step (`benchmarks/gradcache.py`)\n\n"
        f"{machine()}. Peak resident memory of a step beyond model and batch, one fresh process "
        f"per number; groups of {GROUP} images of {SIZE} x {SIZE}.\n\n{table(head, rows)}"
    )
    write_section("gradcache", text, options.output)


if __name__ == "__main__":
    main()
