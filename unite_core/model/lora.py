"""LoRA adapters of a backbone: attached, read, written, and computed as one matrix product."""

# Shapes: m inputs and n outputs of a layer, r rank of its LoRA, T tokens of a step.

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import linear

from ..settings import write_config
from .backbones import Backbone, backbone_of
from .checkpoint import locate, publish
from .config import EmbedConfig
from .weights import CheckpointError, check_weights, read_object, read_safetensors, renamed

__all__ = ["attach_lora", "fused_lora", "keep_input_types", "load_lora", "save_lora"]


_PREFIX = "base_model.model."  # of peft's keys
_BESIDE = ("modules_to_save", "trainable_token_indices", "target_parameters", "bias", "lora_bias")


def attach_lora(backbone: nn.Module, rank: int, alpha: int, dropout: float, seed: int,
                **more) -> nn.Module:  # fmt: skip
    """Freeze a backbone and wrap it with a new, trainable LoRA; see `UniteEmbedder.attach_lora`."""
    from peft import LoraConfig

    _refuse_second(backbone)
    family = backbone_of(backbone) or Backbone
    more = {"target_modules": family.lora_targets} | more
    settings = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, **more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _wrapped(backbone, settings)


def load_lora(backbone: nn.Module, folder_or_hub_id: str | Path) -> nn.Module:
    """Wrap a backbone with an adapter (LoRA or DoRA) in peft's format, trainable.

    A CheckpointError names weights that are missing or extra.
    """
    from peft import set_peft_model_state_dict

    _refuse_second(backbone)
    folder = locate(folder_or_hub_id)
    adapter = _read_adapter(folder, backbone)
    wrapped = _wrapped(backbone, _adapter_settings(folder, adapter))
    set_peft_model_state_dict(wrapped, adapter.weights)
    return wrapped


def save_lora(backbone: nn.Module, config: EmbedConfig, folder: str | Path) -> None:
    """Write the adapter around a backbone in peft's format, with `unite.json`."""
    with publish(folder) as scratch:
        backbone.save_pretrained(scratch)
        (scratch / "README.md").unlink(missing_ok=True)
        write_config(config, scratch / "unite.json")


def keep_input_types(model: nn.Module) -> None:
    """Let LoRA layers take their inputs as they are, for a model that computes under autocast.

    peft turns them into the type of the trained weights, float32, and keeps them so for the
    backward pass; autocast then turns them back for each product.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.cast_input_dtype_enabled = False


@contextmanager
def fused_lora(model: nn.Module) -> Iterator[None]:
    """Compute narrow LoRA layers of high rank as one product, x (W + s B A)^T.

    W + s B A is formed once, on entry: weights must not change inside the context, and a backward
    pass that recomputes activations must run inside too. Values and gradients equal those of
    x W^T + s (x A^T) B^T up to rounding.

    Forward and backward take 3 T m n multiplications, the usual way T (2 m n + 3 r (m + n)) and
    memory for x A^T. Layers that would not gain, or that have dropout, DoRA, several adapters, a
    bias in the LoRA or weights of another type, stay as they are.
    """
    layers = [layer for layer in model.modules() if _gains(layer)]
    try:
        for layer in layers:
            (name,) = layer.active_adapters
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            base = layer.base_layer
            weight = torch.addmm(base.weight, b, a, alpha=layer.scaling[name])
            layer.forward = partial(linear, weight=weight, bias=base.bias)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)  # back to the method of its class


def _gains(layer: nn.Module) -> bool:
    from peft.tuners.lora import Linear

    if type(layer) is not Linear or type(layer.base_layer) is not nn.Linear:
        return False
    if len(layer.active_adapters) != 1 or layer.disable_adapters or layer.merged:
        return False
    (name,) = layer.active_adapters
    if name not in layer.lora_A or name in layer.lora_variant or layer.lora_bias[name]:
        return False
    a, weight = layer.lora_A[name].weight, layer.base_layer.weight
    plain = a.dtype == weight.dtype and getattr(layer.lora_dropout[name], "p", 0.0) == 0.0
    outputs, inputs = weight.shape
    return plain and 3 * len(a) * (inputs + outputs) > inputs * outputs


def _refuse_second(backbone: nn.Module) -> None:
    if hasattr(backbone, "peft_config"):
        raise ValueError("a LoRA is attached already: merge_lora() first")


def _wrapped(backbone: nn.Module, settings) -> nn.Module:
    from peft import get_peft_model

    with warnings.catch_warnings():  # peft asks transformers for a property by its old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(backbone, settings)


class _Adapter(NamedTuple):
    """The weights of a peft folder, by the names that the base model's modules have now."""

    weights: dict[str, torch.Tensor]
    ranks: dict[str, int]  # by adapted module
    alphas: dict[str, float]


def _read_adapter(folder: Path, base: nn.Module) -> _Adapter:
    """Read and check a peft folder; `rank_pattern` and `alpha_pattern` go by the folder's names."""
    settings = read_object(folder / "adapter_config.json")
    for name in _BESIDE:
        if settings.get(name) not in (None, False, [], {}, "none"):
            raise CheckpointError(
                f"{folder / 'adapter_config.json'}: {name} {settings[name]!r} holds weights beside "
                "the LoRA, which cannot be loaded: merge the adapter into its base with peft"
            )
    layers = {name: m for name, m in base.named_modules() if isinstance(m, nn.Linear)}
    weights, old = {}, {name: name for name in layers if _is_target(name, settings)}
    for name, weight in read_safetensors(folder, "adapter_model").items():
        name = name.removeprefix(_PREFIX)
        weights[_PREFIX + renamed(name)] = weight
        old[_module_of(renamed(name))] = _module_of(name)
    adapted = set(old) & set(layers)
    ranks = {module: _of_pattern(settings, "rank_pattern", "r", old[module]) for module in adapted}
    alphas = {
        module: _of_pattern(settings, "alpha_pattern", "lora_alpha", old[module])
        for module in adapted
    }
    expected = {}
    for module, rank in ranks.items():
        outputs, inputs = layers[module].weight.shape
        expected[f"{_PREFIX}{module}.lora_A.weight"] = torch.Size((rank, inputs))
        expected[f"{_PREFIX}{module}.lora_B.weight"] = torch.Size((outputs, rank))
        if settings.get("use_dora"):
            expected[f"{_PREFIX}{module}.lora_magnitude_vector"] = torch.Size((outputs,))
    check_weights(weights, expected, folder)
    return _Adapter(weights, ranks, alphas)


def _of_pattern(settings: Mapping, patterns: str, default: str, module: str):
    """A module's rank or alpha: of the first pattern that its name, old or new, ends with."""
    for pattern, value in (settings.get(patterns) or {}).items():
        try:
            ends = re.compile(rf"(.*\.)?({pattern})$")
        except re.error as error:
            raise CheckpointError(
                f"{patterns} has {pattern!r}, which is no pattern: {error}"
            ) from None
        if ends.match(module) or ends.match(renamed(module)):
            return value
    return settings.get(default, 8)  # as peft


def _adapter_settings(folder: Path, adapter: _Adapter):
    """peft's LoraConfig of an adapter folder, for exactly the modules that have weights."""
    from peft import LoraConfig, PeftConfig

    settings = PeftConfig.from_pretrained(str(folder))
    if not isinstance(settings, LoraConfig):
        raise CheckpointError(f"{folder}: a {settings.peft_type} adapter; only LoRA can be loaded")
    settings.target_modules = set(adapter.ranks)
    settings.rank_pattern = _exceptions(adapter.ranks, settings.r)
    settings.alpha_pattern = _exceptions(adapter.alphas, settings.lora_alpha)
    settings.inference_mode = False
    settings.base_model_name_or_path = None  # peft writes the present one
    return settings


def _exceptions(values: Mapping[str, float], default: float) -> dict[str, float]:
    """A pattern for peft of the modules that differ, by their whole names."""
    return {f"^{re.escape(name)}": value for name, value in values.items() if value != default}


def _module_of(weight: str) -> str:
    name = weight.removeprefix(_PREFIX)
    return re.sub(r"\.(lora_[AB]\.weight|lora_magnitude_vector)$", "", name)


def _is_target(module: str, settings: Mapping) -> bool:
    """Whether an adapter's settings claim a module of the language model."""
    targets = settings.get("target_modules") or []
    if not module.startswith("language_model.") or settings.get("layers_to_transform") is not None:
        return False
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return module in targets or module.rsplit(".", 1)[-1] in targets
