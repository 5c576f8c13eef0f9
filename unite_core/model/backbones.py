"""The families of vision-language models that an embedder can have as its backbone.

Each entry states all that the rest of the package needs to know of a family: classes, video time,
colours, LoRA targets, and which fast paths hold. A new family is one new entry; another package
registers its own with `BACKBONES.register(MODEL_TYPE)(Backbone(...))` before `UniteEmbedder.load`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from ..registry import Registry
from .preprocessing import Layout

__all__ = ["BACKBONES", "Backbone", "backbone_of", "has_fast_path"]


@dataclass(frozen=True)
class Backbone:
    """One family; class names are those of transformers.

    A fast path is left at its default, off, unless the classes named for it are known to compute
    the same: tests compare vectors and gradients with transformers' own forward.
    """

    config: str  # class of the whole configuration
    model: str  # class of the model without a language modelling head
    video_time: str = "none"  # where a video's time goes, see Processor
    mean: tuple[float, float, float] = Layout.mean  # colours where preprocessor_config.json
    std: tuple[float, float, float] = Layout.std  # says nothing
    lora_targets: str = (  # regular expression of module names
        r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
    )
    cached_vision: bool = False  # visual tokens are all that the tower gives: they can be kept
    pooled_decoder: tuple[str, str] | None = None  # text model, layer: see `decoder.pooled_states`
    plain_tower: tuple[str, str] | None = None  # tower, block: see `vision.visual_tokens`
    plain_text: bool = False  # for text alone the language model is a Qwen2


BACKBONES: Registry[Backbone] = Registry("backbone")
"""By `model_type` of config.json."""

BACKBONES.register("qwen2_vl")(
    Backbone(
        "Qwen2VLConfig",
        "Qwen2VLModel",
        cached_vision=True,
        pooled_decoder=("Qwen2VLTextModel", "Qwen2VLDecoderLayer"),
        plain_tower=("Qwen2VisionTransformerPretrainedModel", "Qwen2VLVisionBlock"),
        plain_text=True,
    )
)
BACKBONES.register("qwen2_5_vl")(
    Backbone(
        "Qwen2_5_VLConfig",
        "Qwen2_5_VLModel",
        video_time="positions",
        cached_vision=True,
        pooled_decoder=("Qwen2_5_VLTextModel", "Qwen2_5_VLDecoderLayer"),
        plain_text=True,
        # no plain tower: its blocks attend inside windows
    )
)
BACKBONES.register("qwen3_vl")(
    Backbone(
        "Qwen3VLConfig",
        "Qwen3VLModel",
        video_time="text",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        # no fast path: the tower also feeds the first decoder layers (deepstack), keys are normed
    )
)


def backbone_of(model: nn.Module) -> Backbone | None:
    """The family of a transformers model; None for another class, such as one wrapped by FSDP."""
    families = (BACKBONES[name] for name in BACKBONES)
    return next((family for family in families if family.model == type(model).__name__), None)


def has_fast_path(path: str, module: nn.Module, layers: Iterable[nn.Module]) -> bool:
    """Whether a family names exactly the classes of `module` and of all its `layers` for a path.

    Args
        path  "pooled_decoder" or "plain_tower"
    """
    classes = {(type(module).__name__, type(layer).__name__) for layer in layers}
    return any(classes == {getattr(BACKBONES[name], path)} for name in BACKBONES)
