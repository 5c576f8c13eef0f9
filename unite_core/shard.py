"""Frozen weights spread over processes with torch's `fully_shard`, for models too big for one GPU.

Every process keeps its part of each decoder layer and of the token embeddings, and has a layer
whole only while it computes. Trained weights (LoRA: few) stay whole everywhere, so optimizer,
checkpoints and `average_gradients` are those of a run without sharding; so does the vision tower,
which only processes with media call.

A layer is put together by all processes at once, so all must call it equally often: those with
fewer groups than others embed blank ones (`with_blanks`), which nothing depends on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .gather import processes

__all__ = ["shard_frozen", "with_blanks"]


def shard_frozen(embedder: nn.Module) -> None:
    """Spread the frozen weights of the language model over the processes; every process calls it.

    Args
        embedder  a UniteEmbedder on its final device, the same weights in every process, with what
                  is to be trained attached and marked
    Its weights are then no plain tensors: load the model anew to save or merge it. Does nothing in
    a single process. Raises RuntimeError where it has been done already.
    """
    _, world = processes()
    if world == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if isinstance(embedder, FSDPModule):
        raise RuntimeError("the weights are sharded already: load the model anew")
    decoder = embedder.base.language_model
    units = [*decoder.layers, decoder.embed_tokens]
    spread = {weight for unit in units for weight in unit.parameters() if not weight.requires_grad}
    settings = {
        "mesh": init_device_mesh(embedder.device.type, (world,)),
        "ignored_params": set(embedder.parameters()) - spread,
    }
    for unit in units:
        fully_shard(unit, **settings)
    settings["ignored_params"] = set(embedder.parameters())
    fully_shard(embedder, **settings)  # the common root: layers then gather ahead of each other


def with_blanks(groups: Sequence[Mapping[str, Tensor]], device: torch.device) -> list:
    """The groups of a batch and blank ones, as many as the process with most groups has."""
    most = torch.tensor(len(groups), device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    one = torch.ones(1, 1, dtype=torch.long)
    blank = {"input_ids": torch.zeros_like(one), "attention_mask": one}
    return [*groups, *[blank] * (int(most) - len(groups))]
