"""Checkpoint folders: found, loaded into a backbone and a processor, and written.

Every weight must be found, used, well-shaped and finite, or it is refused by name (`weights`).
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..settings import write_config
from .config import EmbedConfig
from .identify import family_of, pixel_settings
from .loading import LoadConfig, hidden_progress, spread_out
from .preprocessing import Layout
from .processor import Processor
from .shipped import check_model, is_shipped, shipped_folder
from .weights import CheckpointError, check_weights, described_by, read_object, read_weights

__all__ = [
    "CheckpointError", "adapters_of", "base_of", "load_backbone", "load_processor", "locate",
    "publish", "save_backbone", "save_processor",
]  # fmt: skip


_FETCHED = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
_OWN_ATTENTION = ("eager", "sdpa", "flex_attention")  # of torch: no code comes from the hub
_ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


def locate(folder_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """Return a folder as it is, or that of a shipped embedder; fetch OWNER/NAME from the hub.

    `revision` is a branch, tag or commit of a repository on the hub; a folder has none.
    """
    folder = Path(folder_or_hub_id).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"{folder} is a folder, which has no revision {revision!r}")
        return folder
    name = str(folder_or_hub_id)
    if (shipped := shipped_folder(name)) is not None:
        return shipped
    check_model(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FETCHED))
    except Exception as error:  # hub, network and cache errors have no common class
        raise CheckpointError(
            f"{name}: no such folder here, and it could not be fetched from the hub ({error}). "
            "Check the name and the network, or download it where there is one and give its folder."
        ) from error


def load_backbone(folder: Path, dtype: torch.dtype | None = None, attention: str | None = None,
                  how: LoadConfig | None = None) -> torch.nn.Module:  # fmt: skip
    """Load transformers' model with the folder's weights, in evaluation mode.

    Args
        dtype      of the weights; None keeps the checkpoint's
        attention  see `UniteEmbedder.load`
        how        whether over several devices or in four bits; default: on the CPU
    """
    import transformers
    from transformers.initialization import no_init_weights

    with described_by(folder / "config.json"):
        config = _model_config(folder)
    if attention is not None:
        config._attn_implementation = attention
    family = family_of({"model_type": config.model_type}, folder)
    weights = read_weights(folder, family.unused_weights)
    model_class = getattr(transformers, family.model)
    with described_by(folder / "config.json"), no_init_weights():
        model = model_class(config)  # its memory is reserved, never touched
    expected = {name: weight.shape for name, weight in model.state_dict().items()}
    weights = check_weights(weights, expected, folder, dtype)
    if how is not None and how.is_spread:
        with hidden_progress():
            return spread_out(model, weights, how).eval()
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(True).eval()


def load_processor(folder: Path, model_config, config: EmbedConfig) -> Processor:
    """Load tokenizer and pixel layout; a CheckpointError if special tokens do not fit the model."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "merges.txt")):
        raise CheckpointError(
            f"{folder}: has no tokenizer (tokenizer.json, or vocab.json and merges.txt); copy them "
            "from the checkpoint that it was made from"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, config=model_config)
    (_, pixels), vision = pixel_settings(folder), model_config.vision_config
    if vision is None:
        raise CheckpointError(f"{folder / 'config.json'}: has no vision_config; load the whole one")
    family = family_of({"model_type": model_config.model_type}, folder)
    layout = Layout(
        patch=vision.patch_size,
        merge=getattr(vision, family.merge),
        temporal=getattr(vision, "temporal_patch_size", 1),
        mean=tuple(pixels.get("image_mean", family.mean)),
        std=tuple(pixels.get("image_std", family.std)),
    )
    processor = Processor(tokenizer, config, layout, family.video_time, family.tokens)
    ids = {"image": processor.image_id, "video": processor.video_id}
    for (kind, index), token in zip(ids.items(), family.tokens[1:], strict=True):
        expected = getattr(model_config, f"{kind}_token_id")
        if index != expected:
            raise CheckpointError(
                f"{folder}: {token} is token {index} of the tokenizer, but config.json "
                f"says {expected}; they belong to different models"
            )
    return processor


def base_of(folder: Path, name: str) -> tuple[Path, str]:
    """Folder and lasting name of the full weights: of `folder`, or of the base of its adapter."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file() and not (folder / "config.json").is_file():
        name = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path") or ""
        if not name:
            raise CheckpointError(
                f"{adapter}: names no base_model_name_or_path; load the base, then load_lora() it"
            )
        name = str((folder / name).resolve()) if (folder / name).is_dir() else name
        if not Path(name).expanduser().is_dir():
            warnings.warn(
                f"{adapter}: its base {name} is no folder here, so it is fetched from the hub "
                "unless its cache has it; to load another copy, write that folder's path into "
                "base_model_name_or_path",
                stacklevel=3,
            )
        folder = locate(name)
    local = Path(name).expanduser().is_dir() or is_shipped(folder)
    return folder, str(folder.resolve()) if local else name


def adapters_of(folder: Path, name: str) -> tuple[Path, str, list[Path]]:
    """Folder and lasting name of the full weights below a folder, and the adapters on them.

    Adapters are in the order in which they go on the weights; an adapter's base may be another one.
    """
    adapters: list[Path] = []
    folder = folder.resolve() if (folder / "adapter_config.json").is_file() else folder
    while True:
        base, name = base_of(folder, name)
        if base == folder:
            return base, name, adapters
        if base in adapters:
            raise CheckpointError(f"{folder}: its base_model_name_or_path leads back to itself")
        adapters.insert(0, folder)
        folder = base


def save_backbone(backbone: torch.nn.Module, folder: Path) -> None:
    """Write weights and configuration as transformers does, without its progress bar."""
    if getattr(backbone, "is_quantized", False):
        raise ValueError("weights of four bits are not saved: load without quantize")
    with hidden_progress():
        backbone.save_pretrained(folder)


def save_processor(processor: Processor, folder: Path) -> None:
    """Write tokenizer, pixel layout and EmbedConfig for `load_processor`."""
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


@contextmanager
def publish(folder: str | Path) -> Iterator[Path]:
    """Give a scratch folder whose files replace those in `folder` when the context ends well.

    Removes weights of an earlier save. Moves configuration files last, so that a folder that has
    them is complete.
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

    raw = read_object(folder / "config.json")
    _drop_foreign_attention(raw, folder)
    vision = raw.get("vision_config", {})
    # Early Qwen2-VL files use other names for two sizes, which transformers 5 ignores.
    for old, new in (("in_chans", "in_channels"), ("spatial_patch_size", "patch_size")):
        if old in vision:
            vision.setdefault(new, vision.pop(old))
    model_type = raw.get("model_type", "").removeprefix("unite_")
    raw["model_type"] = model_type
    family = family_of(raw, folder)
    raw |= dict.fromkeys(family.left_out)
    return getattr(transformers, family.config).from_dict(raw)


def _drop_foreign_attention(raw: dict, folder: Path) -> None:
    """Remove attention kernels that transformers would fetch from the hub and run."""
    for part in (raw, *(value for value in raw.values() if isinstance(value, dict))):
        for name in _ATTENTION:
            if part.get(name) is not None and part[name] not in _OWN_ATTENTION:
                warnings.warn(
                    f"{folder / 'config.json'}: asks for the attention {part[name]!r}, which "
                    "is not used: pass attention=... to load it where you trust it",
                    stacklevel=2,
                )
                del part[name]
