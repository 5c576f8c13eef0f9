"""Memory of one group instead of the whole batch: GradCache (Gao et al. 2021, arXiv 2101.06983).

Groups are embedded without a graph, the loss is taken on all vectors, and its gradient with respect
to them is led back through one group at a time, which is embedded once more for it. A contrastive
batch is then bounded by its vectors, at the price of a second forward.
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
    """[N, D] vectors of all groups, each moved to the device only while it is embedded.

    Args
        embed   called with a group's tensors as keywords, gives [n, D]
        groups  at least one, in CPU memory or on the device
        weight  one of the model's, which tells device and random stream
        cached  keep no activations: `backward` embeds group by group again, the last group first,
                with the random numbers (dropout) and autocast of the first time
    Gradients are the same either way. `embed` must not depend on what a call before it changed.
    """
    if not cached:
        return torch.cat([_embed(weight, embed, group) for group in groups])
    # The weight is an argument because checkpoint keeps the random states of its arguments' devices
    # only. autograd runs the nodes of later forwards first, so groups are alive one by one.
    vectors = [checkpoint(_embed, weight, embed, group, use_reentrant=False) for group in groups]
    return torch.cat(vectors)


def _embed(weight: Tensor, embed: Callable[..., Tensor], group: Group) -> Tensor:
    device = weight.device
    return embed(**{name: part.to(device, non_blocking=True) for name, part in group.items()})
