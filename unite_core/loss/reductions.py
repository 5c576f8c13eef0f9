"""From logits to loss and gradient weights: the elementwise half of the chunked loss.

For an anchor with negatives n and a positive p the loss is log(1 + exp(level - s_p)), where level
is the log-sum-exp of the negatives' logits; with several positives it is their mean. Triton is
imported only for CUDA tensors, where it is installed.
"""

# Shapes: c rows and M columns of a chunk's logits.

from __future__ import annotations

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from .negatives import Pairs

__all__ = ["load_kernels", "row_loss"]


def row_loss(logits: Tensor, pairs: Pairs, positive: Tensor, weight: float) -> Tensor:
    """Weighted sum of the rows' losses; overwrites `logits` [c, M] by its gradient.

    Args: pairs are the entries that are positives, positive their scores, weight that of a row.
    A row without negatives has level -inf and loss 0.
    """
    rows = pairs[0]
    share = weight / torch.bincount(rows, minlength=len(logits))[rows].to(logits.dtype)
    logits[pairs] = -torch.inf
    kernels = load_kernels(logits.device.type)
    if kernels:
        top, total = kernels.row_sums(logits)
    else:
        top = logits.amax(1).clamp_min_(torch.finfo(logits.dtype).min)  # -inf - -inf would be nan
        total = logits.sub_(top[:, None]).exp_().sum(1)
    gap = (top + total.log())[rows] - positive
    pull = torch.sigmoid(gap).mul_(share)
    pulled = torch.zeros_like(top).index_add_(0, rows, pull)
    factor = pulled / total.clamp_min(torch.finfo(logits.dtype).tiny)
    if kernels:
        kernels.weigh(logits, top, factor)
    else:
        logits.mul_(factor[:, None])
    logits[pairs] = -pull
    return (_softplus(gap) * share).sum()


def load_kernels(device: str):
    """The module `triton_kernels` for a GPU where triton is installed; else None."""
    if device != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    from . import triton_kernels

    return triton_kernels


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to the last digits of float64; torch's default gives x itself from 20 on."""
    return F.softplus(x, threshold=40.0)
