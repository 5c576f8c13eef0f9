"""What of a model is trained: LoRA or whole weights, of language model, vision tower, projector."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from ..model.backbones import Backbone, backbone_of
from ..model.embedder import UniteEmbedder
from .config import StageConfig

__all__ = ["learning_rates", "mark_trained", "part_weights"]


def mark_trained(embedder: UniteEmbedder, stage: StageConfig) -> None:
    """Attach the stage's LoRA, and let only what the stage trains have gradients.

    What is trained is float32, whatever the type of the checkpoint.
    """
    targets = _lora_targets(embedder, stage)
    if targets is None:
        embedder.requires_grad_(False)
    else:
        more = {**(stage.lora or {}), "target_modules": targets}
        embedder.attach_lora(
            stage.lora_rank, stage.lora_alpha, stage.lora_dropout, stage.seed, **more
        )
    whole = [part for part, how in stage.visual_parts.items() if how == "trained"]
    whole += ["language"] * (stage.lora is None)
    for part in whole:
        for weight in part_weights(embedder, part):
            weight.requires_grad_(weight.is_floating_point())
    for weight in embedder.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def learning_rates(embedder: UniteEmbedder, stage: StageConfig) -> dict[torch.Tensor, float]:
    """Rates of the weights of tower and projector, where the stage gives them their own."""
    vision = stage.vision_learning_rate
    rates = {"vision": vision, "projector": stage.projector_learning_rate or vision}
    return {
        weight: rate
        for part, rate in rates.items()
        if rate is not None
        for weight in part_weights(embedder, part)
    }


def part_weights(embedder: UniteEmbedder, part: str) -> Iterator[nn.Parameter]:
    """The weights of a part, with its LoRA: "language", "vision" (the tower) or "projector"."""
    base = embedder.base
    if part == "language":
        yield from base.language_model.parameters()
        return
    family = backbone_of(base) or Backbone
    for name, weight in base.named_parameters():
        if _visual_part(family, name) == part:
            yield weight


def _visual_part(family: Backbone, name: str) -> str:
    """The part that sees which a name in the backbone belongs to, or ""."""
    if re.match(family.projector, name):
        return "projector"
    return "vision" if re.match(family.vision, name) else ""


def _lora_targets(embedder: UniteEmbedder, stage: StageConfig) -> str | list[str] | None:
    """peft's `target_modules` of a stage, None for no LoRA at all."""
    wanted: list[str] = []  # regular expressions
    family = backbone_of(embedder.base) or Backbone
    if stage.lora is not None:
        given = stage.lora.get("target_modules")
        if given == "all-linear" or (given and not _with_lora(stage.visual_parts)):
            return given
        wanted.append(_as_pattern(given) if given else family.lora_targets)
    for part in _with_lora(stage.visual_parts):
        for name, module in embedder.base.named_modules():
            if isinstance(module, nn.Linear) and _visual_part(family, name) == part:
                wanted.append(rf"(.*\.)?{re.escape(name)}")
    if len(wanted) < 2:
        return wanted[0] if wanted else None
    return "|".join(f"({pattern})" for pattern in wanted)


def _with_lora(parts: Mapping[str, str]) -> list[str]:
    return [part for part, how in parts.items() if how == "lora"]


def _as_pattern(targets: str | list[str]) -> str:
    """A regular expression of peft's: a text is one, a list has ends of names."""
    if isinstance(targets, str):
        return targets
    return rf"(.*\.)?({'|'.join(map(re.escape, targets))})"
