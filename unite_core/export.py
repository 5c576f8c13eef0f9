"""A trained model as a folder that sentence-transformers loads, checked to give the same vectors.

    SentenceTransformer(folder, trust_remote_code=True).encode([...])

The folder holds the weights as transformers writes them and the few files of this package that
turn items into tokens (`st_module.py` and what it imports). `trust_remote_code` is needed since
sentence-transformers' own module cannot do it, see `st_module`; read the files before trusting.
"""

from __future__ import annotations

import argparse
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .embedder import UniteEmbedder
from .jsonfile import write_json

__all__ = ["Difference", "ExportError", "check_export", "export_model", "probes"]

_MODULE = Path(__file__).with_name("st_module.py")
_DTYPES = ("float32", "bfloat16", "float16")
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 4e-3}  # largest difference of a value
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
Needs transformers 5, sentence-transformers 6, Pillow, and PyAV for video files.
"""


class ExportError(ValueError):
    """An export that does not give the vectors of its model; the message names the items."""


class Difference(NamedTuple):
    """How far an item's two vectors are apart."""

    item: str
    largest: float  # |difference| of a coordinate
    cosine: float


def probes() -> dict[str, Any]:
    """Items by name that meet each modality, mixture, resize and truncation once."""
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
                 items: Mapping[str, Any] | None = None) -> list[Difference]:  # fmt: skip
    """Write a model for sentence-transformers, and make sure that it gives the model's vectors.

    Args
        model   what `UniteEmbedder.load` takes: a folder, an adapter (merged here), a hub id
        folder  new; it appears only when the check has passed
        dtype   of the written weights: float32, bfloat16 or float16
        items   what the check embeds both ways, by name; default: `probes()`
    Returns
        the check's differences, of `dtype` against `dtype` on this machine.
    Raises ExportError where a vector differs, FileExistsError where `folder` exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists: remove it, or export to another folder")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}; not {dtype!r}")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write_export(model, partial, dtype)
        differences = check_export(model, partial, dtype, items)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return differences


def write_export(model: str | Path, folder: Path, dtype: str) -> None:
    """The files of an export, unchecked."""
    import sentence_transformers
    import torch
    import transformers
    from transformers.dynamic_module_utils import get_relative_import_files

    embedder = _merged(model, dtype)
    embedder.save(folder)
    for file in {str(_MODULE), *get_relative_import_files(str(_MODULE))}:
        shutil.copyfile(file, folder / Path(file).name)
    kinds = {
        "": f"{_MODULE.stem}.UniteTransformer",
        "1_Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    }
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": kind}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules, indent=2)
    unit = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    write_json(folder / "1_Normalize" / "config.json", unit, indent=2)
    made_with = {
        "sentence_transformers": sentence_transformers.__version__,
        "transformers": transformers.__version__,
        "pytorch": torch.__version__,
    }
    settings = {"__version__": made_with, "model_type": "SentenceTransformer"}
    settings |= {"similarity_fn_name": "cosine", "prompts": {}, "default_prompt_name": None}
    write_json(folder / "config_sentence_transformers.json", settings, indent=2)
    card = _CARD.format(dim=embedder.dim, positions=embedder.config.positions)
    (folder / "README.md").write_text(card, encoding="utf-8")


def check_export(model: str | Path, folder: str | Path, dtype: str = "float32",
                 items: Mapping[str, Any] | None = None) -> list[Difference]:  # fmt: skip
    """Embed items with the model and with sentence-transformers from `folder`; compare.

    Args
        model, items  see `export_model`
        folder        an export of it; its code is run
        dtype         that both compute in
    Returns
        a Difference for each item. Raises ExportError if any exceeds the tolerance of `dtype`:
        1e-4 of a coordinate in float32, on any one machine; less precise types round more.
    """
    items = probes() if items is None else dict(items)
    expected = _ours(model, list(items.values()), dtype)
    found = _theirs(folder, list(items.values()), dtype)
    if found.shape != expected.shape:
        raise ExportError(f"{folder}: gives vectors {found.shape}, its model {expected.shape}")
    gaps = np.abs(found - expected).max(axis=1)
    cosines = (found * expected).sum(axis=1)
    differences = [Difference(*each) for each in zip(items, gaps, cosines, strict=True)]
    bad = [each for each in differences if not each.largest <= _TOLERANCE[dtype]]  # NaN is bad
    if bad:
        named = ", ".join(f"{d.item} ({d.largest:.1e}, cosine {d.cosine:.5f})" for d in bad)
        raise ExportError(
            f"{folder}: {len(bad)} of {len(items)} vectors differ from the model's by more than "
            f"{_TOLERANCE[dtype]:g}: {named}. Was it exported from this model, and do the versions "
            "in its config_sentence_transformers.json agree with the installed ones?"
        )
    return differences


def _merged(model: str | Path, dtype: str) -> UniteEmbedder:
    """The model without a LoRA around it; merged in float32, then rounded to `dtype`."""
    import torch

    embedder = UniteEmbedder.load(model, device="cpu", dtype=torch.float32)
    if embedder.has_lora:
        embedder.merge_lora()
    return embedder.to(getattr(torch, dtype))


def _ours(model: str | Path, items: list, dtype: str) -> np.ndarray:
    with warnings.catch_warnings():  # texts are cut and media placed on purpose
        warnings.filterwarnings("ignore", ".*(max_length|media are put before)", UserWarning)
        return _merged(model, dtype).embed(items, batch_size=4, progress=False)


def _theirs(folder: str | Path, items: list, dtype: str) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*max_length", UserWarning)
        model = SentenceTransformer(
            str(folder), device="cpu", trust_remote_code=True, local_files_only=True,
            model_kwargs={"dtype": dtype},
        )  # fmt: skip
        return model.encode(items, batch_size=4, show_progress_bar=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="unite_core.export", description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a folder, an adapter's folder, or a hub id")
    parser.add_argument("out", type=Path, help="the new folder")
    parser.add_argument("--dtype", choices=_DTYPES, default="float32", help="of the weights")
    parser.add_argument("--check", action="store_true", help="only compare an export that exists")
    given = parser.parse_args()
    act = check_export if given.check else export_model
    for each in act(given.model, given.out, given.dtype):
        print(f"{each.item:24}  largest difference {each.largest:.1e}  cosine {each.cosine:.6f}")
    print(f"{given.out}: gives the vectors of {given.model}")


if __name__ == "__main__":
    main()
