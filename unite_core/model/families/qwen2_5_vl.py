"""Qwen2.5-VL, and GVE, which was trained on it."""

from __future__ import annotations

from ..family import Backbone, Recipe
from .qwen2_vl import GME

__all__ = ["GVE", "QWEN2_5_VL"]


GVE = Recipe(
    name="gve",
    title="GVE",
    template=GME.template,
    known_as=r"gve[-_]\d+b.*",
    config={
        "positions": "mrope",
        "video_min_pixels": 128 * 28 * 28,
        "video_max_pixels": 200 * 28 * 28,
        "max_frames": 8,
        "max_length": 4096,
    },
    source="embeddings-benchmark/mteb 2.26.24, mteb/models/model_implementations/gve_models.py, "
    "after the model card of Alibaba-NLP/GVE-3B",
)
QWEN2_5_VL = Backbone(
    "Qwen2_5_VLConfig",
    "Qwen2_5_VLModel",
    video_time="positions",
    cached_vision=True,
    pooled_decoder=("Qwen2_5_VLTextModel", "Qwen2_5_VLDecoderLayer"),
    plain_text=True,
    packed_decoder=True,
    packed_tower=True,  # its blocks attend inside windows
    known_as=r"qwen2\.5-vl-\d+b(-instruct)?",
    recipes=(GVE,),
)
