"""Qwen3-VL, and Qwen3-VL-Embedding, which was trained on it."""

from __future__ import annotations

from ..family import Backbone, Recipe, Template

__all__ = ["QWEN3_VL", "QWEN3_VL_EMBEDDING"]


QWEN3_VL_EMBEDDING = Recipe(
    name="qwen3-vl-embedding",
    title="Qwen3-VL-Embedding",
    template=Template(
        "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n"
        "<|im_start|>assistant\n",
        instruction="Represent the user's input.",
        punctuated=True,
        media=("video", "image"),
        gap="",
        special_tokens=True,
    ),
    known_as=r"qwen3[-_]?vl[-_]?(for)?embedding.*",
    config={
        "positions": "mrope",
        "image_pixels": "once",
        "image_min_pixels": 4 * 32 * 32,
        "image_max_pixels": 1800 * 32 * 32,
        "video_min_pixels": 128 * 32 * 32,
        "video_max_pixels": 768 * 32 * 32,
        "max_frames": 64,
        "max_length": 8192,
    },
    source="QwenLM/Qwen3-VL-Embedding, src/models/qwen3_vl_embedding.py, 8ce3aab",
)
QWEN3_VL = Backbone(
    "Qwen3VLConfig",
    "Qwen3VLModel",
    video_time="text",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    packed_decoder=True,
    packed_tower=True,
    # no other fast path: the tower also feeds the first decoder layers (deepstack), keys are normed
    known_as=r"qwen3-vl-\d+b(-instruct|-thinking)?",
    recipes=(QWEN3_VL_EMBEDDING,),
)
