"""Part 1: the compiled kernels; loss and gradients of every option against float64 on the CPU."""

# Shapes: N pairs, K hard negatives (k of each query), D embedding size.

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from loss import TAU, batch

from unite_core.loss.contrastive import info_nce, mamcl
from unite_core.loss.reductions import load_kernels

from .devices import copy_rate, kernels_of, matmul_peak, times_of
from .part import Report, Setup

__all__ = ["run"]


FLOAT, BFLOAT = 1e-4, 8e-3  # allowed, of the largest entry; bfloat16 rounds gradients by 2^-8
SEED = 7


def run(report: Report, setup: Setup) -> None:
    peaks(report, setup)
    the_kernels(report, setup)
    size, dim = (64, 32) if setup.tiny else (4096, 1536)
    vectors = repeated(*batch(size, dim))
    yardstick(report, vectors, setup)
    for name, options in cases(*vectors).items():
        if setup.left() < 3:
            report.note(name, "not run: no time was left")
            continue
        against_float64(report, name, vectors, options, setup)


def peaks(report: Report, setup: Setup) -> None:
    """What the device can do at best."""
    report.row(
        "peaks",
        float32=matmul_peak(setup, torch.float32),
        tf32=matmul_peak(setup, torch.float32, tf32=True),
        bfloat16=matmul_peak(setup, torch.bfloat16),
        float64=matmul_peak(setup, torch.float64),
        unit="TFLOP/s",
        copy_gb_s=copy_rate(setup),
    )


def the_kernels(report: Report, setup: Setup) -> None:
    """The two kernels alone against torch, with the memory traffic that they reach."""
    kernels = load_kernels(setup.device.type)
    if kernels is None:
        report.row("triton kernels", note="not used: no GPU or no triton", ok=not setup.cuda)
        return
    rows, width = (64, 5000) if setup.tiny else (4096, 65536)
    logits = 30 * torch.randn(rows, width, device=setup.device)
    logits[0] = -torch.inf
    wanted = logits.amax(1).clamp_min(torch.finfo(logits.dtype).min)
    total = (logits - wanted[:, None]).exp().sum(1)
    factor = torch.rand(rows, device=setup.device)
    (first,) = times_of(lambda: kernels.row_sums(logits), setup.device, 1)
    top, sums = kernels.row_sums(logits)
    seconds = min(times_of(lambda: kernels.row_sums(logits), setup.device, 5))
    apart = float(((sums - total) / total.clamp_min(1)).abs().max() + (top - wanted).abs().max())
    report.check("row_sums against torch", apart, 1e-5, compile_s=first, ms=1e3 * seconds,
                 gb_s=logits.nbytes / seconds / 1e9)  # fmt: skip
    weighed = (logits[:64] - top[:64, None]).exp() * factor[:64, None]
    (first,) = times_of(lambda: kernels.weigh(logits, top, factor), setup.device, 1)
    apart = float((logits[:64] - weighed).abs().max())
    seconds = min(times_of(lambda: kernels.weigh(logits, top, factor), setup.device, 5))
    report.check("weigh against torch", apart, 1e-5, compile_s=first, ms=1e3 * seconds,
                 gb_s=2 * logits.nbytes / seconds / 1e9)  # fmt: skip


def repeated(query, candidate, modality):
    """Related pairs, of which every eighth candidate repeats the one before almost exactly.

    Positives and those near repeats have cosines of about 0.7, all others about 0: no cosine lies
    near the limit of `false_negative_margin`, 0.1 below the positive, so rounding decides nothing.
    """
    with torch.no_grad():
        candidate = candidate.detach() + query.detach()
        noise = 0.3 * F.normalize(torch.randn_like(candidate[::8]), dim=1)
        order = modality.argsort(stable=True)  # neighbours share a modality
        query, candidate, modality = query.detach()[order], candidate[order], modality[order]
        query[1::8] = F.normalize(query[::8] + noise[: len(query[1::8])], dim=1)
        candidate[1::8] = candidate[::8] + noise[: len(candidate[1::8])]
    return query, F.normalize(candidate, dim=1), modality


def cases(query, candidate, modality) -> dict[str, dict[str, Any]]:
    """Every option of the two losses, alone or with those that it meets in the code.

    A case holds arguments of the loss, all on the CPU, and its inputs that need gradients.
    """
    size, dim = query.shape
    ids = torch.arange(size)
    ids[1::8] = ids[::8][: len(ids[1::8])]
    same = modality[ids] == modality  # equal content has one modality
    ids = torch.where(same, ids, torch.arange(size))
    shared = {"negatives": F.normalize(torch.randn(size, dim), dim=1)}
    private = {"negatives": F.normalize(torch.randn(size, 2, dim), dim=2)}
    by_modality = {int(code): 0.02 + 0.01 * int(code) for code in modality.unique()}
    masked = {"target_modality": modality}
    found = {
        "info_nce": {},
        "info_nce symmetric": {"symmetric": True},
        "info_nce equal ids symmetric": {"candidate_ids": ids, "symmetric": True},
        "info_nce shared negatives": {**shared, "candidate_ids": ids, "negative_ids": ids + 5},
        "info_nce own negatives": private,
        "info_nce learned temperature": {"temperature": torch.tensor(TAU)},
        "info_nce bfloat16": {"dtype": torch.bfloat16},
        "info_nce autocast": {"autocast": True, "symmetric": True},
        "mamcl": masked,
        "mamcl symmetric": {**masked, "symmetric": True},
        "mamcl shared negatives": {**masked, **shared, "negative_modality": modality.flip(0)},
        "mamcl own negatives": {**masked, **private, "symmetric": True},
        "mamcl temperatures": {**masked, "temperature": by_modality, "symmetric": True},
        "mamcl cross_modal_weight": {**masked, "cross_modal_weight": 0.3, "symmetric": True},
        "mamcl random_mask": {**masked, "random_mask": SEED, "symmetric": True},
        "mamcl margin": {**masked, "false_negative_margin": -0.1, "symmetric": True},
        "mamcl dims": {**masked, "dims": (dim // 4, dim)},
        "mamcl rows": {**masked, "rows": slice(size // 4, size // 2), "candidate_ids": ids},
        "mamcl bfloat16": {**masked, "dtype": torch.bfloat16, "symmetric": True},
    }
    return found


def against_float64(report: Report, name: str, vectors, options: dict, setup: Setup) -> None:
    """One row: the device's loss and gradients against those of the CPU in float64."""
    options = dict(options)
    dtype = options.pop("dtype", torch.float32)
    autocast = options.pop("autocast", False)
    given = [vector.to(dtype) for vector in vectors[:2]]
    value, gradients = value_of(given, options, torch.device("cpu"), torch.float64)

    with torch.autocast(setup.device.type, torch.bfloat16, enabled=autocast):
        found, moved = value_of(given, options, setup.device, None)
    apart = abs(found - value) / max(abs(value), 1e-12)
    for ours, wanted in zip(moved, gradients, strict=True):
        scale = float(wanted.abs().max()) or 1.0
        apart = max(apart, float((ours.double().cpu() - wanted).abs().max()) / scale)
    report.check(name, apart, BFLOAT if dtype == torch.bfloat16 else FLOAT, loss=found)


def value_of(given, options: dict, device: torch.device, dtype: torch.dtype | None):
    """Loss and gradients [of queries, candidates, negatives, temperature] on a device."""

    def moved(value):
        if not isinstance(value, torch.Tensor):
            return value
        value = value.to(device)
        if not value.is_floating_point():
            return value
        return value.to(dtype or value.dtype).requires_grad_()

    inputs = [moved(vector.detach().clone()) for vector in given]
    options = {key: moved(value) for key, value in options.items()}
    options.setdefault("temperature", TAU)
    loss = (mamcl if "target_modality" in options else info_nce)(*inputs, **options)
    learned = [value for value in options.values()
               if isinstance(value, torch.Tensor) and value.requires_grad]  # fmt: skip
    gradients = torch.autograd.grad(loss, [*inputs, *learned])
    return float(loss.detach()), gradients


def yardstick(report: Report, vectors, setup: Setup) -> None:
    """The float64 loss itself against torch's dense cross entropy, and what runs on the device."""
    query, candidate, modality = vectors
    value, _ = value_of((query, candidate), {"target_modality": modality},
                        torch.device("cpu"), torch.float64)  # fmt: skip
    scores = query.double() @ candidate.double().T / TAU
    scores = scores.masked_fill(modality[:, None] != modality, -torch.inf)
    dense = float(F.cross_entropy(scores, torch.arange(len(query))))
    report.check("float64 against dense cross entropy", abs(value - dense) / dense, 1e-10)
    options = {"target_modality": modality}
    found = kernels_of(lambda: value_of((query, candidate), options, setup.device, None),
                       setup.device)  # fmt: skip
    report.row("mamcl, what runs", kernels=found.count, device_waits=found.waits,
               longest=", ".join(name[:60] for name, _ in found.spent.most_common(4)))  # fmt: skip
