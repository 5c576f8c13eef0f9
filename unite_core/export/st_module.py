"""The module that an exported folder gives sentence-transformers for input and forward.

`export.sentence_transformers` copies this file and all that it imports into the folder, so that
unite_core need not be installed there. sentence-transformers' Transformer will not do: transformers
computes M-RoPE positions for every grid with no switch for sequential ones, its processor needs
torchvision, and it resizes differently from UNITE's training.
"""

# Shapes: B items of a batch, T tokens, D embedding size.

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modality import infer_modality
from sentence_transformers.base.modules.input_module import InputModule
from sentence_transformers.util import load_dir_path
from torch.nn.utils.rnn import pad_sequence

from ..data.items import IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, ItemError, as_item, media_first
from ..data.modality import KEYS
from ..model.backbones import TEMPLATES, Backbone, backbone_of
from ..model.checkpoint import load_processor, save_processor
from ..model.config import EmbedConfig
from ..model.decoder import token_states
from ..model.family import Template
from ..model.pooling import pool
from ..model.positions import token_positions
from ..model.processor import Encoded, Processor
from ..settings import read_config

__all__ = ["UniteTransformer"]


_PLACEHOLDERS = IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER
_VIDEO_STEPS = "video_steps"  # [B, videos] seconds between temporal patches, padded with NaN


class UniteTransformer(InputModule):
    """Gives `token_embeddings` and their pooling of texts, images, videos and mixtures.

    Args
        model      a transformers model of `backbones`
        processor  the Processor of the same checkpoint
    Takes inputs of `SentenceTransformer.encode`: strings, paths, PIL images, uint8 arrays, or dicts
    of text, image and video in the order in which the prompt should name them; no chat messages.
    """

    config_file_name = "unite.json"
    save_in_root = True

    def __init__(self, model: torch.nn.Module, processor: Processor):
        super().__init__()
        self.model = model
        self.processor = processor

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", token: bool | str | None = None,
             cache_folder: str | None = None, revision: str | None = None,
             local_files_only: bool = False, model_kwargs: Mapping | None = None,
             **_: Any) -> UniteTransformer:  # fmt: skip
        """Load an exported folder, or a hub repository that holds one.

        `model_kwargs` go to transformers; the default `dtype` is float32 without a GPU.
        """
        from transformers import AutoModel

        folder = Path(
            load_dir_path(model_name_or_path, subfolder, token=token, cache_folder=cache_folder,
                          revision=revision, local_files_only=local_files_only)
        )  # fmt: skip
        given = {"dtype": "auto" if torch.cuda.is_available() else torch.float32}
        model = AutoModel.from_pretrained(folder, **given | dict(model_kwargs or {}))
        config = read_config(EmbedConfig, folder / cls.config_file_name)
        return cls(model, load_processor(folder, model.config, config))

    @property
    def modalities(self) -> list:
        """All mixtures; "message" stands for batches of several modalities, not for chats."""
        several = chain.from_iterable(combinations(sorted(KEYS), n) for n in (2, 3))
        return [*KEYS, *several, "message"]

    @property
    def tokenizer(self):
        return self.processor.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Most tokens of an item; its text is shortened to fit, its media never."""
        return self.processor.config.max_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        self.processor.config = replace(self.processor.config, max_length=tokens)

    @property
    def family(self) -> Backbone:
        return backbone_of(self.model) or Backbone

    def get_embedding_dimension(self) -> int:
        return getattr(self.model.config.text_config, self.family.width)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict:
        """Make a batch for `forward`.

        `prompt` is an instruction: it goes where the model has a place for it, else before an
        item's text, or is its text if it has none.
        """
        template = TEMPLATES[self.processor.config.prompt]
        anchor = Path.cwd().anchor  # media may lie anywhere, as in sentence-transformers
        items = [_as_item(entry, prompt, template) for entry in inputs]
        encoded = [
            self.processor.encode(item, anchor, f"input {i}") for i, item in enumerate(items)
        ]
        return self.collate(encoded)

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Make a batch of encoded items that cached losses can split between items.

        Holds counts of media per item, and one row per item of everything else.
        """
        counts = {
            f"num_{kind}_per_sample": torch.tensor([len(getattr(item, kind)) for item in encoded])
            for kind in ("images", "videos")
        }
        batch = self.processor.collate(encoded) | counts
        if batch.pop("second_per_grid_ts", None) is not None:
            steps = [torch.tensor(item.video_step) for item in encoded]
            batch[_VIDEO_STEPS] = pad_sequence(steps, batch_first=True, padding_value=torch.nan)
        return batch

    def forward(self, features: dict[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        """Add `token_embeddings` [B, T, D] and `sentence_embedding` [B, D] float32."""
        ids, mask = features["input_ids"], features["attention_mask"]
        grids = {name: features.get(name) for name in ("image_grid_thw", "video_grid_thw")}
        kind = self.processor.config.positions
        steps = features.get(_VIDEO_STEPS)
        steps = None if steps is None else steps[~steps.isnan()]
        positions = token_positions(self.model, kind, ids, mask, steps, **grids)
        media = {name: features[name] for name in _MEDIA if name in features}
        states = token_states(self.model, ids, media, attention_mask=mask, position_ids=positions)
        features["token_embeddings"] = states
        features["sentence_embedding"] = pool(states, mask, self.family.pooling)
        return features

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        if not safe_serialization:
            raise ValueError("only safetensors are written: leave safe_serialization on")
        self.model.save_pretrained(output_path)
        save_processor(self.processor, Path(output_path))


_MEDIA = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")


def _as_item(given: Any, prompt: str | None, template: Template) -> dict:
    """An item with absolute paths, and with places for its media if the template has none."""
    if not isinstance(given, Mapping):
        given = {_modality(given): given}
    if set(given) == {"array", "video_metadata"}:
        given = {"video": given["array"]}
    item = {key: _media(value) if key != "text" else value for key, value in given.items()}
    if prompt and "{instruction}" in template.turn:
        item["instruction"] = prompt
    elif prompt and "text" in item:
        item["text"] = prompt + item["text"]
    elif prompt:
        item = {"text": prompt, **item}
    item = as_item(item)
    placed = any(mark in item.get("text", "") for mark in _PLACEHOLDERS)
    if "text" in item and not (placed or template.media or template.by_keys):
        item["text"] = media_first(item)
    return item


def _modality(given: Any) -> str:
    kind = infer_modality(given)
    if kind not in KEYS:
        raise ItemError(
            f"{kind} input is not supported: give text, pictures, frames, or a dict of "
            f"{', '.join(KEYS)}"
        )
    return kind


def _media(value: Any) -> Any:
    """Make paths absolute; turn tensors into arrays and video dicts into their frames."""
    if isinstance(value, list | tuple):
        return [_media(entry) for entry in value]
    if isinstance(value, Mapping):
        return _media(value["array"])
    if isinstance(value, torch.Tensor):
        return value.numpy()
    remote = isinstance(value, str) and ("://" in value or value.startswith("data:"))
    if isinstance(value, str | os.PathLike) and not remote:
        return os.path.abspath(value)
    return value
