"""The language model's side of an embedding: equal beginnings once, and only what is pooled.

An embedding needs the last token's state. So tokens that all items of a batch begin with (the chat
template's system turn) go through the layers once, and in the last layer all but the last token
give their keys and values and no more. Nothing else differs from transformers' own forward.
"""

# Shapes: B items of a batch, T tokens, S tokens that all items begin with, R = T - S, D width.

from __future__ import annotations

import torch
from torch import Tensor, nn

from .vision import visual_tokens

__all__ = [
    "input_embeddings",
    "is_plain_decoder",
    "pooled_states",
    "shared_tokens",
    "takes_visual_tokens",
]


def is_plain_decoder(language_model: nn.Module) -> bool:
    """Whether `pooled_states` knows this language model: Qwen2-VL's or Qwen2.5-VL's, with SDPA.

    Sharded layers (FSDP), gradient checkpointing and other attention take transformers' way.
    """
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen2_5_vl
    from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen2_vl

    layer_of = {
        qwen2_vl.Qwen2VLTextModel: qwen2_vl.Qwen2VLDecoderLayer,
        qwen2_5_vl.Qwen2_5_VLTextModel: qwen2_5_vl.Qwen2_5_VLDecoderLayer,
    }
    return (
        type(language_model) in layer_of
        and {type(layer) for layer in language_model.layers} == {layer_of[type(language_model)]}
        and language_model.config._attn_implementation == "sdpa"
        and not language_model.has_sliding_layers
        and not any(layer.gradient_checkpointing for layer in language_model.layers)
    )


def takes_visual_tokens(model: nn.Module) -> bool:
    """Whether visual tokens are all that the language model gets of media; not so in Qwen3-VL."""
    from transformers import Qwen2_5_VLModel, Qwen2VLModel

    return type(model) in (Qwen2VLModel, Qwen2_5_VLModel)


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
    """[B, T, D] token embeddings with the visual tokens in the places of their pads.

    `model` passes `takes_visual_tokens`; features, [tokens, D], stand for pixels seen before.
    Raises ValueError where the number of visual tokens is not the number of their places.
    """
    embeddings = model.language_model.embed_tokens(input_ids)
    config = model.config
    for token, pixels, grids, features in (
        (config.image_token_id, pixel_values, image_grid_thw, image_features),
        (config.video_token_id, pixel_values_videos, video_grid_thw, video_features),
    ):
        if features is None and pixels is not None:
            features = visual_tokens(model.visual, pixels, grids)
        if features is None:
            continue
        places = input_ids == token  # [B, T]
        if int(places.sum()) != len(features):
            raise ValueError(
                f"{len(features)} visual tokens for {int(places.sum())} places in the prompts: "
                "collate items and media with one Processor"
            )
        mask = places.unsqueeze(-1).expand_as(embeddings)
        embeddings = embeddings.masked_scatter(mask, features.to(embeddings.dtype))
    return embeddings


def shared_tokens(input_ids: Tensor, attention_mask: Tensor, visual: tuple[int, ...]) -> int:
    """S: how many tokens all rows of a left-padded batch begin with, the last one never counted.

    Tokens in `visual` end the count: they are alike in number and not in content.
    """
    if len(input_ids) < 2:
        return 0
    padding = (attention_mask == 0).sum(1, keepdim=True)  # [B, 1]
    width = int(attention_mask.sum(1).min()) - 1
    begun = input_ids.gather(1, padding + torch.arange(width, device=input_ids.device))  # [B, .]
    same = (begun == begun[:1]).all(0)
    for token in visual:
        same &= begun[0] != token
    return int(same.int().cumprod(0).sum())


def pooled_states(
    language_model: nn.Module,
    embeddings: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor,
    shared: int,
) -> Tensor:
    """The normed state of each row's last token.

    Args
        language_model  Qwen2-VL's, see `is_plain_decoder`; with or without LoRA in its layers
        embeddings      [B, T, D]  of `input_embeddings`
        attention_mask  [B, T]     left-padded: 0 for padding, then 1
        position_ids    [3, B, T]  time, height, width
        shared          S          rows begin with S equal tokens, see `shared_tokens`
    Returns
        [B, D], as `last_hidden_state[:, -1]` of transformers' forward. Differentiable.
    """
    padding = (attention_mask == 0).sum(1)  # [B]
    whole = int(padding.argmin())  # a row without padding, or with the least
    start = int(padding[whole])
    rest = embeddings[:, start + shared :]  # [B, R, D]
    positions = language_model.rotary_emb(embeddings, position_ids)  # cos, sin [B, T, .]
    later = tuple(part[:, start + shared :] for part in positions)
    mask = _visible(padding - start, shared, rest.shape[1])
    begun = embeddings[whole : whole + 1, start : start + shared]  # [1, S, D]
    first = tuple(part[whole : whole + 1, start : start + shared] for part in positions)
    *layers, last = language_model.layers
    for layer in layers:
        keys = _Keys()
        if shared:
            begun = layer(begun, position_embeddings=first, past_key_values=keys)
        rest = layer(rest, attention_mask=mask, position_embeddings=later, past_key_values=keys)
    keys = _Keys()
    if shared:
        keys.keep(*_keys_and_values(last, begun, first))
    keys.keep(*_keys_and_values(last, rest[:, :-1], tuple(part[:, :-1] for part in later)))
    pooled = last(
        rest[:, -1:],
        attention_mask=mask[:, :, -1:],
        position_embeddings=tuple(part[:, -1:] for part in later),
        past_key_values=keys,
    )
    return language_model.norm(pooled[:, 0])


class _Keys:
    """The keys and values of one layer that its tokens see; the layer adds its own."""

    def __init__(self):
        self.parts: list[tuple[Tensor, Tensor]] = []  # each [B or 1, heads, tokens, .]

    def keep(self, key: Tensor, value: Tensor) -> None:
        self.parts.append((key, value))

    def update(self, key: Tensor, value: Tensor, *_) -> tuple[Tensor, Tensor]:
        """What transformers' attention calls with its new keys and values: all of them."""
        self.keep(key, value)
        if len(self.parts) == 1:
            return key, value
        return tuple(
            torch.cat([part.expand(len(key), -1, -1, -1) for part in each], dim=2)
            for each in zip(*self.parts, strict=True)
        )


def _keys_and_values(layer: nn.Module, hidden: Tensor, positions) -> tuple[Tensor, Tensor]:
    """A layer's keys and values of tokens that need no state of their own."""
    from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb

    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    key, value = (
        project(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for project in (attention.k_proj, attention.v_proj)
    )
    return apply_rotary_pos_emb(key, key, *positions)[0], value


def _visible(padding: Tensor, shared: int, width: int) -> Tensor:
    """Which keys each token may see, [B, 1, R, S + R] booleans: the shared ones and those before.

    Row i has `padding[i]` places of padding before its S shared tokens. Where these fall into the
    last R columns they are repeats of the shared ones, so they are hidden like padding.
    """
    steps = torch.arange(width, device=padding.device)
    own = steps >= padding[:, None]  # [B, R]
    seen = (steps[:, None] >= steps) & own[:, None]  # [B, R, R]
    if not shared:
        seen = seen | (steps[:, None] == steps)  # padding sees itself: no row may be empty
    begun = seen.new_ones(len(padding), width, shared)
    return torch.cat([begun, seen], dim=2)[:, None]
