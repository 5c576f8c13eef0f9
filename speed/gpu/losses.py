"""Part 2: time and memory of the losses by size, beside torch, Liger and Inf-CL."""

# Shapes: N pairs, D embedding size.

from __future__ import annotations

import importlib.util
from unittest import mock

import torch
from loss import TAU, batch, cross_entropy, grouped, ours, released

from unite_core.loss import chunked

from .devices import matmul_peak, measured, release, times_of
from .part import Report, Setup

__all__ = ["run"]


def liger(query, candidate, both):
    """Liger's fused linear cross entropy: candidates are the weights, the own one is the label."""
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    labels = torch.arange(len(query), device=query.device)
    found = LigerFusedLinearCrossEntropyFunction.apply(query / TAU, candidate, labels)
    return found[0] if isinstance(found, tuple) else found


def inf_cl(query, candidate, both):
    """Inf-CL on one GPU: tiles of the logits in float32, products in TF32."""
    from inf_cl import cal_flash_loss

    return cal_flash_loss(query, candidate, scale=1 / TAU).mean()


def in_bfloat16(peer):
    """A peer whose products get bfloat16: what a user of a bfloat16 model would do."""

    def run(query, candidate, both):
        return peer(query.bfloat16(), candidate.bfloat16(), both).float()

    return run


def with_tf32(route):
    """A route whose float32 products may use TF32."""

    def run(*arguments):
        torch.set_float32_matmul_precision("high")
        try:
            return route(*arguments)
        finally:
            torch.set_float32_matmul_precision("highest")

    return run


ROUTES = {  # name: (route, package, precision of its products, allowed gradient error)
    "ours": (ours, None, "float32", 1e-4),
    "torch cross_entropy": (grouped(cross_entropy), None, "float32", 1e-4),
    "dense mask (released)": (released, None, "float32", 1e-4),
    "Liger": (grouped(liger), "liger_kernel", "float32", 1e-3),
    "Inf-CL": (grouped(inf_cl), "inf_cl", "tf32", 1e-1),
    "ours, TF32 allowed": (with_tf32(ours), None, "tf32", 1e-1),
    "torch cross_entropy, bf16": (grouped(in_bfloat16(cross_entropy)), None, "bfloat16", None),
    "Liger, bf16": (grouped(in_bfloat16(liger)), "liger_kernel", "bfloat16", None),
}


def run(report: Report, setup: Setup) -> None:
    dim = 32 if setup.tiny else 1536
    sizes = (64, 96) if setup.tiny else (8192, 16384, 32768, 65536)
    peaks = {
        "float32": matmul_peak(setup, torch.float32),
        "tf32": matmul_peak(setup, torch.float32, tf32=True),
        "bfloat16": matmul_peak(setup, torch.bfloat16),
    }
    report.row("matrix-product peaks, TFLOP/s", **peaks)
    present = {}
    for name, route in ROUTES.items():
        if missing(route[1], setup):
            report.note(name, f"skipped: {missing(route[1], setup)}")
        else:
            present[name] = route
    for size in sizes:
        for task in ("info_nce", "mamcl"):
            compare(report, setup, present, task, size, dim, peaks)
    chunks(report, setup, dim)


def missing(package: str | None, setup: Setup) -> str:
    """Why a peer cannot run here, or ""."""
    if package is None:
        return ""
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    return "" if setup.cuda else f"{package} needs a GPU"


def compare(report: Report, setup: Setup, routes: dict, task: str, size: int, dim: int,
            peaks: dict[str, float]) -> None:  # fmt: skip
    """Rows of one size: every route in turn, the same vectors."""
    query, candidate, modality = batch(size, dim, device=setup.device)
    modality = modality if task == "mamcl" else None
    kept = size**2 if modality is None else int(modality.bincount().double().square().sum())
    exact = None
    if size <= 8192:
        dense = grouped(cross_entropy)
        exact = gradients_of(dense, query.double(), candidate.double(), modality)
    base = None, None
    for name, (route, _, precision, allowed) in routes.items():
        label = f"{task} N={size} {name}"
        if setup.left() < 5:
            report.note(label, "not run: no time was left")
            continue
        row = timed(setup, route, query, candidate, modality)
        release(setup.device)
        if isinstance(row, str):
            report.note(label, row)
            continue
        loss, gradients, seconds, gib = row
        base = (loss, seconds) if name == "ours" else base
        flop = 3 * 2 * kept * dim
        columns = {
            "ms": 1e3 * seconds, "times_ours": seconds / base[1] if base[1] else None, "gib": gib,
            "peak_share": flop / seconds / 1e12 / peaks[precision], "products": precision,
        }  # fmt: skip
        wanted = exact[0] if exact else base[0]
        apart = abs(loss - wanted) / wanted if wanted else float("nan")
        if exact:
            apart = max(apart, *(
                float((mine.double() - right).abs().max() / right.abs().max())
                for mine, right in zip(gradients, exact[1], strict=True)
            ))  # fmt: skip
        report.check(label, apart, allowed or 0.2, **columns)


def timed(setup: Setup, route, query, candidate, modality):
    """Loss, gradients, seconds and GiB beyond the gradients, or in words why there are none."""
    try:
        gradients_of(route, query, candidate, modality)  # compiles and warms up
        (loss, gradients), seconds, gib = measured(
            lambda: gradients_of(route, query, candidate, modality), setup.device
        )
        gib = max(0.0, gib - sum(gradient.nbytes for gradient in gradients) / 2**30)
        repeats = 4 if seconds < 0.2 else 1
        again = times_of(lambda: gradients_of(route, query, candidate, modality),
                         setup.device, repeats)  # fmt: skip
        return loss, gradients, sorted([seconds, *again])[(repeats + 1) // 2], gib
    except torch.OutOfMemoryError:
        return "out of memory"
    except Exception as error:  # a peer's own failure is a finding, not ours
        return f"failed: {type(error).__name__}: {str(error)[:200]}"


def gradients_of(route, query, candidate, modality):
    """Loss and both gradients of a route of `speed/loss.py`."""
    leaves = [vector.detach().requires_grad_() for vector in (query, candidate)]
    loss = route(*leaves, modality, False)
    return float(loss.detach()), [leaf.grad for leaf in leaves]


def chunks(report: Report, setup: Setup, dim: int) -> None:
    """Ours by the number of rows of a chunk, which was chosen without a GPU."""
    size = 96 if setup.tiny else 32768
    name = "GPU_ROWS" if setup.cuda else "CPU_ROWS"
    vectors = batch(size, dim, device=setup.device)
    for rows in (16, 32, 64) if setup.tiny else (1024, 2048, 4096, 8192, 16384):
        with mock.patch.object(chunked, name, rows):
            row = timed(setup, ours, *vectors) if setup.left() > 3 else "not run: no time was left"
        if isinstance(row, str):
            report.note(f"mamcl N={size} chunks of {rows}", row)
        else:
            report.row(f"mamcl N={size} chunks of {rows}", ms=1e3 * row[2], gib=row[3])
