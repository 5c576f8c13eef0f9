"""The embedders that come with the package, by name.

`tiny` is the backbone, whose weights are whole. The stages are adapters of the one before, stored
in half precision: `UniteEmbedder.load` adds them up.
"""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["SHIPPED", "is_shipped", "shipped_folder", "write_shipped_stage"]


_FOLDER = Path(__file__).parents[1] / "tiny"
SHIPPED = {"tiny": "weights", "tiny-stage1": "stage1", "tiny-stage2": "stage2"}
"""Folder of each below `unite_core/tiny`; a stage's adapter goes on the one before."""


def shipped_folder(name: str | Path) -> Path | None:
    """The folder of a shipped embedder; None for another name."""
    folder = SHIPPED.get(str(name))
    return None if folder is None else _FOLDER / folder


def is_shipped(folder: str | Path) -> bool:
    """Whether a folder is one of a shipped embedder."""
    return Path(folder).resolve() in [_FOLDER / place for place in SHIPPED.values()]


def write_shipped_stage(adapter: str | Path, name: str, folder: str | Path = _FOLDER) -> Path:
    """Write a trained stage's adapter as the shipped embedder of that name; returns its folder.

    Args
        adapter  the `adapter` folder of the stage's run, or of its run in a study
        name     tiny-stage1 or tiny-stage2
        folder   where shipped embedders lie
    Weights are rounded to float16.
    """
    from safetensors.torch import load_file, save_file

    from .checkpoint import publish

    names = list(SHIPPED)
    before = SHIPPED[names[names.index(name) - 1]]
    adapter, target = Path(adapter), Path(folder, SHIPPED[name])
    weights = load_file(adapter / "adapter_model.safetensors")
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = f"../{before}"
    with publish(target) as partial:
        halves = {key: value.half().contiguous() for key, value in sorted(weights.items())}
        save_file(halves, partial / "adapter_model.safetensors")
        text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
        (partial / "adapter_config.json").write_text(text, encoding="utf-8")
        (partial / "unite.json").write_bytes((adapter / "unite.json").read_bytes())
    return target
