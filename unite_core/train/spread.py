"""Full fine-tuning of a language model that no GPU holds with its gradients and moments (FSDP2).

Every process keeps its part of each layer's weights, of their gradients and of AdamW's moments
(torch's `fully_shard`); a layer is whole only while it computes. Checkpoints are those of a run
without it, so a run can go on with it, without it, or in another number of processes. What follows
are collectives where weights are spread: every process calls them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ..distributed import processes

__all__ = ["part_like", "plain", "shard_trained", "whole", "whole_states"]


def shard_trained(embedder: nn.Module, device: torch.device | str) -> None:
    """Spread the language model's weights, all of which are trained, over the processes.

    Args
        embedder  a UniteEmbedder on the CPU or on `device`, the same weights in every process, the
                  vision tower frozen
        device    where it shall be; from the CPU it goes layer by layer
    Gradients are then means over processes by themselves. Does nothing in a single process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if processes()[1] == 1:
        return
    mesh = init_device_mesh(torch.device(device).type, (processes()[1],))
    decoder = embedder.base.language_model
    for unit in (*decoder.layers, decoder.embed_tokens, decoder.norm):
        fully_shard(unit, mesh=mesh)
    embedder.to(device)  # the tower, which every process keeps whole
    fully_shard(embedder, mesh=mesh, ignored_params=set(embedder.parameters()))  # the common root


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is spread, put together on the CPU; any other as it is."""
    return tensor.full_tensor().cpu() if _is_spread(tensor) else tensor


def part_like(spread: Tensor, value: Tensor) -> Tensor:
    """This process's part of a whole value, spread like another tensor; no collective."""
    from torch.distributed.tensor import distribute_tensor

    if not _is_spread(spread):
        return value
    mesh, placements = spread.device_mesh, spread.placements
    return distribute_tensor(value, mesh, placements, src_data_rank=None)


def plain(weights: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Those that every process has whole."""
    return [weight for weight in weights if not _is_spread(weight)]


def whole_states(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer give and take its state whole, whatever of it is spread."""
    optimizer.register_state_dict_post_hook(_gather_states)
    optimizer.register_load_state_dict_pre_hook(_spread_states)


def _gather_states(optimizer, state: dict) -> dict:
    return state | {"state": _mapped(state["state"], lambda _, value: whole(value))}


def _spread_states(optimizer, state: dict) -> dict:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    change = partial(_as_weight, weights)
    return state | {"state": _mapped(state["state"], change)}


def _as_weight(weights: list[Tensor], number: int, value: Tensor) -> Tensor:
    """Moments have the shape of their weight; a count of steps has not."""
    weight = weights[number]
    return part_like(weight, value) if value.shape == weight.shape else value


def _mapped(states: Mapping[int, Mapping], change) -> dict:
    return {
        number: {name: change(number, value) if isinstance(value, Tensor) else value
                 for name, value in state.items()}
        for number, state in states.items()
    }  # fmt: skip


def _is_spread(tensor: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
