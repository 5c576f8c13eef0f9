"""Hard negatives for records: `mine(MineConfig)`, or `python -m unite_core.mine CONFIG.json`.

Queries and candidates of the records are embedded (text, images, video alike), every query's best
candidates are searched exactly, those that may be right are removed, and the best of the rest are
written as the records' `negative`. What the filters removed, how positives and negatives score and
which records got fewer than asked stands in a report beside the records.

A candidate goes to the first of these filters that it meets: a positive of the same query; the
query itself; a negative that the record has; an identical item (the same text but for case and
spaces, the same bytes of its files) as one of those positives or the query; a rank to skip; a score
within the margin of the positive's; one above the ratio of it (NV-Retriever, arXiv 2407.15831).
"""

# Shapes: N records, R records of a block, K = depth, U items that differ in content, D their size.

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..data.bad_media import BadMediaRow, check_bad_share
from ..data.items import files_of, images_of, videos_of
from ..data.pairs import PairDataset, content_number
from ..data.records import write_records
from ..files import read_json, write_json
from .blocks import model_key
from .config import MineConfig
from .exact import search
from .vector_store import StoredVectors, encode_items

__all__ = ["choose_negatives", "identical_items", "mine"]


_QUERIES, _CANDIDATES = 4096, 65536  # vectors in memory at a time
_BINS = np.linspace(-1, 1, 41)


def mine(config: MineConfig, embedder=None, progress: bool = True) -> Path:
    """Write the records with hard negatives, and the report; returns the records' file.

    Args
        embedder  default: `config.model` loaded; it needs `.embed`, `.state_dict` and `.config`
        progress  show bars of embedding and search
    Every record is kept, with fewer negatives or none where filters leave no more; those with
    media that cannot be read are left out and listed. Finished work is not repeated, and output of
    another configuration, data or model not overwritten: ValueError.
    """
    if embedder is None:
        from ..model.embedder import UniteEmbedder

        embedder = UniteEmbedder.load(config.model)
    inputs = {
        "config": asdict(config) | {"data": list(config.data)},
        "model": model_key(embedder),
        "data": {path: _file_hash(Path(path)) for path in config.data},
    }
    output, report = Path(config.output), Path(config.output).with_suffix(".report.json")
    if _is_done(output, report, inputs):
        return output
    dataset = PairDataset(config.data, config.media_root)
    corpus = _Corpus(dataset)
    folder = config.vectors or output.parent / "vectors"
    vectors = encode_items(embedder, corpus, folder, config.media_root, progress, corpus.where)
    bad = _bad_records(dataset, corpus, vectors)
    listed = [*dataset.bad, *bad.values()]
    check_bad_share(listed, len(dataset) + len(dataset.bad), config.max_bad_share)
    mined = _mine(config, corpus, vectors, np.array(sorted(bad), dtype=int), progress)
    write_json(report, {"inputs": inputs, **_report(config, corpus, mined, listed)}, indent=1)
    write_records(output, _records(corpus, mined, bad))
    return output


def choose_negatives(scores: np.ndarray, positive_scores: np.ndarray,
                     known: Mapping[str, np.ndarray],
                     config: MineConfig) -> tuple[np.ndarray, dict[str, int]]:  # fmt: skip
    """Which candidates found are hard negatives.

    Args
        scores           [R, K]  of the candidates found, best first; -inf where there is none
        positive_scores  [R]     of each record's own candidate
        known            name -> [R, K] bool: candidates that are no negatives whatever their score
    Returns
        chosen [R, K] bool, at most `config.negatives` a row, the best; and how many candidates
        each filter removed, in the order of filters, counted by the first that they meet.
    With a positive score s > 0 the ratio's limit is ratio * s; below 0 it stays below s.
    """
    left, removed = np.isfinite(scores), {}
    limits = {"margin": None if config.margin is None else positive_scores - config.margin,
              "ratio": None if config.ratio is None
              else positive_scores - (1 - config.ratio) * np.abs(positive_scores)}  # fmt: skip
    for name, mask in known.items():
        removed[name] = int((left & mask).sum())
        left &= ~mask
    first = left & (left.cumsum(1) <= config.skip)
    removed["skip"] = int(first.sum())
    left &= ~first
    for name, limit in limits.items():
        above = left & (scores > limit[:, None]) if limit is not None else np.zeros_like(left)
        removed[name] = int(above.sum())
        left &= ~above
    return left & (left.cumsum(1) <= config.negatives), removed


def identical_items(items: Sequence[dict], media_root: str | Path = ".") -> np.ndarray:
    """[U] numbers, equal for items of the same text and the same media.

    Texts are compared in NFKC, without regard to case and spaces; files by their bytes, of which
    only those are read whose size occurs twice.
    """
    root, sizes = Path(media_root), {}
    for item in items:
        sizes |= {path: _size(root / path) for path in files_of(item) if path not in sizes}
    shared = {size for size, count in Counter(sizes.values()).items() if count > 1}
    names = {path: _file_hash(root / path) if size in shared and size else path
             for path, size in sizes.items()}  # fmt: skip
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(_twin_key(item, names), len(numbers)) for item in items])


class _Corpus(Sequence):
    """The distinct items of a data set's queries and candidates, in order of appearance."""

    def __init__(self, dataset: PairDataset):
        self.dataset = dataset
        ids = np.stack(dataset.contents, axis=1).ravel()  # query, candidate, query, ...
        self.ids, first, number = np.unique(ids, return_index=True, return_inverse=True)
        by_appearance = np.argsort(first)
        self.places = first[by_appearance]
        self.numbers = np.argsort(by_appearance)  # of the sorted ids
        self.queries, self.candidates = self.numbers[number].reshape(-1, 2).T  # [N] items

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> dict:
        row, side = divmod(int(self.places[number]), 2)
        pair = self.dataset[row]
        return pair.candidate if side else pair.query

    def where(self, number: int) -> str:
        row, side = divmod(int(self.places[number]), 2)
        return f"{self.dataset[row].where}, {'candidate' if side else 'query'}"

    @cached_property
    def given(self) -> np.ndarray:
        """Sorted `_code`s of (record, item) for the negatives that records already have."""
        rows = np.flatnonzero(self.dataset.table.negatives)
        pairs = [
            (row, content_number(item)) for row in rows for item in self.dataset[row].negatives
        ]
        rows, ids = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        at = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        found = self.ids[at] == ids
        return np.sort(_code(rows[found], self.numbers[at[found]], len(self)))


@dataclass
class _Mined:
    """What was chosen and counted so far."""

    negatives: np.ndarray  # [N, negatives] items, -1 where there is none
    removed: Counter[str]
    positive_bins: np.ndarray
    negative_bins: np.ndarray
    count: np.ndarray  # [N] negatives chosen; -1 for a bad record


def _mine(config: MineConfig, corpus: _Corpus, vectors: StoredVectors, bad: np.ndarray,
          progress: bool) -> _Mined:  # fmt: skip
    from tqdm import tqdm

    n = len(corpus.dataset)
    mined = _Mined(np.full((n, config.negatives), -1, dtype=np.int32), Counter(),
                   np.zeros(len(_BINS) - 1, int), np.zeros(len(_BINS) - 1, int),
                   np.full(n, -1))  # fmt: skip
    filters = _KnownFilters(corpus, identical_items(corpus, config.media_root))
    searches = list(_searches(config, corpus, vectors, np.delete(np.arange(n), bad)))
    with tqdm(total=sum(len(rows) for rows, _ in searches), disable=not progress, unit="record",
              desc="mine") as bar:  # fmt: skip
        for rows, pool in searches:
            queries = np.unique(corpus.queries[rows])
            for start in range(0, len(queries), _QUERIES):
                block = queries[start : start + _QUERIES]
                asking = corpus.queries[rows]  # `queries` are sorted, so a block is a range
                these = rows[(asking >= block[0]) & (asking <= block[-1])]
                scores, found = _best(vectors, block, pool, config.depth)
                at = np.searchsorted(block, corpus.queries[these])
                _add(config, corpus, vectors, filters, mined, these, scores[at], found[at])
                bar.update(len(these))
    return mined


def _searches(config, corpus, vectors, rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(records, items that are candidates for them) for each target modality, or all at once."""
    modality = corpus.dataset.table.target_modality
    if not config.same_modality:
        modality = np.zeros_like(modality)
    readable = vectors.places[corpus.candidates, 0] >= 0
    for code in np.unique(modality[rows]):
        pool = np.unique(corpus.candidates[readable & (modality == code)])
        yield rows[modality[rows] == code], pool


def _best(vectors: StoredVectors, queries, pool, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and items [queries, depth] of the best of `pool`, which is read in blocks."""
    asked = vectors.rows(queries)
    scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    items = np.full((len(queries), depth), -1)
    for start in range(0, len(pool), _CANDIDATES):
        block = pool[start : start + _CANDIDATES]
        new_scores, found = search(asked, vectors.rows(block), min(depth, len(block)))
        scores = np.concatenate([scores, new_scores], axis=1)
        items = np.concatenate([items, block[found]], axis=1)
        order = np.lexsort((items, -scores))[:, :depth]
        scores, items = (np.take_along_axis(part, order, 1) for part in (scores, items))
    return scores, items


def _add(config, corpus, vectors, filters, mined: _Mined, rows, scores, found) -> None:
    """Choose the negatives of some records and count."""
    positives = np.einsum("rd,rd->r", vectors.rows(corpus.queries[rows]),
                          vectors.rows(corpus.candidates[rows]))  # fmt: skip
    chosen, removed = choose_negatives(scores, positives, filters.masks(rows, found), config)
    mined.removed.update(removed)
    row, rank = np.nonzero(chosen)
    mined.count[rows] = chosen.sum(1)
    mined.negatives[rows[row], chosen.cumsum(1)[row, rank] - 1] = found[row, rank]
    mined.positive_bins += _histogram(positives)
    mined.negative_bins += _histogram(scores[row, rank])


class _KnownFilters:
    """Candidates that are no negatives, whatever they score."""

    def __init__(self, corpus: _Corpus, twins: np.ndarray):
        self.corpus, self.twins, size = corpus, twins, len(corpus)
        self.positives = np.sort(_code(corpus.queries, corpus.candidates, size))
        self.identical = np.sort(np.concatenate([
            _code(corpus.queries, twins[corpus.candidates], size),
            _code(corpus.queries, twins[corpus.queries], size),
        ]))  # fmt: skip

    def masks(self, rows: np.ndarray, found: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> [R, K] bool for the items `found` [R, K] of records `rows` [R]."""
        size, query = len(self.corpus), self.corpus.queries[rows][:, None]
        return {
            "positive": _member(_code(query, found, size), self.positives),
            "query": found == query,
            "given": _member(_code(rows[:, None], found, size), self.corpus.given),
            "identical": _member(_code(query, self.twins[found], size), self.identical),
        }


def _records(corpus: _Corpus, mined: _Mined, bad: Mapping[int, BadMediaRow]) -> Iterator[dict]:
    for row, pair in enumerate(corpus.dataset):
        if row in bad:
            continue
        record = {"query": pair.query, "candidate": pair.candidate}
        found = [corpus[number] for number in mined.negatives[row] if number >= 0]
        if pair.negatives or found:
            record["negative"] = [*pair.negatives, *found]
        if pair.task:
            record["task"] = pair.task
        yield record | {"source": pair.source}  # it may be the file's name, which is another now


def _report(config, corpus, mined: _Mined, bad: Sequence[BadMediaRow]) -> dict:
    counts = Counter(mined.count[mined.count >= 0].tolist())
    return {
        "records": sum(counts.values()),
        "queries": len(np.unique(corpus.queries)),
        "candidates": len(np.unique(corpus.candidates)),
        "negatives": sum(number * records for number, records in counts.items()),
        "removed": dict(mined.removed),
        "fewer_than_asked": sum(n for number, n in counts.items() if number < config.negatives),
        "records_by_negatives": {str(number): counts[number] for number in sorted(counts)},
        "score_bins": _BINS.round(2).tolist(),
        "positive_scores": mined.positive_bins.tolist(),
        "negative_scores": mined.negative_bins.tolist(),
        "bad": dict(Counter(one.cause for one in bad)),
        "left_out": [asdict(one) for one in bad],
    }


def _bad_records(dataset, corpus: _Corpus, vectors: StoredVectors) -> dict[int, BadMediaRow]:
    """Records whose query or candidate could not be read."""
    broken = np.zeros(len(corpus), dtype=bool)
    broken[list(vectors.bad)] = True
    bad = {}
    for row in np.flatnonzero(broken[corpus.queries] | broken[corpus.candidates]).tolist():
        number = next(n for n in (corpus.queries[row], corpus.candidates[row]) if broken[n])
        bad[row] = BadMediaRow.from_error(dataset[row].where, vectors.bad[int(number)])
    return bad


def _is_done(output: Path, report: Path, inputs: Mapping) -> bool:
    """Whether the records, which are written last, are there; refused if they are not of this."""
    if not output.is_file():
        return False
    if report.is_file() and read_json(report)["inputs"] == inputs:
        return True
    raise ValueError(
        f"{output} holds the negatives of another configuration, model or data, or its report is "
        "missing: remove it or choose another output"
    )


def _twin_key(item: Mapping, names: Mapping[str, str]) -> bytes:
    """Equal for items of the same text and media: 16 bytes, as there may be millions."""
    text = " ".join(unicodedata.normalize("NFKC", item.get("text") or "").casefold().split())
    media = [[_named(medium, names) for medium in kind(item)] for kind in (images_of, videos_of)]
    return hashlib.sha256(repr((text, media)).encode()).digest()[:16]


def _named(medium, names: Mapping[str, str]):
    return [names[frame] for frame in medium] if isinstance(medium, list) else names[medium]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _code(first: np.ndarray, second: np.ndarray, size: int) -> np.ndarray:
    """A number for each pair of numbers, the second below `size`."""
    return first.astype(np.int64) * size + second


def _member(codes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which codes are among the sorted `known`."""
    if not len(known):
        return np.zeros(codes.shape, dtype=bool)
    at = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return known[at] == codes


def _histogram(scores: np.ndarray) -> np.ndarray:
    return np.histogram(scores.clip(-1, 1), _BINS)[0]
