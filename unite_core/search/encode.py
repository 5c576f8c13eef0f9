"""A corpus to vectors on disk: `encode_corpus(EncodeConfig)`, or `python -m unite_core.encode CONFIG`.

A shard holds consecutive items and is whole or absent, so a killed run goes on at the first shard
that is missing and ends with the same bytes, on the same machine with as many threads: nothing in
a shard depends on another one. Media are decoded by other processes ahead of the model, each once
per shard. Started by torchrun, every process takes its share of the shards. What cannot be read
gets no vector, is counted by its cause and listed with its id in `report.json`, written last.
"""

# Shapes: N items, D embedding size.

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.bad_media import BadMediaRow, check_bad_share
from ..data.items import ItemError
from ..data.media import MediaError
from ..data.modality import modality_of
from ..distributed import barrier, processes, rank_zero_first
from ..files import read_json, write_json
from ..model.prefetch import read_ahead
from .config import EncodeConfig
from .corpus import Corpus, item_key
from .shards import Shard, cut, read_header, read_shard, shard_files, write_shard

__all__ = ["StoredVectors", "encode_corpus", "encode_items", "model_key"]


SHARD_ITEMS = 512  # of `encode_items`


def encode_corpus(config: EncodeConfig, embedder=None, items: Iterable[tuple[str, dict]] | None = None,
           progress: bool = True) -> Path:  # fmt: skip
    """Write the vectors of a corpus and the report on it; returns the folder.

    Args
        embedder  default: `config.model` loaded with `config.embed`
        items     (id, item) in place of `config.data`'s; iterated twice, so no generator
        progress  show a bar with items per second and time left
    What is there is not embedded again; a folder of another corpus, model or configuration is a
    ValueError, more bad items than `max_bad_share` a BadMediaError.
    The vectors of an item are those of `embedder.embed` to 1e-4, before the number format.
    """
    if embedder is None:
        from ..model.embedder import UniteEmbedder

        embedder = UniteEmbedder.load(config.model, **config.embed)
    corpus = Corpus(config.data, items, config.take, config.media_root)
    total, digest = corpus.survey()
    folder, inputs = Path(config.output), _inputs(config, embedder, digest)
    with rank_zero_first():
        _claim(folder, inputs)
    if (folder / "report.json").is_file():
        return folder
    _encode_shards(embedder, config, corpus, total, progress)
    barrier()
    if processes()[0] == 0:
        write_json(folder / "report.json", _report(folder, inputs, total), indent=1)
    barrier()
    return folder


@dataclass(frozen=True)
class StoredVectors:
    """Vectors [N, D] that stay on disk until rows of them are asked for."""

    shards: list[Path]
    places: np.ndarray  # [N, 2] shard and row in it; -1 for an item that could not be read
    bad: dict[int, MediaError]  # what was wrong, by item

    def rows(self, items: np.ndarray) -> np.ndarray:
        """[len(items), D] float32, every shard read once."""
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


def model_key(embedder) -> str:
    """16 hex digits of what decides an embedder's vectors: all of its weights and its `config`."""
    import torch

    config = getattr(embedder, "config", None)
    config = asdict(config) if is_dataclass(config) else {}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, weight in sorted(embedder.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        values = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.hexdigest()[:16]


def encode_items(embedder, items: Sequence[dict], folder: str | Path,
                 media_root: str | Path = ".", progress: bool = True,
                 where: Callable[[int], str] | None = None) -> StoredVectors:  # fmt: skip
    """Vectors of items by content, those embedded that `folder` does not have yet.

    Args
        embedder    a UniteEmbedder; its weights and `.config` tell its vectors from those of others
        items       parsed again whenever they are asked for, so any sequence will do
        media_root  folder that media paths are relative to
        where       how errors name an item, from its number
    An unreadable medium makes its item bad; an item that does not fit is an ItemError.
    Shards are of SHARD_ITEMS items: a killed run loses at most the one it was working on.
    """
    from tqdm import tqdm

    folder = Path(folder, model_key(embedder))
    folder.mkdir(parents=True, exist_ok=True)
    keys = [item_key(item, media_root) for item in items]
    missing = _first_of_each(keys, _known(folder))
    groups = (missing[n : n + SHARD_ITEMS] for n in range(0, len(missing), SHARD_ITEMS))
    blocks = (
        _Block.named_by_content(
            folder,
            [keys[n] for n in numbers],
            [items[n] for n in numbers],
            [where(n) if where else f"item {n}" for n in numbers],
        )
        for numbers in groups
    )
    with tqdm(total=len(missing), disable=not progress, unit="item", desc="embed") as bar:
        for block, shard, bad in _embedded(embedder, blocks, media_root, bar=bar):
            for row in sorted(row for row, error in bad.items() if isinstance(error, ItemError)):
                raise bad[row]
            write_shard(block.path, shard)
    return _stored(folder, keys)


class _Block(NamedTuple):
    """The items of one shard."""

    path: Path
    ids: list[str]
    items: list[dict]
    where: list[str]
    digest: str = ""  # of ids, contents, sizes and times of files

    @classmethod
    def named_by_content(cls, folder: Path, ids, items, where) -> _Block:
        name = hashlib.sha256(" ".join(ids).encode()).hexdigest()[:16]
        return cls(folder / f"{name}.safetensors", ids, items, where)


def _blocks(corpus: Corpus, config: EncodeConfig) -> Iterator[_Block]:
    """The items of every shard that is this process's."""
    rank, world = processes()
    rows = iter(corpus)
    for number in count(0):
        some = list(islice(rows, config.shard_items))
        if not some:
            return
        if number % world == rank:
            ids, items, where = map(list, zip(*some, strict=True))
            keys = [[name, item_key(item, config.media_root)] for name, item, _ in some]
            digest = hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:32]
            path = Path(config.output, f"vectors-{number:06d}.safetensors")
            yield _Block(path, ids, items, where, digest)


def _encode_shards(embedder, config: EncodeConfig, corpus: Corpus, total: int,
                   progress: bool) -> None:  # fmt: skip
    """Write the shards of this process that are not there."""
    from tqdm import tqdm

    rank, world = processes()
    bad_here: list[BadMediaRow] = []
    with tqdm(total=_share(total, config.shard_items, rank, world), desc="encode_corpus", unit="item",
              disable=not progress or rank > 0) as bar:  # fmt: skip
        blocks = _missing(_blocks(corpus, config), bad_here, bar)
        shards = _embedded(embedder, blocks, config.media_root, config.workers, bar)
        for block, shard, _ in shards:
            bad_here += _listed(shard.bad)
            check_bad_share(bad_here, total, config.max_bad_share)
            shard = replace(
                shard, vectors=cut(shard.vectors, config.dim), noted={"digest": block.digest}
            )
            write_shard(block.path, shard, config.number_format)


def _missing(blocks: Iterable[_Block], bad: list[BadMediaRow], bar) -> Iterator[_Block]:
    """Those that have no shard yet; of the others what was bad joins `bad`."""
    for block in blocks:
        if not block.path.is_file():
            yield block
            continue
        header = read_header(block.path)
        if header["digest"] != block.digest:
            raise ValueError(
                f"{block.path} was made of other items or files than these, which have changed "
                "since: remove it, or choose another output"
            )
        bad += _listed(header["bad"])
        if not bar.disable:
            bar.initial += len(block.ids)  # so that items per second are those embedded
        bar.update(len(block.ids))


def _embedded(embedder, blocks: Iterable[_Block], media_root, workers: int = 0,
              bar=None) -> Iterator[tuple[_Block, Shard, dict[int, ValueError]]]:  # fmt: skip
    """Every block with the vectors of its good items and what is wrong with the others."""
    plans = ((block, embedder.plan(block.items, block.where, media_root)) for block in blocks)
    for block, plan, reads in read_ahead(plans, embedder.processor.reader, media_root, workers):
        vectors, done = np.zeros((len(block.ids), embedder.dim), dtype=np.float32), 0
        for rows, some in embedder.embed_plan(plan, reads, block.where):
            vectors[rows] = some
            done += len(rows)
            bar.update(len(rows))
        bar.update(len(block.ids) - done)
        good = [row for row in range(len(block.ids)) if row not in plan.bad]
        yield block, Shard(
            [block.ids[row] for row in good],
            vectors[good],
            np.array([int(modality_of(block.items[row])) for row in good], dtype=np.uint8),
            {block.ids[row]: str(plan.bad[row].__cause__ or plan.bad[row])
             for row in sorted(plan.bad)},
        ), plan.bad  # fmt: skip


def _inputs(config: EncodeConfig, embedder, digest: str) -> dict:
    """All that vectors on disk depend on."""
    names = ("take", "number_format", "dim", "shard_items")
    own = {name: getattr(config, name) for name in names} | {"take": list(config.take)}
    return {"model": model_key(embedder), "corpus": digest, **own}


def _claim(folder: Path, inputs: Mapping) -> None:
    """The folder is this corpus's from now on, or is refused because it is another one's."""
    noted = folder / "inputs.json"
    if noted.is_file() and read_json(noted) != inputs:
        raise ValueError(
            f"{folder} holds vectors of another model, corpus or configuration: remove it or "
            "choose another output"
        )
    if not noted.is_file() and shard_files(folder):
        raise ValueError(f"{folder} holds vectors of unknown origin: choose another output")
    if not noted.is_file():
        write_json(noted, inputs, indent=1)


def _report(folder: Path, inputs: Mapping, total: int) -> dict:
    headers = [read_header(path) for path in shard_files(folder)]
    bad = [one for header in headers for one in _listed(header["bad"])]
    return {
        "inputs": dict(inputs),
        "items": total,
        "vectors": sum(len(header["ids"]) for header in headers),
        "shards": len(headers),
        "bad": dict(Counter(one.cause for one in bad)),
        "left_out": [asdict(one) for one in bad],
    }


def _listed(bad: Mapping[str, str]) -> list[BadMediaRow]:
    return [BadMediaRow.from_error(name, MediaError(message)) for name, message in bad.items()]


def _share(count: int, size: int, rank: int, world: int) -> int:
    """How many of the items are in every world-th shard."""
    shards = range(rank, -(-count // size), world)
    return sum(min(size, count - number * size) for number in shards)


def _first_of_each(keys: Iterable[str], known: Container[str]) -> list[int]:
    """Where each key that is not known comes first."""
    seen: set[str] = set()
    numbers = []
    for number, key in enumerate(keys):
        if key not in known and key not in seen:
            seen.add(key)
            numbers.append(number)
    return numbers


def _known(folder: Path) -> dict[str, tuple[int, int] | str]:
    """Key -> (shard, row), or what was wrong with the item."""
    known: dict[str, tuple[int, int] | str] = {}
    for number, path in enumerate(shard_files(folder)):
        header = read_header(path)
        known |= header["bad"]
        known |= {key: (number, row) for row, key in enumerate(header["ids"])}
    return known


def _stored(folder: Path, keys: Iterable[str]) -> StoredVectors:
    known = _known(folder)
    found = [known[key] for key in keys]
    places = [(-1, -1) if isinstance(each, str) else each for each in found]
    bad = {n: MediaError(each) for n, each in enumerate(found) if isinstance(each, str)}
    return StoredVectors(shard_files(folder), np.array(places, dtype=np.int32).reshape(-1, 2), bad)
