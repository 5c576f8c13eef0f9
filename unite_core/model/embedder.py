"""UniteEmbedder: text, image, video and their mixtures to unit vectors of one space.

A backbone reads an item as one prompt; the last token's state, or the mean of all (which, the
family says), normalised, is its vector.
"""

# Shapes: N items, B items of a batch, T tokens, D embedding size.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from ..data.items import instructed
from .backbones import Backbone, backbone_of
from .batching import BatchPlan, plan_batches
from .checkpoint import (
    adapters_of,
    load_backbone,
    load_processor,
    locate,
    publish,
    save_backbone,
    save_processor,
)
from .config import EmbedConfig
from .decoder import (
    input_embeddings,
    is_plain_decoder,
    pooled_states,
    shared_tokens,
    takes_visual_tokens,
    token_states,
)
from .description import describe_embedder
from .identify import default_config, family_of, require_known
from .inference import embed_batches, encode_media
from .loading import LoadConfig, device_of, dtype_of, load_settings, processes_for
from .lora import attach_lora, load_lora, save_lora
from .packing import choose_attention, is_packed, pack
from .pooling import pool
from .positions import token_positions
from .prefetch import read_ahead
from .preprocessing import Read, normalised
from .processor import Encoded, Processor
from .shipped import is_shipped
from .weights import read_object

__all__ = ["UniteEmbedder"]


class UniteEmbedder(torch.nn.Module):
    """Embeds text, images, videos and mixtures; `load` makes one from a checkpoint.

    Args
        backbone   a transformers model of one of `backbones.BACKBONES`
        processor  the Processor of the same checkpoint; its EmbedConfig is `config`
        loading    token budget and reading processes; the rest of it is how `load` loads
    """

    def __init__(
        self, backbone: torch.nn.Module, processor: Processor, loading: LoadConfig | None = None
    ):
        super().__init__()
        self.backbone = backbone
        self.processor = processor
        self.loading = loading or LoadConfig()

    @classmethod
    def load(cls, folder_or_hub_id: str | Path, device: str | torch.device | None = None,
             dtype: str | torch.dtype | None = None, positions: str | None = None,
             revision: str | None = None, **overrides) -> UniteEmbedder:  # fmt: skip
        """Load an embedder, a plain model of a known family, a LoRA adapter, or what `save` wrote.

        A folder, a hub id, or one that comes with the package: tiny, tiny-stage1, tiny-stage2.

        Args
            device     default: a GPU where there is one, else the CPU
            dtype      default: float32 on a CPU, bfloat16 on a GPU, whatever the files have
            positions  "sequential" or "mrope"; default: as saved, else "sequential" for UNITE
                       weights and "mrope" for others
            revision   branch, tag or commit of a repository on the hub
            overrides  other fields of LoadConfig, such as attention="flash_attention_2",
                       device_map="auto" or batch_tokens=8192, and of EmbedConfig, such as
                       max_frames=8
        A CheckpointError names weights that are missing, extra, misshapen or not finite.
        """
        folder = locate(folder_or_hub_id, revision)
        base, name, adapters = adapters_of(folder, str(folder_or_hub_id))
        how, overrides = load_settings({"device": device, "dtype": dtype, **overrides})
        device = device_of(how)
        if positions is not None:
            overrides["positions"] = positions
        config = default_config(folder, base, str(folder_or_hub_id), overrides)
        config = replace(config, **overrides)
        named = None if how.attention == "packed" else how.attention
        require_known(family_of(read_object(base / "config.json"), base), config, how)
        backbone = load_backbone(base, dtype_of(how, device), named, how)
        choose_attention(backbone, how, device, dtype_of(how, device))
        backbone.name_or_path = name
        embedder = cls(backbone, load_processor(base, backbone.config, config), how)
        for place, adapter in enumerate(adapters, 1):
            embedder.load_lora(adapter)
            if place < len(adapters) or is_shipped(folder):
                embedder.merge_lora()
        return (embedder if how.is_spread else embedder.to(device)).eval()

    @property
    def config(self) -> EmbedConfig:
        """How items become tokens."""
        return self.processor.config

    @property
    def dim(self) -> int:
        """D, the number of dimensions of a vector."""
        return getattr(self.base.config.text_config, self.family.width)

    @property
    def device(self) -> torch.device:
        """Where the weights are, the first of them that are on a device."""
        places = (weight.device for weight in self.parameters())
        return next((place for place in places if place.type != "meta"), torch.device("cpu"))

    @property
    def workers(self) -> int:
        """Processes that decode media ahead of the model."""
        return processes_for(self.loading, self.device)

    @property
    def base(self) -> torch.nn.Module:
        """The transformers model, with or without LoRA around it."""
        return self.backbone.get_base_model() if self.has_lora else self.backbone

    @property
    def family(self) -> Backbone:
        """The family of the transformers model; Qwen-VL's words for a class of none."""
        return backbone_of(self.base) or Backbone

    @property
    def has_lora(self) -> bool:
        """Whether a LoRA is attached and not merged."""
        return hasattr(self.backbone, "peft_config")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor,
                second_per_grid_ts: torch.Tensor | None = None,
                **media: torch.Tensor) -> torch.Tensor:  # fmt: skip
        """Embed a batch of `Processor.collate` on the model's device: [B, D] float32 unit vectors.

        Pools the tokens of each row that are not padding, on either side. Pixels may be `raw`.
        Differentiable.
        """
        media = {name: normalised(value, self.processor.layout) for name, value in media.items()}
        grids = {name: media.get(name) for name in ("image_grid_thw", "video_grid_thw")}
        positions = token_positions(
            self.base, self.config.positions, input_ids, attention_mask, second_per_grid_ts, **grids
        )
        decoder, visual = self.base.language_model, takes_visual_tokens(self.base)
        if visual and is_plain_decoder(decoder) and attention_mask[:, -1].all():
            embeddings = input_embeddings(self.base, input_ids, **media)
            shared = shared_tokens(input_ids, attention_mask, self._media_tokens)
            states = pooled_states(decoder, embeddings, attention_mask, positions, shared)
            return normalize(states.float(), dim=-1)
        packing, inputs = None, {"attention_mask": attention_mask, "position_ids": positions}
        if is_packed(decoder):
            packing = pack(attention_mask)
            input_ids, positions = packing.take(input_ids), packing.take(positions)
            inputs = {"attention_mask": None, "position_ids": positions, "packing": packing}
        states = token_states(self.base, input_ids, media, **inputs)
        if packing:
            return normalize(packing.last(states).float(), dim=-1)
        return normalize(pool(states, attention_mask, self.family.pooling), dim=-1)

    @property
    def _media_tokens(self) -> tuple[int, int]:
        return self.processor.image_id, self.processor.video_id

    @torch.no_grad()
    def encode_vision(self, items: Sequence[Encoded]) -> list[Encoded]:
        """Replace the items' pixels by visual tokens, to be kept while the vision tower is frozen.

        ValueError for a backbone whose tower gives more than visual tokens (Qwen3-VL).
        """
        if not takes_visual_tokens(self.base):
            raise ValueError(
                f"{type(self.base).__name__} takes more from its tower than visual tokens, so they "
                "cannot be kept: set cache_vision to false"
            )
        media = [entry for item in items for entry in (*item.images, *item.videos)]
        tokens = iter([found.cpu() for found in encode_media(self, media)])
        return [
            item._replace(
                images=[(next(tokens), grid) for _, grid in item.images],
                videos=[(next(tokens), grid) for _, grid in item.videos],
                has_features=True,
            )
            for item in items
        ]

    def embed(self, items: Sequence[Any], media_root: str | Path = ".",
              batch_size: int | None = None, progress: bool = True,
              where: Sequence[str] | None = None,
              instruction: str | None = None) -> np.ndarray:  # fmt: skip
        """Embed items of any mixture of modalities.

        Args
            items        dicts of text, image and video, PIL images, or uint8 arrays
            media_root   folder that paths in items are relative to and must not leave
            batch_size   items per batch; None: as many as a token budget allows
            progress     show a progress bar
            where        how errors name the items; default: "item" and its index
            instruction  what the vectors are for, of items that have no `instruction` of their own;
                         where it is put is the model's business
        Returns
            [N, D] float32 unit vectors in the order of `items`.
        The first item that cannot be embedded raises an ItemError or MediaError. Items that share a
        media file, or one object in memory, share its decoding and its pass through the tower.

        >>> from unite_core.tiny import TINY
        >>> embedder = UniteEmbedder.load(TINY, device="cpu")
        >>> red = np.full((64, 64, 3), (220, 20, 20), np.uint8)
        >>> vectors = embedder.embed([{"text": "a red square"}, {"image": red}], progress=False)
        >>> vectors.shape == (2, embedder.dim), np.linalg.norm(vectors, axis=1).round(4).tolist()
        (True, [1.0, 1.0])
        """
        from tqdm import tqdm

        if isinstance(items, (Mapping, str)) or not hasattr(items, "__len__"):
            raise TypeError(f"items must be a list of items, not {type(items).__name__}")
        if instruction is not None:
            items = [instructed(item, instruction) for item in items]
        vectors = np.empty((len(items), self.dim), dtype=np.float32)
        where = where or [f"item {i}" for i in range(len(items))]
        plan = self.plan(items, where, media_root, batch_size)
        _raise_first(plan.bad)
        planned = read_ahead([(None, plan)], self.processor.reader, media_root, self.workers)
        with tqdm(total=len(items), disable=not progress, unit="item") as bar:
            for _, _, reads in planned:
                for rows, batch in self.embed_plan(plan, reads, where):
                    _raise_first(plan.bad)
                    vectors[rows] = batch
                    bar.update(len(rows))
        return vectors

    def plan(self, items: Sequence[Any], where: Sequence[str], media_root: str | Path = ".",
             batch_size: int | None = None) -> BatchPlan:  # fmt: skip
        """Plan batches as large as suits the model's device; see `plan_batches`."""
        budget = self.loading.tokens_on(self.device)
        size = self.dim * next(self.parameters()).element_size()
        if not takes_visual_tokens(self.base):  # then patches are kept
            size = self.processor.layout.bytes_per_token
        return plan_batches(self.processor, items, where, media_root, budget, batch_size, size)

    def embed_plan(
        self, plan: BatchPlan, reads: Iterable[Read], where: Sequence[str] | None = None
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield rows of `plan` and their vectors [rows, D] float32, batch by batch.

        Args
            reads  a function per entry of `plan.reads` that gives its pixels, see `reads_here`
            where  how errors name the items; default: "item" and the row
        Items that turn out to be bad get no vector and are added to `plan.bad`.
        """
        where = where or [f"item {row}" for row in range(len(plan.items))]
        training = self.training
        self.eval()
        try:
            yield from embed_batches(self, plan, reads, where)
        finally:
            self.train(training)

    def describe(self) -> dict[str, str]:
        """What was loaded, in words: family, embedder, positions, template, pixels, dtype, ..."""
        return describe_embedder(self)

    def configured(self, **changes: Any) -> UniteEmbedder:
        """Share the weights under changed fields of EmbedConfig, such as `max_frames=48`."""
        old = self.processor
        config = require_known(self.family, replace(old.config, **changes))
        processor = Processor(old.tokenizer, config, old.layout, old.video_time, old.tokens)
        return UniteEmbedder(self.backbone, processor, self.loading).eval()

    def save(self, folder: str | Path) -> None:
        """Write weights, tokenizer and configuration for `load(folder)`."""
        if self.has_lora:
            raise ValueError("a LoRA is attached: merge_lora() before save(), or use save_lora()")
        with publish(folder) as partial:
            save_backbone(self.backbone, partial)
            save_processor(self.processor, partial)

    def attach_lora(self, rank: int, alpha: int, dropout: float = 0.05, seed: int = 0,
                    **more: Any) -> None:  # fmt: skip
        """Freeze all weights and add trainable low-rank updates to the language model.

        Args
            rank, alpha  the update is alpha / rank times B A, A [rank, in], B [out, rank]
            seed         of A; B starts at zero, so that the vectors do not change
            more         other fields of peft's LoraConfig, such as use_dora=True
        Without target_modules they go to the q, k, v, o, gate, up and down projections.
        """
        wrapped = attach_lora(self.backbone, rank, alpha, dropout, seed, **more)
        self.backbone = wrapped.train(self.training)

    def checkpoint_activations(self) -> None:
        """Keep only the inputs of layers that are trained: less memory, one forward more."""
        for part in self.base.children():
            older = getattr(part, "gradient_checkpointing_enable", None)  # before 5.18
            enable = getattr(part, "activation_checkpointing_enable", older)
            if enable and any(weight.requires_grad for weight in part.parameters()):
                enable()

    def save_lora(self, folder: str | Path) -> None:
        """Write the adapter in peft's format, with `unite.json`; `load_lora` reads it."""
        self._require_lora()
        save_lora(self.backbone, self.config, folder)

    def load_lora(self, folder: str | Path) -> None:
        """Attach an adapter, trainable; weights that are missing or extra are a CheckpointError."""
        self.backbone = load_lora(self.backbone, folder).train(self.training)

    def merge_lora(self) -> None:
        """Add the low-rank updates to the weights, which keep their type.

        In float32 the vectors stay the same up to rounding. In bfloat16 updates are rounded to its
        8 bits: small ones are partly lost, and coordinates of vectors move by 1e-3 and more. Load
        with dtype=torch.float32 to merge without that.
        """
        self._require_lora()
        self.backbone = self.backbone.merge_and_unload()

    def _require_lora(self) -> None:
        if not self.has_lora:
            raise ValueError("no LoRA is attached: attach_lora() or load_lora() first")


def _raise_first(bad: Mapping[int, ValueError]) -> None:
    for row in sorted(bad)[:1]:
        raise bad[row]
