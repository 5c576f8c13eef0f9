"""What a batch is made of: weights of pairs, mixing of groups, quotas, sub-batches, clusters.

The pairs are divided into *streams*: one of all pairs, or one per target modality (quotas), per
group (sub-batches; target modalities may be the groups, too), or both. A stream is endless: pass
after pass, every pass a new shuffle in which a pair of weight w comes floor(w) or ceil(w) times. A
batch takes a fixed number of pairs from each modality. `batch_order` reads the streams. All of it
is a function of the pairs, the configuration and the seed.
"""

# Shapes: N pairs, B pairs in a batch, h pairs in a sub-batch, G groups.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.modality import Modality, parse_modality
from ..data.pairs import PairTable
from .config import SamplingConfig

__all__ = ["Pool", "Stream", "pair_weights", "plan_pools", "quota_counts"]


_CODES = 8  # of modalities, 0 to 7
_MODALITIES = [Modality(code).label for code in range(_CODES)]
_STREAM, _SCHEDULE = 1, 2  # what random numbers are for; `batch_order` has 3 and 4


@dataclass(frozen=True)
class Stream:
    """Pairs that are shuffled together."""

    name: str  # in warnings and errors
    levels: tuple[tuple[float, np.ndarray], ...]  # (weight, the pairs that have it)
    key: tuple[int, ...]  # part of its random seed, different for each stream
    clusters: tuple[np.ndarray, ...] = ()  # pairs that stay together, the last the smallest

    @property
    def pairs(self) -> int:
        """Different pairs."""
        return sum(len(rows) for _, rows in self.levels)

    @property
    def size(self) -> int:
        """Pairs in one pass, repeats by weight included."""
        return sum(round(level * len(rows)) for level, rows in self.levels)

    def shuffled(self, seed: int, number: int) -> np.ndarray:
        """Pairs of the pass of that number, in order: [size]."""
        rng = np.random.default_rng([seed, number, *self.key])
        if self.clusters:
            return self._by_cluster(rng, number)
        chosen = []
        for level, rows in self.levels:
            whole, rest = divmod(round(level * len(rows)), len(rows))
            chosen += [rows] * whole + [rng.choice(rows, rest, replace=False)]
        return rng.permutation(np.concatenate(chosen))

    def _by_cluster(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """Whole clusters, shuffled; the first pairs fill up what the pass before left over."""
        *whole, last = self.clusters
        order = np.concatenate([*(whole[n] for n in rng.permutation(len(whole))), last])
        begun = -number * self.size % len(self.clusters[0])
        return np.roll(order, begun)


@dataclass(frozen=True)
class Pool:
    """What one target modality, or all of them together, contributes to every batch."""

    units: int  # sub-batches (pairs, where h is 1) per batch
    code: int  # of the modality; 0 for all
    streams: tuple[Stream, ...]  # one per group where sub-batches are asked for, else one

    def order(self, sub_batch: int, seed: int, number: int) -> np.ndarray:
        """Order in which streams are drawn: the stream of every sub-batch of that pass, shuffled.

        A stream of s pairs ends its pass e with floor((e + 1) s / h) sub-batches behind it.
        """
        sizes = np.array([stream.size for stream in self.streams])
        turns = (number + 1) * sizes // sub_batch - number * sizes // sub_batch
        rng = np.random.default_rng([seed, number, self.code, 0, _SCHEDULE])
        return rng.permutation(np.repeat(np.arange(len(sizes)), turns))


def pair_weights(table: PairTable, weights: Mapping[str, float],
                 config: SamplingConfig) -> np.ndarray:  # fmt: skip
    """Weight of each pair: how often it comes in a pass.

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
    """Split a batch's units over modalities by largest remainders: {modality code: units}.

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


def plan_pools(table: PairTable, config: SamplingConfig, batch_size: int, weights: np.ndarray,
               clusters: np.ndarray | None = None) -> list[Pool]:  # fmt: skip
    """Plan what every batch of B pairs is made of; `weights` [N] are those of `pair_weights`.

    Args
        clusters  [N] of `pair_clusters`, needed where `config.group_by` is cluster
    Raises ValueError where B is no multiple of the sub-batch, quotas name a modality that no pair
    has or lack one that pairs have, or there are too few pairs to fill a batch without repeating.
    """
    units, rest = divmod(batch_size, config.sub_batch)
    if rest:
        raise ValueError(
            f"a batch of {batch_size} pairs is no multiple of sub_batch {config.sub_batch}"
        )
    used = np.flatnonzero(weights > 0).astype(np.int32)
    if not config.quotas:
        return [_pool(table, config, units, 0, used, weights, clusters)]
    _check_named(table, config, used)
    return [
        _pool(table, config, n, code, used[table.target_modality[used] == code], weights, clusters)
        for code, n in quota_counts(config.quotas, units).items()
    ]


def _groups(table: PairTable, config: SamplingConfig) -> tuple[np.ndarray, Sequence[str]]:
    if config.group_by == "modality":
        return table.target_modality.astype(np.int64), _MODALITIES
    if config.group_by == "task":
        return table.task.astype(np.int64), table.tasks
    return table.source.astype(np.int64), table.sources


def _mixing_factors(mass: np.ndarray, exponent: float) -> np.ndarray:
    """Factor of each group [pools, G] that makes its share of its pool's mass mass^exponent."""
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
          weights: np.ndarray, clusters: np.ndarray | None) -> Pool:  # fmt: skip
    """The pool of the pairs `rows`; ValueError where it cannot fill its part of a batch."""
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
    streams = _streams(table, config, what, code, rows, weights, clusters)
    if not streams:
        raise ValueError(f"the weights leave no pair for the {what} in an epoch: raise them")
    return Pool(units, code, tuple(streams))


def _streams(table, config, what: str, code: int, rows, weights, clusters) -> list[Stream]:
    key = (code, 0, _STREAM) if code else ()
    if config.group_by == "cluster":
        members = tuple(members for _, members in _divided(rows, clusters[rows]))
        streams = [Stream(f"the {what}", ((1.0, rows),), key, members)]
    elif config.sub_batch == 1:
        streams = [Stream(f"the {what}", _levels(rows, weights), key)]
    else:
        group, labels = _groups(table, config)
        streams = [
            Stream(f"{config.group_by} {labels[g]!r} in the {what}", _levels(members, weights),
                   (code, int(g), _STREAM))
            for g, members in _divided(rows, group[rows])
        ]  # fmt: skip
    for stream in streams:
        if stream.pairs < config.sub_batch:
            raise ValueError(
                f"{stream.name} has {stream.pairs} pairs, fewer than sub_batch "
                f"{config.sub_batch}: lower sub_batch, or leave it out with weight 0"
            )
    return [stream for stream in streams if stream.size]


def _levels(rows: np.ndarray, weights: np.ndarray) -> tuple[tuple[float, np.ndarray], ...]:
    levels, level = np.unique(weights[rows], return_inverse=True)
    return tuple((float(levels[n]), members) for n, members in _divided(rows, level))


def _divided(rows: np.ndarray, label: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(label, its rows in order) in the order of labels."""
    order = np.argsort(label, kind="stable")
    labels, starts = np.unique(label[order], return_index=True)
    yield from zip(labels.tolist(), np.split(rows[order], starts[1:]), strict=True)
