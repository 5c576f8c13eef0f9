"""MAMCL for users of sentence-transformers: two losses, and batches of several data sets.

A row has a query, a candidate, maybe hard negatives, and a label: the modality of its candidate, a
number of `Modality`, or any number by which rows are to compete among themselves. The losses are
`unite_core.loss.mamcl` on these columns; `mixed_batches` gives every batch the same share of each
modality, from any number of data sets.

    args = SentenceTransformerTrainingArguments(
        ..., multi_dataset_batch_sampler=mixed_batches({"text": 0.5, "image": 0.5})
    )
    SentenceTransformerTrainer(model, args, datasets, loss=MAMCLLoss(model)).train()

docs/training.md has the whole of it.
"""

# Shapes: B rows of a process, W processes, k hard negatives of a row, D embedding size.

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.data_collator import DEFAULT_LABEL_COLUMNS
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler
from sentence_transformers.util import all_gather, all_gather_with_grad, get_rank
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..data.pairs import PairTable
from ..loss.contrastive import mamcl
from .batch_order import iter_batches
from .config import SamplingConfig
from .mixing import pair_weights, plan_pools

__all__ = ["CachedMAMCLLoss", "MAMCLLoss", "QuotaBatchSampler", "mixed_batches"]


class MAMCLLoss(nn.Module):
    """Modality-masked InfoNCE of the columns query, candidate, hard negatives.

    Labels are target modalities [B], or [B, 2 + k] with the contents of candidate and negatives:
    numbers that are equal for what counts as the same, which is then no negative. A row's hard
    negatives are of its candidate's modality, and every query of that modality sees them. Without
    contents all rows differ.

    Args
        model                  a SentenceTransformer
        temperature            > 0, divisor of the cosines, or one for each label: {1: 0.03}
        symmetric              mean of this and the candidate-to-query loss
        cross_modal_weight     weight of negatives of other modalities: 0 is MAMCL, 1 is InfoNCE
        false_negative_margin  drop negatives whose cosine is this far above the positive's
        gather_across_devices  compare with the rows of all processes, which must be equally many
    """

    def __init__(self, model, temperature: float | Mapping[int, float] = 0.03,
                 symmetric: bool = False, cross_modal_weight: float = 0.0,
                 false_negative_margin: float | None = None,
                 gather_across_devices: bool = False):  # fmt: skip
        super().__init__()
        self.model, self.gather_across_devices = model, gather_across_devices
        self.options = {
            "temperature": temperature, "symmetric": symmetric,
            "cross_modal_weight": cross_modal_weight,
            "false_negative_margin": false_negative_margin,
        }  # fmt: skip

    def forward(self, sentence_features: Iterable[dict[str, Tensor]],
                labels: Tensor | None) -> Tensor:  # fmt: skip
        columns = embed_columns(self.model, list(sentence_features))
        return self.compute_loss_from_embeddings(columns, labels)

    def compute_loss_from_embeddings(self, columns: list[Tensor], labels: Tensor | None) -> Tensor:
        """The loss of the columns' vectors [B, D], in nats; ValueError for other labels."""
        modality, contents = _split(labels, columns)
        rows = len(modality)
        world, first = 1, 0
        columns = [normalize(column.float(), dim=-1) for column in columns]
        if self.gather_across_devices:
            columns = [all_gather_with_grad(column) for column in columns]
            modality, contents = all_gather(modality), [all_gather(part) for part in contents]
            world, first = len(modality) // rows, get_rank() * rows
        query, candidate, *negatives = columns
        more = {"candidate_ids": contents[0]} if contents else {}
        if negatives:
            more |= {"negatives": torch.cat(negatives)}
            more |= {"negative_modality": modality.repeat(len(negatives))}
            more |= {"negative_ids": torch.cat(contents[1:])} if contents else {}
        part = mamcl(
            query, candidate, modality, rows=slice(first, first + rows), **more, **self.options
        )
        return world * part  # the trainer averages over processes

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the loss."""
        return self.options | {"gather_across_devices": self.gather_across_devices}


class CachedMAMCLLoss(CachedLossMixin, nn.Module):
    """MAMCLLoss with one mini-batch's activations in memory at a time (GradCache).

    Args
        mini_batch_size        rows of a column that share a forward
        mini_batch_num_tokens  tokens that do, in place of rows; None: rows
        options                see MAMCLLoss
    """

    def __init__(self, model, mini_batch_size: int = 32,
                 mini_batch_num_tokens: int | None = None, **options):  # fmt: skip
        super().__init__()
        self.model, self.loss = model, MAMCLLoss(model, **options)
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens

    def forward(self, sentence_features: Iterable[dict[str, Tensor]],
                labels: Tensor | None) -> Tensor:  # fmt: skip
        return self.forward_cached(sentence_features, labels)

    def calculate_loss(self, reps: list[list[Tensor]], labels: Tensor | None = None, *,
                       with_backward: bool = False) -> Tensor:  # fmt: skip
        """The loss of all mini-batches' vectors, column by column, as CachedLossMixin asks."""
        columns = [torch.cat(column) for column in reps]
        loss = self.loss.compute_loss_from_embeddings(columns, labels)
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """What a model card says of the loss."""
        own = ("mini_batch_size", "mini_batch_num_tokens")
        return self.loss.get_config_dict() | {name: getattr(self, name) for name in own}


class QuotaBatchSampler(MultiDatasetDefaultBatchSampler):
    """Batches with a fixed share of each modality, from several data sets together.

    All rows of one modality are shuffled together, whatever data set they are of. An epoch has as
    many rows as the data sets: a modality above its natural share comes more often.

    Args
        dataset, batch_samplers, generator, seed  as sentence-transformers gives them; only the
                                                  batch size of the samplers counts
        quotas  see SamplingConfig; empty: as the rows come
    ValueError where a data set has no label column, or quotas and labels do not agree.
    """

    def __init__(self, dataset, batch_samplers: list, generator=None, seed: int = 0,
                 quotas: Mapping[str, float] | None = None):  # fmt: skip
        super().__init__(dataset, batch_samplers, generator, seed)
        self.sampling = SamplingConfig(quotas=dict(quotas or {}))
        labels = [_labels_of(number, part) for number, part in enumerate(dataset.datasets)]
        sizes = [len(part) for part in labels]
        names = [f"data set {number + 1}" for number in range(len(sizes))]
        nothing = np.zeros(sum(sizes), dtype=np.int64)
        source = np.repeat(np.arange(len(sizes)), sizes)
        table = PairTable(source, nothing, np.concatenate(labels), nothing, names, [""])
        weights = pair_weights(table, {}, self.sampling)
        self.pools = plan_pools(table, self.sampling, self.batch_size, weights)

    def __iter__(self) -> Iterator[list[int]]:
        batches = iter_batches(self.pools, self.sampling, self.seed + self.epoch)
        for batch in islice(batches, len(self)):
            yield batch.tolist()

    def __len__(self) -> int:
        rows = sum(stream.size for pool in self.pools for stream in pool.streams)
        return rows // self.batch_size


def mixed_batches(quotas: Mapping[str, float] | None = None) -> Callable[..., QuotaBatchSampler]:
    """What `multi_dataset_batch_sampler` takes: makes a QuotaBatchSampler of these quotas.

    Args: quotas  share of each target modality in a batch, such as {"text": 0.4, "image": 0.6}
    All data sets need the same columns, and one loss.
    """

    def make(dataset, batch_samplers, generator=None, seed=0) -> QuotaBatchSampler:
        return QuotaBatchSampler(dataset, batch_samplers, generator, seed, quotas)

    return make


def _split(labels: Tensor | None, columns: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Modalities [B], and contents [B] of candidate and each negative, or none."""
    if labels is None or labels.is_floating_point() or labels.ndim not in (1, 2):
        raise ValueError("MAMCL needs a column label with the modality of each row's candidate")
    if labels.ndim == 1:
        return labels, []
    modality, *contents = labels.unbind(1)
    if len(contents) != len(columns) - 1:
        raise ValueError(
            f"label has {len(contents)} contents: write the modality, then the contents of the "
            f"{len(columns) - 1} columns after the query"
        )
    return modality, contents


def _labels_of(number: int, dataset) -> np.ndarray:
    for name in DEFAULT_LABEL_COLUMNS:
        if name in dataset.column_names:
            labels = np.asarray(dataset[name][:])
            return (labels if labels.ndim == 1 else labels[:, 0]).astype(np.uint8)
    raise ValueError(f"data set {number + 1} has no column label with its rows' target modality")
