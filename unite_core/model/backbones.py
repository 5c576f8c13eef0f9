"""The families of vision-language models that an embedder can have as its backbone.

Each is one object in one file of `families`, which states all that the rest of the package needs to
know of it. Another package registers its own with `BACKBONES.register(MODEL_TYPE)(Backbone(...))`
before `UniteEmbedder.load`, and its prompts with `TEMPLATES.register(NAME)(Template(...))`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..registry import Registry
from .families.embedding_gemma2 import EMBEDDING_GEMMA2
from .families.qwen2_5_vl import QWEN2_5_VL
from .families.qwen2_vl import QWEN2_VL, RAW
from .families.qwen3_5 import QWEN3_5
from .families.qwen3_vl import QWEN3_VL
from .family import Backbone, Template

if TYPE_CHECKING:
    from torch import nn

__all__ = ["BACKBONES", "TEMPLATES", "Backbone", "backbone_of", "has_fast_path"]


BACKBONES: Registry[Backbone] = Registry("backbone")
"""By `model_type` of config.json."""
TEMPLATES: Registry[Template] = Registry("prompt")
"""By the name of a prompt in EmbedConfig."""

TEMPLATES.register("unite")(QWEN2_VL.recipes[0].template)
TEMPLATES.register("raw")(RAW)
for _name, _family in (
    ("qwen2_vl", QWEN2_VL),
    ("qwen2_5_vl", QWEN2_5_VL),
    ("qwen3_vl", QWEN3_VL),
    ("qwen3_5", QWEN3_5),
    ("embedding_gemma2", EMBEDDING_GEMMA2),
):
    BACKBONES.register(_name)(_family)
    for _recipe in _family.recipes:
        if _recipe.name not in TEMPLATES:
            TEMPLATES.register(_recipe.name)(_recipe.template)


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
