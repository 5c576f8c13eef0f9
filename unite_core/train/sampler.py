"""Batches of pair indices for training, resumable and shared between processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import torch

from ..data.pairs import PairDataset, Pick
from .batch_order import draw_negatives, iter_batches, rank_share
from .clusters import pair_clusters
from .config import SamplingConfig
from .mixing import pair_weights, plan_pools

__all__ = ["PairSampler"]


class PairSampler(torch.utils.data.Sampler):
    """Yields batches of indices: every epoch a new shuffle, batches may span two epochs.

    Args
        dataset            its pairs' sources and tasks are what `weights` refers to
        batch_size, steps  pairs per batch of all processes together, number of batches
        weights            factor per source or task (a pair of both gets the product): a pair of
                           weight 2 comes twice per epoch, of weight 1.5 once or twice by chance
        seed               decides the order
        sampling           what else decides which pairs share a batch
        rank, world_size   this process gets its contiguous part of each batch; the parts of all
                           processes are the batch of one
        cluster_file       see `pair_clusters`
    Skipping the first batches gives exactly the rest, which is how training resumes.
    Yields indices, or with `sampling.negatives` a `Pick` for each. `repeats` counts, by stream, the
    pairs let in although `sampling.distinct` or their group forbids it, because nothing else was
    left.
    """

    def __init__(self, dataset: PairDataset, batch_size: int, steps: int,
                 weights: Mapping[str, float] | None = None, seed: int = 0,
                 sampling: SamplingConfig | None = None, rank: int = 0,
                 world_size: int = 1, cluster_file: str | Path | None = None):  # fmt: skip
        if not 0 <= rank < world_size <= batch_size:
            raise ValueError(
                f"rank {rank} of {world_size} processes cannot share a batch of {batch_size} "
                "pairs: every process needs one at least"
            )
        self.dataset, self.batch_size, self.steps, self.seed = dataset, batch_size, steps, seed
        self.sampling = sampling or SamplingConfig()
        self.share = rank_share(batch_size, rank, world_size)
        self.weights = pair_weights(dataset.table, weights or {}, self.sampling)
        clusters = None
        if self.sampling.group_by == "cluster":
            clusters = pair_clusters(dataset, self.sampling, self.weights, cluster_file)
        self.pools = plan_pools(dataset.table, self.sampling, batch_size, self.weights, clusters)
        self.repeats: Counter[str] = Counter()

    @property
    def epoch_size(self) -> int:
        """Pairs in one epoch, those of all processes together."""
        return sum(stream.size for pool in self.pools for stream in pool.streams)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int] | list[Pick]]:
        apart = self.sampling.distinct or self.dataset.grouped
        contents = self.dataset.families if apart else None
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
