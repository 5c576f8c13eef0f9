"""Checkpoints: the trained weights alone, and a manifest by which to know a complete folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..distributed import processes
from ..files import file_hash, read_json, write_json
from .spread import part_like, whole

__all__ = [
    "check_manifest", "copy_weights", "load_weights", "save_weights", "trained_weights",
    "whole_weights", "write_manifest",
]  # fmt: skip


_MANIFEST = "manifest.json"
_WEIGHTS = "trained.safetensors"


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights that are trained, by name, without a graph; they share memory with the model."""
    return {
        name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad
    }


def whole_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """As `trained_weights`; those that are spread over processes are put together, see `spread`."""
    return {name: whole(weight) for name, weight in trained_weights(model).items()}


def copy_weights(weights: Mapping[str, torch.Tensor], model: torch.nn.Module) -> None:
    """Overwrite the model's trained weights by those of the same names."""
    for name, value in trained_weights(model).items():
        value.copy_(part_like(value, weights[name]))


def save_weights(model: torch.nn.Module, folder: str | Path) -> None:
    """Write the trained weights into a folder, which is made if missing; the first process does."""
    weights = whole_weights(model)
    if processes()[0] == 0:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file(weights, Path(folder, _WEIGHTS))


def load_weights(folder: str | Path, model: torch.nn.Module) -> None:
    """Read what `save_weights` wrote; ValueError where the model trains other weights."""
    weights = load_file(Path(folder, _WEIGHTS))
    if weights.keys() != trained_weights(model).keys():
        raise ValueError(
            f"{folder}: its weights are not those that this stage trains; "
            "remove the checkpoint or choose another output folder"
        )
    copy_weights(weights, model)


def write_manifest(folder: str | Path) -> None:
    """Write down size and SHA-256 of every file in the folder, for `check_manifest`."""
    files = {path: _digest(Path(folder, path)) for path in _files(Path(folder))}
    write_json(Path(folder, _MANIFEST), files, indent=2)


def check_manifest(folder: str | Path) -> None:
    """ValueError naming the file if one is missing, cut or changed since `write_manifest`.

    Files that were added are ignored.
    """
    folder = Path(folder)
    remedy = "remove that folder, then training goes on from the one before it"
    if not (folder / _MANIFEST).is_file():
        raise ValueError(f"{folder}: no {_MANIFEST}, so it may be incomplete; {remedy}")
    noted = read_json(folder / _MANIFEST)
    for path in sorted(noted):
        if not (folder / path).is_file():
            raise ValueError(f"{folder / path} is missing; {remedy}")
        size = (folder / path).stat().st_size
        if size != noted[path]["bytes"]:
            raise ValueError(
                f"{folder / path} has {size} bytes instead of {noted[path]['bytes']}; {remedy}"
            )
        if _digest(folder / path) != noted[path]:
            raise ValueError(f"{folder / path} has other contents than were written; {remedy}")


def _files(folder: Path) -> list[str]:
    """Paths of the files in the folder, relative to it, without the manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.relative_to(folder).as_posix() for path in paths if path.name != _MANIFEST]


def _digest(path: Path) -> dict[str, int | str]:
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)}
