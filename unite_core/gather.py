"""A batch that is spread over processes: its vectors, labels and gradients as if it were in one.

Every process embeds its own pairs. Vectors and labels are then gathered, each process computes the
loss of its own rows against the whole batch, and gradients are added up over processes. Nothing
is pickled; processes may have different numbers of rows, or none.

All but `processes` are collectives: every process calls them, in the same order. Bad media keep no
process from it; another error ends its process, and the launcher (torchrun) then ends the others.
With a single process each function gives back what it was given.
"""

# Shapes: W processes, B pairs in the whole batch, b pairs of one process, K and k hard negatives.

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "average_gradients", "barrier", "broadcast_weights", "gather_batch", "gather_bytes",
    "gather_rows", "join_processes", "leave_processes", "processes", "rank_zero_first",
]  # fmt: skip

_BUCKET = 2**24  # gradients that travel together


def join_processes() -> tuple[int, int]:
    """Meet the others that torchrun, `accelerate launch` or srun started; returns `processes()`.

    On CPUs over gloo, on GPUs over NCCL. Without WORLD_SIZE in the environment this does nothing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())
    return processes()


def leave_processes() -> None:
    """Take leave of the others, at the end of a program."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def processes() -> tuple[int, int]:
    """Rank of this process and their number W; (0, 1) without a process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def barrier() -> None:
    """Wait until every process is here."""
    if processes()[1] > 1:
        dist.barrier()


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """The body runs on rank 0, then on the others, which see what it wrote, or that it failed."""
    rank, _ = processes()
    if rank:
        barrier()
    try:
        yield
    finally:
        if not rank:
            barrier()


def gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """[n, ...] of each process -> [sum(sizes), ...] of all, in rank order; differentiable.

    Args
        rows   must require a gradient on all processes or on none
        sizes  n of each process
    The gradient is the one of the sum of all processes' losses with respect to one's own rows.
    """
    return _Gather.apply(rows, sizes) if len(sizes) > 1 else rows


def gather_batch(vectors: Tensor, labels: Mapping[str, Tensor]):
    """Vectors and labels of the whole batch, and which pairs in it are this process's.

    Args as in `stage_loss`: vectors [2 b + k, D] of queries, candidates, negatives, and labels.
    Returns
        vectors [2 B + K, D] in the same order, labels of the whole batch, rows: slice of [0, B)
    `negative_modality` and `negative_ids` are there if any process has a hard negative.
    """
    rank, world = processes()
    pairs = len(labels["target_modality"])
    if world == 1:
        return vectors, labels, slice(0, pairs)
    counts = _all_gather(vectors.new_tensor([[pairs, len(vectors) - 2 * pairs]], dtype=torch.long),
                         [1] * world).tolist()  # fmt: skip
    known = _all_gather(_packed(labels), [b + k for b, k in counts])
    every = gather_rows(vectors, [2 * b + k for b, k in counts])
    whole = _unpacked(*_sorted_parts(known, [(b, k) for b, k in counts]))
    start = sum(b for b, _ in counts[:rank])
    parts = _sorted_parts(every, [(b, b, k) for b, k in counts])
    return torch.cat(parts), whole, slice(start, start + pairs)


def gather_bytes(message: bytes, device: torch.device | str = "cpu") -> list[bytes]:
    """The messages of all processes, in rank order; `device` is one that the backend serves."""
    world = processes()[1]
    if world == 1:
        return [message]
    size = torch.tensor([len(message)], device=device)
    sizes = _all_gather(size, [1] * world).tolist()
    if not any(sizes):
        return [b""] * world
    content = torch.tensor(list(message), dtype=torch.uint8, device=device)
    return [bytes(part.tolist()) for part in _all_gather(content, sizes).split(sizes)]


@torch.no_grad()
def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes; one that has none counts as zero.

    A parameter without a gradient on every process keeps none, as on a single process.
    """
    world = processes()[1]
    weights = [weight for weight in parameters if weight.requires_grad]
    if world == 1 or not weights:
        return
    used = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32)
    used = used.to(weights[0].device)
    dist.all_reduce(used)
    touched = [weight for weight, count in zip(weights, used.tolist(), strict=True) if count]
    for bucket in _buckets(touched):
        grads = [w.new_zeros(w.shape) if w.grad is None else w.grad for w in bucket]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        flat /= world
        for weight, part in zip(bucket, flat.split([w.numel() for w in bucket]), strict=True):
            weight.grad = part.view_as(weight).clone()


@torch.no_grad()
def broadcast_weights(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Give every process rank 0's values."""
    if processes()[1] > 1:
        for weight in parameters:
            dist.broadcast(weight, 0)


class _Gather(torch.autograd.Function):
    """All-gather whose backward adds the gradients of all processes and cuts out one's own."""

    @staticmethod
    def forward(ctx, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        return _all_gather(rows, sizes)

    @staticmethod
    def backward(ctx, grad: Tensor):
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.split(ctx.sizes)[dist.get_rank()], None


def _all_gather(rows: Tensor, sizes: list[int]) -> Tensor:
    """Uneven all-gather: padded to the longest, because backends want equal shapes."""
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _sorted_parts(rows: Tensor, sizes: list[tuple[int, ...]]) -> list[Tensor]:
    """Rows of [rank][part] -> for each part the rows of all ranks."""
    flat = rows.split([size for of_rank in sizes for size in of_rank])
    count = len(sizes[0])
    return [torch.cat(flat[part::count]) for part in range(count)]


def _packed(labels: Mapping[str, Tensor]) -> Tensor:
    """[b + k, 2] modality and content of pairs and of hard negatives."""
    pairs = torch.stack([labels["target_modality"], labels["candidate_ids"]], 1)
    if "negative_ids" not in labels:
        return pairs
    return torch.cat([pairs, torch.stack([labels["negative_modality"], labels["negative_ids"]], 1)])


def _unpacked(pairs: Tensor, negatives: Tensor) -> dict[str, Tensor]:
    labels = {"target_modality": pairs[:, 0], "candidate_ids": pairs[:, 1]}
    if len(negatives):
        labels |= {"negative_modality": negatives[:, 0], "negative_ids": negatives[:, 1]}
    return labels


def _buckets(weights: list[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Consecutive weights of one type, about `_BUCKET` numbers at a time."""
    bucket: list[torch.nn.Parameter] = []
    for weight in weights:
        full = sum(w.numel() for w in bucket) + weight.numel() > _BUCKET
        if bucket and (full or weight.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(weight)
    if bucket:
        yield bucket
