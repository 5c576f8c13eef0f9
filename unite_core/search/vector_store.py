"""Vectors of items by content: a store that grows, and from which mining and benchmarks take.

`encode_corpus` writes one corpus, in its order and under its ids. The store has no order: it keeps
the vector of every item it was ever asked for, so that other records, filters or tasks with the
same items embed nothing again. Both write shards by `encode_blocks`.
"""

# Shapes: N items, D embedding size.

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..data.items import ItemError
from ..data.media import MediaError
from ..distributed import barrier, processes, rank_zero_first
from ..files import read_json, working_in, write_json
from ..versions import note_versions, warn_of_versions
from .blocks import Block, encode_blocks, model_key, noted_error
from .corpus import item_key
from .shards import read_header, read_shard, shard_files

__all__ = ["StoredVectors", "encode_items"]


SHARD_ITEMS = 512


@dataclass(frozen=True)
class StoredVectors:
    """Vectors [N, D] that stay on disk until their rows are asked for.

    shards  files of the store
    places  [N, 2] shard and row in it; -1 for an item that could not be read
    bad     {item: what was wrong with it}
    """

    shards: list[Path]
    places: np.ndarray
    bad: dict[int, MediaError | ItemError]

    def rows(self, items: np.ndarray) -> np.ndarray:
        """Read vectors of item numbers: [len(items), D] float32; each shard is read once."""
        shard, row = self.places[items].T
        if (shard < 0).any():
            raise ValueError(f"item {items[shard.argmin()]} has no vector: it could not be read")
        parts, order = [], np.argsort(shard, kind="stable")
        for number in np.unique(shard):
            wanted = row[order[shard[order] == number]]
            parts.append(read_shard(self.shards[number]).vectors[wanted])
        vectors = np.concatenate(parts)
        result = np.empty_like(vectors)
        result[order] = vectors
        return result


def encode_items(embedder, items: Sequence[dict], folder: str | Path,
                 media_root: str | Path = ".", progress: bool = True,
                 where: Callable[[int], str] | None = None) -> StoredVectors:  # fmt: skip
    """Look up the vectors of items by content; embed and store those that the folder lacks.

    Args
        embedder    a UniteEmbedder; each model and `.config` has a subfolder of its own
        items       N items; indexed again whenever they are needed, so any sequence will do
        media_root  folder that media paths are relative to
        where       how errors name an item, from its number
    Items with an unreadable media file, or that do not fit, are in `.bad`.
    A killed run loses at most the shard it was working on, of SHARD_ITEMS items. The processes of
    one run share the shards. InUseError if another run embeds for the same folder and model.
    """
    folder, rank = Path(folder, model_key(embedder)), processes()[0]
    with nullcontext() if rank else working_in(folder):
        with rank_zero_first():
            if rank == 0:
                folder.mkdir(exist_ok=True)
                _note_versions(folder)
        return _encode_items(embedder, items, folder, media_root, progress, where)


def _encode_items(embedder, items, folder: Path, media_root, progress, where) -> StoredVectors:
    from tqdm import tqdm

    rank, world = processes()

    keys = [item_key(item, media_root) for item in items]
    known = _known(folder)
    first = {}  # number of the item where each key comes first
    for number, key in enumerate(keys):
        first.setdefault(key, number)
    missing = [number for key, number in first.items() if key not in known]
    barrier()  # all have seen the same shards
    blocks = (
        _block(
            folder,
            [keys[n] for n in numbers],
            [items[n] for n in numbers],
            [where(n) if where else f"item {n}" for n in numbers],
        )
        for numbers in (missing[n : n + SHARD_ITEMS] for n in range(0, len(missing), SHARD_ITEMS))
    )
    quiet = rank or not progress
    with tqdm(total=len(missing), disable=quiet, unit="item", desc="embed") as bar:
        encode_blocks(embedder, islice(blocks, rank, None, world), media_root, bar)
    barrier()
    return _stored(folder, keys)


def _note_versions(folder: Path) -> None:
    """Note the packages in a new store; warn if an old one was made with others."""
    noted = folder / "versions.json"
    if noted.is_file():
        warn_of_versions(read_json(noted), str(folder))
    else:
        write_json(noted, note_versions(), indent=1)


def _block(folder: Path, keys: list[str], items: list[dict], where: list[str]) -> Block:
    digest = hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16]
    return Block(folder / f"{digest}.safetensors", keys, items, where, digest)


def _known(folder: Path) -> dict[str, tuple[int, int] | str]:
    """Key -> (shard, row), or what was wrong with the item."""
    known: dict[str, tuple[int, int] | str] = {}
    for number, path in enumerate(shard_files(folder)):
        header = read_header(path)
        if header.get("digest") != path.name.removesuffix(".safetensors"):
            raise ValueError(f"{path}: not the shard that was written here: remove it")
        known |= header["bad"]
        known |= {key: (number, row) for row, key in enumerate(header["ids"])}
    return known


def _stored(folder: Path, keys: Iterable[str]) -> StoredVectors:
    known = _known(folder)
    found = [known[key] for key in keys]
    places = [(-1, -1) if isinstance(place, str) else place for place in found]
    bad = {n: noted_error(place) for n, place in enumerate(found) if isinstance(place, str)}
    return StoredVectors(shard_files(folder), np.array(places, dtype=np.int32).reshape(-1, 2), bad)
