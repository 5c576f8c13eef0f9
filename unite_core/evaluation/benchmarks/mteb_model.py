"""Adapter of a UniteEmbedder to mteb's encoder protocol: text, image, video and fused tasks.

    model = MtebEncoder(UniteEmbedder.load("friedrichor/Unite-Base-Qwen2-VL-2B"))
    mteb.evaluate(model, mteb.get_tasks(["CaReBenchT2VRetrieval"]), cache=None)

Media files are decoded by the embedder and not by torchcodec or mteb's collators, so frames and
pixels are those of the `EmbedConfig`, and batches are sized by its token budget.
"""

# Shapes: N rows of a data set, D embedding size.

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...data.items import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
from ...data.modality import KEYS, modality_of
from ...model.config import EmbedConfig
from ...model.prompts import build_prompt
from ...search.blocks import model_key

__all__ = ["EncodedSide", "MtebEncoder"]


_CHUNK = 256  # rows that are embedded at a time
_PLACEHOLDERS = {"image": IMAGE_PLACEHOLDER, "video": VIDEO_PLACEHOLDER}


@dataclass
class EncodedSide:
    """How one side of one task was embedded; `empty` rows have neither text nor media."""

    task: str
    split: str
    side: str  # "query", "document" or "" where the task has no sides
    instruction: str
    prompt: str = ""  # the full prompt of the first row
    modalities: list[str] = field(default_factory=list)
    items: int = 0
    empty: int = 0


class MtebEncoder:
    """A UniteEmbedder that implements mteb's EncoderProtocol.

    Args
        embedder  a UniteEmbedder; its `.config` decides prompt, frames and pixels
        name      "organisation/model"; default: the last two parts of the path it was loaded from
        instruct  put mteb's instruction for the task's side before each text, for models trained
                  with instructions; Base models are evaluated without
    `log` records what was embedded how. mteb's `batch_size` is ignored. The revision in
    `mteb_model_meta` is a hash of weights and configuration, so that mteb's cache never mixes two
    settings.
    """

    def __init__(self, embedder, name: str | None = None, instruct: bool = False):
        self.embedder = embedder
        self.name = name or _name_of(embedder)
        self.instruct = instruct
        self.log: list[EncodedSide] = []

    @cached_property
    def mteb_model_meta(self):
        """mteb's ModelMeta; its `experiment_kwargs` hold prompt, frames and pixels."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        embedder, config = self.embedder, self.embedder.config
        meta = {
            "name": self.name,
            "revision": model_key(embedder),
            "modalities": list(KEYS),
            "embed_dim": embedder.dim,
            "n_parameters": sum(weight.numel() for weight in embedder.parameters()),
            "max_tokens": config.max_length,
            "similarity_fn_name": ScoringFunction.COSINE,
            "framework": ["PyTorch", "safetensors", "Transformers"],
            "use_instructions": self.instruct,
            "experiment_kwargs": _settings_text(config) | {"instruct": self.instruct},
        }
        return ModelMeta.create_empty().model_copy(update=meta)

    def encode(self, inputs, *, task_metadata, hf_split: str, hf_subset: str, prompt_type=None,
               show_progress_bar: bool = True, **_) -> np.ndarray:  # fmt: skip
        """Embed the rows of a data loader, in order: [N, D] float32 unit vectors.

        A row without text and media becomes the zero vector, whose cosines are 0, and is counted.
        """
        from tqdm import tqdm

        side = prompt_type.value if prompt_type else ""
        instruction = _instruction(task_metadata, side) if self.instruct else ""
        entry = EncodedSide(task_metadata.name, hf_split, side, instruction)
        self.log.append(entry)
        vectors, total = [], len(getattr(inputs, "dataset", ())) or None
        with tqdm(total=total, disable=not show_progress_bar, unit="item", desc=side) as bar:
            for rows in _chunks(inputs):
                vectors.append(self._embed(rows, instruction, entry))
                bar.update(len(rows))
        return np.concatenate(vectors)

    def similarity(self, embeddings1, embeddings2):
        """[N, M] cosines as a torch tensor; vectors are unit, or zero for empty rows."""
        return _tensor(embeddings1) @ _tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1, embeddings2):
        """[N] cosines of corresponding rows."""
        return (_tensor(embeddings1) * _tensor(embeddings2)).sum(-1)

    def _embed(self, rows: Sequence[Mapping], instruction: str, entry: EncodedSide) -> np.ndarray:
        vectors = np.zeros((len(rows), self.embedder.dim), np.float32)
        with tempfile.TemporaryDirectory() as folder:
            items = [_item(row, instruction, Path(folder, str(n))) for n, row in enumerate(rows)]
            present = [number for number, item in enumerate(items) if item]
            if present:
                # the data set's files may be anywhere, so their paths are absolute
                found = [items[number] for number in present]
                vectors[present] = self.embedder.embed(found, media_root="/", progress=False)
                _note(entry, found, self.embedder.config.prompt)
        entry.items += len(rows)
        entry.empty += len(rows) - len(present)
        return vectors


def _chunks(inputs) -> Iterator[list[dict]]:
    """Rows of the loader's data set in chunks, or the loader's batches if it has no data set."""
    dataset = getattr(inputs, "dataset", None)
    if not hasattr(dataset, "select_columns"):
        yield from (_rows(batch) for batch in inputs)
        return
    names = [name for name in KEYS if name in dataset.features]
    if not names:
        raise ValueError(
            f"rows have {', '.join(dataset.features)}, but none of {', '.join(KEYS)}: this task "
            "needs another kind of model"
        )
    dataset = _undecoded(dataset.select_columns(names))
    for start in range(0, len(dataset), _CHUNK):
        yield _rows(dataset[start : start + _CHUNK])


def _undecoded(dataset):
    """Give videos and images as files, which other processes can decode ahead of the model."""
    from datasets import Image, Video

    for name, kind in (("video", Video), ("image", Image)):
        feature = dataset.features.get(name)
        if isinstance(feature, kind) and not getattr(feature, "mode", None):
            dataset = dataset.cast_column(name, kind(decode=False))
    return dataset


def _rows(batch: Mapping[str, Sequence]) -> list[dict]:
    columns = {name: batch[name] for name in KEYS if name in batch}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _item(row: Mapping, instruction: str, path: Path) -> dict:
    """Item of a row, {} if empty: media first, then the text; with the instruction."""
    media = {name: row[name] for name in _PLACEHOLDERS if row.get(name) is not None}
    text = (row.get("text") or "").strip()
    if not media and not text:
        return {}
    lines = [_PLACEHOLDERS[name] for name, value in media.items() for _ in range(_count(value))]
    for name, value in media.items():
        if name == "video" or isinstance(value, Mapping):
            media[name] = _file(value, path.with_name(f"{path.name}-{name}"))
    item = ({"text": "\n".join([*lines, text])} if text else {}) | media
    return item | ({"instruction": instruction.strip()} if instruction.strip() else {})


def _count(medium: Any) -> int:
    return len(medium) if isinstance(medium, list) else 1


def _file(medium: Any, path: Path) -> str:
    """Absolute path of a video or image: the data set's file, or its bytes written to `path`."""
    if not isinstance(medium, Mapping) or not (medium.get("path") or medium.get("bytes")):
        raise TypeError(
            f"a video came as {type(medium).__name__}, not as a file: give mteb a data set whose "
            "video column has the feature datasets.Video"
        )
    source = medium.get("path")
    if medium.get("bytes") is None:
        return str(Path(source).resolve())
    path = path.with_suffix(Path(source or "").suffix).resolve()
    path.write_bytes(medium["bytes"])
    return str(path)


def _note(entry: EncodedSide, items: Sequence[Mapping], template: str) -> None:
    if not entry.prompt:
        entry.prompt = build_prompt(items[0], template)
    labels = {modality_of(item).label for item in items}
    entry.modalities = sorted({*entry.modalities, *labels})


def _instruction(task_metadata, side: str) -> str:
    """mteb's instruction for a side of a task; a single string is for queries."""
    prompt = task_metadata.prompt or {}
    prompt = prompt if isinstance(prompt, Mapping) else {"query": prompt}
    return prompt.get(side, "")


def _settings_text(config: EmbedConfig) -> dict[str, str]:
    """Settings that a vector depends on besides the weights, short enough for a folder's name."""
    return {
        "prompt": config.prompt,
        "positions": config.positions,
        "frames": f"{config.min_frames}-{config.max_frames} at {config.fps:g}",
        "image_pixels": f"{config.image_min_pixels}-{config.image_max_pixels}",
        "video_pixels": f"{config.video_min_pixels}-{config.video_max_pixels} "
        f"{config.video_pixels}",
        "tokens": str(config.max_length),
    }


def _name_of(embedder) -> str:
    parts = [part for part in str(embedder.base.name_or_path).split("/") if part]
    return "/".join((["local", *parts] if len(parts) < 2 else parts)[-2:])


def _tensor(vectors):
    import torch

    return torch.as_tensor(vectors).float()
