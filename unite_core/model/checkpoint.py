"""Reading checkpoints: every weight is found, used, well-shaped and finite, or refused by name.

Known key layouts, all brought to transformers' names below `Qwen2VLModel`:

    released UNITE, early Qwen2-VL   model.layers.*, model.embed_tokens.*, model.norm.*, visual.*
    transformers >= 4.52             model.language_model.*, model.visual.*
    base model                       language_model.*, visual.*

`lm_head.weight`, tied or not, is known and left out: an embedder has no use for it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ..settings import read_config, write_config
from .config import EmbedConfig
from .preprocessing import Layout
from .processor import Processor

__all__ = [
    "CheckpointError",
    "default_config",
    "load_backbone",
    "load_processor",
    "locate",
    "lora_settings",
    "publish",
    "read_adapter",
    "save_processor",
]


class _Family(NamedTuple):
    config: str  # classes in transformers
    model: str
    video_time: str  # see Processor
    colours: Layout  # its mean and std hold where preprocessor_config.json says nothing


_FAMILIES = {
    "qwen2_vl": _Family("Qwen2VLConfig", "Qwen2VLModel", "none", Layout()),
    "qwen2_5_vl": _Family("Qwen2_5_VLConfig", "Qwen2_5_VLModel", "positions", Layout()),
    "qwen3_vl": _Family(
        "Qwen3VLConfig", "Qwen3VLModel", "text", Layout(mean=(0.5,) * 3, std=(0.5,) * 3)
    ),
}
_UNUSED = {"lm_head.weight"}
_LORA_PREFIX = "base_model.model."  # of peft's keys
_STOCK_TOKENS = 16384  # Qwen's own upper limit of an image: nobody's choice for retrieval


class CheckpointError(ValueError):
    """A checkpoint that cannot be used as it is; the message names the file or the weights."""


def locate(folder_or_hub_id: str | Path) -> Path:
    """A folder as it is; anything else that looks like OWNER/NAME is fetched from the hub."""
    folder = Path(folder_or_hub_id).expanduser()
    if folder.is_dir():
        return folder
    name = str(folder_or_hub_id)
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*/[\w.-]+", name):
        raise FileNotFoundError(
            f"{name}: no such folder, and a hub id has the form owner/name; check the spelling"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:  # hub, network and cache errors have no common class
        raise CheckpointError(
            f"{name}: no such folder here, and it could not be fetched from the hub ({error}). "
            "Check the name and the network, or download it where there is one and give its folder."
        ) from error


def default_config(folder: Path, base: Path, name: str) -> EmbedConfig:
    """What the checkpoint was saved with (`unite.json`), else what its weights were trained with.

    UNITE weights: sequential positions and the released pixel chain; others: M-RoPE and effective
    limits. Image limits are the checkpoint's; where those are Qwen's stock limits of up to 16384
    tokens, the authors' 256 to 1280 tokens.
    """
    for place in (folder, base):
        if (place / "unite.json").is_file():
            return read_config(EmbedConfig, place / "unite.json")
    raw = _read_json(base / "config.json")
    hints = [Path(name).name, raw.get("model_type", ""), *raw.get("architectures", [])]
    released = any("unite" in hint.lower() for hint in hints)
    config = EmbedConfig(
        positions="sequential" if released else "mrope",
        video_pixels="released" if released else "effective",
    )
    pixels = _read_pixels(base)
    size = pixels.get("size", {})
    least = pixels.get("min_pixels") or size.get("min_pixels") or size.get("shortest_edge")
    most = pixels.get("max_pixels") or size.get("max_pixels") or size.get("longest_edge")
    factor = pixels.get("patch_size", 14) * pixels.get("merge_size", 2)
    if not least or not most or most >= _STOCK_TOKENS * factor**2:
        return config
    return replace(config, image_min_pixels=least, image_max_pixels=most)


def load_backbone(folder: Path, dtype: torch.dtype | None = None) -> torch.nn.Module:
    """transformers' own model with the folder's weights, on the CPU.

    Args
        dtype  of the weights; None keeps the checkpoint's
    """
    import transformers
    from transformers.initialization import no_init_weights

    config = _model_config(folder)
    weights = _read_weights(folder)
    model_class = getattr(transformers, _family(config.model_type, folder).model)
    with torch.device("meta"):
        expected = model_class(config).state_dict()
    _check_weights(weights, {name: w.shape for name, w in expected.items()}, folder)
    with no_init_weights():
        model = model_class(config)
    model.load_state_dict({n: w.to(dtype or w.dtype) for n, w in weights.items()}, assign=True)
    return model.requires_grad_(True).eval()


def load_processor(folder: Path, model_config, config: EmbedConfig) -> Processor:
    """The folder's tokenizer and pixel layout; special tokens must agree with the model."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "merges.txt")):
        raise CheckpointError(
            f"{folder}: has no tokenizer (tokenizer.json, or vocab.json and merges.txt); copy them "
            "from the checkpoint that it was made from"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, config=model_config)
    pixels, vision = _read_pixels(folder), model_config.vision_config
    family = _family(model_config.model_type, folder)
    layout = Layout(
        patch=vision.patch_size,
        merge=vision.spatial_merge_size,
        temporal=vision.temporal_patch_size,
        mean=tuple(pixels.get("image_mean", family.colours.mean)),
        std=tuple(pixels.get("image_std", family.colours.std)),
    )
    processor = Processor(tokenizer, config, layout, family.video_time)
    ids = {"image": processor.image_id, "video": processor.video_id}
    for kind, index in ids.items():
        expected = getattr(model_config, f"{kind}_token_id")
        if index != expected:
            raise CheckpointError(
                f"{folder}: <|{kind}_pad|> is token {index} of the tokenizer, but config.json "
                f"says {expected}; they belong to different models"
            )
    return processor


def save_processor(processor: Processor, folder: Path) -> None:
    """Write tokenizer, pixel layout and EmbedConfig, so that `load_processor` gives them again."""
    processor.tokenizer.save_pretrained(folder)
    layout, config = processor.layout, processor.config
    pixels = {
        "patch_size": layout.patch, "merge_size": layout.merge,
        "temporal_patch_size": layout.temporal,
        "image_mean": layout.mean, "image_std": layout.std,
        "min_pixels": config.image_min_pixels, "max_pixels": config.image_max_pixels,
    }  # fmt: skip
    text = json.dumps(pixels, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
    write_config(config, folder / "unite.json")


def read_adapter(folder: Path, base: torch.nn.Module) -> dict[str, torch.Tensor]:
    """LoRA weights of a peft folder under the names that the base model's modules have."""
    weights = {}
    for name, weight in _read_safetensors(folder, "adapter_model").items():
        weights[_LORA_PREFIX + _rename(name.removeprefix(_LORA_PREFIX))] = weight
    settings = _read_json(folder / "adapter_config.json")
    linear = {n: m for n, m in base.named_modules() if isinstance(m, torch.nn.Linear)}
    modules = {_lora_module(name) for name in weights} & set(linear)
    modules |= {name for name in linear if _is_target(name, settings)}
    expected, rank = {}, settings.get("r")
    for module in modules:
        out, into = linear[module].weight.shape
        expected[f"{_LORA_PREFIX}{module}.lora_A.weight"] = torch.Size((rank, into))
        expected[f"{_LORA_PREFIX}{module}.lora_B.weight"] = torch.Size((out, rank))
    _check_weights(weights, expected, folder)
    return weights


def lora_settings(folder: Path, weights: Iterable[str]):
    """peft's LoraConfig of an adapter folder, for exactly the modules that have weights."""
    from peft import LoraConfig, PeftConfig

    settings = PeftConfig.from_pretrained(str(folder))
    if not isinstance(settings, LoraConfig):
        raise CheckpointError(f"{folder}: a {settings.peft_type} adapter; only LoRA can be loaded")
    settings.target_modules = {_lora_module(name) for name in weights}
    settings.inference_mode = False
    settings.base_model_name_or_path = None  # peft writes the present one
    return settings


@contextmanager
def publish(folder: str | Path) -> Iterator[Path]:
    """A scratch folder whose files replace those in `folder` once all of them are written.

    Weights of an earlier save under other names are removed; configuration files come last, so
    that a folder that has them is complete.
    """
    folder = Path(folder)
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        files = sorted(partial.iterdir(), key=lambda file: file.suffix == ".json")
        for stale in folder.glob("*.safetensors*"):
            stale.unlink()
        for file in files:
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _model_config(folder: Path):
    import transformers

    raw = _read_json(folder / "config.json")
    vision = raw.get("vision_config", {})
    # Early Qwen2-VL files use other names for two sizes, which transformers 5 ignores.
    for old, new in (("in_chans", "in_channels"), ("spatial_patch_size", "patch_size")):
        if old in vision:
            vision.setdefault(new, vision.pop(old))
    model_type = raw.get("model_type", "").removeprefix("unite_")
    raw["model_type"] = model_type
    return getattr(transformers, _family(model_type, folder).config).from_dict(raw)


def _family(model_type: str, folder: Path) -> _Family:
    if model_type not in _FAMILIES:
        raise CheckpointError(
            f"{folder}: model type {model_type!r} is unknown; known are {', '.join(_FAMILIES)}"
        )
    return _FAMILIES[model_type]


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    weights = {}
    for name, weight in _read_safetensors(folder, "model").items():
        if name in _UNUSED:
            continue
        renamed = _rename(name)
        if renamed in weights:
            raise CheckpointError(f"{folder}: holds {renamed} twice, under two names")
        weights[renamed] = weight
    return weights


def _read_safetensors(folder: Path, stem: str) -> dict[str, torch.Tensor]:
    """All tensors of STEM.safetensors, or of the shards that STEM.safetensors.index.json lists."""
    from safetensors.torch import load_file

    index = folder / f"{stem}.safetensors.index.json"
    files = [f"{stem}.safetensors"]
    placed = _read_json(index)["weight_map"] if index.is_file() else {}
    files = sorted(set(placed.values())) or files
    weights = {}
    for file in files:
        path = folder / file
        if path.parent != folder:
            raise CheckpointError(f"{index}: names {file}, which is outside its folder")
        if not path.is_file():
            raise CheckpointError(
                f"{path}: no such file. Pickled weights (.bin, .pt) are refused, since reading "
                "them can run code: convert them to safetensors where you trust them"
            )
        try:
            weights |= load_file(path)
        except Exception as error:  # safetensors raises its own class for a damaged header
            raise CheckpointError(f"{path}: cannot be read ({error}); fetch it again") from error
    if lost := set(placed) - set(weights):
        raise CheckpointError(f"{index}: lists weights that no shard has: {_some(lost)}")
    return weights


def _rename(name: str) -> str:
    if name.startswith(("model.language_model.", "model.visual.")):
        return name.removeprefix("model.")
    if name.startswith("model."):
        return "language_" + name
    return name


def _check_weights(weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Size],
                   folder: Path) -> None:  # fmt: skip
    problems = []
    if missing := set(expected) - set(weights):
        problems.append(f"missing: {_some(missing)}")
    if extra := set(weights) - set(expected):
        problems.append(f"not of this model: {_some(extra)}")
    both = set(weights) & set(expected)
    if misshapen := [
        f"{n} {list(weights[n].shape)} instead of {list(expected[n])}"
        for n in both if weights[n].shape != expected[n]
    ]:  # fmt: skip
        problems.append(f"misshapen: {_some(misshapen)}")
    if broken := [n for n in both if not torch.isfinite(weights[n]).all()]:
        problems.append(f"with NaN or infinite values: {_some(broken)}")
    if problems:
        raise CheckpointError(
            f"{folder}: weights {'; '.join(problems)}. Check that config.json and the weight files "
            "belong together, or fetch the checkpoint again."
        )


def _some(names: Iterable[str], most: int = 8) -> str:
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _lora_module(name: str) -> str:
    return re.sub(r"\.lora_[AB]\.weight$", "", name.removeprefix(_LORA_PREFIX))


def _is_target(module: str, settings: Mapping) -> bool:
    """Whether an adapter's settings claim a module of the language model."""
    targets = settings.get("target_modules") or []
    if not module.startswith("language_model.") or settings.get("layers_to_transform") is not None:
        return False
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return module in targets or module.rsplit(".", 1)[-1] in targets


def _read_pixels(folder: Path) -> dict:
    path = folder / "preprocessor_config.json"
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {path.parent} is no complete checkpoint")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: is no JSON ({error}); fetch it again") from error
