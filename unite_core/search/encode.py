"""Encode a corpus to vectors on disk: `encode_corpus(EncodeConfig)`, or `unite encode`.

Shards hold consecutive items of the corpus and are whole or absent, so a killed run resumes, see
`blocks`. Media are decoded by other processes ahead of the model, each once per shard. Under
torchrun, every process takes its share of the shards. Items that cannot be read get no vector; they
are counted by cause and listed with their ids in `report.json`, which is written last and has the
checksum of every shard.
"""

# Shapes: N items.

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path

import numpy as np

from ..data.bad_media import BadMediaRow, check_bad_share
from ..distributed import barrier, processes, rank_zero_first
from ..files import read_json, working_in, write_json
from ..versions import note_versions, warn_of_versions
from .blocks import Block, encode_blocks, model_key, noted_error
from .config import EncodeConfig
from .corpus import Corpus, item_key
from .results import write_items
from .shards import check_shards, read_header, shard_files, shard_sums, truncate

__all__ = ["encode_corpus"]


def encode_corpus(config: EncodeConfig, embedder=None,
                  items: Iterable[tuple[str, dict]] | None = None,
                  progress: bool = True) -> Path:  # fmt: skip
    """Write the vectors of a corpus and a report; returns the folder.

    Args
        embedder  default: `config.model` loaded with `config.load` and `config.embed`
        items     (id, item) in place of `config.data`; iterated twice, so no generator
        progress  show a bar with items per second and time left
    Shards that exist are checked, not encoded again. ValueError if the folder is of another corpus,
    model or configuration, or if a shard or a media file has changed; InUseError if another process
    works there; BadMediaError if more than `max_bad_share` of the items cannot be read.
    Vectors equal those of `embedder.embed` to 1e-4, before the number format.
    """
    if embedder is None:
        from ..model.embedder import UniteEmbedder

        embedder = UniteEmbedder.load(config.model, **asdict(config.load), **config.embed)
    truncate(np.zeros((1, embedder.dim), np.float32), config.dim)  # before any work
    corpus = Corpus(config.data, items, config.take, config.media_root, config.instruction)
    total, digest = corpus.survey()
    folder, inputs = Path(config.output), _inputs(config, embedder, digest)
    with ExitStack() as stack:
        with rank_zero_first():
            if processes()[0] == 0:
                stack.enter_context(working_in(folder))
            _check_folder(folder, inputs, -(-total // config.shard_items))
        _encode_shards(embedder, config, corpus, total, progress)
        barrier()
        if processes()[0] == 0:
            _finish(folder, inputs, total)
            sides = ("query", "candidate")  # the queries' texts are the captions of results
            both = Corpus(corpus.files, corpus.given, sides, corpus.media_root)
            write_items(folder, both, config.media_root)
        barrier()
    return folder


def _encode_shards(embedder, config: EncodeConfig, corpus: Corpus, total: int,
                   progress: bool) -> None:  # fmt: skip
    """Write the missing shards of this process."""
    from tqdm import tqdm

    rank, world = processes()
    existing = [_path(config, n) for n in range(rank, -(-total // config.shard_items), world)]
    bad = [row for path in existing if path.is_file() for row in _bad_rows(read_header(path))]

    def check(block: Block, errors: Mapping[int, ValueError]) -> None:
        bad.extend(BadMediaRow.from_error(block.ids[row], errors[row]) for row in sorted(errors))
        check_bad_share(bad, total, config.max_bad_share)

    with tqdm(total=_local_items(total, config.shard_items, rank, world), desc="encode",
              unit="item", disable=not progress or rank > 0) as bar:  # fmt: skip
        encode_blocks(
            embedder, _blocks(corpus, config), config.media_root, bar, check,
            config.number_format, config.dim,
        )  # fmt: skip


def _blocks(corpus: Corpus, config: EncodeConfig) -> Iterator[Block]:
    """The blocks of this process, every world-th of the corpus."""
    rank, world = processes()
    rows = iter(corpus)
    for number in count(0):
        batch = list(islice(rows, config.shard_items))
        if not batch:
            return
        if number % world == rank:
            ids, items, where = map(list, zip(*batch, strict=True))
            keys = [[name, item_key(item, config.media_root)] for name, item, _ in batch]
            digest = hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:32]
            yield Block(_path(config, number), ids, items, where, digest)


def _path(config: EncodeConfig, number: int) -> Path:
    return Path(config.output, _name(number))


def _name(number: int) -> str:
    return f"vectors-{number:06d}.safetensors"


def _inputs(config: EncodeConfig, embedder, digest: str) -> dict:
    """Everything that the vectors on disk depend on."""
    names = ("number_format", "dim", "shard_items")
    return {
        "model": model_key(embedder),
        "corpus": digest,
        "take": list(config.take),
        **{name: getattr(config, name) for name in names},
    }


def _check_folder(folder: Path, inputs: Mapping, shards: int) -> None:
    """Note the inputs in a new folder; ValueError if it holds vectors of other inputs."""
    noted = folder / "inputs.json"
    if not noted.is_file():
        if shard_files(folder):
            raise ValueError(f"{folder} holds vectors of unknown origin: choose another output")
        write_json(noted, {**inputs, "versions": note_versions()}, indent=1)
        return
    before = read_json(noted)
    changes = [name for name in inputs if not isinstance(before, dict) or before.get(name)
               != inputs[name]]  # fmt: skip
    if changes and not shard_files(folder):  # a start that came to nothing
        write_json(noted, {**inputs, "versions": note_versions()}, indent=1)
    elif changes:
        raise ValueError(
            f"{folder} holds vectors of another model, corpus or configuration "
            f"({', '.join(changes)} changed): remove it or choose another output"
        )
    warn_of_versions(before.get("versions"), str(folder))
    expected = {_name(number) for number in range(shards)}
    if extra := [path for path in shard_files(folder) if path.name not in expected]:
        raise ValueError(f"{extra[0]}: no shard of this corpus: remove it")
    written = _read_report(folder).get("files")
    if isinstance(written, dict):
        check_shards(folder, written)


def _read_report(folder: Path) -> dict:
    """The report of a finished corpus, {} if there is none."""
    path = folder / "report.json"
    report = read_json(path) if path.is_file() else {}
    return report if isinstance(report, dict) else {}


def _finish(folder: Path, inputs: Mapping, total: int) -> None:
    report = _report(folder, inputs, total)
    if report != _read_report(folder):
        write_json(folder / "report.json", report, indent=1)


def _report(folder: Path, inputs: Mapping, total: int) -> dict:
    headers = [read_header(path) for path in shard_files(folder)]
    bad = [row for header in headers for row in _bad_rows(header)]
    return {
        "inputs": dict(inputs),
        "items": total,
        "vectors": sum(len(header["ids"]) for header in headers),
        "shards": len(headers),
        "files": shard_sums(folder),
        "bad": dict(Counter(row.cause for row in bad)),
        "left_out": [asdict(row) for row in bad],
    }


def _bad_rows(header: Mapping) -> list[BadMediaRow]:
    return [BadMediaRow.from_error(name, noted_error(text)) for name, text in header["bad"].items()]


def _local_items(total: int, size: int, rank: int, world: int) -> int:
    """Number of items in the shards of this process."""
    shards = range(rank, -(-total // size), world)
    return sum(min(size, total - number * size) for number in shards)
