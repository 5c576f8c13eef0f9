"""Time and memory of the losses beside the released route and the peers, in one run.

    python speed/loss.py [--compare 8192] [--sizes 2048,...,65536] [--repeats 5] [--cpu]

Every route gets the same unit vectors and must return the same loss (checked to 1e-4) and the same
gradients (checked against ours in float64). Repeats are interleaved: one of each route, then again.
Only ours knows MAMCL, so a peer is called once per modality, on that modality's pairs, and its
losses are averaged by size: the same number, and the fastest way in which it can be had.

`--cpu` counts processor seconds of one thread, which other programs disturb less than the clock,
and leaves memory and sizes out; it has a section of its own.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from _report import RESULTS, machine, reset_peak, resident, spread, table, versions, write_section

from unite_core import info_nce, mamcl
from unite_core.loss.chunked import chunk_rows

_MEMORY = (
    "Memory is the peak resident memory of a fresh process during one pass, less what it held "
    "before (libraries, inputs) and less the two gradients. "
)
TAU = 0.03
SHARES = (0.42, 0.41, 0.16, 0.01)  # stage 2's target modalities, PAPER 3.2
PEERS = ("sentence-transformers", "open_clip_torch")
TASKS = {
    "info_nce": "InfoNCE, query to candidate",
    "mamcl": "MAMCL, query to candidate",
    "info_nce_both": "InfoNCE, both directions",
    "mamcl_both": "MAMCL, both directions",
}


# The routes: each returns the mean loss of the pairs and leaves gradients in both inputs


def ours(query, candidate, modality, both):
    """unite_core.loss.contrastive."""
    if modality is None:
        loss = info_nce(query, candidate, TAU, symmetric=both)
    else:
        loss = mamcl(query, candidate, modality, TAU, symmetric=both)
    loss.backward()
    return loss.detach()


def released(query, candidate, modality, both):
    """The released code's arithmetic: one N x N matrix, masked by -1e9, soft targets."""
    scores = query @ candidate.T / TAU
    forward = scores
    if modality is not None:
        mask = (modality[:, None] == modality[None, :]).to(scores.dtype)
        forward = scores * mask + (1 - mask) * -1e9
    targets = torch.eye(len(query), dtype=scores.dtype, device=scores.device)
    loss = -(F.log_softmax(forward, 1) * targets).sum(1).mean()
    if both:  # unmasked in the released code, so not offered for MAMCL
        loss = (loss - (F.log_softmax(scores.T, 1) * targets).sum(1).mean()) / 2
    loss.backward()
    return loss.detach()


def cross_entropy(query, candidate, both):
    """Plain torch."""
    scores = query @ candidate.T / TAU
    labels = torch.arange(len(query), device=query.device)
    loss = F.cross_entropy(scores, labels)
    return (loss + F.cross_entropy(scores.T, labels)) / 2 if both else loss


def mnrl(query, candidate, both):
    """sentence-transformers' MultipleNegativesRankingLoss."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    loss = MultipleNegativesRankingLoss(None, 1 / TAU, **_options(both))
    return loss.compute_loss_from_embeddings([query, candidate], None)


def cached_mnrl(rows):
    """sentence-transformers' CachedMultipleNegativesRankingLoss, in chunks of `rows`.

    It walks back chunk by chunk itself, from the lists of mini-batches that its trainer has.
    """

    def run(query, candidate, both):
        from sentence_transformers.sentence_transformer.losses import (
            CachedMultipleNegativesRankingLoss,
        )

        no_model = [None]  # only looked at for its first module's type
        loss = CachedMultipleNegativesRankingLoss(
            no_model, 1 / TAU, mini_batch_size=rows, **_options(both)
        )
        parts = [[part.detach().requires_grad_() for part in x.split(rows)]
                 for x in (query, candidate)]  # fmt: skip
        value = loss.calculate_loss(parts, with_backward=True)
        gradients = [torch.cat([part.grad for part in x]) for x in parts]
        return _Known.apply(query, candidate, value, *gradients)

    return run


class _Known(torch.autograd.Function):
    """A loss whose gradients are there already."""

    @staticmethod
    def forward(ctx, query, candidate, value, *gradients):
        ctx.save_for_backward(*gradients)
        return value.clone()

    @staticmethod
    def backward(ctx, outer):
        return *(gradient * outer for gradient in ctx.saved_tensors), None, None, None


def _options(both):
    """Dot products: the vectors have unit norm, and the default would normalise them again."""
    from sentence_transformers.util import dot_score

    directions = ("query_to_doc", "doc_to_query") if both else ("query_to_doc",)
    return {
        "similarity_fct": dot_score,
        "directions": directions,
        "partition_mode": "per_direction" if both else "joint",
    }


def clip(query, candidate, both):
    """open_clip's ClipLoss; its module is loaded alone, since the package needs torchvision."""
    spec = importlib.util.find_spec("open_clip")
    path = Path(spec.submodule_search_locations[0], "loss.py")
    spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ClipLoss()(query, candidate, 1 / TAU)


def grouped(peer):
    """A peer's loss on everything, or once per modality, weighted by size."""

    def run(query, candidate, modality, both):
        if modality is None:
            loss = peer(query, candidate, both)
        else:
            loss = 0
            for code in modality.unique():
                rows = (modality == code).nonzero()[:, 0]
                loss = loss + peer(query[rows], candidate[rows], both) * len(rows) / len(query)
        loss.backward()
        return loss.detach()

    return run


ONE_WAY, BOTH = {"info_nce", "mamcl"}, {"info_nce_both", "mamcl_both"}
ROUTES = {  # name: (function, tasks, package)
    "ours": (ours, ONE_WAY | BOTH, None),
    "released dense mask": (released, {"info_nce", "mamcl", "info_nce_both"}, None),
    "torch cross_entropy": (grouped(cross_entropy), ONE_WAY | BOTH, None),
    "MNRL": (grouped(mnrl), ONE_WAY | BOTH, "sentence_transformers"),
    "CachedMNRL, 32 rows": (grouped(cached_mnrl(32)), ONE_WAY | BOTH, "sentence_transformers"),
    "CachedMNRL, 256 rows": (grouped(cached_mnrl(256)), ONE_WAY | BOTH, "sentence_transformers"),
    "ClipLoss": (grouped(clip), BOTH, "open_clip"),
}


# Measuring


def batch(size, dim, seed=0, device="cpu"):
    """Unit vectors that need gradients and the modalities of the targets, made in place."""
    torch.manual_seed(seed)
    vectors = [torch.randn(size, dim, device=device) for _ in range(2)]
    for x in vectors:
        x.div_(x.norm(dim=1, keepdim=True)).requires_grad_()
    counts = [round(share * size) for share in SHARES[1:]]
    counts.insert(0, size - sum(counts))
    modality = torch.repeat_interleave(torch.tensor([1, 2, 4, 3]), torch.tensor(counts))
    return *vectors, modality[torch.randperm(size)].to(device)


def run_once(route, task, query, candidate, modality, clock=time.perf_counter):
    """Seconds and loss of one forward and backward pass."""
    query.grad = candidate.grad = None
    function, _, _ = ROUTES[route]
    start = clock()
    loss = function(query, candidate, modality if "mamcl" in task else None, "both" in task)
    return clock() - start, float(loss)


def seconds_and_peak(route, task, size, dim):
    """One pass in this fresh process: its seconds, its peak memory beyond inputs and gradients."""
    query, candidate, modality = batch(64, dim)
    run_once(route, task, query, candidate, modality)  # libraries and buffers of the first call
    query, candidate, modality = batch(size, dim)
    gc.collect()
    reset_peak()
    before, _ = resident()
    seconds, _ = run_once(route, task, query, candidate, modality)
    _, peak = resident()
    return seconds, peak - before - query.grad.nbytes - candidate.grad.nbytes


def measured_apart(route, task, size, dim):
    """`seconds_and_peak` in a process of its own."""
    command = [sys.executable, __file__, "--peak", json.dumps([route, task, size, dim])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{route} on {task} failed alone:\n{done.stderr}")
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def missing(route):
    package = ROUTES[route][2]
    return package is not None and importlib.util.find_spec(package) is None


def exact(task, query, candidate, modality):
    """Loss and gradients in float64."""
    wide = [x.detach().double().requires_grad_() for x in (query, candidate)]
    loss = ours(*wide, modality if "mamcl" in task else None, "both" in task)
    return float(loss), [x.grad for x in wide]


def compare(task, size, dim, repeats, clock):
    """Rows of one table: every route on one task, repeats interleaved."""
    query, candidate, modality = batch(size, dim)
    routes = [name for name, (_, tasks, _) in ROUTES.items() if task in tasks]
    present = [name for name in routes if not missing(name)]
    value, gradients = exact(task, query, candidate, modality)
    errors = {}
    for name in present:  # also warms up
        _, loss = run_once(name, task, query, candidate, modality)
        pairs = zip((query.grad, candidate.grad), gradients, strict=True)
        errors[name] = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        if abs(loss - value) > 1e-4 * value or errors[name] > 1e-3:
            raise RuntimeError(f"{name} computes another loss on {task}: {loss}, not {value}, "
                               f"gradient off by {errors[name]}")  # fmt: skip
    times = {name: [] for name in present}
    for _ in range(repeats):
        for name in present:
            times[name].append(run_once(name, task, query, candidate, modality, clock)[0])
    middle = {name: sorted(times[name])[repeats // 2] for name in present}
    memory = {}
    if clock is time.perf_counter:
        memory = {name: measured_apart(name, task, size, dim)[1] for name in present}
    return [
        [name, spread(times[name]), f"{middle[name] / middle['ours']:.2f}",
         *([f"{memory[name] / 2**20:.0f}", f"{memory[name] / max(memory['ours'], 1):.1f}"]
           if memory else []), f"{errors[name]:.0e}"]
        if name in present else [name, "missing", "", "", "", ""][: 6 if memory else 4]
        for name in routes
    ]  # fmt: skip


def scaling(sizes, dim, repeats):
    """Rows of the table of ours alone, by size: each pass in a process of its own."""
    rows = []
    for size in sizes:
        surviving = int(batch(size, 1)[2].bincount().square().sum())
        count = repeats if size <= 16_384 else 1  # minutes a pass beyond
        cells = [f"{size}", f"{surviving:.3g}", f"{count}"]
        for task in ("mamcl", "mamcl_both"):
            passes = [measured_apart("ours", task, size, dim) for _ in range(count)]
            times, memory = zip(*passes, strict=True)
            per_pair = sorted(times)[count // 2] / surviving * 1e9
            cells += [spread(times), f"{per_pair:.1f}", f"{max(memory) / 2**20:.0f}",
                      f"{max(memory) / size / 1024:.1f}"]  # fmt: skip
        print(cells, file=sys.stderr, flush=True)
        rows.append(cells)
    return rows


def section(options):
    """The Markdown section."""
    dim, size, repeats = options.dim, options.compare, options.repeats
    kept = chunk_rows(torch.device("cpu"))
    how, clock = ("", time.perf_counter) if not options.cpu else (" --cpu", time.process_time)
    lines = [
        f"## Loss, forward and backward (`speed/loss.py{how}`)",
        f"{machine()}; {versions(*PEERS)}. Float32 unit vectors at random, D = {dim}, tau = {TAU}, "
        f"shares of the target modalities {', '.join(map(str, SHARES))}. Seconds"
        f"{' of the processor' if options.cpu else ''} are medians "
        f"[lowest, highest] of n = {repeats} interleaved repeats. {'' if options.cpu else _MEMORY}"
        "Gradient error: largest deviation from float64, relative to "
        "the largest entry. Peers on MAMCL are called once per modality; ClipLoss always has both "
        "directions; the released code masks one direction only. open_clip's loss module is "
        f"loaded alone, without torchvision. Ours works in chunks of {kept} rows.",
    ]
    memory = [] if options.cpu else ["memory MiB", "× ours"]
    head = ["route", "seconds", "× ours", *memory, "gradient error"]
    for task, title in options.tasks.items():
        found = compare(task, size, dim, repeats, clock)
        lines += [f"### {title}, N = {size}", table(head, found)]
        print(lines[-1], file=sys.stderr, flush=True)  # a run takes half an hour
    if options.cpu:
        return "\n\n".join(lines)
    ways = ["s, {}", "ns per kept pair", "memory MiB", "KiB per row"]
    head = ["N", "kept pairs", "n"]
    for way in ("one way", "both ways"):
        head += [cell.format(way) for cell in ways]
    lines += ["### Ours, MAMCL, by size", table(head, scaling(options.sizes, dim, repeats))]
    return "\n\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compare", type=int, default=8192, help="N of the comparison")
    parser.add_argument("--sizes", default="8192,16384,32768,65536",
                        help="N of ours alone, separated by commas")  # fmt: skip
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--cpu", action="store_true", help="processor seconds of one thread")
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # what a child process measures
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(seconds_and_peak(*json.loads(options.peak))))
        return
    options.tasks = {name: TASKS[name] for name in options.tasks}
    options.sizes = [int(size) for size in options.sizes.split(",")]
    if options.cpu:
        torch.set_num_threads(1)
    text = section(options)
    print(text)
    write_section("loss_cpu" if options.cpu else "loss", text, options.output)


if __name__ == "__main__":
    main()
