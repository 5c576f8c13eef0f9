"""Which embedder a checkpoint is, from its own files first and its names second.

`unite.json`, which this package writes, says everything. Without it config.json is asked (model
type, classes, the name that it was saved from), then the hub id or path: every component of it, for
a snapshot in the hub's cache is `models--OWNER--NAME/snapshots/HASH`. An adapter is what its base
is. Folders are named by people, so files win where the two disagree, and a name counts only for a
model of its family.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from ..settings import read_config
from .backbones import BACKBONES, TEMPLATES
from .config import EmbedConfig
from .family import Backbone, Recipe
from .loading import LoadConfig
from .weights import CheckpointError, described_by, read_object

__all__ = ["default_config", "family_of", "identify", "pixel_settings", "require_known"]


_STOCK_TOKENS = 16384  # Qwen's default upper limit of an image, far beyond what retrieval uses
_ASSUMED = ("prompt", "positions")  # what nothing but a recipe can tell


def default_config(folder: Path, base: Path, name: str,
                   given: Collection[str] = ()) -> EmbedConfig:  # fmt: skip
    """Read the configuration that was saved with the weights (`unite.json`), or find it out.

    Args
        folder, base  of the checkpoint and of its full weights; they differ for an adapter
        name          the folder or hub id as the caller wrote it
        given         fields that the caller sets, so that they need not be assumed
    A known embedder gets its recipe, a plain checkpoint M-RoPE and UNITE's prompt, anything else
    the same with a warning that names what was assumed. Image limits are the recipe's or the
    checkpoint's, but where these are Qwen's stock limits of up to 16384 tokens, UNITE's 256 to 1280
    tokens.
    """
    for place in (folder, base):
        if (place / "unite.json").is_file():
            return read_config(EmbedConfig, place / "unite.json")
    raw = read_object(base / "config.json")
    family = family_of(raw, base)
    recipe = identify(family, raw, folder, base, name)
    prompt = {"prompt": recipe.name, **recipe.config} if recipe else {"positions": "mrope"}
    config = EmbedConfig(**prompt)
    if recipe is None or "image_min_pixels" not in recipe.config:
        config = _with_limits_of(base, config)
    assumed = [field for field in _ASSUMED if field not in given]
    if recipe is None and assumed and not _is_plain(family, folder, base, name):
        shown = ", ".join(f"{field} {getattr(config, field)}" for field in assumed)
        known = ", ".join(found.title for found in family.recipes) or "none"
        warnings.warn(
            f"{name}: a {raw['model_type']} checkpoint of no known embedder ({known}) and without "
            f"unite.json: assumed {shown}. Set them in load() if it was trained otherwise.",
            stacklevel=3,
        )
    return config


def family_of(raw: Mapping, folder: Path) -> Backbone:
    """The family that config.json names; a CheckpointError lists the known ones."""
    model_type = str(raw.get("model_type", "")).removeprefix("unite_")
    if model_type not in BACKBONES:
        raise CheckpointError(
            f"{folder / 'config.json'}: model type {model_type!r} is unknown; known are "
            f"{', '.join(BACKBONES)}"
        )
    return BACKBONES[model_type]


def require_known(family: Backbone, config: EmbedConfig,
                  how: LoadConfig | None = None) -> EmbedConfig:  # fmt: skip
    """The configuration, unless it or how the model is loaded is not possible for the family.

    A ValueError names the field, its value and the possible one.
    """
    for name, value in family.fixed.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"{name} {getattr(config, name)} is not known for {family.model}: take {value}"
            )
    if family.tokens[1] not in TEMPLATES[config.prompt].image:
        known = ", ".join(recipe.name for recipe in family.recipes)
        raise ValueError(
            f"prompt {config.prompt} has no {family.tokens[1]}, {family.model}'s token of an "
            f"image: take {known or 'a prompt of its family'}"
        )
    if how is not None and how.dtype == "float16" and not family.float16:
        raise ValueError(f"dtype float16 does not hold {family.model}'s states: take bfloat16")
    return config


def identify(family: Backbone, raw: Mapping, folder: Path, base: Path,
             name: str) -> Recipe | None:  # fmt: skip
    """The embedder of a family that a checkpoint is, or None; arguments as `default_config`.

    A name that says otherwise than config.json is overruled with a warning.
    """
    by_files = _first_known(family, _words_of(raw))
    by_name = _first_known(family, _names_of(folder, base, name))
    if by_files and by_name and by_files is not by_name:
        warnings.warn(
            f"{name}: is named like {by_name.title}, but config.json says {by_files.title}, which "
            "is used; set the fields of EmbedConfig if the name is right",
            stacklevel=4,
        )
    return by_files or by_name


def pixel_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """What a folder says of pixels, and the file that does: limits, mean and std.

    preprocessor_config.json, or the image processor of processor_config.json, which is all that
    transformers 5 writes; {} where there is neither.
    """
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return path, read_object(path)
    path = folder / "processor_config.json"
    found = read_object(path).get("image_processor") if path.is_file() else None
    return path, found if isinstance(found, dict) else {}


def _with_limits_of(base: Path, config: EmbedConfig) -> EmbedConfig:
    path, pixels = pixel_settings(base)
    with described_by(path):
        size = pixels.get("size", {})
        low = pixels.get("min_pixels") or size.get("min_pixels") or size.get("shortest_edge")
        high = pixels.get("max_pixels") or size.get("max_pixels") or size.get("longest_edge")
        factor = pixels.get("patch_size", 14) * pixels.get("merge_size", 2)
        if not low or not high or high >= _STOCK_TOKENS * factor**2:
            return config
        return replace(config, image_min_pixels=low, image_max_pixels=high)


def _first_known(family: Backbone, words: Iterator[str]) -> Recipe | None:
    """The recipe that the first word belongs to which belongs to one."""
    found = (
        recipe for word in words for recipe in family.recipes if re.fullmatch(recipe.known_as, word)
    )
    return next(found, None)


def _words_of(raw: Mapping) -> Iterator[str]:
    """Names in config.json, in lower case: model type, classes, what it was saved from."""
    classes = raw.get("auto_map")
    classes = list(classes.values()) if isinstance(classes, dict) else []
    for value in (raw.get("model_type"), *(raw.get("architectures") or ()), *classes):
        if isinstance(value, str):
            yield value.split("--")[-1].split(".")[-1].lower()
    if isinstance(raw.get("_name_or_path"), str):
        yield from _components(raw["_name_or_path"])


def _names_of(folder: Path, base: Path, name: str) -> Iterator[str]:
    """Components of the paths and ids that a checkpoint goes by; of its base first."""
    adapter = folder / "adapter_config.json"
    if folder != base:
        yield from _components(str(read_object(adapter).get("base_model_name_or_path") or ""))
        yield from _components(str(base.resolve()))
    yield from _components(name)
    yield from _components(str(folder.resolve()))


def _components(path: str) -> Iterator[str]:
    """Names of a path or hub id in lower case, the last first; those of a hub's cache apart."""
    for part in reversed(PurePath(path.replace("\\", "/")).parts):
        yield from reversed(part.lower().split("--"))


def _is_plain(family: Backbone, folder: Path, base: Path, name: str) -> bool:
    """Whether the names say that these are the family's own weights, trained no further."""
    names = _names_of(folder, base, name)
    return folder == base and any(re.fullmatch(family.known_as, word) for word in names)
