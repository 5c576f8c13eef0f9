"""Triton kernels for `reductions.row_loss`, used for CUDA tensors where triton is installed.

The matrix products stay with cuBLAS; between them torch would sweep over a chunk's logits eight
times, these kernels three times (read, read, write). Importing this module imports triton.
"""

# Shapes: c rows and M columns of a chunk's logits. One program processes one row.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["row_sums", "weigh"]


BLOCK = 2048


@triton.jit
def _row_sums(logits, tops, totals, stride, width, LOWEST: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    # a partial sum in each lane, brought to the row's largest logit at the end
    top = tl.full((BLOCK,), LOWEST, logits.dtype.element_ty)
    total = tl.zeros((BLOCK,), logits.dtype.element_ty)
    for start in range(0, width, BLOCK):
        at = start + columns
        x = tl.load(logits + row * stride + at, mask=at < width, other=-float("inf"))
        larger = tl.maximum(top, x)
        total = total * tl.exp(top - larger) + tl.exp(x - larger)
        top = larger
    highest = tl.max(top, 0)
    tl.store(tops + row, highest)
    tl.store(totals + row, tl.sum(total * tl.exp(top - highest), 0))


@triton.jit
def _weigh(logits, tops, factors, stride, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    top, factor = tl.load(tops + row), tl.load(factors + row)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        place = logits + row * stride + at
        x = tl.load(place, mask=at < width, other=-float("inf"))
        tl.store(place, tl.exp(x - top) * factor, mask=at < width)


def row_sums(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Largest entry of each row [c] and the sum of exp(entry - largest) [c].

    The logits [c, M] may hold -inf and are not changed; the largest entry is clamped to the lowest
    finite number.
    """
    lowest = torch.finfo(logits.dtype).min
    tops, totals = logits.new_empty(2, len(logits))
    shape = (logits.stride(0), logits.shape[1])
    with torch.cuda.device_of(logits):
        _row_sums[(len(logits),)](logits, tops, totals, *shape, LOWEST=lowest, BLOCK=BLOCK)
    return tops, totals


def weigh(logits: Tensor, tops: Tensor, factors: Tensor) -> None:
    """Replace each entry [c, M] by factor * exp(entry - top) of its row, in place."""
    shape = (logits.stride(0), logits.shape[1])
    with torch.cuda.device_of(logits):
        _weigh[(len(logits),)](logits, tops, factors, *shape, BLOCK=BLOCK)
