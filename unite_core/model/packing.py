"""Attention of variable length: items one after the other in one row, nothing padded.

A GPU has one kernel for all of them (torch's `varlen_attn`, half precision); elsewhere items of
equal length share one call. It is registered with transformers under a name of its own, so that
its forwards, gradient checkpointing, FSDP and LoRA work as they are. A vision tower whose blocks
attend inside windows or frames gets it too: one call in place of one for each window.
"""

# Shapes: B items of a batch, T tokens of the longest, N tokens of all, H heads, G key heads,
# d width of a head.

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import backbone_of
from .loading import LoadConfig

__all__ = ["Packing", "attend", "choose_attention", "is_packed", "pack"]


# The attention's name in transformers; where a name has "flash", towers hand over all windows.
_NAME = "unite_flash_varlen"
_KERNEL_TYPES = (torch.bfloat16, torch.float16)


class Packing(NamedTuple):
    """Where the tokens of a padded batch stand once they are packed."""

    places: Tensor  # [N] of tokens in the flattened [B T]
    starts: Tensor  # [B + 1] int32, first token of each item, then N
    lengths: list[int]  # B

    def take(self, values: Tensor) -> Tensor:
        """Pack values [..., B, T] to [..., 1, N]."""
        return values.flatten(-2)[..., self.places].unsqueeze(-2)

    def last(self, hidden: Tensor) -> Tensor:
        """The last token of each item: [1, N, D] -> [B, D]."""
        return hidden[0, self.starts[1:].long() - 1]


def pack(attention_mask: Tensor) -> Packing:
    """The packing of a batch, [B, T] zeros for padding on either side; each row has a token."""
    counts = attention_mask.sum(1)
    starts = F.pad(counts.cumsum(0), (1, 0)).int()
    places = attention_mask.flatten().nonzero().squeeze(1)
    return Packing(places, starts, counts.tolist())


def choose_attention(model: nn.Module, how: LoadConfig, device: torch.device,
                     dtype: torch.dtype) -> None:  # fmt: skip
    """Let a loaded model attend packed, where `how` asks for it, or by default where that is fast.

    The default is its language model on a GPU that has the kernel, and a tower with windows
    anywhere. ValueError where `how` asks for it and the family cannot.
    """
    family = backbone_of(model)
    if how.attention == "packed" and not (family and family.packed_decoder):
        raise ValueError(f"attention packed is not known for {type(model).__name__}: take sdpa")
    if how.attention not in (None, "packed") or how.device_map or family is None:
        return
    if family.packed_decoder and (_has_kernel(device, dtype) or how.attention == "packed"):
        _use(model.language_model)
    if family.packed_tower:
        _use(model.visual)


def is_packed(model: nn.Module) -> bool:
    """Whether a language model or vision tower attends by `attend`."""
    return model.config._attn_implementation == _NAME


def attend(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scale: float,
           causal: bool) -> Tensor:  # fmt: skip
    """Attention of each item to itself, [N, H, d].

    Args
        query       [N, H, d]
        key, value  [N, G, d], H a multiple of G
        starts      [items + 1] int32, first token of each item, then N
        longest     tokens of the longest item
        causal      only to itself and to earlier tokens
    """
    if _has_kernel(query.device, query.dtype):
        from torch.nn.attention.varlen import varlen_attn

        window = (-1, 0) if causal else (-1, -1)
        return varlen_attn(query, key, value, starts, starts, longest, longest, scale=scale,
                           window_size=window, enable_gqa=True)  # fmt: skip
    alike = defaultdict(list)  # first tokens of the items of each length
    for start, end in pairwise(starts.tolist()):
        alike[end - start].append(start)
    found, places = [], []
    for length, firsts in alike.items():
        steps = torch.arange(length, device=query.device)
        rows = torch.tensor(firsts, device=query.device)[:, None] + steps  # [items, length]
        parts = (part[rows].transpose(1, 2) for part in (query, key, value))
        out = F.scaled_dot_product_attention(
            *parts, scale=scale, is_causal=causal, enable_gqa=query.shape[1] != key.shape[1]
        )
        found.append(out.transpose(1, 2).flatten(0, 1))
        places.append(rows.flatten())
    return torch.cat(found)[torch.cat(places).argsort()]


def _has_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has its attention of variable length: NVIDIA's Ampere and later."""
    if device.type != "cuda" or dtype not in _KERNEL_TYPES:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _use(model: nn.Module) -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(_NAME, _attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, sdpa_mask)
    model.config._attn_implementation = _NAME


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor,
               attention_mask: Tensor | None, scaling: float, packing: Packing | None = None,
               cu_seq_lens_q: Tensor | None = None, max_length_q: int | None = None,
               **kwargs):  # fmt: skip
    """transformers' interface: heads [1, H, N, d] -> [1, N, H, d], and no weights.

    A language model hands over a `packing`, a tower `cu_seq_lens_q`; without either it is sdpa.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packing is None and cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling,
                                      **kwargs)  # fmt: skip
    parts = [part[0].transpose(0, 1) for part in _in_one_type(query, key, value)]
    if cu_seq_lens_q is not None:  # first: a whole model hands the packing to its tower, too
        found = attend(*parts, cu_seq_lens_q, max_length_q, scaling, causal=False)
    else:
        found = attend(*parts, packing.starts, max(packing.lengths), scaling, causal=True)
    return found[None], None


def _in_one_type(*parts: Tensor) -> tuple[Tensor, ...]:
    """As autocast does for torch's own attention, and rotary positions in float32 undone."""
    device = parts[0].device.type
    dtype = parts[-1].dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return tuple(part.to(dtype) for part in parts)
