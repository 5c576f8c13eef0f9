"""Which pairs share a batch: weights, mixing, modality quotas, sub-batches, no content twice.

The pairs are divided into *strands*: one of all pairs, or one per target modality (quotas), per
group (sub-batches), or both. A strand is read without end, pass after pass; every pass is a new
shuffle in which a pair of weight w comes floor(w) or ceil(w) times. A batch takes a fixed number
of pairs from each modality. All of it is a function of the pairs, the configuration and the seed;
going through the first batches again, which opens no medium, is how training resumes.
"""

# Shapes: N pairs, B pairs in a batch, h pairs in a sub-batch, G groups.

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..data.modality import Modality, parse_modality
from ..data.pairs import PairTable
from .config import SamplingConfig

__all__ = [
    "Pool",
    "Strand",
    "draw_negatives",
    "iter_batches",
    "pair_weights",
    "plan_pools",
    "quota_counts",
    "rank_share",
]


_LOOK_AHEAD = 4  # batches' worth of pairs that may wait before content is let in twice
_CODES = 8  # of modalities, 0 to 7
_STRAND, _SCHEDULE, _BATCH, _NEGATIVES = 1, 2, 3, 4  # what a random stream is for


@dataclass(frozen=True)
class Strand:
    """Pairs that are shuffled together."""

    name: str  # how warnings and errors name it
    levels: tuple[tuple[float, np.ndarray], ...]  # (weight, the pairs that have it)
    key: tuple[int, ...]  # tells its random numbers from those of other strands

    @property
    def pairs(self) -> int:
        return sum(len(rows) for _, rows in self.levels)

    @property
    def size(self) -> int:
        """Pairs in one pass, repeats by weight included."""
        return sum(round(level * len(rows)) for level, rows in self.levels)

    def shuffled(self, seed: int, number: int) -> np.ndarray:
        """The pass of that number: [size] pairs."""
        rng = np.random.default_rng([seed, number, *self.key])
        chosen = []
        for level, rows in self.levels:
            whole, rest = divmod(round(level * len(rows)), len(rows))
            chosen += [rows] * whole + [rng.choice(rows, rest, replace=False)]
        return rng.permutation(np.concatenate(chosen))


@dataclass(frozen=True)
class Pool:
    """What one target modality, or all of them together, puts into every batch."""

    units: int  # sub-batches (pairs, where h is 1) per batch
    code: int  # of the modality; 0 for all
    strands: tuple[Strand, ...]  # one per group where sub-batches are asked for, else one

    def order(self, sub_batch: int, seed: int, number: int) -> np.ndarray:
        """Whose turn it is: a strand number for every sub-batch of that pass, shuffled.

        A strand of s pairs ends its pass e with floor((e + 1) s / h) sub-batches behind it.
        """
        sizes = np.array([strand.size for strand in self.strands])
        turns = (number + 1) * sizes // sub_batch - number * sizes // sub_batch
        rng = np.random.default_rng([seed, number, self.code, 0, _SCHEDULE])
        return rng.permutation(np.repeat(np.arange(len(sizes)), turns))


def pair_weights(table: PairTable, weights: Mapping[str, float],
                 config: SamplingConfig) -> np.ndarray:  # fmt: skip
    """How often each pair comes in a pass.

        w = weights[source] weights[task] f_g,   f_g proportional to W_g^(alpha - 1)

    where W_g sums the first two factors over group g (of the pair's modality, if there are
    quotas), so that g's share of the pairs drawn is proportional to W_g^alpha. f keeps the sum.

    Args
        weights  factor per source or task; 1 for those that are not named
        config   `mixing_exponent` alpha: 1 leaves sizes as they are, 0 makes groups equal;
                 `group_by` names the groups
    Returns [N] float64. An unknown name is a ValueError.
    """
    names = {name for name in (*table.sources, *table.tasks) if name}
    if unknown := sorted(set(weights) - names):
        raise ValueError(
            f"weights name {', '.join(unknown)}, but the records have the sources and tasks "
            f"{', '.join(sorted(names))}: correct the names"
        )
    by_source, by_task = (
        np.array([weights.get(name, 1.0) for name in labels], dtype=np.float64)
        for labels in (table.sources, table.tasks)
    )
    pairs = by_source[table.source] * by_task[table.task]
    if config.mixing_exponent == 1 or not pairs.any():
        return pairs
    group, labels = _groups(table, config)
    pool = table.target_modality.astype(np.int64) if config.quotas else np.zeros_like(group)
    factors = _mixing_factors(
        np.bincount(pool * len(labels) + group, pairs, _CODES * len(labels)).reshape(_CODES, -1),
        config.mixing_exponent,
    )
    return pairs * factors[pool, group]


def quota_counts(quotas: Mapping[str, float], units: int) -> dict[int, int]:
    """Modality code -> how many of a batch's units it gets, by largest remainders.

    Every count is its exact share rounded down or up, and they add up to `units`; of equal
    remainders the lower code is rounded up. A share that rounds to nothing is a ValueError.
    """
    shares = sorted((int(parse_modality(name)), share) for name, share in quotas.items())
    exact = np.array([share for _, share in shares]) * units
    counts = np.floor(exact).astype(int)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: units - counts.sum()]] += 1
    lost = [Modality(code).label for (code, share), n in zip(shares, counts, strict=True)
            if share > 0 and n == 0]  # fmt: skip
    if lost:
        raise ValueError(
            f"quotas of {', '.join(lost)} are less than one of {units} places in a batch: raise "
            "them or batch_size, lower sub_batch, or set them to 0"
        )
    return {code: int(n) for (code, _), n in zip(shares, counts, strict=True) if n}


def plan_pools(table: PairTable, config: SamplingConfig, batch_size: int,
               weights: np.ndarray) -> list[Pool]:  # fmt: skip
    """What every batch of B pairs is made of; `weights` [N] are those of `pair_weights`.

    Raises ValueError where that cannot be: B no multiple of the sub-batch, a modality of the
    quotas missing, one of the pairs unnamed, or too few pairs to fill a batch without repeating.
    """
    units, rest = divmod(batch_size, config.sub_batch)
    if rest:
        raise ValueError(
            f"a batch of {batch_size} pairs is no multiple of sub_batch {config.sub_batch}"
        )
    used = np.flatnonzero(weights > 0).astype(np.int32)
    if not config.quotas:
        return [_pool(table, config, units, 0, used, weights)]
    _check_named(table, config, used)
    return [
        _pool(table, config, n, code, used[table.target_modality[used] == code], weights)
        for code, n in quota_counts(config.quotas, units).items()
    ]


def iter_batches(pools: Sequence[Pool], config: SamplingConfig, seed: int,
                 contents: tuple[np.ndarray, np.ndarray] | None = None,
                 repeats: Counter | None = None) -> Iterator[np.ndarray]:  # fmt: skip
    """Global batches [B] of pair indices, without end.

    Args
        contents  [N] content ids of queries and of candidates, needed if `config.distinct`
        repeats   counts, by strand, the pairs let in although their content is in the batch
    Sub-batches of one pool are in the order of their draw; those of several are shuffled.
    """
    seen: set[int] = set()  # content of the batch that is being made
    room = _LOOK_AHEAD * config.sub_batch * sum(pool.units for pool in pools)

    def reader(strand: Strand) -> _Reader:
        passes = partial(strand.shuffled, seed)
        if not config.distinct:
            return _Reader(passes)
        counts = Counter() if repeats is None else repeats
        return _DistinctReader(passes, strand, contents, seen, min(room, strand.pairs), counts)

    makers = [_Maker(pool, config.sub_batch, seed, reader) for pool in pools]
    step = 0
    while True:
        seen.clear()
        batch = np.concatenate([rows for maker in makers for rows in maker.sub_batches()])
        if len(pools) > 1:
            rng = np.random.default_rng([seed, step, 0, 0, _BATCH])
            batch = rng.permutation(batch.reshape(-1, config.sub_batch)).ravel()
        yield batch
        step += 1


def draw_negatives(available: np.ndarray, wanted: int, seed: int,
                   step: int) -> list[tuple[int, ...]]:  # fmt: skip
    """For each pair of batch `step`, which of its hard negatives are used: ascending numbers.

    All of them where a pair has no more than `wanted`, else a draw without replacement.
    Args: available [B], how many each pair has.
    """
    width = int(available.max(initial=0))
    rng = np.random.default_rng([seed, step, 0, 0, _NEGATIVES])
    ranks = rng.random((len(available), width))
    ranks[np.arange(width) >= available[:, None]] = 2.0  # behind every draw
    drawn = np.sort(ranks.argsort(axis=1)[:, :wanted], axis=1).tolist()
    return [
        tuple(range(n)) if n <= wanted else tuple(row)
        for n, row in zip(available.tolist(), drawn, strict=True)
    ]


def rank_share(size: int, rank: int, world_size: int) -> slice:
    """The contiguous part of a global batch that a process takes; sizes differ by one at most."""
    return slice(rank * size // world_size, (rank + 1) * size // world_size)


class _Reader:
    """Takes from passes without end."""

    def __init__(self, passes: Callable[[int], np.ndarray]):
        self.passes, self.number = passes, 0
        self.waiting = np.empty(0, dtype=np.int32)

    def take(self, count: int) -> np.ndarray:
        while len(self.waiting) < count:
            self.waiting = np.concatenate([self.waiting, self.passes(self.number)])
            self.number += 1
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken


class _DistinctReader(_Reader):
    """Puts off pairs whose query or candidate is in the batch already, as query or candidate.

    They are tried first for the next batch. Only when `limit` pairs (at most one pass) were put
    off in vain, the longest waiting of them are let in, and counted.
    """

    def __init__(self, passes, strand: Strand, contents, seen: set[int], limit: int,
                 repeats: Counter):  # fmt: skip
        super().__init__(passes)
        self.name, self.contents, self.seen = strand.name, contents, seen
        self.limit, self.repeats = limit, repeats
        self.queue: deque[tuple[int, int, int]] = deque()  # pair, ids of query and candidate

    def take(self, count: int) -> np.ndarray:
        taken, put_off = [], deque()
        limit = max(self.limit, count)  # so that those put off can fill the batch
        while len(taken) < count and (self.queue or len(put_off) < limit):
            if not self.queue:
                self._fetch(count)
            entry = self.queue.popleft()
            content = entry[1:]
            if self.seen.isdisjoint(content):
                self.seen.update(content)
                taken.append(entry[0])
            else:
                put_off.append(entry)
        while len(taken) < count:
            taken.append(self._let_in(put_off.popleft()))
        self.queue.extendleft(reversed(put_off))
        return np.array(taken, dtype=np.int32)

    def _fetch(self, count: int) -> None:
        rows = super().take(count)
        self.queue.extend(zip(rows.tolist(), *(ids[rows].tolist() for ids in self.contents),
                              strict=True))  # fmt: skip

    def _let_in(self, entry: tuple[int, int, int]) -> int:
        if not self.repeats:
            warnings.warn(
                f"{self.name}: too few different items to fill a batch, so some come twice in it. "
                "Lower batch_size, this quota, sub_batch or weight, or add records.",
                stacklevel=2,
            )
        self.repeats[self.name] += 1
        return entry[0]


class _Maker:
    """A pool's sub-batches, batch after batch."""

    def __init__(self, pool: Pool, sub_batch: int, seed: int, reader):
        self.units, self.sub_batch = pool.units, sub_batch
        self.readers = [reader(strand) for strand in pool.strands]
        self.turns = _Reader(partial(pool.order, sub_batch, seed)) if sub_batch > 1 else None

    def sub_batches(self) -> list[np.ndarray]:
        if self.turns is None:
            return [self.readers[0].take(self.units)]
        return [self.readers[turn].take(self.sub_batch) for turn in self.turns.take(self.units)]


def _groups(table: PairTable, config: SamplingConfig) -> tuple[np.ndarray, Sequence[str]]:
    if config.group_by == "task":
        return table.task.astype(np.int64), table.tasks
    return table.source.astype(np.int64), table.sources


def _mixing_factors(mass: np.ndarray, exponent: float) -> np.ndarray:
    """Factor of each group [pools, G], so that its mass is shared out by mass^exponent."""
    present = mass > 0
    powers = np.where(present, np.where(present, mass, 1.0) ** exponent, 0.0)
    shared = powers * (
        mass.sum(1, keepdims=True) / np.maximum(powers.sum(1, keepdims=True), 1e-300)
    )
    return np.divide(shared, mass, out=np.zeros_like(mass), where=present)


def _check_named(table: PairTable, config: SamplingConfig, used: np.ndarray) -> None:
    named = {int(parse_modality(name)) for name in config.quotas}
    present = set(np.unique(table.target_modality[used]).tolist())
    if unnamed := [Modality(code).label for code in sorted(present - named)]:
        raise ValueError(
            f"quotas do not name {', '.join(unnamed)}, which some candidates have: give each a "
            "share, or 0 to leave its pairs out"
        )


def _pool(table, config: SamplingConfig, units: int, code: int, rows: np.ndarray,
          weights: np.ndarray) -> Pool:  # fmt: skip
    """One pool of the pairs `rows`, refused where it cannot fill its part of a batch."""
    what = f"quota of {Modality(code).label}" if code else "batch"
    wanted = units * config.sub_batch
    if not len(rows):
        raise ValueError(
            f"the weights leave no pair for the {what}: raise them, or add such records"
        )
    if code and len(rows) < wanted:
        raise ValueError(
            f"the {what} is {wanted} pairs a batch, but there are only {len(rows)}: lower it"
        )
    strands = _strands(table, config, what, code, rows, weights)
    if not strands:
        raise ValueError(f"the weights leave no pair for the {what} in an epoch: raise them")
    return Pool(units, code, tuple(strands))


def _strands(table, config, what: str, code: int, rows, weights) -> list[Strand]:
    if config.sub_batch == 1:
        key = (code, 0, _STRAND) if code else ()
        strands = [Strand(f"the {what}", _levels(rows, weights), key)]
    else:
        group, labels = _groups(table, config)
        strands = [
            Strand(f"{config.group_by} {labels[g]!r} in the {what}", _levels(members, weights),
                   (code, int(g), _STRAND))
            for g, members in _divided(rows, group[rows])
        ]  # fmt: skip
    for strand in strands:
        if strand.pairs < config.sub_batch:
            raise ValueError(
                f"{strand.name} has {strand.pairs} pairs, fewer than sub_batch "
                f"{config.sub_batch}: lower sub_batch, or leave it out with weight 0"
            )
    return [strand for strand in strands if strand.size]


def _levels(rows: np.ndarray, weights: np.ndarray) -> tuple[tuple[float, np.ndarray], ...]:
    levels, level = np.unique(weights[rows], return_inverse=True)
    return tuple((float(levels[n]), members) for n, members in _divided(rows, level))


def _divided(rows: np.ndarray, label: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(label, its rows in order) in the order of labels."""
    order = np.argsort(label, kind="stable")
    labels, starts = np.unique(label[order], return_index=True)
    yield from zip(labels.tolist(), np.split(rows[order], starts[1:]), strict=True)
