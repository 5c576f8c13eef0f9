"""Export a model to a folder for sentence-transformers, checked to give the same vectors.

    SentenceTransformer(folder, trust_remote_code=True).encode([...])

The folder holds the weights as transformers writes them, and the files of this package that turn
items into tokens (`st_module.py` and what it imports), which `trust_remote_code` runs: the module
of sentence-transformers cannot do it, see `st_module`. The text side alone (`text_only`) needs no
such code.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files import replacing_folder, working_in, write_json
from ..model.embedder import UniteEmbedder
from ..model.router import router_file
from .text_only import write_text_files

__all__ = ["Difference", "ExportError", "check_export", "export_model", "probes"]


_MODULE = Path(__file__).with_name("st_module.py")
_OUR_IMPORT = re.compile(r"\bfrom (\.+)([a-z_][\w.]*) import\b")
_DTYPES = ("float32", "bfloat16", "float16")
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 4e-3}  # per coordinate of a vector
_CARD = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, multimodal, unite]
---
Embeds text, images, videos and their mixtures into one space of {dim} dimensions (unit vectors).

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("PATH OF THIS FOLDER", trust_remote_code=True)
vectors = model.encode([
    "a red circle",
    {{"image": "circle.png"}},
    {{"video": "circle.mp4"}},
    {{"image": "circle.png", "text": "the same in blue"}},
])
```

`trust_remote_code=True` runs the Python files beside this one: they give tokens {positions}
positions and resize media as in training, which sentence-transformers' own module cannot.
An instruction goes before the text: `model.encode(..., prompt="Find a picture: ")`.
Needs transformers 5, sentence-transformers 6, pydantic 2, Pillow, and PyAV for video files.
"""

_TEXT_CARD = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, unite]
---
The text side of a multimodal embedder: unit vectors of {dim} dimensions, in the space of its images
and videos. Runs no code but sentence-transformers' and transformers' own.

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("PATH OF THIS FOLDER").encode(["a red circle"])
```
"""


class ExportError(ValueError):
    """An export whose vectors differ from its model's; the message names the items."""


class Difference(NamedTuple):
    """How far the two vectors of an item are apart."""

    item: str
    largest: float  # absolute difference of a coordinate
    cosine: float


def probes() -> dict[str, Any]:
    """Items by name that cover each modality, mixture, kind of resize and truncation."""
    from PIL import Image

    draw = np.random.default_rng(0)

    def picture(height: int, width: int) -> Image.Image:
        blocks = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        return Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR)

    clip = np.stack([np.asarray(picture(90, 120)) for _ in range(5)])
    frames = [picture(64, 64) for _ in range(4)]
    small, large, wide = picture(30, 40), picture(700, 1000), picture(60, 400)
    return {
        "text": {"text": "a red circle left of a blue square"},
        "other scripts": {"text": "Ein rötlicher Kreis, 赤い丸, أحمر 🙂"},
        "text beyond max_length": {"text": "seven green stars in a row, " * 900},
        "small image": {"image": small},
        "large image": {"image": large},
        "wide image": {"image": wide},
        "frames": {"video": frames},
        "array of frames": {"video": clip},
        "image then text": {"image": small, "text": "the same in blue"},
        "text then image": {"text": "the same in blue", "image": small},
        "text around an image": {"text": "like <|IMAGE|> but larger", "image": wide},
        "two images": {"image": [small, wide]},
        "video and text": {"video": frames, "text": "played backwards"},
        "image and video": {"image": small, "video": frames},
    }


def export_model(model: str | Path, folder: str | Path, dtype: str = "float32",
                 items: Mapping[str, Any] | None = None,
                 text_only: bool = False) -> list[Difference]:  # fmt: skip
    """Export a model to sentence-transformers and check that it gives the same vectors.

    Args
        model      what `UniteEmbedder.load` takes: a folder, an adapter (merged here), a hub id
        folder     a new folder; it appears only after the check has passed
        dtype      of the written weights: float32, bfloat16 or float16
        items      items to check, by name; default: `probes()`
        text_only  export the text side alone, which needs no `trust_remote_code`
    Returns
        differences of the check, computed in `dtype` on this machine.
    Raises ExportError if a vector differs, FileExistsError if `folder` exists, InUseError if
    another process exports to it.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists: remove it, or export to another folder")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}; not {dtype!r}")
    with working_in(folder), replacing_folder(folder) as partial:
        write_export(model, partial, dtype, text_only)
        return check_export(model, partial, dtype, items)


def write_export(model: str | Path, folder: Path, dtype: str, text_only: bool) -> None:
    """Write the files of an export, without the check."""
    import sentence_transformers
    import torch
    import transformers

    embedder = _merged(model, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = (
        write_text_files(embedder, folder) if text_only else _write_whole(embedder, model, folder)
    )
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules, indent=2)
    made_with = {
        "sentence_transformers": sentence_transformers.__version__,
        "transformers": transformers.__version__,
        "pytorch": torch.__version__,
    }
    settings = {"__version__": made_with, "model_type": "SentenceTransformer"}
    settings |= {"similarity_fn_name": "cosine", "prompts": {}, "default_prompt_name": None}
    write_json(folder / "config_sentence_transformers.json", settings, indent=2)
    card = _TEXT_CARD if text_only else _CARD
    text = card.format(dim=embedder.dim, positions=embedder.config.positions)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _write_whole(embedder: UniteEmbedder, model: str | Path, folder: Path) -> dict[str, str]:
    """Write checkpoint and code; returns {path in the folder: class} of the modules."""
    embedder.save(folder)
    if router := router_file(model):
        shutil.copyfile(router, folder / router.name)  # of the same vectors; ours alone reads it
    for name, text in flat_code(_MODULE).items():
        (folder / name).write_text(text, encoding="utf-8")
    write_json(folder / "1_Normalize" / "config.json", {}, indent=2)
    return {
        "": f"{_MODULE.stem}.UniteTransformer",
        "1_Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    }


def flat_code(module: Path) -> dict[str, str]:
    """Collect a module of this package and all that it imports as files of one folder.

    Returns {file name: source}, with imports such as `from ..data.items import` changed to
    `from .items import`. ValueError if two modules have the same file name.
    """
    files: dict[str, Path] = {}
    waiting = [module.resolve()]
    while waiting:
        path = waiting.pop()
        if files.setdefault(path.name, path) != path:
            raise ValueError(f"{path} and {files[path.name]} cannot lie in one folder: rename one")
        for dots, name in _OUR_IMPORT.findall(path.read_text(encoding="utf-8")):
            found = path.parents[len(dots) - 1].joinpath(*name.split(".")).with_suffix(".py")
            if files.get(found.name) != found:
                waiting.append(found)
    return {
        name: _OUR_IMPORT.sub(
            lambda m: f"from .{m[2].split('.')[-1]} import", path.read_text("utf-8")
        )
        for name, path in files.items()
    }


def check_export(model: str | Path, folder: str | Path, dtype: str = "float32",
                 items: Mapping[str, Any] | None = None) -> list[Difference]:  # fmt: skip
    """Compare a model's vectors with those of its export.

    Args
        model, items  see `export_model`
        folder        the export; code in it is run
        dtype         in which both compute
    Returns
        a Difference per item. Raises ExportError if one exceeds the tolerance: 1e-4 per coordinate
        in float32, 4e-3 in float16, 2e-2 in bfloat16.
    """
    if not (Path(folder) / "modules.json").is_file():
        raise ExportError(f"{folder}: is no export (no modules.json): export the model to it first")
    whole = (Path(folder) / _MODULE.name).is_file()
    items = probes() if items is None else dict(items)
    if not whole:
        items = {name: item for name, item in items.items() if set(item) == {"text"}}
    expected = _ours(model, list(items.values()), dtype)
    inputs = [item if whole else item["text"] for item in items.values()]
    found = _theirs(folder, inputs, dtype, trust=whole)
    if found.shape != expected.shape:
        raise ExportError(f"{folder}: gives vectors {found.shape}, its model {expected.shape}")
    gaps = np.abs(found - expected).max(axis=1)
    cosines = (found * expected).sum(axis=1)
    differences = [Difference(*row) for row in zip(items, gaps, cosines, strict=True)]
    bad = [d for d in differences if not d.largest <= _TOLERANCE[dtype]]  # NaN is bad
    if bad:
        named = ", ".join(f"{d.item} ({d.largest:.1e}, cosine {d.cosine:.5f})" for d in bad)
        raise ExportError(
            f"{folder}: {len(bad)} of {len(items)} vectors differ from the model's by more than "
            f"{_TOLERANCE[dtype]:g}: {named}. Was it exported from this model, and do the versions "
            "in its config_sentence_transformers.json agree with the installed ones?"
        )
    return differences


def _merged(model: str | Path, dtype: str) -> UniteEmbedder:
    """Load a model, merge its LoRA in float32, and round to `dtype`."""
    import torch

    embedder = UniteEmbedder.load(model, device="cpu", dtype=torch.float32)
    if embedder.has_lora:
        embedder.merge_lora()
    return embedder.to(getattr(torch, dtype))


def _ours(model: str | Path, items: list, dtype: str) -> np.ndarray:
    with warnings.catch_warnings():  # texts are cut and media placed on purpose
        warnings.filterwarnings("ignore", ".*(max_length|media are put before)", UserWarning)
        return _merged(model, dtype).embed(items, batch_size=4, progress=False)


def _theirs(folder: str | Path, items: list, dtype: str, trust: bool) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*max_length", UserWarning)
        model = SentenceTransformer(
            str(folder), device="cpu", trust_remote_code=trust, local_files_only=True,
            model_kwargs={"dtype": dtype},
        )  # fmt: skip
        return model.encode(items, batch_size=4, show_progress_bar=False)
