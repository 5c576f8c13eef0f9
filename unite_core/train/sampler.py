"""TODO."""

# Shapes: B pairs in a batch, K hard negatives, N = 2 B + K items.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice

import torch

from ..data.pairs import PairDataset, Pick
from .config import SamplingConfig
from .mixing import draw_negatives, iter_batches, pair_weights, plan_pools, rank_share

__all__ = ["PairSampler"]


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
