"""How a model is loaded and fed: number type, attention, devices, 4 bits, batches, readers.

`LoadConfig` holds it for `UniteEmbedder.load`, the commands and their configurations alike.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator

from ..settings import Count, Name, Natural, make, settings

if TYPE_CHECKING:
    import torch

__all__ = [
    "LoadConfig", "device_of", "dtype_of", "hidden_progress", "is_spread", "load_settings",
    "processes_for", "spread_out",
]  # fmt: skip


_TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 32768}
_PROCESSES = 8  # that read media, by default at most


def _plain(value: Any) -> Any:
    """torch's types and devices by name."""
    known = type(value).__module__ == "torch"
    return str(value).removeprefix("torch.") if known else value


@settings
class LoadConfig:
    """Where and how a model computes. None of it belongs to the checkpoint."""

    device: Annotated[Name, BeforeValidator(_plain)] | None = None
    """Device, such as cuda:1; null: a GPU where there is one, else the CPU."""
    dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, BeforeValidator(_plain)] = (
        None
    )
    """Type of the weights, whatever the files have; null: bfloat16 on a GPU, float32 on a CPU."""
    attention: Name | None = None
    """packed (items one after the other, without padding), or attention by transformers' name, such
    as flash_attention_2, or a kernel of the hub; null: packed on a GPU in bfloat16 or float16, else
    torch's own, sdpa."""
    device_map: Literal["auto", "balanced", "sequential"] | dict[str, int | str] | None = None
    """Spread a model that is larger than one GPU over all of them and the CPU (accelerate); null:
    one device."""
    quantize: Literal["4bit"] | None = None
    """4bit keeps the language model's layers in four bits (bitsandbytes); vectors change."""
    batch_tokens: Count | None = None
    """Tokens of a batch, padding included; null: 2048 on a CPU, 32768 on a GPU."""
    workers: Natural | None = None
    """Processes that decode media ahead of the model, 0: none; null: none on a CPU, on a GPU one
    for each core but one, at most 8."""

    @property
    def is_spread(self) -> bool:
        """Whether transformers places the weights, so that a model must not be moved as a whole."""
        return bool(self.device_map or self.quantize)

    def tokens_on(self, device: torch.device) -> int:
        """Tokens of a batch on a device."""
        return self.batch_tokens or _TOKENS_PER_BATCH.get(device.type, _TOKENS_PER_BATCH["cpu"])


def load_settings(values: Mapping[str, Any]) -> tuple[LoadConfig, dict[str, Any]]:
    """The LoadConfig among keyword arguments, and those that are left."""
    names = {field.name for field in fields(LoadConfig)}
    chosen = {name: value for name, value in values.items() if name in names}
    rest = {name: value for name, value in values.items() if name not in names}
    return make(LoadConfig, chosen, "LoadConfig"), rest


def device_of(how: LoadConfig) -> torch.device:
    """Where a model is put, or where its inputs go first."""
    import torch

    return torch.device(how.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def dtype_of(how: LoadConfig, device: torch.device) -> torch.dtype:
    """Type of the weights on a device; ValueError where the attention cannot compute in it."""
    import torch

    name = how.dtype or ("float32" if device.type == "cpu" else "bfloat16")
    if (how.attention or "").startswith("flash_attention"):
        from transformers.utils import is_flash_attn_2_available

        if device.type == "cpu" or name == "float32" or not is_flash_attn_2_available():
            raise ValueError(
                f"attention {how.attention} needs a GPU, dtype bfloat16 or float16 (here {device} "
                f"and {name}) and the package flash-attn; sdpa needs none of them"
            )
    return getattr(torch, name)


def processes_for(how: LoadConfig, device: torch.device) -> int:
    """Number of processes that read media ahead for a model on a device."""
    if how.workers is not None or device.type == "cpu":
        return how.workers or 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun's processes on this machine
    return max(1, min(_PROCESSES, cores // beside - 1))


def spread_out(
    model: torch.nn.Module, weights: dict[str, torch.Tensor], how: LoadConfig
) -> torch.nn.Module:
    """A model like `model` with `weights`, over several devices, in four bits, or both.

    ImportError names the package that is missing.
    """
    _require("accelerate", "device_map and quantize")
    if how.quantize:
        _require("bitsandbytes", "quantize 4bit")
    device, offloaded = device_of(how), tempfile.mkdtemp(prefix="unite-offloaded-")
    options: dict[str, Any] = {"device_map": how.device_map or {"": str(device)}}
    if how.quantize:
        from transformers import BitsAndBytesConfig

        whole = [name for name, _ in model.named_children() if name != "language_model"]
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=whole,
            bnb_4bit_compute_dtype=dtype_of(how, device),
        )  # fmt: skip
    spread = type(model).from_pretrained(
        None, config=model.config, state_dict=weights, dtype=next(iter(weights.values())).dtype,
        attn_implementation=model.config._attn_implementation, offload_folder=offloaded,
        **options,
    )  # fmt: skip
    weakref.finalize(spread, shutil.rmtree, offloaded, ignore_errors=True)
    moving = any(hasattr(part, "_hf_hook") for part in spread.modules())
    for part in spread.modules():
        part.is_spread = moving
    return spread


def is_spread(module: torch.nn.Module) -> bool:
    """Whether accelerate moves a module's inputs or weights when it, or a part of it, is called."""
    return getattr(module, "is_spread", False)


@contextmanager
def hidden_progress() -> Iterator[None]:
    """Without transformers' progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _require(package: str, setting: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise ImportError(f"{setting} needs the package {package} (pip install {package})")
