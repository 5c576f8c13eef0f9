"""The embedders that come with the package, by name.

`tiny` is the backbone, whose weights are whole. The stages are adapters of the one before, stored
in half precision: `UniteEmbedder.load` adds them up.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

__all__ = ["SHIPPED", "check_model", "is_shipped", "shipped_folder", "write_shipped_stage"]


_FOLDER = Path(__file__).parents[1] / "tiny"
_IN_TREE = "unite_core/tiny/"
_HUB_ID = re.compile(r"[\w-]+(\.[\w-]+)*/[\w.-]+")
SHIPPED = {"tiny": "weights", "tiny-stage1": "stage1", "tiny-stage2": "stage2"}
"""Folder of each below `unite_core/tiny`; a stage's adapter goes on the one before."""


def shipped_folder(name: str | Path) -> Path | None:
    """The folder of a shipped embedder by name, or by its path in the tree; None for another."""
    name = str(name)
    folder = SHIPPED.get(name)
    if folder is None and name.startswith(_IN_TREE) and not Path(name).is_dir():
        folder = name.removeprefix(_IN_TREE).strip("/")
        folder = folder if folder in SHIPPED.values() else None
    return None if folder is None else _FOLDER / folder


def check_model(name: str | Path) -> None:
    """FileNotFoundError unless a name can be a model: shipped, a model's folder, or a hub id.

    Looks at names alone, so it is quick; nothing is fetched.
    """
    text, folder = str(name), Path(name).expanduser()
    if folder.is_dir():
        if any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
            return
        if (folder / "model").is_dir():
            raise FileNotFoundError(
                f"{text}: is a training run; give its model, {folder / 'model'}"
            )
        raise FileNotFoundError(
            f"{text}: is no model's folder (no config.json, no adapter_config.json); correct it"
        )
    if shipped_folder(text) is None and not _HUB_ID.fullmatch(text):
        near = difflib.get_close_matches(text, SHIPPED, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise FileNotFoundError(
            f"{text}: no such folder, and a hub id has the form owner/name{hint}; check the "
            f"spelling, or take one that comes with the package: {', '.join(SHIPPED)}"
        )


def is_shipped(folder: str | Path) -> bool:
    """Whether a folder is one of a shipped embedder."""
    return Path(folder).resolve() in [_FOLDER / place for place in SHIPPED.values()]


def write_shipped_stage(adapter: str | Path, name: str, folder: str | Path = _FOLDER,
                        router: str | Path | None = None) -> Path:  # fmt: skip
    """Write a trained stage's adapter as the shipped embedder of that name; returns its folder.

    Args
        adapter  the `adapter` folder of the stage's run, or of its run in a study
        name     tiny-stage1 or tiny-stage2
        folder   where shipped embedders lie
        router   folder of the router that was trained with it; None: it has none
    Weights of the adapter are rounded to float16.
    """
    from safetensors.torch import load_file, save_file

    from .checkpoint import publish
    from .router import ModalityRouter

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
        if router is not None:
            ModalityRouter.load(router).save(partial)
    return target
