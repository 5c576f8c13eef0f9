"""From files of records to training batches: which pairs, in which order, in which forward.

A batch holds B pairs. Their items (B queries, B candidates, K hard negatives) are sorted by length
and cut into groups that share a forward, so that short texts are not padded to the longest clip.

Nothing is replaced: a pair whose medium cannot be read is left out of its batch, reported with it,
and counted by cause; too many of them are an error (DESIGN §3.8).
"""

# Shapes: B pairs in a batch, K hard negatives, N = 2 B + K items.

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .media import MediaError
from .modality import modality_of
from .pixels import Layout
from .processor import Encoded, Processor
from .prompts import files_of
from .records import content_id, iter_records, target_modality

__all__ = [
    "BadMedium", "BadMediaError", "Pair", "PairCollator", "PairDataset", "PairSampler",
    "check_bad_share",
]  # fmt: skip


class Pair(NamedTuple):
    """One record as training sees it."""

    query: dict
    candidate: dict
    negatives: list[dict]
    target_modality: int
    source: str
    task: str
    where: str  # how errors name it: "stage1.jsonl, record 7"


@dataclass(frozen=True)
class BadMedium:
    """A record that was left out because a medium of it cannot be read."""

    where: str
    cause: str  # the same words for the same kind of defect
    message: str


class BadMediaError(ValueError):
    """More records with unreadable media than allowed: how many of each cause, and which."""


class PairDataset(torch.utils.data.Dataset):
    """The pairs of one or more record files, in file order.

    Args
        files       JSON or JSON Lines; every record is validated, the first bad one is an error
        media_root  folder that media paths are relative to and must not leave
    Records that name a missing or empty file are left out and listed in `bad`; what is inside the
    files shows when they are encoded. A record without a `source` has its file's stem as source.
    """

    def __init__(self, files: Sequence[str | Path], media_root: str | Path = "."):
        self.pairs: list[Pair] = []
        self.bad: list[BadMedium] = []
        defects: dict[str, str] = {}  # path -> what is wrong with the file, "" if nothing
        for file in map(Path, files):
            for row, record in enumerate(iter_records(file, media_root=media_root), 1):
                pair = _pair(record, file.stem, f"{file}, record {row}")
                self._add(pair, Path(media_root), defects)
        if not self.pairs:
            names = ", ".join(map(str, files))
            raise BadMediaError(f"{names}: no usable record\n{_listed(self.bad)}")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]

    def _add(self, pair: Pair, root: Path, defects: dict[str, str]) -> None:
        for path in _paths(pair):
            if path not in defects:
                defects[path] = _defect(root / path)
            if defects[path]:
                cause = defects[path]
                self.bad.append(BadMedium(pair.where, cause, f"{pair.where}: {path}: {cause}"))
                return
        self.pairs.append(pair)


class PairSampler(torch.utils.data.Sampler):
    """Batches of indices: every epoch a new shuffle of all pairs, batches run on across epochs.

    Args
        dataset            its pairs' sources and tasks are what `weights` refers to
        batch_size, steps  pairs per batch, number of batches
        weights            factor per source or task (a pair of both gets the product): a pair of
                           weight 2 comes twice per epoch, of weight 1.5 once or twice by chance
        seed               the order is a function of it and of nothing else
    Skipping the first batches gives exactly the rest, which is how training resumes.
    """

    def __init__(self, dataset: PairDataset, batch_size: int, steps: int,
                 weights: Mapping[str, float] | None = None, seed: int = 0):  # fmt: skip
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.weights = _pair_weights(dataset, weights or {})
        if not self.epoch_size:
            raise ValueError("the weights leave no pair in an epoch: raise them")

    @property
    def epoch_size(self) -> int:
        """Pairs in one epoch."""
        levels, counts = np.unique(self.weights, return_counts=True)
        return int(sum(round(level * count) for level, count in zip(levels, counts, strict=True)))

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        waiting, epoch = np.empty(0, dtype=np.int64), 0
        for _ in range(self.steps):
            while len(waiting) < self.batch_size:
                waiting = np.concatenate([waiting, self._epoch(epoch)])
                epoch += 1
            yield waiting[: self.batch_size].tolist()
            waiting = waiting[self.batch_size :]

    def _epoch(self, number: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, number])
        chosen = []
        for level in np.unique(self.weights):
            rows = np.flatnonzero(self.weights == level)
            whole, rest = divmod(round(level * len(rows)), len(rows))
            chosen += [rows] * whole + [rng.choice(rows, rest, replace=False)]
        return rng.permutation(np.concatenate(chosen))


class PairCollator:
    """Pairs -> one batch for the trainer.

        {"groups": list of `Processor.collate` batches,
         "order": [N] row of each item in the concatenated groups; queries, candidates, negatives,
         "target_modality", "candidate_ids": [B] int64; equal content has equal ids,
         "negative_modality", "negative_ids": [K] int64, only if there are hard negatives,
         "source": list of B names, "bad": list of BadMedium that were left out}

    Args
        forward_items  items per group at most
        cache_mib      memory for encoded items; 0 encodes each one anew
        see            `UniteEmbedder.see` of a frozen tower: visual tokens are kept, not pixels
    A medium that cannot be read takes its pair out of the batch. An item that does not fit
    `max_length` is an error that names its record.
    """

    def __init__(self, processor: Processor, media_root: str | Path = ".",
                 forward_items: int = 32, cache_mib: int = 0,
                 see: Callable[[list[Encoded]], list[Encoded]] | None = None):  # fmt: skip
        self.processor, self.media_root = processor, media_root
        self.forward_items, self.see = forward_items, see
        self.cache = _Cache(processor.layout, cache_mib * 2**20)

    def __call__(self, pairs: Sequence[Pair]) -> dict:
        good, keys, bad = [], [], []
        encoded: dict[tuple, Encoded] = {}  # of this batch
        for pair in pairs:
            try:
                items = (pair.query, pair.candidate, *pair.negatives)
                keys.append([self._encode(item, pair.where, encoded) for item in items])
                good.append(pair)
            except MediaError as error:
                bad.append(BadMedium(pair.where, _cause(error), str(error)))
        if len(good) < 2:
            raise BadMediaError(f"{len(good)} pairs are left in a batch\n{_listed(bad)}")
        self._keep(encoded)
        order = [one[0] for one in keys] + [one[1] for one in keys]
        order += [negative for one in keys for negative in one[2:]]
        groups, places = self._groups([encoded[key] for key in order])
        return {"groups": groups, "order": places, "bad": bad, **_labels(good)}

    def _encode(self, item: dict, where: str, encoded: dict[tuple, Encoded]) -> tuple:
        """The item's key in `encoded`, where it is put if it is not there."""
        key = (content_id(item), *item)  # the prompt follows the order of the item's keys
        if key not in encoded:
            known = self.cache.get(key)
            encoded[key] = known or self.processor.encode(item, self.media_root, where)
        return key

    def _keep(self, encoded: dict[tuple, Encoded]) -> None:
        """Remember what was encoded just now, as visual tokens if a tower sees it."""
        fresh = [key for key in encoded if key not in self.cache.items]
        if self.see and fresh:
            seen = self.see([encoded[key] for key in fresh])
            encoded |= dict(zip(fresh, seen, strict=True))
        for key in fresh:
            self.cache.put(key, encoded[key])

    def _groups(self, items: Sequence[Encoded]) -> tuple[list[dict], Tensor]:
        lengths = torch.tensor([len(item.input_ids) for item in items])
        by_length = lengths.argsort(stable=True)
        groups = [
            self.processor.collate([items[i] for i in rows])
            for rows in by_length.split(self.forward_items)
        ]
        return groups, by_length.argsort()


def check_bad_share(bad: Sequence[BadMedium], total: int, max_share: float) -> None:
    """Raise a BadMediaError with causes and records if more than `max_share` of `total` are bad."""
    if len(bad) > max_share * total:
        raise BadMediaError(
            f"{len(bad)} of {total} records have media that cannot be read, more than the "
            f"{max_share:.2%} of max_bad_share: repair or remove them, or raise the limit\n"
            + _listed(bad)
        )


class _Cache:
    """Encoded items by key until the budget is used up; what is in stays in.

    Pixels are kept as the 8-bit values that they were before normalisation, if these give them
    back bit by bit, else as they are: a quarter of the memory, equal batches.
    """

    def __init__(self, layout: Layout, budget: int):
        self.left = budget  # bytes
        self.items: dict[tuple, Encoded] = {}
        self.mean, self.std = (torch.tensor(v)[:, None] for v in (layout.mean, layout.std))

    def get(self, key: tuple) -> Encoded | None:
        encoded = self.items.get(key)
        return encoded if encoded is None or encoded.seen else self._mapped(encoded, self._unpack)

    def put(self, key: tuple, encoded: Encoded) -> None:
        packed = encoded if encoded.seen else self._mapped(encoded, self._pack)
        size = 64 * len(packed.input_ids)  # a list of Python integers, and what holds it
        size += sum(patches.nbytes for patches, _ in (*packed.images, *packed.videos))
        if size <= self.left:
            self.left -= size
            self.items[key] = packed

    def _mapped(self, encoded: Encoded, change) -> Encoded:
        images, videos = (
            [(change(patches), grid) for patches, grid in media]
            for media in (encoded.images, encoded.videos)
        )
        return encoded._replace(images=images, videos=videos)

    def _pack(self, patches: Tensor) -> Tensor:
        levels = (patches.unflatten(1, (3, -1)) * self.std + self.mean) * 255
        packed = levels.round().clamp(0, 255).to(torch.uint8).flatten(1)
        return packed if torch.equal(self._unpack(packed), patches) else patches

    def _unpack(self, packed: Tensor) -> Tensor:
        if packed.dtype != torch.uint8:
            return packed
        channels = packed.unflatten(1, (3, -1)).float()  # as `pixels.to_patches` does it
        return ((channels / 255 - self.mean) / self.std).flatten(1)


def _pair(record: Mapping, stem: str, where: str) -> Pair:
    negatives = record.get("negative") or []
    return Pair(
        query=record["query"],
        candidate=record["candidate"],
        negatives=[negatives] if isinstance(negatives, Mapping) else list(negatives),
        target_modality=int(target_modality(record, where)),
        source=record.get("source") or stem,
        task=record.get("task") or "",
        where=where,
    )


def _labels(pairs: Sequence[Pair]) -> dict:
    candidates = [pair.candidate for pair in pairs]
    negatives = [negative for pair in pairs for negative in pair.negatives]
    labels = {
        "source": [pair.source for pair in pairs],
        "target_modality": torch.tensor([pair.target_modality for pair in pairs]),
        "candidate_ids": torch.tensor([_number(item) for item in candidates]),
    }
    if negatives:
        labels["negative_modality"] = torch.tensor([int(modality_of(item)) for item in negatives])
        labels["negative_ids"] = torch.tensor([_number(item) for item in negatives])
    return labels


def _number(item: Mapping) -> int:
    """The item's content as a 60-bit number."""
    return int(content_id(item)[:15], 16)


def _pair_weights(dataset: PairDataset, weights: Mapping[str, float]) -> np.ndarray:
    names = {name for pair in dataset.pairs for name in (pair.source, pair.task) if name}
    if unknown := sorted(set(weights) - names):
        raise ValueError(
            f"weights name {', '.join(unknown)}, but the records have the sources and tasks "
            f"{', '.join(sorted(names))}: correct the names"
        )
    return np.array([weights.get(p.source, 1.0) * weights.get(p.task, 1.0) for p in dataset.pairs])


def _paths(pair: Pair) -> Iterator[str]:
    """The files that a pair refers to."""
    for item in (pair.query, pair.candidate, *pair.negatives):
        yield from files_of(item)


def _defect(path: Path) -> str:
    try:
        return "" if path.stat().st_size else "empty file"
    except OSError:
        return "no such file"


def _cause(error: MediaError) -> str:
    """The kind of defect, from a message "where: file: cause (detail); remedy"."""
    message = str(error.__cause__ or error)
    return message.split(": ", 1)[-1].split(";")[0].split(" (")[0]


def _listed(bad: Sequence[BadMedium], shown: int = 20) -> str:
    causes = Counter(one.cause for one in bad)
    lines = [f"  {count} x {cause}" for cause, count in causes.most_common()]
    lines += [f"  {one.message}" for one in bad[:shown]]
    if len(bad) > shown:
        lines.append(f"  and {len(bad) - shown} more")
    return "\n".join(lines)
