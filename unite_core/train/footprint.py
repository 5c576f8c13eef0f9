"""What a training run needs of each GPU, counted from shapes, before there is one.

Weights are counted on torch's meta device, with what the stage attaches and trains; what one layer
keeps for its backward is counted by running one layer of the true width on a few tokens.
"""

# Shapes: T tokens of a group that share a forward, S tokens of a batch of one process.

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import torch

from ..model.embedder import UniteEmbedder
from .config import StageConfig, TrainConfig
from .parts import mark_trained, part_weights

__all__ = ["Footprint", "Weights", "count_weights", "footprint", "saved_per_token"]


_MOMENTS = 2  # of AdamW, for each trained weight
_PREFETCHED = 2  # layers that are whole at a time where the others are spread


class Weights(NamedTuple):
    """Numbers of weights, not bytes."""

    frozen: int
    trained: int
    decoder: int  # of layers and token embeddings, LoRA left out: what can be spread
    layer: int  # of one layer, LoRA left out
    visual: int  # tower and projector


class Footprint(NamedTuple):
    """Bytes on one GPU, at the moment of a step that needs most."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int  # layers that are whole while they compute, of a spread model
    inputs: int  # of layers, kept for the backward of a whole batch
    layer: int  # kept by the layer that is computed again, for one group

    @property
    def total(self) -> int:
        return sum(self)


def count_weights(model_config, stage: StageConfig) -> Weights:
    """Count the weights of a transformers configuration as a stage trains them."""
    embedder = _on_meta(model_config)
    language = embedder.base.language_model
    units = [*language.layers, language.embed_tokens]
    decoder = [sum(w.numel() for w in unit.parameters()) for unit in units]
    visual = sum(w.numel() for part in ("vision", "projector")
                 for w in part_weights(embedder, part))  # fmt: skip
    mark_trained(embedder, stage)
    sizes = {True: 0, False: 0}
    for weight in embedder.parameters():
        sizes[weight.requires_grad] += weight.numel()
    return Weights(sizes[False], sizes[True], sum(decoder), decoder[0], visual)


def footprint(config: TrainConfig, weights: Weights, model_config, tokens: int, group: int,
              saved: float, shards: int = 1) -> Footprint:  # fmt: skip
    """Bytes on each GPU of a run in bfloat16 with gradient checkpointing.

    Args
        tokens  S, all of which keep their layers' inputs; with `grad_cache` only a group's do
        group   T of the largest group
        saved   bytes of a token in one layer, of `saved_per_token`
        shards  GPUs that the decoder is spread over: its frozen weights (`shard_frozen`), or in
                full fine-tuning weights, gradients and moments
    Frozen weights are bfloat16, trained ones float32. Not counted: CUDA's own 0.5 to 1 GB, what the
    allocator cannot use, pixels, and the tower's passing values.
    """
    whole = config.stage.lora is None
    text = model_config.text_config
    spread = weights.decoder - weights.decoder // shards
    frozen = weights.frozen - (0 if whole else spread)
    trained = weights.trained - (spread if whole else 0)
    size = 4 if whole else 2
    held = group if config.grad_cache else tokens
    return Footprint(
        weights=2 * frozen + 4 * trained, gradients=4 * trained, optimizer=4 * _MOMENTS * trained,
        gathered=size * _PREFETCHED * weights.layer if shards > 1 else 0,
        inputs=held * text.num_hidden_layers * text.hidden_size * size,
        layer=round(group * saved),
    )  # fmt: skip


def saved_per_token(model_config, stage: StageConfig, bf16: bool = True) -> float:
    """Bytes that one layer of the language model keeps of each token for its backward.

    Counted, not estimated: a layer of the true width is run on 8 and on 16 tokens.
    """
    config = type(model_config)(**model_config.to_dict())
    config.text_config.num_hidden_layers, config.text_config.vocab_size = 1, 8
    config.text_config.layer_types = config.text_config.layer_types[:1]
    config.vision_config.depth = 1
    embedder = _on_meta(config).to(torch.bfloat16).to_empty(device="cpu")  # values do not matter
    mark_trained(embedder, stage)
    embedder.train()
    few, many = (_saved(embedder, tokens, bf16) for tokens in (8, 16))
    return (many - few) / 8


def _saved(embedder: UniteEmbedder, tokens: int, bf16: bool) -> int:
    """Bytes of all that the layer keeps, each storage once, weights left out."""
    language, kept = embedder.base.language_model, {}
    own = {weight.untyped_storage().data_ptr() for weight in language.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    width = embedder.base.config.text_config.hidden_size
    dtype = next(language.layers[0].parameters()).dtype
    inputs = torch.randn(1, tokens, width).to(dtype).requires_grad_()
    places = torch.arange(tokens).expand(3, 1, -1)
    rotary = language.rotary_emb(inputs, places)
    half = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), half:
        out = language.layers[0](inputs, attention_mask=None, position_embeddings=rotary)
    del out
    return sum(kept.values())


def _on_meta(model_config) -> UniteEmbedder:
    with torch.device("meta"):
        return UniteEmbedder(_class_of(model_config)(model_config), None)


def _class_of(model_config):
    import transformers

    from ..model.backbones import BACKBONES

    return getattr(transformers, BACKBONES[model_config.model_type].model)
