"""Qwen3.5: three of four layers attend linearly; the tower gives visual tokens only.

Embedders trained on it (WeMM-Embedding, UEmbed) bring their chat template as a file and pool a
token of their own; neither is known here, so that they load with the warning of an unknown one.
"""

from __future__ import annotations

from ..family import Backbone

__all__ = ["QWEN3_5"]


QWEN3_5 = Backbone(
    "Qwen3_5Config",
    "Qwen3_5Model",
    video_time="text",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    lora_targets=(
        r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj"
        r"|linear_attn\.(in_proj_(qkv|z|b|a)|out_proj))"
    ),
    # no fast path: most layers keep a state instead of keys and values
    unused_weights=r"lm_head\.weight|mtp\..*",
    known_as=r"qwen3\.5-\d+(\.\d+)?b(-base)?",
)
