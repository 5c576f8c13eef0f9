"""What embedding an item costs: floating point operations by hand, seconds by the clock."""

# Shapes: T tokens.

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from .embedder import UniteEmbedder
from .processor import Encoded

__all__ = ["Flops", "config_2b", "config_7b", "flops_of", "seconds_of"]


class Flops(NamedTuple):
    """Floating point operations of one item; a multiplication and an addition count as two."""

    vision: int  # patch embedding, tower, projector
    linear: int  # the language model's matrix products with weights
    attention: int  # products of queries, keys and values, over all pairs of tokens

    @property
    def total(self) -> int:
        return sum(self)


def flops_of(model_config, grids: Sequence[tuple[int, int, int]], tokens: int) -> Flops:
    """Count the operations of a Qwen2-VL's forward for one item, from shapes alone.

    Args
        model_config  Qwen2VLConfig
        grids         (time, height, width) in patches of each image or video
        tokens        T, visual ones included
    Leaves out embeddings, norms, activations and the language modelling head. Attention counts all
    T^2 pairs, twice what a causal kernel needs. `UniteEmbedder` needs less: see `model.decoder`.
    Counted by hand so that a 2B model need not exist; a test compares with torch's FlopCounterMode.
    """
    text, vision = model_config.text_config, model_config.vision_config
    heads, width = text.num_attention_heads, text.hidden_size
    head = getattr(text, "head_dim", None) or width // heads
    projections = width * head * (2 * heads + 2 * text.num_key_value_heads)
    linear = (
        2 * tokens * text.num_hidden_layers * (projections + 3 * width * text.intermediate_size)
    )
    attention = 4 * tokens**2 * text.num_hidden_layers * heads * head
    return Flops(sum(_tower_flops(vision, grid) for grid in grids), linear, attention)


def config_2b():
    """Qwen2VLConfig of Qwen2-VL-2B, UNITE's smaller backbone: 2 208 985 600 parameters."""
    return _qwen2_vl(1536, 8960, 12, 2, 151936, tied=True)


def config_7b():
    """Qwen2VLConfig of Qwen2-VL-7B: 7 746 378 240 parameters without the head for words."""
    return _qwen2_vl(3584, 18944, 28, 4, 152064, tied=False)


def seconds_of(embedder: UniteEmbedder, item: Any, root: str | Path = ".",
               repeats: int = 5) -> dict[str, float]:  # fmt: skip
    """Median seconds that one item takes alone, without a first pass that warms caches.

    Returns `prepare` (decode, resize, tokenize), `vision` and `language`.
    """
    spent: dict[str, list[float]] = {"prepare": [], "vision": [], "language": []}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            encoded = embedder.processor.encode(item, root)
            prepared = time.perf_counter()
            ready = _with_features(embedder, encoded)
            viewed = time.perf_counter()
            batch = embedder.processor.collate([ready])
            embedder(**{name: value.to(embedder.device) for name, value in batch.items()})
            _wait(embedder)
            done = time.perf_counter()
            for name, seconds in zip(spent, (prepared - start, viewed - prepared, done - viewed),
                                     strict=True):  # fmt: skip
                spent[name].append(seconds)
    return {name: median(seconds[1:]) for name, seconds in spent.items()}


def _qwen2_vl(width: int, inner: int, heads: int, kv_heads: int, words: int, tied: bool):
    from transformers import Qwen2VLConfig

    return Qwen2VLConfig(
        text_config={
            "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": 28,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": words,
            "max_position_embeddings": 32768, "tie_word_embeddings": tied,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24],
            },
        },
        vision_config={
            "depth": 32, "embed_dim": 1280, "hidden_size": width, "num_heads": 16, "mlp_ratio": 4,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        tie_word_embeddings=tied,
    )  # fmt: skip


def _tower_flops(vision, grid: tuple[int, int, int]) -> int:
    """Operations of the vision tower for one image or video; frames attend only to themselves."""
    t, h, w = grid
    patches, width = t * h * w, vision.embed_dim
    inputs = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    block = width * width * (4 + 2 * vision.mlp_ratio)
    attention = 4 * (h * w) ** 2 * t * width
    merged = width * vision.spatial_merge_size**2
    tokens = patches // vision.spatial_merge_size**2
    projector = 2 * tokens * (merged * merged + merged * vision.hidden_size)
    return (
        2 * patches * (inputs * width + vision.depth * block) + vision.depth * attention + projector
    )


def _with_features(embedder: UniteEmbedder, encoded: Encoded) -> Encoded:
    if encoded.images or encoded.videos:
        (encoded,) = embedder.encode_vision([encoded])
    _wait(embedder)
    return encoded


def _wait(embedder: UniteEmbedder) -> None:
    if embedder.device.type == "cuda":
        torch.cuda.synchronize()
