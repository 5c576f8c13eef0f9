"""Mine hard negatives for records: `mine(MineConfig)`, or `unite mine`.

Queries and candidates of the records are embedded, whatever their modality, the best candidates of
every query are searched exactly, those that may be positives are removed (`negative_filters`), and
the best of the rest are written as the records' `negative`. A report beside the records has what
each filter removed, the scores of positives and negatives, and how many records got fewer negatives
than asked.
"""

# Shapes: N records, R records of a batch, Q queries, K = depth.

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.bad_media import BadMediaRow, check_bad_share
from ..data.pairs import PairDataset
from ..data.records import GROUPS, write_records
from ..distributed import barrier, processes
from ..files import read_json, working_in, write_json
from ..settings import make
from ..versions import note_versions, warn_of_versions
from .blocks import model_key
from .config import MineConfig
from .corpus import item_key, rows_hash
from .exact import ranked, search
from .negative_filters import KnownFilters, choose_negatives, identical_items, joined
from .pair_items import PairItems
from .vector_store import StoredVectors, encode_items

__all__ = ["NegativeMiner", "mine"]


_CHOICE = ("negatives", "depth", "skip", "margin", "ratio", "same_modality")  # of MineConfig
_QUERIES, _CANDIDATES = 4096, 65536  # vectors in memory at a time
_BINS = np.linspace(-1, 1, 41)


def mine(config: MineConfig, embedder=None, progress: bool = True) -> Path:
    """Write the records with hard negatives, and a report; returns the file of records.

    Args
        embedder  a UniteEmbedder; default: `config.model` loaded
        progress  show bars of embedding and search
    Records keep all they have and may get fewer negatives than asked, or none; those with
    unreadable media, or an item that does not fit, are left out and listed in the report. Finished
    work is not repeated; ValueError if the output is of another configuration, data or model, or if
    a media file has changed since; InUseError if another process mines there.
    """
    if embedder is None:
        from ..model.embedder import UniteEmbedder

        embedder = UniteEmbedder.load(config.model, **asdict(config.load))
    if Path(config.output).is_dir():
        raise ValueError(f"output {config.output} is a folder; give the name of a file")
    with working_in(config.output):
        return _mine_records(config, embedder, progress)


def _mine_records(config: MineConfig, embedder, progress: bool) -> Path:
    output, report = Path(config.output), Path(config.output).with_suffix(".report.json")
    dataset = PairDataset(config.data, config.media_root)
    items = PairItems(dataset)
    inputs = {
        "config": {**asdict(config), "data": list(config.data), "load": None},
        "model": model_key(embedder),
        "data": {path: rows_hash(path) for path in config.data},
        "items": _items_hash(items, config.media_root),
    }
    if _is_done(output, report, inputs):
        return output
    folder = config.vectors or output.parent / "vectors"
    vectors = encode_items(embedder, items, folder, config.media_root, progress, items.where)
    bad = items.bad_records(vectors.bad)
    left_out = [*dataset.bad, *bad.values()]
    check_bad_share(left_out, len(dataset) + len(dataset.bad), config.max_bad_share)
    mined = _mine(config, items, vectors, np.array(sorted(bad), dtype=int), progress)
    found = _report(config, items, mined, left_out)
    write_json(report, {"inputs": inputs, "versions": note_versions(), **found}, indent=1)
    write_records(output, _records(items, mined, bad))
    return output


class NegativeMiner:
    """Mine hard negatives with a model that is being trained, for `train`.

    Args
        fields  of MineConfig: negatives, depth, skip, margin, ratio, same_modality
    Raises ValueError for other fields and values out of range.
    """

    def __init__(self, fields: Mapping[str, Any]):
        if unknown := sorted(set(fields) - set(_CHOICE)):
            raise ValueError(f"refresh.{unknown[0]} is no field; known: {', '.join(_CHOICE)}")
        not_asked = dict.fromkeys(("model", "data", "output"), "-")
        self.config = make(MineConfig, not_asked | dict(fields), "refresh")

    def __call__(self, embedder, dataset: PairDataset, media_root: str | Path,
                 folder: str | Path) -> np.ndarray:  # fmt: skip
        """Mine for every pair: [N, k] numbers of pairs whose candidates are its hard negatives.

        -1 fills up; a pair that cannot be read has none and is none's. Several processes share the
        work, in a folder that all see and that may be removed afterwards; all return the same.
        """
        config = replace(self.config, media_root=str(media_root))
        items, folder = PairItems(dataset), Path(folder)
        vectors = encode_items(embedder, items, folder, media_root, False, items.where)
        rank, world = processes()
        mined_here = np.zeros(len(dataset), dtype=bool)
        mined_here[rank::world] = True
        mined_here[sorted(items.bad_records(vectors.bad))] = False
        mined = _mine(config, items, vectors, np.flatnonzero(~mined_here), progress=False)
        first = np.full(len(items) + 1, -1, dtype=np.int32)  # pair of each candidate; [-1] is -1
        first[items.candidates[::-1]] = np.arange(len(dataset), dtype=np.int32)[::-1]
        return _of_all(first[mined.negatives], folder)


def _of_all(rows: np.ndarray, folder: Path) -> np.ndarray:
    """The greatest numbers of all processes, which have -1 where another one mined."""
    rank, world = processes()
    if world == 1:
        return rows
    np.save(folder / f"rows-{rank}.npy", rows)
    barrier()
    for other in range(world):
        rows = np.maximum(rows, np.load(folder / f"rows-{other}.npy"))
    barrier()  # before anyone removes the folder
    return rows


def _items_hash(items: PairItems, media_root: str | Path) -> str:
    """Of the contents and the media files of all queries and candidates."""
    digest = hashlib.sha256()
    for number in range(len(items)):
        digest.update(item_key(items[number], media_root).encode())
    return digest.hexdigest()[:32]


@dataclass
class _Mined:
    """Negatives chosen and counts so far."""

    negatives: np.ndarray  # [N, negatives] item numbers, padded with -1
    removed: Counter[str]
    positive_bins: np.ndarray
    negative_bins: np.ndarray
    count: np.ndarray  # [N] negatives chosen; -1 for a bad record

    @classmethod
    def empty(cls, records: int, negatives: int) -> _Mined:
        return cls(
            np.full((records, negatives), -1, dtype=np.int32),
            Counter(),
            np.zeros(len(_BINS) - 1, int),
            np.zeros(len(_BINS) - 1, int),
            np.full(records, -1),
        )


def _mine(config: MineConfig, items: PairItems, vectors: StoredVectors, bad: np.ndarray,
          progress: bool) -> _Mined:  # fmt: skip
    from tqdm import tqdm

    n = len(items.dataset)
    mined = _Mined.empty(n, config.negatives)
    same = joined(identical_items(items, config.media_root), items.families)
    filters = KnownFilters(items, same)
    searches = list(_searches(config, items, vectors, np.delete(np.arange(n), bad)))
    with tqdm(total=sum(len(rows) for rows, _ in searches), disable=not progress, unit="record",
              desc="mine") as bar:  # fmt: skip
        for rows, pool in searches:
            query_of_row = items.queries[rows]
            queries = np.unique(query_of_row)  # sorted, so a batch of them is a range of numbers
            for start in range(0, len(queries), _QUERIES):
                batch = queries[start : start + _QUERIES]
                in_batch = (query_of_row >= batch[0]) & (query_of_row <= batch[-1])
                scores, found = _best(vectors, batch, pool, config.depth)
                at = np.searchsorted(batch, query_of_row[in_batch])
                _add(config, items, vectors, filters, mined, rows[in_batch], scores[at], found[at])
                bar.update(int(in_batch.sum()))
    return mined


def _searches(config, items, vectors, rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(records, items that are their candidates) for each target modality, or all at once."""
    modality = items.dataset.table.target_modality
    if not config.same_modality:
        modality = np.zeros_like(modality)
    readable = vectors.places[items.candidates, 0] >= 0
    for code in np.unique(modality[rows]):
        pool = np.unique(items.candidates[readable & (modality == code)])
        yield rows[modality[rows] == code], pool


def _best(vectors: StoredVectors, queries, pool, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Search `pool` in chunks: scores and items [Q, K] of the best, padded with -inf and -1."""
    query_vectors = vectors.rows(queries)
    scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    items = np.full((len(queries), depth), -1)
    for start in range(0, len(pool), _CANDIDATES):
        chunk = pool[start : start + _CANDIDATES]
        new_scores, found = search(query_vectors, vectors.rows(chunk), min(depth, len(chunk)))
        scores = np.concatenate([scores, new_scores], axis=1)
        items = np.concatenate([items, chunk[found]], axis=1)
        scores, items = ranked(scores, items, depth)
    return scores, items


def _add(config, items, vectors, filters, mined: _Mined, rows, scores, found) -> None:
    """Choose the negatives of a batch of records and count."""
    positives = np.einsum("rd,rd->r", vectors.rows(items.queries[rows]),
                          vectors.rows(items.candidates[rows]))  # fmt: skip
    chosen, removed = choose_negatives(scores, positives, filters.masks(rows, found), config)
    mined.removed.update(removed)
    row, rank = np.nonzero(chosen)
    mined.count[rows] = chosen.sum(1)
    mined.negatives[rows[row], chosen.cumsum(1)[row, rank] - 1] = found[row, rank]
    mined.positive_bins += _histogram(positives)
    mined.negative_bins += _histogram(scores[row, rank])


def _histogram(scores: np.ndarray) -> np.ndarray:
    return np.histogram(scores.clip(-1, 1), _BINS)[0]


def _records(items: PairItems, mined: _Mined, bad: Mapping[int, BadMediaRow]) -> Iterator[dict]:
    for row, pair in enumerate(items.dataset):
        if row in bad:
            continue
        record = {"query": pair.query, "candidate": pair.candidate}
        found = [items[number] for number in mined.negatives[row] if number >= 0]
        if pair.negatives or found:
            record["negative"] = [*pair.negatives, *found]
        if pair.task:
            record["task"] = pair.task
        for name, group in zip(GROUPS, pair.groups, strict=True):
            if group:
                record[name] = items.dataset.group_names[group]
        yield record | {"source": pair.source}  # by default the file's name, which changes here


def _report(config, items: PairItems, mined: _Mined, left_out: Sequence[BadMediaRow]) -> dict:
    counts = Counter(mined.count[mined.count >= 0].tolist())
    return {
        "records": sum(counts.values()),
        "queries": len(np.unique(items.queries)),
        "candidates": len(np.unique(items.candidates)),
        "negatives": sum(number * records for number, records in counts.items()),
        "removed": dict(mined.removed),
        "fewer_than_asked": sum(n for number, n in counts.items() if number < config.negatives),
        "records_by_negatives": {str(number): counts[number] for number in sorted(counts)},
        "score_bins": _BINS.round(2).tolist(),
        "positive_scores": mined.positive_bins.tolist(),
        "negative_scores": mined.negative_bins.tolist(),
        "bad": dict(Counter(row.cause for row in left_out)),
        "left_out": [asdict(row) for row in left_out],
    }


def _is_done(output: Path, report: Path, inputs: Mapping) -> bool:
    """Whether the records, which are written last, exist; ValueError if of other inputs."""
    if not output.is_file():
        return False
    noted = read_json(report) if report.is_file() else {}
    before = noted.get("inputs") if isinstance(noted, dict) else None
    if before == inputs:
        warn_of_versions(noted.get("versions"), str(output))
        return True
    changes = [name for name in inputs if not before or before.get(name) != inputs[name]]
    changed = f"{', '.join(changes)} changed" if before else "its report is missing"
    raise ValueError(
        f"{output} holds the negatives of another configuration, model or data ({changed}): remove "
        "it or choose another output"
    )
