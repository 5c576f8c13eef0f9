"""Visual tokens of a model's tower; a faster forward: frames of one size as a batch.

Without flash attention transformers attends to one image after the other; frames of one size can be
a batch instead, and patches one matrix product. The result is the same. Towers that work
differently (windows in Qwen2.5-VL, deepstack in Qwen3-VL) run transformers' forward.
"""

# Shapes: F frames (temporal patches of all media), P = h w patches of a frame, E tower width,
# H heads, D width of the language model.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import backbone_of, has_fast_path
from .loading import is_spread

__all__ = ["is_plain_tower", "media_tokens", "visual_tokens"]


_STEEP = 1.702  # of QuickGELU, x sigmoid(1.702 x)


def is_plain_tower(visual: nn.Module) -> bool:
    """Whether the fast path can run this tower: Qwen2-VL's, not sharded, with SDPA attention."""
    return (
        has_fast_path("plain_tower", visual, getattr(visual, "blocks", ()))
        and visual.config._attn_implementation == "sdpa"
        and visual.patch_embed.proj.weight.ndim == 5  # under ZeRO-3 it is empty outside its call
        and not visual.gradient_checkpointing
        and not is_spread(visual)
    )


def media_tokens(model: nn.Module, patches: Tensor, grids: Tensor) -> Tensor:
    """Compute the tokens that a backbone's language model gets of media; see `visual_tokens`.

    A tower that takes frames with the places of their patches gets those of one size together.
    """
    family = backbone_of(model)
    if family is None or family.encode_frames is None:
        return visual_tokens(model.visual, patches, grids)
    merge = getattr(model.config.vision_config, family.merge)

    def encode(frames: Tensor, size: tuple[int, int]) -> Tensor:
        return family.encode_frames(model, frames, _places(size, merge, frames.device))

    return _by_size(patches, grids, encode)


def visual_tokens(visual: nn.Module, patches: Tensor, grids: Tensor) -> Tensor:
    """Compute the tokens that a vision tower gives the language model.

    Args
        visual   the backbone's vision tower
        patches  [N, 3 x temporal x P x P]  patches of all media, one after the other
        grids    [media, 3]  time, height and width of each in patches
    Returns
        [N / merge^2, D], as `visual(patches, grids).pooler_output`. Differentiable.
    """
    if not is_plain_tower(visual):
        return visual(patches, grid_thw=grids).pooler_output
    weight = visual.patch_embed.proj.weight
    hidden = F.linear(patches.to(weight.dtype), weight.flatten(1))  # [N, E]
    return visual.merger(_by_size(hidden, grids, partial(_frames_of_one_size, visual)))


def _by_size(
    patches: Tensor, grids: Tensor, encode: Callable[[Tensor, tuple[int, int]], Tensor]
) -> Tensor:
    """Encode frames of one size together: `encode(frames [F, P, .], (h, w))` -> [F, tokens, .].

    Takes the patches [N, .] of all media and gives their tokens, one after the other.
    """
    frames = [(h, w) for t, h, w in grids.tolist() for _ in range(t)]
    pieces = patches.split([h * w for h, w in frames])
    rows = defaultdict(list)
    for number, size in enumerate(frames):
        rows[size].append(number)
    encoded: list[Tensor] = [None] * len(frames)
    for size, numbers in rows.items():
        same = torch.stack([pieces[number] for number in numbers])
        for number, frame in zip(numbers, encode(same, size), strict=True):
            encoded[number] = frame
    return torch.cat(encoded)


def _places(size: tuple[int, int], merge: int, device: torch.device) -> Tensor:
    """Row and column [P, 2] of a frame's patches, in the order of `preprocessing.patchify`."""
    from transformers.vision_utils import get_vision_position_ids

    return get_vision_position_ids(torch.tensor([[1, *size]], device=device), merge)


def _frames_of_one_size(visual: nn.Module, hidden: Tensor, size: tuple[int, int]) -> Tensor:
    """Run frames [F, P, E] through the tower's blocks; each attends only to itself."""
    positions = _places(size, visual.spatial_merge_size, hidden.device)
    cos, sin = (
        part.to(hidden.dtype).unflatten(-1, (2, -1))
        for part in visual.rotary_pos_emb(hidden, positions)
    )  # each [P, 2, .]
    sin = torch.stack([-sin[:, 0], sin[:, 1]], dim=1)
    for block in visual.blocks:
        hidden = hidden + _attend(block.attn, block.norm1(hidden), cos, sin)
        hidden = hidden + _expand(block.mlp, block.norm2(hidden))
    return hidden


def _attend(attention: nn.Module, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Full attention within each frame, with rotary positions of rows and columns."""
    parts = attention.qkv(hidden).unflatten(-1, (3, attention.num_heads, -1))  # [F, P, 3, H, .]
    parts = parts.permute(2, 0, 3, 1, 4)  # [3, F, H, P, .]
    query, key = _rotated(parts[:2], cos, sin)
    found = F.scaled_dot_product_attention(query, key, parts[2], scale=attention.scaling)
    return attention.proj(found.transpose(1, 2).flatten(2))


def _rotated(parts: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: (a, b) -> (a cos - b sin, b cos + a sin), halves of the channels."""
    halves = parts.unflatten(-1, (2, -1))
    return (halves * cos).addcmul_(halves.flip(-2), sin).flatten(-2)


def _expand(mlp: nn.Module, hidden: Tensor) -> Tensor:
    """The block's MLP; QuickGELU is silu(1.702 x) / 1.702, and products scale for free."""
    from transformers.activations import QuickGELUActivation

    if type(mlp.act) is not QuickGELUActivation:
        return mlp(hidden)
    rows = hidden.flatten(0, -2)
    wide = torch.addmm(mlp.fc1.bias, rows, mlp.fc1.weight.T, beta=_STEEP, alpha=_STEEP)
    narrow = torch.addmm(mlp.fc2.bias, F.silu(wide), mlp.fc2.weight.T, alpha=1 / _STEEP)
    return narrow.view_as(hidden)
