"""What an embedder is, in words: printed by notebooks, so that nothing was assumed in silence."""

from __future__ import annotations

from ..data.items import PLACEHOLDERS
from .backbones import BACKBONES, backbone_of
from .config import EmbedConfig
from .family import Backbone, Recipe
from .prompts import build_prompt

__all__ = ["describe_embedder"]


_POOLED = {"last": "of the last token", "mean": "the mean of all tokens"}
_SHOWN = {"text": "{text}", "image": "picture", "instruction": "{instruction}"}


def describe_embedder(embedder) -> dict[str, str]:
    """Properties of a UniteEmbedder by name, each as text.

    family, embedder, source, positions, template, pixels, frames, length, vector, dtype,
    attention, device; `template` is the prompt of a picture with text and instruction.
    """
    base, config = embedder.base, embedder.config
    family = backbone_of(base)
    recipe = _recipe_of(family, config) if family else None
    names = [name for name in BACKBONES if BACKBONES[name] is family]
    text = dict(_SHOWN, text=f"{PLACEHOLDERS['image']}{_SHOWN['text']}")
    return {
        "family": f"{names[0] if names else 'unknown'} ({type(base).__name__})",
        "embedder": recipe.title if recipe else f"none known; prompt {config.prompt}",
        "source": recipe.source if recipe else "",
        "positions": config.positions,
        "template": build_prompt(text, config.prompt),
        "pixels": f"images {config.image_min_pixels} to {config.image_max_pixels}, resized "
        f"{config.image_pixels}; frames {config.video_min_pixels} to {config.video_max_pixels}, "
        f"{config.video_pixels}; {config.parity}",
        "frames": f"{config.min_frames} to {config.max_frames}, {config.fps:g} a second",
        "length": f"{config.max_length} tokens",
        "vector": f"{embedder.dim} dimensions, {_POOLED[embedder.family.pooling]}",
        "dtype": str(next(embedder.parameters()).dtype).removeprefix("torch."),
        "attention": str(base.config._attn_implementation),
        "device": str(embedder.device),
    }


def _recipe_of(family: Backbone, config: EmbedConfig) -> Recipe | None:
    """The embedder of a family whose prompt and positions these are."""
    for recipe in family.recipes:
        if (recipe.name, recipe.config["positions"]) == (config.prompt, config.positions):
            return recipe
    return None
