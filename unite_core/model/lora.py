"""LoRA layers as one matrix product where that is fewer operations: narrow layers, high ranks."""

# Shapes: m inputs and n outputs of a layer, r rank of its LoRA, T tokens of a step.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn.functional import linear

__all__ = ["fused_lora"]


@contextmanager
def fused_lora(model: nn.Module) -> Iterator[None]:
    """Within it, LoRA layers whose rank is high for their width compute x (W + s B A)^T.

    The matrix is made once, when the context is entered, so weights must not change within, and
    backward must run within too where activations are computed again. Values and gradients are
    those of x W^T + s (x A^T) B^T but for rounding.

    With both gradients that usual way takes T (2 m n + 3 r (m + n)) multiplications and keeps
    x A^T, one product takes 3 T m n. Layers with dropout, DoRA, several adapters, a bias in the
    LoRA or weights of another type stay as they are.
    """
    layers = [layer for layer in model.modules() if _gains(layer)]
    try:
        for layer in layers:
            (name,) = layer.active_adapters
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            base = layer.base_layer
            weight = torch.addmm(base.weight, b, a, alpha=layer.scaling[name])
            layer.forward = partial(linear, weight=weight, bias=base.bias)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)  # back to its class's


def _gains(layer: nn.Module) -> bool:
    from peft.tuners.lora import Linear

    if type(layer) is not Linear or type(layer.base_layer) is not nn.Linear:
        return False
    if len(layer.active_adapters) != 1 or layer.disable_adapters or layer.merged:
        return False
    (name,) = layer.active_adapters
    if name not in layer.lora_A or name in layer.lora_variant or layer.lora_bias[name]:
        return False
    a, weight = layer.lora_A[name].weight, layer.base_layer.weight
    plain = a.dtype == weight.dtype and getattr(layer.lora_dropout[name], "p", 0.0) == 0.0
    outputs, inputs = weight.shape
    return plain and 3 * len(a) * (inputs + outputs) > inputs * outputs
