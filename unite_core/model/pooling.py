"""From the states of an item's tokens to its vector: that of the last token, or the mean of all."""

# Shapes: B items of a batch, T tokens, D embedding size.

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pool"]


def pool(states: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """Pool the tokens of each row that are not padding: [B, D] float32, not normalised.

    Args
        states          [B, T, D]
        attention_mask  [B, T]  0 for padding, on either side
        pooling         "last" or "mean", see `Backbone`
    """
    mask = attention_mask.to(states.device)
    if pooling == "mean":
        kept = states.float().masked_fill(mask[..., None] == 0, 0.0)  # padding may be NaN
        return kept.sum(1) / mask.sum(1, keepdim=True)
    last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
    return states[torch.arange(len(last), device=mask.device), last].float()
