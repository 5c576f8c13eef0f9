"""What a stage minimises, on the vectors of one batch."""

# Shapes: B pairs in a batch, K hard negatives, N = 2 B + K items, D embedding size.

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..loss.contrastive import info_nce, mamcl
from .config import StageConfig

__all__ = ["part_sizes", "stage_loss"]


def stage_loss(stage: StageConfig, vectors: Tensor, labels: Mapping[str, Tensor],
               rows: slice | None = None) -> Tensor:  # fmt: skip
    """The stage's loss of one batch.

    Args
        vectors  [N, D]  unit vectors of queries, candidates and hard negatives, in this order
        labels           `target_modality` and `candidate_ids` [B]; with hard negatives also
                         `negative_modality` and `negative_ids` [K]
        rows             only these pairs' part of it: the parts add up to the whole
    Returns a scalar in nats.
    """
    modality = labels["target_modality"]
    query, candidate, negatives = vectors.split(part_sizes(vectors, modality))
    options = {
        "temperature": stage.temperature,
        "symmetric": stage.symmetric,
        "candidate_ids": labels["candidate_ids"],
        "false_negative_margin": stage.false_negative_margin,
        "dims": stage.dims or None,
        "rows": rows,
    }
    if len(negatives):
        options |= {"negatives": negatives, "negative_ids": labels["negative_ids"]}
    if stage.loss == "info_nce":
        return info_nce(query, candidate, **options)
    if stage.loss == "random_mask":  # another mask for each batch, the same in all processes
        options["random_mask"] = int(labels["candidate_ids"].sum() + stage.seed) % 2**31
    return mamcl(
        query, candidate, modality, negative_modality=labels.get("negative_modality"),
        cross_modal_weight=stage.cross_modal_weight, **options,
    )  # fmt: skip


def part_sizes(vectors: Tensor, target_modality: Tensor) -> list[int]:
    """How many of the N vectors are queries, candidates and hard negatives: [B, B, K]."""
    pairs = len(target_modality)
    return [pairs, pairs, len(vectors) - 2 * pairs]
