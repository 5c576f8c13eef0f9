"""Activations of one group instead of the whole batch: GradCache (Gao et al., arXiv 2101.06983).

Groups are embedded without a graph, the loss is computed on all vectors, and its gradient with
respect to them is propagated through one group at a time, which is embedded once more for it. Only
the vectors of a batch must then fit into memory, at the price of a second forward.
"""

# Shapes: n items in a group, N items in a batch, D embedding size.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["embed_groups"]


Group = Mapping[str, Tensor]


def embed_groups(embed: Callable[..., Tensor], groups: Sequence[Group], weight: Tensor,
                 cached: bool = False) -> Tensor:  # fmt: skip
    """Embed all groups, [N, D], each on the device only while it is embedded.

    Args
        embed   called with a group's tensors as keywords, gives [n, D]
        groups  at least one, in CPU memory or on the device
        weight  any weight of the model: its device is where groups go and random numbers come from
        cached  keep no activations: `backward` embeds each group again, the last one first, with
                the random numbers (dropout) and autocast of the first time
    Gradients are the same either way. `embed` must not depend on state that earlier calls changed.
    """
    if not cached:
        return torch.cat([_embed(weight, embed, group) for group in groups])
    # The weight is an argument because checkpoint keeps the random states of its arguments' devices
    # only. autograd runs the nodes of later forwards first, so one group is alive at a time.
    vectors = [checkpoint(_embed, weight, embed, group, use_reentrant=False) for group in groups]
    return torch.cat(vectors)


def _embed(weight: Tensor, embed: Callable[..., Tensor], group: Group) -> Tensor:
    device = weight.device
    return embed(**{name: part.to(device, non_blocking=True) for name, part in group.items()})
