"""The batches, in order: reads the streams of `mixing`, keeps content from coming twice in a batch.

The order is a function of the pools, the configuration and the seed alone. Training resumes by
going through the first batches again, which opens no media file.
"""

# Shapes: B pairs in a batch, h pairs in a sub-batch.

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from .config import SamplingConfig
from .mixing import Pool, Stream

__all__ = ["draw_negatives", "iter_batches", "rank_share"]


_LOOK_AHEAD = 4  # batches' worth of pairs that may wait before content is let in twice
_BATCH, _NEGATIVES = 3, 4  # what random numbers are for; `mixing` has 1 and 2


def iter_batches(pools: Sequence[Pool], config: SamplingConfig, seed: int,
                 contents: tuple[np.ndarray, np.ndarray] | None = None,
                 repeats: Counter | None = None) -> Iterator[np.ndarray]:  # fmt: skip
    """Yield global batches [B] of pair indices, endlessly.

    Args
        contents  [N] content ids of queries and of candidates, none of which comes twice in a
                  batch; None: any may
        repeats   counts, by stream, the pairs let in although their content is in the batch
    Sub-batches of one pool are in the order of their draw; those of several are shuffled.
    """
    seen: set[int] = set()  # content of the batch that is being made
    room = _LOOK_AHEAD * config.sub_batch * sum(pool.units for pool in pools)

    def make_reader(stream: Stream) -> _Reader:
        passes = partial(stream.shuffled, seed)
        if contents is None:
            return _Reader(passes)
        counts = Counter() if repeats is None else repeats
        return _DistinctReader(passes, stream, contents, seen, min(room, stream.pairs), counts)

    pool_readers = [_PoolReader(pool, config.sub_batch, seed, make_reader) for pool in pools]
    step = 0
    while True:
        seen.clear()
        batch = np.concatenate([rows for reader in pool_readers for rows in reader.sub_batches()])
        if len(pools) > 1:
            rng = np.random.default_rng([seed, step, 0, 0, _BATCH])
            batch = rng.permutation(batch.reshape(-1, config.sub_batch)).ravel()
        yield batch
        step += 1


def draw_negatives(available: np.ndarray, wanted: int, seed: int,
                   step: int) -> list[tuple[int, ...]]:  # fmt: skip
    """Draw the hard negatives that each pair of batch `step` uses: their indices, ascending.

    All of them where a pair has no more than `wanted`, else a draw without replacement.
    Args: available [B], the number that each pair has.
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
    """The contiguous part of a global batch that a process takes; sizes differ by one at most.

    >>> [rank_share(10, rank, 4) for rank in range(4)]
    [slice(0, 2, None), slice(2, 5, None), slice(5, 7, None), slice(7, 10, None)]
    """
    return slice(rank * size // world_size, (rank + 1) * size // world_size)


class _Reader:
    """Takes pairs from endless passes."""

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

    They are tried first for the next batch. Only after `limit` pairs (at most one pass) were put
    off, those that have waited longest are let in, and counted.
    """

    def __init__(self, passes, stream: Stream, contents, seen: set[int], limit: int,
                 repeats: Counter):  # fmt: skip
        super().__init__(passes)
        self.name, self.contents, self.seen = stream.name, contents, seen
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


class _PoolReader:
    """A pool's sub-batches, batch after batch."""

    def __init__(self, pool: Pool, sub_batch: int, seed: int,
                 make_reader: Callable[[Stream], _Reader]):  # fmt: skip
        self.units, self.sub_batch = pool.units, sub_batch
        self.readers = [make_reader(stream) for stream in pool.streams]
        self.turns = _Reader(partial(pool.order, sub_batch, seed)) if sub_batch > 1 else None

    def sub_batches(self) -> list[np.ndarray]:
        if self.turns is None:
            return [self.readers[0].take(self.units)]
        return [self.readers[turn].take(self.sub_batch) for turn in self.turns.take(self.units)]
