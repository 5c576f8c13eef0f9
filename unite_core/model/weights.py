"""Weight files: safetensors mapped into memory, renamed, and checked by name, shape and value.

Known key layouts of Qwen-VL, all brought to transformers' names below `Qwen2VLModel`:

    released UNITE, early Qwen2-VL   model.layers.*, model.embed_tokens.*, model.norm.*, visual.*
    transformers >= 4.52             model.language_model.*, model.visual.*
    base model                       language_model.*, visual.*
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from .mapped import drop_pages, map_pages
from .threads import side_by_side

__all__ = [
    "CheckpointError", "check_weights", "described_by", "read_object", "read_safetensors",
    "read_weights", "renamed",
]  # fmt: skip


_THREADS = 8  # that read weights; memory is no faster with more


class CheckpointError(ValueError):
    """A checkpoint that cannot be used as it is; the message names the file or the weights."""


def read_weights(folder: Path, unused: str) -> dict[str, torch.Tensor]:
    """Map a model's weights under transformers' names, without those that `unused` matches."""
    weights = {}
    for name, weight in read_safetensors(folder, "model").items():
        if re.fullmatch(unused, name):
            continue
        name = renamed(name)
        if name in weights:
            raise CheckpointError(f"{folder}: holds {name} twice, under two names")
        weights[name] = weight
    return weights


def read_safetensors(folder: Path, stem: str) -> dict[str, torch.Tensor]:
    """Map all tensors of STEM.safetensors, or of the shards in STEM.safetensors.index.json."""
    from safetensors.torch import load_file

    index = folder / f"{stem}.safetensors.index.json"
    files = [f"{stem}.safetensors"]
    placed = read_object(index)["weight_map"] if index.is_file() else {}
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
        raise CheckpointError(f"{index}: lists weights that no shard has: {_first(lost)}")
    return weights


def renamed(name: str) -> str:
    """A weight's name in any known layout -> its name in transformers' base model."""
    if name.startswith(("model.language_model.", "model.visual.")):
        return name.removeprefix("model.")
    if name.startswith("model."):
        return "language_" + name
    return name


def check_weights(
    weights: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Size],
    folder: Path,
    dtype: torch.dtype | None = None,
) -> dict[str, torch.Tensor]:
    """Return weights as `dtype`, or as they are, once all of them are fit for use.

    Args
        weights   of `read_safetensors`, by the names of `expected`, the model's shapes
        folder    how errors name the checkpoint
    Raises a CheckpointError that names weights missing, extra, misshapen, NaN or infinite. Weights
    that are not converted stay on their mapped file; the pages of others go one by one.
    """
    problems = []
    if missing := set(expected) - set(weights):
        problems.append(f"missing: {_first(missing)}")
    if extra := set(weights) - set(expected):
        problems.append(f"not of this model: {_first(extra)}")
    both = {name: weights[name] for name in weights if name in expected}
    if misshapen := [
        f"{n} {list(weight.shape)} instead of {list(expected[n])}"
        for n, weight in both.items() if weight.shape != expected[n]
    ]:  # fmt: skip
        problems.append(f"misshapen: {_first(misshapen)}")
    with side_by_side(min(_THREADS, torch.get_num_threads())) as run:
        calls = {name: run(_finite, weight, dtype) for name, weight in both.items()}
        usable = {name: call.result() for name, call in calls.items()}
    if broken := [name for name, weight in usable.items() if weight is None]:
        problems.append(f"with NaN or infinite values: {_first(broken)}")
    if problems:
        raise CheckpointError(
            f"{folder}: weights {'; '.join(problems)}. Check that config.json and the weight files "
            "belong together, or fetch the checkpoint again."
        )
    return usable


def _finite(weight: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor | None:
    """A weight as `dtype`; None if a value is NaN or infinite, which its extremes then are too."""
    map_pages(weight)
    if weight.numel() and not torch.stack(weight.aminmax()).isfinite().all():
        return None
    converted = weight.to(dtype or weight.dtype)
    if converted is not weight:
        drop_pages(weight)
    return converted


def read_object(path: Path) -> dict:
    """Read a JSON file of a checkpoint, which holds an object."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {path.parent} is no complete checkpoint")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is no JSON ({error}); fetch it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds no object {{...}}; fetch it again")
    return found


@contextmanager
def described_by(path: Path) -> Iterator[None]:
    """Name a checkpoint's file where what it says is wrong, whatever trips over it."""
    try:
        yield
    except (CheckpointError, ImportError):  # a package that is asked for and missing
        raise
    except Exception as error:  # from transformers' code: TypeError, ZeroDivisionError, ...
        words = " ".join(str(error).split())
        raise CheckpointError(
            f"{path}: its values fit no model ({type(error).__name__}: {words}); fetch it again"
        ) from error


def _first(names: Iterable[str], shown: int = 8) -> str:
    names = sorted(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
