"""What a model makes of an item: tokens, grids, positions, pooled states, work.

Pure measurements of a `UniteEmbedder`; notebook 02 draws them.
"""

# Shapes: N items, B items of a batch, T tokens, D embedding size.

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.items import as_item
from ..data.modality import modality_of
from ..data.records import content_id
from .config import EmbedConfig
from .embedder import UniteEmbedder
from .positions import token_positions
from .preprocessing import Layout, frame_sizes, grid_of, image_sizes
from .processor import Encoded, Processor

__all__ = [
    "KINDS",
    "POOLINGS",
    "VARIANTS",
    "Variant",
    "Work",
    "between_positions",
    "by_modality",
    "embed_variant",
    "grid_for",
    "pool_states",
    "pooled_vectors",
    "positions_of",
    "seconds_of",
    "shape_2b",
    "describe_tokens",
    "token_kinds",
    "token_runs",
    "token_states",
    "work_of",
]


KINDS = ("template", "text", "image", "video")
"""What a token is of: the chat template with its summary line, the item's text, a medium."""

POOLINGS = ("last token", "mean of all", "mean of content", "max of all")


class Work(NamedTuple):
    """Floating point operations of one item, a multiplication and an addition being two."""

    vision: int  # patch embedding, tower, projector
    linear: int  # the language model's matrix products with weights
    attention: int  # its products of queries, keys and values, all pairs of tokens

    @property
    def total(self) -> int:
        return sum(self)


class Variant(NamedTuple):
    """One way of saying the same: a change of the item, or of the prompt's template."""

    name: str
    change: Callable[[dict], dict] | None = None
    prompt: str = "unite"


def token_kinds(processor: Processor, item: Any, root: str | Path = ".") -> list[tuple[str, str]]:
    """(token as text, its kind of KINDS) for each of an item's tokens.

    The item's text is found by tokenizing without it: what both begin and end with is template.
    """
    item = as_item(item)
    ids = processor.encode(item, root).input_ids
    visual = {processor.image_id: "image", processor.video_id: "video"}
    kinds = [visual.get(token, "template") for token in ids]
    names = processor.tokenizer.convert_ids_to_tokens(ids)
    if "text" in item:
        marks = processor.tokenizer.get_added_vocab()  # around a medium inside the text
        for place in range(*_text_span(processor, item, root, ids)):
            kinds[place] = kinds[place] if names[place] in marks else "text"
    return list(zip(names, kinds, strict=True))


def token_runs(kinds: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
    """(kind, number of tokens) of each stretch of one kind."""
    return [(kind, len(list(run))) for kind, run in groupby(kinds, lambda pair: pair[1])]


def describe_tokens(processor: Processor, item: Any, root: str | Path = ".") -> dict:
    """How an item arrives: number of tokens, and of each medium the pixels and the grid.

    Returns modality, tokens, visual (tokens of media), pixels (height x width after resizing, of
    each medium) and grids (time, height, width in patches).
    """
    encoded = processor.encode(item, root)
    grids = [grid for _, grid in (*encoded.images, *encoded.videos)]
    side, merged = processor.layout.patch, processor.layout.merge**2
    return {
        "modality": modality_of(as_item(item)).label,
        "tokens": len(encoded.input_ids),
        "visual": sum(t * h * w // merged for t, h, w in grids),
        "pixels": [(h * side, w * side) for _, h, w in grids],
        "grids": grids,
    }


def grid_for(
    config: EmbedConfig, height: int, width: int, frames: int = 0, layout: Layout | None = None
) -> tuple[int, int, int]:
    """The grid (time, height, width in patches) of a picture, or of a video file's `frames`.

    height, width are pixels before resizing; `layout` is Qwen2-VL's unless given.
    """
    layout = layout or Layout()
    if frames:
        sizes = frame_sizes(height, width, config, layout, from_file=True)
        return grid_of(frames, sizes[-1], layout)
    return grid_of(1, image_sizes(height, width, config, layout)[-1], layout)


def by_modality(items: Iterable[dict], most: int) -> dict[str, list[dict]]:
    """Distinct items of each modality, evenly spread, at most `most`; every mixture is "fused".

    Spread, since neighbours in a corpus are often variants of one thing.
    """
    found: dict[str, dict[str, dict]] = {name: {} for name in ("text", "image", "video", "fused")}
    for item in items:
        label = modality_of(item).label
        found[label if label in found else "fused"].setdefault(content_id(item), item)
    groups = {name: list(group.values()) for name, group in found.items() if group}
    return {
        name: [group[i * len(group) // most] for i in range(most)] if len(group) > most else group
        for name, group in groups.items()
    }


def positions_of(embedder: UniteEmbedder, item: Any, positions: str,
                 root: str | Path = ".") -> np.ndarray:  # fmt: skip
    """[3, T] time, height and width of each token, under "sequential" or "mrope"."""
    batch = _batch(embedder, [item], root)
    return _positions(embedder, batch, positions)[:, 0].cpu().numpy()


def between_positions(embedder: UniteEmbedder, items: Sequence[Any],
                      root: str | Path = ".") -> np.ndarray:  # fmt: skip
    """[N] cosines between each item's vectors under sequential positions and under M-RoPE.

    1 for text alone: its positions are the same. Below 1 is what loading with the wrong kind costs.
    """
    both = [
        embedder.configured(positions=kind).embed(items, root, progress=False)
        for kind in ("sequential", "mrope")
    ]
    return (both[0] * both[1]).sum(1)


def token_states(embedder: UniteEmbedder, batch: Mapping[str, Tensor]) -> Tensor:
    """[B, T, D] last layer's normed states of a collated batch, all tokens of them."""
    known = {name: value for name, value in batch.items() if name != "second_per_grid_ts"}
    positions = _positions(embedder, batch, embedder.config.positions)
    return embedder.base(**known, position_ids=positions, use_cache=False).last_hidden_state


def pool_states(states: Tensor, mask: Tensor, content: Tensor) -> dict[str, Tensor]:
    """Unit vectors [B, D] by each of POOLINGS.

    Args
        states   [B, T, D]  of left-padded rows
        mask     [B, T]     1 for tokens, 0 for padding
        content  [B, T]     1 for tokens of text and media, 0 for the template's and padding
    """
    mask, content = mask.bool(), content.bool()
    if not content.any(1).all():
        raise ValueError(f"row {int((~content.any(1)).int().argmax())} has no token of content")
    pooled = {
        "last token": states[:, -1],
        "mean of all": _mean(states, mask),
        "mean of content": _mean(states, content),
        "max of all": states.masked_fill(~mask[..., None], -torch.inf).amax(1),
    }
    return {name: torch.nn.functional.normalize(v.float(), dim=-1) for name, v in pooled.items()}


def pooled_vectors(embedder: UniteEmbedder, items: Sequence[Any], root: str | Path = ".",
                   batch_size: int = 16) -> dict[str, np.ndarray]:  # fmt: skip
    """[N, D] unit vectors of items by each of POOLINGS, from one forward."""
    parts: dict[str, list[Tensor]] = {name: [] for name in POOLINGS}
    embedder.eval()
    with torch.inference_mode():
        for start in range(0, len(items), batch_size):
            some = items[start : start + batch_size]
            batch = _batch(embedder, some, root)
            content = _content(embedder.processor, some, root, batch["attention_mask"])
            states = token_states(embedder, batch)
            for name, vectors in pool_states(states, batch["attention_mask"], content).items():
                parts[name].append(vectors.cpu())
    return {name: torch.cat(vectors).numpy() for name, vectors in parts.items()}


def work_of(model_config, grids: Sequence[tuple[int, int, int]], tokens: int) -> Work:
    """Operations of one forward of one item of a Qwen2-VL, from shapes alone.

    Args
        model_config  Qwen2VLConfig
        grids         (time, height, width) in patches of each medium
        tokens        T, visual ones included
    Embedding, norms, activations and the language model's head are left out; attention counts all
    T^2 pairs, twice what a causal kernel needs. `UniteEmbedder` does less: a beginning that items
    share goes through once, and of the last layer only the pooled token.
    """
    text, vision = model_config.text_config, model_config.vision_config
    heads, width = text.num_attention_heads, text.hidden_size
    head = getattr(text, "head_dim", None) or width // heads
    projections = width * head * (2 * heads + 2 * text.num_key_value_heads)
    linear = (
        2 * tokens * text.num_hidden_layers * (projections + 3 * width * text.intermediate_size)
    )
    attention = 4 * tokens**2 * text.num_hidden_layers * heads * head
    return Work(sum(_tower_work(vision, grid) for grid in grids), linear, attention)


def shape_2b():
    """Qwen2VLConfig of Qwen2-VL-2B, UNITE's smaller backbone: 2 208 985 600 parameters."""
    from transformers import Qwen2VLConfig

    return Qwen2VLConfig(
        text_config={
            "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
            "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936,
            "max_position_embeddings": 32768, "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24],
            },
        },
        vision_config={
            "depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        tie_word_embeddings=True,
    )  # fmt: skip


def seconds_of(embedder: UniteEmbedder, item: Any, root: str | Path = ".",
               repeats: int = 5) -> dict[str, float]:  # fmt: skip
    """Median seconds that one item takes alone: `prepare` (decode, resize, tokenize), `vision`,
    `language`. The first pass, which warms caches, is not counted."""
    spent: dict[str, list[float]] = {"prepare": [], "vision": [], "language": []}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            encoded = embedder.processor.encode(item, root)
            prepared = time.perf_counter()
            seen = _seen(embedder, encoded)
            looked = time.perf_counter()
            embedder(**_to_device(embedder, embedder.processor.collate([seen])))
            _wait(embedder)
            done = time.perf_counter()
            for name, seconds in zip(spent, (prepared - start, looked - prepared, done - looked),
                                     strict=True):  # fmt: skip
                spent[name].append(seconds)
    return {name: median(seconds[1:]) for name, seconds in spent.items()}


def embed_variant(embedder: UniteEmbedder, items: Sequence[dict], variant: Variant,
                  root: str | Path = ".") -> np.ndarray:  # fmt: skip
    """[N, D] vectors of the items said in another way."""
    changed = [variant.change(dict(item)) if variant.change else item for item in items]
    model = embedder.configured(prompt=variant.prompt)
    return model.embed(changed, root, progress=False)


def _worded(change: Callable[[str], str]) -> Callable[[dict], dict]:
    return lambda item: item | {"text": change(item["text"])}


VARIANTS = {
    "text": (
        Variant("no summary line", prompt="raw"),
        Variant("capitals", _worded(str.upper)),
        Variant("full stop", _worded(lambda text: text.rstrip(".") + ".")),
        Variant("two spaces", _worded(lambda text: text.replace(" ", "  "))),
        Variant("a photo of", _worded(lambda text: f"a photo of {text}")),
        Variant("words reversed", _worded(lambda text: " ".join(reversed(text.split())))),
    ),
    "image": (Variant("no summary line", prompt="raw"),),
    "video": (Variant("no summary line", prompt="raw"),),
    "fused": (
        Variant("no summary line", prompt="raw"),
        Variant("keys swapped", lambda item: dict(reversed(item.items()))),
    ),
}
"""By modality; "words reversed" changes the meaning of a phrase and is the yardstick."""


def _text_span(processor: Processor, item: dict, root, ids: list[int]) -> tuple[int, int]:
    """First token of the item's text and the first behind it."""
    probes = [item | {"text": item["text"].replace(item["text"].strip(), filler)}
              for filler in _fillers(item["text"])]  # fmt: skip
    others = [processor.encode(probe, root).input_ids for probe in probes]
    first = min(_common(ids, other) for other in others)
    last = len(ids) - min(_common(ids[::-1], other[::-1]) for other in others)
    return first, max(first, last)


def _fillers(text: str) -> list[str]:
    """Two texts that share neither beginning nor end with `text`, with its placeholders."""
    marks = "".join(part for part in ("<|IMAGE|>", "<|VIDEO|>") for _ in range(text.count(part)))
    return [f"0{marks}0", f"%{marks}%"]


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    same = [a == b for a, b in zip(first, second, strict=False)]
    return same.index(False) if False in same else len(same)


def _batch(embedder: UniteEmbedder, items: Sequence[Any], root) -> dict[str, Tensor]:
    encoded = [embedder.processor.encode(item, root, f"item {i}") for i, item in enumerate(items)]
    return _to_device(embedder, embedder.processor.collate(encoded))


def _to_device(embedder: UniteEmbedder, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(embedder.device) for name, value in batch.items()}


def _positions(embedder: UniteEmbedder, batch: Mapping[str, Tensor], kind: str) -> Tensor:
    names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    grids = {name: batch.get(name) for name in names}
    return token_positions(
        embedder.base, kind, batch["input_ids"], batch["attention_mask"], **grids
    )


def _content(processor: Processor, items: Sequence[Any], root, mask: Tensor) -> Tensor:
    """[B, T] 1 for tokens that are not of the template."""
    content = torch.zeros_like(mask)
    for row, item in enumerate(items):
        own = [kind != "template" for _, kind in token_kinds(processor, item, root)]
        content[row, -len(own) :] = torch.tensor(own, device=mask.device).int()
    return content


def _mean(states: Tensor, chosen: Tensor) -> Tensor:
    weights = chosen[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def _tower_work(vision, grid: tuple[int, int, int]) -> int:
    """Of one medium: frames attend to themselves alone."""
    t, h, w = grid
    patches, width = t * h * w, vision.embed_dim
    inputs = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    block = width * width * (4 + 2 * vision.mlp_ratio)
    attention = 4 * (h * w) ** 2 * t * width
    merged = width * vision.spatial_merge_size**2
    tokens = patches // vision.spatial_merge_size**2
    projector = 2 * tokens * (merged * merged + merged * vision.hidden_size)
    return (
        2 * patches * (inputs * width + vision.depth * block) + vision.depth * attention + projector
    )


def _seen(embedder: UniteEmbedder, encoded: Encoded) -> Encoded:
    seen = embedder.encode_vision([encoded])[0] if encoded.images or encoded.videos else encoded
    _wait(embedder)
    return seen


def _wait(embedder: UniteEmbedder) -> None:
    if embedder.device.type == "cuda":
        torch.cuda.synchronize()
