"""Encode blocks of items to shards: the work and the resume rule that all stored vectors share.

A shard holds the vectors of one block. It is written atomically, and nothing in it depends on
another shard, so a killed run resumes at the first block whose shard is missing and ends with the
same bytes, on the same machine with the same number of threads.
"""

# Shapes: D embedding size.

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path

import numpy as np

from ..data.items import ItemError
from ..data.media import MediaError
from ..data.modality import modality_of
from ..model.batching import BatchPlan
from ..model.prefetch import read_ahead
from .shards import Shard, read_shard, truncate, write_shard

__all__ = ["Block", "encode_blocks", "model_key", "noted_error"]


_MISFIT = "does not fit: "  # begins what a shard says of an item that is no media error


_NO_EFFECT = {
    "architectures", "dtype", "id2label", "label2id", "torch_dtype", "transformers_version",
    "use_cache",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """Items that are encoded to one shard.

    path    of the shard
    ids     one per item
    where   one per item: how errors name it
    digest  of ids and contents; a shard of another digest is refused
    """

    path: Path
    ids: Sequence[str]
    items: Sequence[dict]
    where: Sequence[str]
    digest: str


def encode_blocks(embedder, blocks: Iterable[Block], media_root: str | Path, bar,
                  check: Callable[[Block, Mapping[int, ValueError]], None] | None = None,
                  number_format: str = "float32", dim: int | None = None) -> None:  # fmt: skip
    """Write the shard of every block that has none.

    Args
        blocks  iterated once; one more block is planned while one is encoded
        bar     tqdm bar, advanced by items
        check   called with each encoded block and {row: error} of its items without a vector,
                before its shard is written; raises to stop
        number_format, dim  as in EncodeConfig
    ValueError if a shard exists for other contents, or is not as it was written.
    """
    missing = _without_shard(blocks, bar)
    plans = ((block, embedder.plan(block.items, block.where, media_root)) for block in missing)
    reader, workers = embedder.processor.reader, embedder.workers
    for block, plan, reads in read_ahead(plans, reader, media_root, workers):
        vectors = _embed(embedder, block, plan, reads, bar)
        if check:
            check(block, plan.bad)
        write_shard(block.path, _shard(block, vectors, dim, plan.bad), number_format)


def model_key(embedder) -> str:
    """Fingerprint of an embedder, 16 hex digits: of all that decides a vector.

    These are the weights, the model's configuration, `config` with the prompt, the tokenizer and
    the pixel layout.
    """
    import torch

    digest = hashlib.sha256(json.dumps(_settings_of(embedder), sort_keys=True).encode())
    for name, weight in sorted(_weights_of(embedder).items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        values = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.hexdigest()[:16]


def _weights_of(embedder) -> Mapping:
    """All weights by name, those too that accelerate keeps elsewhere until they are used."""
    weights = embedder.state_dict()
    if not any(weight.is_meta for weight in weights.values()):
        return weights
    from accelerate.utils.modeling import get_state_dict_offloaded_model

    return get_state_dict_offloaded_model(embedder)


def _settings_of(embedder) -> dict:
    """What decides a vector besides the weights; parts that an embedder lacks are None."""
    config, processor = getattr(embedder, "config", None), getattr(embedder, "processor", None)
    tokenizer, layout = getattr(processor, "tokenizer", None), getattr(processor, "layout", None)
    tokens = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer else {}
    base = getattr(embedder, "base", None)
    return {
        "config": asdict(config) if is_dataclass(config) else {},
        "layout": asdict(layout) if is_dataclass(layout) else {},
        "video_time": getattr(processor, "video_time", None),
        "model": _deciding(base.config.to_dict()) if base is not None else {},
        # set by the last call of the tokenizer, and by every call anew
        "tokenizer": {k: v for k, v in tokens.items() if k not in ("truncation", "padding")},
    }


def _deciding(config: Mapping) -> dict:
    """A model's configuration without what changes no vector, or depends on how it was loaded."""
    return {
        str(name): _deciding(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in _NO_EFFECT and not str(name).startswith("_")
    }


def _without_shard(blocks: Iterable[Block], bar) -> Iterator[Block]:
    for block in blocks:
        if not block.path.is_file():
            yield block
            continue
        if read_shard(block.path).noted.get("digest") != block.digest:
            raise ValueError(
                f"{block.path} was made of other items or files than these, which have changed "
                "since: remove it to encode those again, or choose another output"
            )
        if not bar.disable:
            bar.initial += len(block.ids)  # the rate counts embedded items only
        bar.update(len(block.ids))


def _embed(embedder, block: Block, plan: BatchPlan, reads: Iterator, bar) -> np.ndarray:
    """[items, D] vectors; rows of items in `plan.bad` stay 0."""
    vectors, done = np.zeros((len(block.ids), embedder.dim), dtype=np.float32), 0
    for rows, batch in embedder.embed_plan(plan, reads, block.where):
        vectors[rows] = batch
        done += len(rows)
        bar.update(len(rows))
    bar.update(len(block.ids) - done)
    return vectors


def _shard(block: Block, vectors: np.ndarray, dim: int | None,
           bad: Mapping[int, ValueError]) -> Shard:  # fmt: skip
    good = [row for row in range(len(block.ids)) if row not in bad]
    return Shard(
        [block.ids[row] for row in good],
        truncate(vectors[good], dim),
        np.array([int(modality_of(block.items[row])) for row in good], dtype=np.uint8),
        {block.ids[row]: _noted(bad[row]) for row in sorted(bad)},
        {"digest": block.digest},
    )


def noted_error(text: str) -> MediaError | ItemError:
    """The error of an item without a vector, from what its shard says of it."""
    if text.startswith(_MISFIT):
        return ItemError(text.removeprefix(_MISFIT))
    return MediaError(text)


def _noted(error: ValueError) -> str:
    return (_MISFIT if isinstance(error, ItemError) else "") + str(error.__cause__ or error)
