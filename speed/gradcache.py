"""Peak memory of one training step on images by batch size, with and without GradCache.

    python speed/gradcache.py [--pairs 64 256 1024] [--plain 64 256]

unite-tiny with LoRA on its language model, a frozen tower, images of 112 x 112 in groups of 8.
Each number is of a fresh process: the most that the step takes beyond model and encoded batch.
Both ways must give the same gradients. Aim: the largest batch under GradCache fits where the
smallest fits all at once, plus its vectors and their gradient.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _report import RESULTS, machine, reset_peak, resident, table, write_section

from unite_core.model.embedder import UniteEmbedder
from unite_core.tiny.model import TINY
from unite_core.train.config import STAGE_1
from unite_core.train.gradcache import embed_groups
from unite_core.train.losses import stage_loss

GROUP, SIZE = 8, 112
MIB = 2**20


def adapted() -> UniteEmbedder:
    """The model in training, with an adapter whose update is not zero."""
    pixels = SIZE * SIZE  # images are not enlarged
    embedder = UniteEmbedder.load(TINY, "cpu", image_min_pixels=pixels, image_max_pixels=pixels)
    embedder.attach_lora(STAGE_1.lora_rank, STAGE_1.lora_alpha, STAGE_1.lora_dropout)
    torch.manual_seed(0)
    for name, weight in embedder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    return embedder.train()


def groups_of(embedder: UniteEmbedder, items: int):
    """Encoded groups of random images; patches of a group stay in CPU memory."""
    rng = np.random.default_rng(0)
    for start in range(0, items, GROUP):
        count = min(GROUP, items - start)
        pictures = rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
        yield embedder.processor.collate(
            [embedder.processor.encode({"image": p}, ".", "image") for p in pictures]
        )


def step(pairs: int, cached: bool, gradients: Path) -> dict[str, float]:
    """Bytes and seconds of one forward and backward; its gradients go to a file."""
    embedder = adapted()
    groups = list(groups_of(embedder, 2 * pairs))
    labels = {"target_modality": torch.full((pairs,), 2), "candidate_ids": torch.arange(pairs)}
    torch.manual_seed(1)  # of dropout
    before, _ = resident()
    reset_peak()
    start = time.perf_counter()
    vectors = embed_groups(embedder, groups, next(embedder.parameters()), cached)
    stage_loss(STAGE_1, vectors, labels).backward()
    seconds = time.perf_counter() - start
    _, peak = resident()
    found = {name: w.grad for name, w in embedder.named_parameters() if w.grad is not None}
    torch.save(found, gradients)
    return {"bytes": peak - before, "seconds": seconds, "vectors": 2 * vectors.detach().nbytes}


def step_apart(pairs: int, cached: bool, gradients: Path) -> dict[str, float]:
    """`step` in a process of its own, which gives freed memory back at once.

    glibc otherwise keeps it in pieces that fit nothing, several times of what is in use.
    """
    command = [sys.executable, __file__, "--step", json.dumps([pairs, cached, str(gradients)])]
    environment = os.environ | {f"MALLOC_{name}_THRESHOLD_": "65536" for name in ("MMAP", "TRIM")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def difference(one: Path, other: Path) -> float:
    """Largest difference of two gradients, in units of the largest number in them."""
    first, second = torch.load(one), torch.load(other)
    if first.keys() != second.keys() or not first:
        raise SystemExit(f"other weights have gradients: {sorted(first.keys() ^ second.keys())}")
    top = max(float(grad.abs().max()) for grad in first.values())
    return max(float((first[n] - second[n]).abs().max()) for n in first) / top


def measure(pairs: int, plain: bool, folder: Path) -> tuple[dict, dict | None, float | None]:
    """The step under GradCache, all at once if asked, and how far their gradients are apart."""
    cached = step_apart(pairs, True, folder / "cached.pt")
    if not plain:
        return cached, None, None
    at_once = step_apart(pairs, False, folder / "plain.pt")
    apart = difference(folder / "plain.pt", folder / "cached.pt")
    if not apart < 1e-4:
        raise SystemExit(f"gradients of {pairs} pairs differ by {apart:.1e} of the largest")
    return cached, at_once, apart


def report(found: dict[int, tuple], output: Path) -> None:
    rows = []
    for pairs, (cached, plain, apart) in found.items():
        once = [f"{plain['bytes'] / MIB:.0f}", f"{plain['seconds']:.1f}"] if plain else ["-", "-"]
        now = [f"{cached['bytes'] / MIB:.0f}", f"{cached['seconds']:.1f}"]
        rows.append([str(pairs), *once, *now, f"{apart:.0e}" if plain else "-"])
    small = min(pairs for pairs in found if found[pairs][1])
    large = max(found)
    room = (found[small][1]["bytes"] + found[large][0]["vectors"]) / MIB
    need = found[large][0]["bytes"] / MIB
    head = ["Pairs of images", "All at once, MiB", "s", "GradCache, MiB", "s", "Gradients apart"]
    verdict = "met" if need <= room else "missed"
    text = f"""## Memory of a training step (`speed/gradcache.py`)

{machine()}. Most memory of one step beyond model and batch, a fresh process per number; unite-tiny,
groups of {GROUP} images of {SIZE} x {SIZE}; the allocator returns
freed memory at once. Gradients apart: largest difference over largest value.

{table(head, rows)}

{large} pairs under GradCache take {need:.0f} MiB; {small} pairs all at once and the vectors of
{large} with their gradient take {room:.0f} MiB: the aim is {verdict}."""
    write_section("gradcache", text, output)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--plain", type=int, nargs="+", default=[64, 256], help="all at once too")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--step", help=argparse.SUPPRESS)  # what a child process measures
    options = parser.parse_args()
    if options.step:
        pairs, cached, gradients = json.loads(options.step)
        print(json.dumps(step(pairs, cached, Path(gradients))))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {pairs: measure(pairs, pairs in options.plain, Path(folder))
                 for pairs in options.pairs}  # fmt: skip
    report(found, options.output)


if __name__ == "__main__":
    main()
