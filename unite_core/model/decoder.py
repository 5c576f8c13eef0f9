"""A faster language model forward for embeddings: shared prefix once, last layer for one token.

Only the last token's state is pooled. So the prefix that all items of a batch share (the chat
template's system turn) goes through the layers once, and in the last layer all other tokens give
only their keys and values. Where nothing is padded, a GPU gets neither mask nor shared prefix: its
fastest kernel takes none. The rest is transformers' own forward.
"""

# Shapes: B items of a batch, T tokens, S tokens of the shared prefix, R = T - S, D width.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .backbones import backbone_of, has_fast_path
from .loading import is_spread
from .vision import media_tokens

__all__ = [
    "input_embeddings", "is_plain_decoder", "pooled_states", "shared_tokens",
    "takes_visual_tokens", "token_states",
]  # fmt: skip


_CAUSAL = ("cuda",)  # devices with a kernel for causal attention that takes no mask


def is_plain_decoder(language_model: nn.Module) -> bool:
    """Whether `pooled_states` can run this language model: a known class with SDPA attention.

    Sharded layers (FSDP), gradient checkpointing and other attention run transformers' forward.
    """
    return (
        has_fast_path("pooled_decoder", language_model, language_model.layers)
        and language_model.config._attn_implementation == "sdpa"
        and not language_model.has_sliding_layers
        and not is_spread(language_model)
        and not any(layer.gradient_checkpointing for layer in language_model.layers)
    )


def takes_visual_tokens(model: nn.Module) -> bool:
    """Whether visual tokens are all that the language model gets of media (not in Qwen3-VL)."""
    family = backbone_of(model)
    return family is not None and family.cached_vision


def input_embeddings(
    model: nn.Module,
    input_ids: Tensor,
    pixel_values: Tensor | None = None,
    image_grid_thw: Tensor | None = None,
    pixel_values_videos: Tensor | None = None,
    video_grid_thw: Tensor | None = None,
    image_features: Tensor | None = None,
    video_features: Tensor | None = None,
) -> Tensor:
    """Token embeddings [B, T, D] with visual tokens in place of their pad tokens.

    Args
        model     a backbone for which `takes_visual_tokens` holds
        features  [tokens, D]  visual tokens computed before, in place of pixels
    Raises ValueError where the numbers of visual tokens and pad tokens differ.
    """
    embeddings = model.language_model.embed_tokens(input_ids)
    config = model.config
    for token, pixels, grids, features in (
        (config.image_token_id, pixel_values, image_grid_thw, image_features),
        (config.video_token_id, pixel_values_videos, video_grid_thw, video_features),
    ):
        if features is None and pixels is not None:
            features = media_tokens(model, pixels, grids)
        if features is None:
            continue
        places = input_ids == token  # [B, T]
        if int(places.sum()) != len(features):
            raise ValueError(
                f"{len(features)} visual tokens for {int(places.sum())} places in the prompts: "
                "collate items and media with one Processor"
            )
        mask = places.unsqueeze(-1).expand_as(embeddings)
        embeddings = embeddings.masked_scatter(mask, features.to(embeddings))
    return embeddings


def token_states(model: nn.Module, input_ids: Tensor, media: Mapping[str, Tensor],
                 **inputs: Any) -> Tensor:  # fmt: skip
    """The normed states of all tokens, [B, T, D], by transformers' forward.

    Args
        model   a backbone
        media   pixels and grids, or visual tokens, as `input_embeddings` takes them
        inputs  attention_mask, position_ids and what else the language model takes
    """
    if takes_visual_tokens(model):
        embeddings = input_embeddings(model, input_ids, **media)
        found = model.language_model(inputs_embeds=embeddings, use_cache=False, **inputs)
    else:
        found = model(input_ids=input_ids, use_cache=False, **inputs, **media)
    return found.last_hidden_state


def shared_tokens(input_ids: Tensor, attention_mask: Tensor, visual: tuple[int, ...]) -> int:
    """S, the length of the prefix that all rows of a left-padded batch share.

    The last token never counts, and tokens in `visual` end the prefix: their ids are equal, what
    they show is not.
    """
    if len(input_ids) < 2:
        return 0
    padding = (attention_mask == 0).sum(1, keepdim=True)  # [B, 1]
    width = int(attention_mask.sum(1).min()) - 1
    prefix = input_ids.gather(1, padding + torch.arange(width, device=input_ids.device))  # [B, .]
    same = (prefix == prefix[:1]).all(0)
    for token in visual:
        same &= prefix[0] != token
    return int(same.int().cumprod(0).sum())


def pooled_states(
    language_model: nn.Module,
    embeddings: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor,
    shared: int,
) -> Tensor:
    """Compute the normed state of each row's last token.

    Args
        language_model  one for which `is_plain_decoder` holds, with or without LoRA
        embeddings      [B, T, D]  of `input_embeddings`
        attention_mask  [B, T]     left-padded: 0 for padding, then 1
        position_ids    [3, B, T]  time, height, width
        shared          S          length of the shared prefix, see `shared_tokens`
    Returns
        [B, D], as `last_hidden_state[:, -1]` of transformers' forward. Differentiable.
    """
    padding = (attention_mask == 0).sum(1)  # [B]
    causal = embeddings.device.type in _CAUSAL and not padding.any()
    shared = 0 if causal else shared
    whole = int(padding.argmin())  # a row without padding, or with the least
    start = int(padding[whole])
    rest = embeddings[:, start + shared :]  # [B, R, D]
    positions = language_model.rotary_emb(embeddings, position_ids)  # cos, sin [B, T, .]
    later = tuple(part[:, start + shared :] for part in positions)
    mask = None if causal else _visible(padding - start, shared, rest.shape[1])
    prefix = embeddings[whole : whole + 1, start : start + shared]  # [1, S, D]
    first = tuple(part[whole : whole + 1, start : start + shared] for part in positions)
    *layers, last = language_model.layers
    for layer in layers:
        keys = _Keys()
        if shared:
            prefix = layer(prefix, position_embeddings=first, past_key_values=keys)
        rest = layer(rest, attention_mask=mask, position_embeddings=later, past_key_values=keys)
    keys = _Keys()
    if shared:
        keys.keep(*_keys_and_values(last, prefix, first))
    keys.keep(*_keys_and_values(last, rest[:, :-1], tuple(part[:, :-1] for part in later)))
    pooled = last(
        rest[:, -1:],
        attention_mask=None if causal else mask[:, :, -1:],
        position_embeddings=tuple(part[:, -1:] for part in later),
        past_key_values=keys,
    )
    return language_model.norm(pooled[:, 0])


class _Keys:
    """Stands in for transformers' cache: keys and values of the prefix, then the layer's own."""

    def __init__(self):
        self.parts: list[tuple[Tensor, Tensor]] = []  # each [B or 1, heads, tokens, .]

    def keep(self, key: Tensor, value: Tensor) -> None:
        self.parts.append((key, value))

    def update(self, key: Tensor, value: Tensor, *_) -> tuple[Tensor, Tensor]:
        """Called by transformers' attention with its new keys and values; returns all."""
        self.keep(key, value)
        if len(self.parts) == 1:
            return key, value
        return tuple(
            torch.cat([part.expand(len(key), -1, -1, -1) for part in side], dim=2)
            for side in zip(*self.parts, strict=True)
        )


def _keys_and_values(layer: nn.Module, hidden: Tensor, positions) -> tuple[Tensor, Tensor]:
    """A layer's keys and values of tokens whose new state is not needed."""
    from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb

    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    key, value = (
        project(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for project in (attention.k_proj, attention.v_proj)
    )
    return apply_rotary_pos_emb(key, key, *positions)[0], value


def _visible(padding: Tensor, shared: int, width: int) -> Tensor:
    """The causal mask, [B, 1, R, S + R] booleans: the prefix and earlier tokens of the row.

    Row i has `padding[i]` pads before its S prefix tokens. Those of them that fall into the last R
    columns repeat the prefix, so they are masked like padding.
    """
    steps = torch.arange(width, device=padding.device)
    local = steps >= padding[:, None]  # [B, R]
    visible = (steps[:, None] >= steps) & local[:, None]  # [B, R, R]
    if not shared:
        visible = visible | (steps[:, None] == steps)  # padding sees itself: no row may be empty
    prefix = visible.new_ones(len(padding), width, shared)
    return torch.cat([prefix, visible], dim=2)[:, None]
