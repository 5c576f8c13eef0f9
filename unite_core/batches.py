"""From files of records to training batches: the pairs, their order, which share a forward.

A batch holds B pairs. Their items (B queries, B candidates, K hard negatives) are sorted by length
and cut into groups that share a forward, so that short texts are not padded to the longest clip.

Nothing is replaced: a pair whose medium cannot be read is left out of its batch, reported with it,
and counted by cause; too many of them are an error (DESIGN §3.8).
"""

# Shapes: B pairs in a batch, K hard negatives, N = 2 B + K items.

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .config import SamplingConfig
from .media import MediaError
from .modality import modality_of
from .pairs import PackedPairs, Pair, PairTable
from .pixels import Layout
from .processor import Encoded, Processor
from .prompts import files_of
from .records import GROUPS, content_id, iter_records, target_modality
from .sampling import draw_negatives, iter_batches, pair_weights, plan_pools, rank_share

__all__ = [
    "BadMedium", "BadMediaError", "Pair", "PairCollator", "PairDataset", "PairSampler", "Pick",
    "check_bad_share", "content_number",
]  # fmt: skip


@dataclass(frozen=True)
class BadMedium:
    """A record that was left out because a medium of it cannot be read."""

    where: str
    cause: str  # the same words for the same kind of defect
    message: str

    @classmethod
    def of(cls, where: str, error: MediaError) -> BadMedium:
        """From an error "place: file: cause (detail); remedy", or one that was caused by such."""
        message = str(error.__cause__ or error)
        cause = message.split(": ", 1)[-1].split(";")[0].split(" (")[0]
        return cls(where, cause, f"{where}: {message}")


class BadMediaError(ValueError):
    """More records with unreadable media than allowed: how many of each cause, and which."""


class Pick(NamedTuple):
    """A pair with some of its hard negatives, as `PairSampler` draws it."""

    index: int
    negatives: tuple[int, ...]


class PairDataset(torch.utils.data.Dataset):
    """The pairs of one or more record files, in file order.

    Args
        files       of `readers`; every record is validated, the first bad one is an error
        media_root  folder that media paths are relative to and must not leave
    Records that name a missing or empty file are left out and listed in `bad`; what is inside the
    files shows when they are encoded. A record without a `source` has its file's stem as source.
    A hard negative with the content of its own positive is left out with one warning that counts
    them: the loss would take it for a second positive.
    Held as text and columns, so a pair takes little more memory than its line in the file.
    """

    def __init__(self, files: Sequence[str | Path], media_root: str | Path = "."):
        self.pairs = PackedPairs()
        self.bad: list[BadMedium] = []
        repeated: list[str] = []  # hard negatives that are their record's positive
        defects: dict[str, str] = {}  # path -> what is wrong with the file, "" if nothing
        for file in map(Path, files):
            for row, record in enumerate(iter_records(file, media_root=media_root), 1):
                pair = _pair(record, file.stem, f"{file}, record {row}", repeated)
                if not self._is_bad(pair, Path(media_root), defects):
                    self.pairs.append(pair, str(file), row)
        if not self.pairs:
            names = ", ".join(map(str, files))
            raise BadMediaError(f"{names}: no usable record\n{_listed(self.bad)}")
        if repeated:
            warnings.warn(
                f"{len(repeated)} hard negatives repeat their record's candidate and are left "
                f"out, the first in {repeated[0]}: remove them from the records",
                stacklevel=2,
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | Pick) -> Pair:
        if not isinstance(key, Pick):
            return self.pairs[key]
        pair = self.pairs[key.index]
        return pair._replace(negatives=[pair.negatives[n] for n in key.negatives])

    @cached_property
    def table(self) -> PairTable:
        """What sampling knows of the pairs."""
        return self.pairs.table()

    @cached_property
    def contents(self) -> tuple[np.ndarray, np.ndarray]:
        """[N] int64 content ids of queries and of candidates; equal content has equal ids."""
        ids = np.empty((2, len(self)), dtype=np.int64)
        for row in range(len(self)):
            query, candidate, *_ = self.pairs.items(row)
            ids[0, row], ids[1, row] = content_number(query), content_number(candidate)
        return ids[0], ids[1]

    @cached_property
    def identities(self) -> tuple[np.ndarray, np.ndarray]:
        """As `contents`, but of a group's number where a record names one."""
        columns = (self.pairs.columns[name] for name in GROUPS)
        both = zip(self.contents, map(np.array, columns), strict=True)
        query, candidate = (np.where(group > 0, group, content) for content, group in both)
        return query, candidate

    def _is_bad(self, pair: Pair, root: Path, defects: dict[str, str]) -> bool:
        for path in _paths(pair):
            if path not in defects:
                defects[path] = _defect(root / path)
            if cause := defects[path]:
                self.bad.append(BadMedium(pair.where, cause, f"{pair.where}: {path}: {cause}"))
                return True
        return False


class PairSampler(torch.utils.data.Sampler):
    """Batches of indices: every epoch a new shuffle of all pairs, batches run on across epochs.

    Args
        dataset            its pairs' sources and tasks are what `weights` refers to
        batch_size, steps  pairs per batch of all processes together, number of batches
        weights            factor per source or task (a pair of both gets the product): a pair of
                           weight 2 comes twice per epoch, of weight 1.5 once or twice by chance
        seed               the order is a function of it and of nothing else
        sampling           what else decides which pairs share a batch
        rank, world_size   this process gets its contiguous part of each batch; the parts of all
                           processes are the batch of one
    Skipping the first batches gives exactly the rest, which is how training resumes.
    Yields indices, or with `sampling.negatives` a `Pick` for each. `repeats` counts, by where they
    were drawn, pairs let in by `sampling.distinct` because nothing else was left.
    """

    def __init__(self, dataset: PairDataset, batch_size: int, steps: int,
                 weights: Mapping[str, float] | None = None, seed: int = 0,
                 sampling: SamplingConfig | None = None, rank: int = 0,
                 world_size: int = 1):  # fmt: skip
        if not 0 <= rank < world_size <= batch_size:
            raise ValueError(
                f"rank {rank} of {world_size} processes cannot share a batch of {batch_size} "
                "pairs: every process needs one at least"
            )
        self.dataset, self.batch_size, self.steps, self.seed = dataset, batch_size, steps, seed
        self.sampling = sampling or SamplingConfig()
        self.share = rank_share(batch_size, rank, world_size)
        self.weights = pair_weights(dataset.table, weights or {}, self.sampling)
        self.pools = plan_pools(dataset.table, self.sampling, batch_size, self.weights)
        self.repeats: Counter[str] = Counter()

    @property
    def epoch_size(self) -> int:
        """Pairs in one epoch, those of all processes together."""
        return sum(strand.size for pool in self.pools for strand in pool.strands)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int] | list[Pick]]:
        contents = self.dataset.identities if self.sampling.distinct else None
        self.repeats.clear()
        batches = iter_batches(self.pools, self.sampling, self.seed, contents, self.repeats)
        for step, batch in enumerate(islice(batches, self.steps)):
            wanted = self.sampling.negatives
            indices = batch.tolist()
            if wanted is not None:
                available = self.dataset.table.negatives[batch]
                drawn = draw_negatives(available, wanted, self.seed, step)
                indices = list(map(Pick, indices, drawn))
            yield indices[self.share]


class PairCollator:
    """Pairs -> one batch for the trainer.

        {"groups": list of `Processor.collate` batches,
         "order": [N] row of each item in the concatenated groups; queries, candidates, negatives,
         "target_modality", "candidate_ids": [B] int64; equal content or group has equal ids,
         "negative_modality", "negative_ids": [K] int64, only if there are hard negatives,
         "source": list of B names, "bad": list of BadMedium that were left out}

    Args
        forward_items  items per group at most
        cache_mib      memory for encoded items; 0 encodes each one anew
        see            `UniteEmbedder.see` of a frozen tower: visual tokens are kept, not pixels
        forward_tokens  tokens per group at most, padding included; a longer item is a group alone
        fewest         pairs that must be left in a batch; 0 where it is a part of one only
    A medium that cannot be read takes its pair out of the batch. An item that does not fit
    `max_length` is an error that names its record.
    """

    def __init__(self, processor: Processor, media_root: str | Path = ".",
                 forward_items: int = 32, cache_mib: int = 0,
                 see: Callable[[list[Encoded]], list[Encoded]] | None = None,
                 fewest: int = 2, forward_tokens: int | None = None):  # fmt: skip
        self.fewest, self.forward_tokens = fewest, forward_tokens
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
                bad.append(BadMedium.of(pair.where, error))
        if len(good) < self.fewest:
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
        lengths = torch.tensor([len(item.input_ids) for item in items], dtype=torch.long)
        by_length = lengths.argsort(stable=True)
        cuts = by_length.split(self._sizes(lengths[by_length].tolist()))
        groups = [self.processor.collate([items[i] for i in rows]) for rows in cuts]
        return groups, by_length.argsort()

    def _sizes(self, lengths: Sequence[int]) -> list[int]:
        """How many of the items of these lengths, which grow, each group takes."""
        sizes: list[int] = []
        for length in lengths:
            tokens = (sizes[-1] + 1) * length if sizes else 0
            full = self.forward_tokens is not None and tokens > self.forward_tokens
            if not sizes or full or sizes[-1] == self.forward_items:
                sizes.append(0)
            sizes[-1] += 1
        return sizes


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


def _pair(record: Mapping, stem: str, where: str, repeated: list[str]) -> Pair:
    return Pair(
        query=record["query"],
        candidate=record["candidate"],
        negatives=_negatives(record, where, repeated),
        target_modality=int(target_modality(record, where)),
        source=record.get("source") or stem,
        task=record.get("task") or "",
        where=where,
        groups=tuple(_group_number(record.get(name)) for name in GROUPS),
    )


def _group_number(name: str | None) -> int:
    """A group's name as a number that no other group and no content has; 0 for none."""
    return content_number({"text": f"group {name}"}) | 1 << 61 if name else 0


def _negatives(record: Mapping, where: str, repeated: list[str]) -> list[dict]:
    """The record's hard negatives, without those that are its positive: added to `repeated`."""
    given = record.get("negative") or []
    given = [given] if isinstance(given, Mapping) else list(given)
    if not given:
        return given
    positive = content_id(record["candidate"])
    same = [content_id(item) == positive for item in given]
    repeated += [f"{where}, negative[{n}]" for n, equal in enumerate(same, 1) if equal]
    return [item for item, equal in zip(given, same, strict=True) if not equal]


def _labels(pairs: Sequence[Pair]) -> dict:
    codes = [pair.target_modality for pair in pairs]
    ids = [pair.groups[1] or content_number(pair.candidate) for pair in pairs]
    negatives = [negative for pair in pairs for negative in pair.negatives]
    labels = {
        "source": [pair.source for pair in pairs],
        "target_modality": torch.tensor(codes, dtype=torch.long),
        "candidate_ids": torch.tensor(ids, dtype=torch.long),
    }
    if negatives:
        labels["negative_modality"] = torch.tensor([int(modality_of(item)) for item in negatives])
        labels["negative_ids"] = torch.tensor([content_number(item) for item in negatives])
    return labels


def content_number(item: Mapping) -> int:
    """The item's content as a 60-bit number."""
    return int(content_id(item)[:15], 16)


def _paths(pair: Pair) -> Iterator[str]:
    """The files that a pair refers to."""
    for item in (pair.query, pair.candidate, *pair.negatives):
        yield from files_of(item)


def _defect(path: Path) -> str:
    try:
        return "" if path.stat().st_size else "empty file"
    except OSError:
        return "no such file"


def _listed(bad: Sequence[BadMedium], shown: int = 20) -> str:
    causes = Counter(one.cause for one in bad)
    lines = [f"  {count} x {cause}" for cause, count in causes.most_common()]
    lines += [f"  {one.message}" for one in bad[:shown]]
    if len(bad) > shown:
        lines.append(f"  and {len(bad) - shown} more")
    return "\n".join(lines)
