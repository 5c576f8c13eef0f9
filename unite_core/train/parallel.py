"""Training in several processes: one global batch, and frozen weights sharded over GPUs.

The batch: every process embeds its own pairs. Vectors and labels are then gathered, each process
computes the loss of its own rows against the whole batch, and gradients are summed over processes.
Nothing is pickled; processes may have different numbers of rows, or none.

All functions are collectives: every process calls them, in the same order. Bad media prevent no
process from it; another error ends its process, and the launcher (torchrun) then ends the others.
With a single process each function returns what it was given.

The shards (torch's `fully_shard`), for models too big for one GPU: every process keeps its part of
each decoder layer and of the token embeddings, and has a layer whole only while it computes.
Trained weights (LoRA: few) stay whole everywhere, so optimizer, checkpoints and
`average_gradients` are those of a run without sharding; so does the vision tower, which only
processes with media call. A layer is gathered by all processes at once, so all must call it
equally often: those with fewer groups than others embed blank ones (`with_blanks`).
"""

# Shapes: B pairs and K hard negatives in the whole batch, b and k of one process.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..distributed import processes
from .spread import plain

__all__ = [
    "average_gradients", "broadcast_weights", "gather_batch", "gather_bytes", "gather_rows",
    "shard_frozen", "with_blanks",
]  # fmt: skip


_BUCKET = 2**24  # gradients that are reduced together


def gather_rows(rows: Tensor, sizes: list[int]) -> Tensor:
    """Gather rows [n, ...] of all processes, [sum(sizes), ...] in rank order; differentiable.

    Args
        rows   must require a gradient on all processes or on none
        sizes  n of each process
    The gradient is that of the sum of all processes' losses with respect to this process's rows.
    """
    return _Gather.apply(rows, sizes) if len(sizes) > 1 else rows


def gather_batch(vectors: Tensor, labels: Mapping[str, Tensor]):
    """Gather the whole batch's vectors and labels, and say which of its pairs are this process's.

    Args as in `stage_loss`: vectors [2 b + k, D] of queries, candidates, negatives, and labels.
    Returns
        vectors [2 B + K, D] in the same order, labels of the whole batch, rows: slice of [0, B)
    `negative_modality` and `negative_ids` are among the labels if any process has a hard negative;
    `candidate_scores` must be in all processes or in none.
    """
    rank, world = processes()
    pairs = len(labels["target_modality"])
    if world == 1:
        return vectors, labels, slice(0, pairs)
    counts = _all_gather(vectors.new_tensor([[pairs, len(vectors) - 2 * pairs]], dtype=torch.long),
                         [1] * world).tolist()  # fmt: skip
    start = sum(b for b, _ in counts[:rank])
    packed = _all_gather(_packed(labels, start), [b + k for b, k in counts])
    all_labels = _unpacked(*_sorted_parts(packed, [(b, k) for b, k in counts]))
    gathered = gather_rows(vectors, [2 * b + k for b, k in counts])
    parts = _sorted_parts(gathered, [(b, b, k) for b, k in counts])
    return torch.cat(parts), all_labels, slice(start, start + pairs)


def gather_bytes(message: bytes, device: torch.device | str = "cpu") -> list[bytes]:
    """Gather the messages of all processes, in rank order, on a device that the backend serves."""
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
    """Replace each gradient by its mean over processes; a missing one counts as zero.

    A parameter that has a gradient in no process keeps none, as on a single process. Those that are
    spread (`spread`) have the mean already.
    """
    world = processes()[1]
    weights = plain(weight for weight in parameters if weight.requires_grad)
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
    """All-gather whose backward sums the gradients of all processes and keeps the local rows."""

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
    """Split rows ordered by rank, then part, and return for each part the rows of all ranks."""
    flat = rows.split([size for of_rank in sizes for size in of_rank])
    count = len(sizes[0])
    return [torch.cat(flat[part::count]) for part in range(count)]


def _packed(labels: Mapping[str, Tensor], start: int) -> Tensor:
    """[b + k, 2] modality and content of pairs and of hard negatives.

    With a teacher's scores [b + k, 4]: also the bits of the score, and whose a hard negative is,
    counted from `start`, the number of pairs of the processes before this one.
    """
    sides = [_columns(labels, "target_modality", "candidate", start)]
    if "negative_ids" in labels:
        sides.append(_columns(labels, "negative_modality", "negative", start))
    return torch.cat(sides)


def _columns(labels: Mapping[str, Tensor], modality: str, side: str, start: int) -> Tensor:
    columns = [labels[modality], labels[f"{side}_ids"]]
    if "candidate_scores" in labels:
        columns.append(labels[f"{side}_scores"].double().view(torch.int64))
        owner = labels["negative_owner"] + start if side == "negative" else columns[0]
        columns.append(owner)
    return torch.stack(columns, 1)


def _unpacked(pairs: Tensor, negatives: Tensor) -> dict[str, Tensor]:
    labels = {"target_modality": pairs[:, 0], "candidate_ids": pairs[:, 1]}
    scored = pairs.shape[1] == 4
    if scored:
        labels["candidate_scores"] = _score(pairs)
    if len(negatives):
        labels |= {"negative_modality": negatives[:, 0], "negative_ids": negatives[:, 1]}
        if scored:
            labels |= {"negative_scores": _score(negatives), "negative_owner": negatives[:, 3]}
    return labels


def _score(packed: Tensor) -> Tensor:
    return packed[:, 2].contiguous().view(torch.float64).float()


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


def shard_frozen(embedder: nn.Module, device: torch.device | str) -> None:
    """Shard the frozen weights of the language model over the processes.

    Args
        embedder  a UniteEmbedder on the CPU or on `device`, the same weights in every process, with
                  what is to be trained attached and marked
        device    where it shall be; from the CPU it goes layer by layer, each cut into parts before
                  the next, so that no device ever holds the whole
    Its weights are then no plain tensors: load the model again to save or merge it. Does nothing in
    a single process. Raises RuntimeError where they are sharded already.
    """
    _, world = processes()
    if world == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if isinstance(embedder, FSDPModule):
        raise RuntimeError("the weights are sharded already: load the model again")
    decoder = embedder.base.language_model
    units = [*decoder.layers, decoder.embed_tokens]
    spread = {weight for unit in units for weight in unit.parameters() if not weight.requires_grad}
    settings = {
        "mesh": init_device_mesh(torch.device(device).type, (world,)),
        "ignored_params": set(embedder.parameters()) - spread,
    }
    for unit in units:
        fully_shard(unit, **settings)
    embedder.to(device)  # what every process keeps whole
    settings["ignored_params"] = set(embedder.parameters())
    fully_shard(embedder, **settings)  # the common root: layers then gather ahead of each other


def with_blanks(groups: Sequence[Mapping[str, Tensor]], device: torch.device) -> list:
    """Append blank groups, so that every process has as many as the one with most."""
    count = torch.tensor(len(groups), device=device)
    dist.all_reduce(count, dist.ReduceOp.MAX)
    ones = torch.ones(1, 1, dtype=torch.long)
    blank = {"input_ids": torch.zeros_like(ones), "attention_mask": ones}
    return [*groups, *[blank] * (int(count) - len(groups))]
