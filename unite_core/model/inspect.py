"""How a model processes an item: tokens, grids, positions, poolings, variants of the prompt.

Measurements of a `UniteEmbedder`; notebook 02 draws them. `model.cost` has operations and seconds.
"""

# Shapes: N items, B items of a batch, T tokens, D embedding size.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.items import as_item
from ..data.modality import modality_of
from ..data.records import content_id
from . import decoder
from .config import EmbedConfig
from .embedder import UniteEmbedder
from .positions import token_positions
from .preprocessing import Layout, frame_sizes, grid_of, image_sizes
from .processor import Processor

__all__ = [
    "KINDS", "POOLINGS", "VARIANTS", "Variant", "by_modality", "describe_tokens", "embed_variant",
    "grid_for", "pool_states", "pooled_vectors", "position_cosines", "positions_of",
    "token_kinds", "token_runs", "token_states",
]  # fmt: skip


KINDS = ("template", "text", "image", "video")
"""Where a token comes from: the template with its summary line, the text, an image, a video."""

POOLINGS = ("last token", "mean of all", "mean of content", "max of all")

_NO_MEDIA = ("input_ids", "attention_mask", "second_per_grid_ts")  # of a batch


class Variant(NamedTuple):
    """A rewording: a change of the item, or another template of the prompt."""

    name: str
    change: Callable[[dict], dict] | None = None
    prompt: str = "unite"


def token_kinds(processor: Processor, item: Any, root: str | Path = ".") -> list[tuple[str, str]]:
    """List (token as text, its kind of KINDS) for each of an item's tokens.

    The text is found by tokenizing the item with other texts: the common beginning and end are the
    template.
    """
    item = as_item(item)
    ids = processor.encode(item, root).input_ids
    visual = {processor.image_id: "image", processor.video_id: "video"}
    kinds = [visual.get(token, "template") for token in ids]
    names = processor.tokenizer.convert_ids_to_tokens(ids)
    if "text" in item:
        marks = processor.tokenizer.get_added_vocab()  # around media inside the text
        for place in range(*_text_span(processor, item, root, ids)):
            kinds[place] = kinds[place] if names[place] in marks else "text"
    return list(zip(names, kinds, strict=True))


def token_runs(kinds: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
    """List (kind, number of tokens) of each stretch of one kind."""
    return [(kind, len(list(run))) for kind, run in groupby(kinds, lambda pair: pair[1])]


def describe_tokens(processor: Processor, item: Any, root: str | Path = ".") -> dict:
    """Count an item's tokens and give sizes and grids of its media.

    Returns `modality`, `tokens`, `visual` (tokens of media), and for each image or video its
    `pixels` (height, width after resizing) and `grids` (time, height, width in patches).
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
    """The grid (time, height, width in patches) of an image, or of `frames` of a video file.

    `height` and `width` are pixels before resizing; `layout` defaults to Qwen2-VL's.
    """
    layout = layout or Layout()
    if frames:
        sizes = frame_sizes(height, width, config, layout, from_file=True)
        return grid_of(frames, sizes[-1], layout)
    return grid_of(1, image_sizes(height, width, config, layout)[-1], layout)


def by_modality(items: Iterable[dict], limit: int) -> dict[str, list[dict]]:
    """Up to `limit` distinct items of each modality; all mixtures are "fused".

    They are evenly spaced, since neighbours in a corpus are often variants of one thing.
    """
    found: dict[str, dict[str, dict]] = {name: {} for name in ("text", "image", "video", "fused")}
    for item in items:
        label = modality_of(item).label
        found[label if label in found else "fused"].setdefault(content_id(item), item)
    groups = {name: list(group.values()) for name, group in found.items() if group}
    return {
        name: [group[i * len(group) // limit] for i in range(limit)]
        if len(group) > limit
        else group
        for name, group in groups.items()
    }


def positions_of(embedder: UniteEmbedder, item: Any, positions: str,
                 root: str | Path = ".") -> np.ndarray:  # fmt: skip
    """Position ids [3, T] (time, height, width) under "sequential" or "mrope"."""
    batch = _batch(embedder, [item], root)
    found = _positions(embedder, batch, positions).expand(3, 1, -1)
    return found[:, 0].cpu().numpy()


def position_cosines(embedder: UniteEmbedder, items: Sequence[Any],
                      root: str | Path = ".") -> np.ndarray:  # fmt: skip
    """Cosine [N] of each item's vectors under sequential positions and under M-RoPE.

    1 for text alone, whose positions are the same. For media it shows the harm of loading a
    checkpoint with the wrong kind.
    """
    both = [
        embedder.configured(positions=kind).embed(items, root, progress=False)
        for kind in ("sequential", "mrope")
    ]
    return (both[0] * both[1]).sum(1)


def token_states(embedder: UniteEmbedder, batch: Mapping[str, Tensor]) -> Tensor:
    """The last layer's normed states [B, T, D] of all tokens of a collated batch."""
    media = {name: value for name, value in batch.items() if name not in _NO_MEDIA}
    return decoder.token_states(
        embedder.base, batch["input_ids"], media, attention_mask=batch["attention_mask"],
        position_ids=_positions(embedder, batch, embedder.config.positions),
    )  # fmt: skip


def pool_states(states: Tensor, mask: Tensor, content: Tensor) -> dict[str, Tensor]:
    """Pool states to unit vectors [B, D] in each way of POOLINGS.

    Args
        states   [B, T, D]  of left-padded rows
        mask     [B, T]     1 for tokens, 0 for padding
        content  [B, T]     1 for tokens of text and media, 0 for template and padding
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
    """Embed items in each way of POOLINGS from one forward: [N, D] unit vectors each."""
    parts: dict[str, list[Tensor]] = {name: [] for name in POOLINGS}
    embedder.eval()
    with torch.inference_mode():
        for start in range(0, len(items), batch_size):
            chunk = items[start : start + batch_size]
            batch = _batch(embedder, chunk, root)
            content = _content(embedder.processor, chunk, root, batch["attention_mask"])
            states = token_states(embedder, batch)
            for name, vectors in pool_states(states, batch["attention_mask"], content).items():
                parts[name].append(vectors.cpu())
    return {name: torch.cat(vectors).numpy() for name, vectors in parts.items()}


def embed_variant(embedder: UniteEmbedder, items: Sequence[dict], variant: Variant,
                  root: str | Path = ".") -> np.ndarray:  # fmt: skip
    """Embed items under a rewording: [N, D] unit vectors."""
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
    """Index of the first token of the item's text and of the first after it."""
    probes = [item | {"text": item["text"].replace(item["text"].strip(), filler)}
              for filler in _fillers(item["text"])]  # fmt: skip
    others = [processor.encode(probe, root).input_ids for probe in probes]
    first = min(_common(ids, other) for other in others)
    last = len(ids) - min(_common(ids[::-1], other[::-1]) for other in others)
    return first, max(first, last)


def _fillers(text: str) -> list[str]:
    """Two texts with the placeholders of `text` that share no beginning or end with each other."""
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
    """Mask [B, T]: 1 for tokens outside the template."""
    content = torch.zeros_like(mask)
    for row, item in enumerate(items):
        inside = [kind != "template" for _, kind in token_kinds(processor, item, root)]
        content[row, -len(inside) :] = torch.tensor(inside, device=mask.device).int()
    return content


def _mean(states: Tensor, chosen: Tensor) -> Tensor:
    weights = chosen[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)
