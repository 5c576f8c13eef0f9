"""The losses that a stage can name, and the loss of one batch.

A loss of one's own is a function of a `LossBatch` and the stage, registered before a configuration
names it:

    @LOSSES.register("my_loss")
    def my_loss(batch, stage):
        scores = batch.query @ batch.candidate.T / batch.temperature
        positive = torch.arange(len(scores), device=scores.device)
        losses = cross_entropy(scores, positive, reduction="none")
        return losses[batch.rows or slice(None)].sum() / len(losses)

torch is imported by the losses, not by this module, so that a configuration can check a name.
"""

# Shapes: B pairs in a batch, K hard negatives, N = 2 B + K items, D embedding size.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..data.modality import parse_modality
from ..registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from ..loss.distillation import Teacher
    from ..model.router import ModalityRouter
    from .config import StageConfig

__all__ = [
    "DISTILLATION", "LOSSES", "LossBatch", "loss_batch", "modality_cross_entropy", "part_sizes",
    "router_loss", "stage_loss",
]  # fmt: skip


@dataclass(frozen=True)
class LossBatch:
    """What a loss is computed from: unit vectors, labels and the temperature of one batch.

    With several processes the batch is the global one and `rows` are the pairs of this process:
    the loss is only their part of the mean over all B pairs.
    """

    query: Tensor  # [B, D]
    candidate: Tensor  # [B, D]
    negatives: Tensor  # [K, D], K = 0 for none
    target_modality: Tensor  # [B] codes of `Modality`
    candidate_ids: Tensor  # [B] equal content has equal ids
    temperature: float | Tensor | Mapping[int, float | Tensor]  # or one per modality code
    negative_modality: Tensor | None = None  # [K]
    negative_ids: Tensor | None = None  # [K]
    rows: slice | None = None
    teacher: Teacher | None = None  # scores, where all records have them


LOSSES: Registry[Callable[[LossBatch, StageConfig], Tensor]] = Registry("loss")
"""Functions (batch, stage) -> scalar in nats, by the name that a stage gives in `loss`."""
DISTILLATION = ("margin_mse", "distill_kl")
"""Losses that need a teacher's scores in every record."""


@LOSSES.register("info_nce")
def _info_nce(batch: LossBatch, stage: StageConfig) -> Tensor:
    """Every other target of the batch is a negative; `hardness` weighs them by their cosines."""
    from ..loss.contrastive import info_nce

    if stage.hardness:
        return _weighted(batch, stage, cross_modal_weight=1.0)
    if isinstance(batch.temperature, Mapping):  # info_nce has one; without a mask mamcl is the same
        return _masked(batch, stage, cross_modal_weight=1.0)
    return info_nce(batch.query, batch.candidate, **_options(batch, stage))


@LOSSES.register("mamcl")
def _mamcl(batch: LossBatch, stage: StageConfig) -> Tensor:
    """Only targets of the same modality are negatives; `cross_modal_weight` lets others count.

    `hardness` as in info_nce; `modality_weight` times `modality_cross_entropy` is added.
    """
    compute = _weighted if stage.hardness else _masked
    loss = compute(batch, stage, cross_modal_weight=stage.cross_modal_weight)
    if not stage.modality_weight:
        return loss
    return loss + stage.modality_weight * modality_cross_entropy(batch, stage)


@LOSSES.register("random_mask")
def _random_mask(batch: LossBatch, stage: StageConfig) -> Tensor:
    """The control of MAMCL: as many negatives, drawn at random; another draw for each batch."""
    seed = int(batch.candidate_ids.sum() + stage.seed) % 2**31  # the same in all processes
    return _masked(batch, stage, random_mask=seed)


@LOSSES.register("margin_mse")
def _margin_mse(batch: LossBatch, stage: StageConfig) -> Tensor:
    """The margins of a teacher's scores between a candidate and its own hard negatives."""
    from ..loss.distillation import margin_mse

    return margin_mse(**_distillation(batch, stage))


@LOSSES.register("distill_kl")
def _distill_kl(batch: LossBatch, stage: StageConfig) -> Tensor:
    """The distribution of a teacher's scores over a candidate and its own hard negatives."""
    from ..loss.distillation import distill_kl

    return distill_kl(**_distillation(batch, stage))


def _distillation(batch: LossBatch, stage: StageConfig) -> dict:
    if batch.teacher is None:
        raise ValueError(f"the loss {stage.loss} needs scores in every record")
    return {
        "query": batch.query, "candidate": batch.candidate, "negatives": batch.negatives,
        "teacher": batch.teacher, "temperature": batch.temperature, "rows": batch.rows,
        "target_modality": batch.target_modality, "teacher_temperature": stage.teacher_temperature,
    }  # fmt: skip


def modality_cross_entropy(batch: LossBatch, stage: StageConfig) -> Tensor:
    """Cross-entropy of the target modality through the scores, from query to candidate.

        mean_i -log p(m_i | q_i),   p(m | q_i) = sum_{j: m_j = m} exp(s_ij) / sum_j exp(s_ij)

    It is InfoNCE less MAMCL, whatever their options are. Candidates and hard negatives get no
    gradient: modalities would drift apart, which changes no ranking inside one of them. Returns a
    scalar in nats, >= 0 up to rounding; with `batch.rows` their part of it.
    """
    batch = replace(batch, candidate=batch.candidate.detach(), negatives=batch.negatives.detach())
    whole, masked = (
        _masked(batch, stage, symmetric=False, cross_modal_weight=weight) for weight in (1.0, 0.0)
    )
    return whole - masked


def _masked(batch: LossBatch, stage: StageConfig, **mask) -> Tensor:
    from ..loss.contrastive import mamcl

    return mamcl(
        batch.query, batch.candidate, batch.target_modality,
        negative_modality=batch.negative_modality, **_options(batch, stage) | mask,
    )  # fmt: skip


def _weighted(batch: LossBatch, stage: StageConfig, **mask) -> Tensor:
    from ..loss.hardness import hardness_weighted

    options = _options(batch, stage)
    del options["false_negative_margin"], options["dims"]  # a stage with hardness has neither
    return hardness_weighted(
        batch.query, batch.candidate, stage.hardness, target_modality=batch.target_modality,
        negative_modality=batch.negative_modality, **options | mask,
    )  # fmt: skip


def _options(batch: LossBatch, stage: StageConfig) -> dict:
    """The arguments that `info_nce` and `mamcl` share."""
    options = {
        "temperature": batch.temperature,
        "symmetric": stage.symmetric,
        "candidate_ids": batch.candidate_ids,
        "false_negative_margin": stage.false_negative_margin,
        "dims": stage.dims or None,
        "rows": batch.rows,
    }
    if len(batch.negatives):
        options |= {"negatives": batch.negatives, "negative_ids": batch.negative_ids}
    return options


def stage_loss(
    stage: StageConfig,
    vectors: Tensor,
    labels: Mapping[str, Tensor],
    rows: slice | None = None,
    temperature: float | Tensor | Mapping[int, float | Tensor] | None = None,
) -> Tensor:
    """The stage's loss of one batch, without its router's.

    Args
        vectors      [N, D]  unit vectors of queries, candidates and hard negatives, in this order
        labels               `target_modality` and `candidate_ids` [B]; with hard negatives also
                             `negative_modality` and `negative_ids` [K]; with a teacher's scores
                             `candidate_scores` [B], `negative_scores` and `negative_owner` [K]
        rows                 only these pairs' part of it: the parts add up to the whole
        temperature          in place of the stage's: a learned one, or {modality code: tau}
    Returns a scalar in nats. Raises ValueError for a loss that is not registered.
    """
    return LOSSES[stage.loss](loss_batch(stage, vectors, labels, rows, temperature), stage)


def loss_batch(stage, vectors, labels, rows=None, temperature=None) -> LossBatch:
    """What a loss is given for the arguments of `stage_loss`."""
    query, candidate, negatives = vectors.split(part_sizes(vectors, labels["target_modality"]))
    if temperature is None:
        temperature = stage.temperature
        if isinstance(temperature, Mapping):
            temperature = {int(parse_modality(name)): tau for name, tau in temperature.items()}
    return LossBatch(
        query, candidate, negatives, labels["target_modality"], labels["candidate_ids"],
        temperature, labels.get("negative_modality"), labels.get("negative_ids"), rows,
        _teacher(labels),
    )  # fmt: skip


def _teacher(labels: Mapping[str, Tensor]) -> Teacher | None:
    if "candidate_scores" not in labels:
        return None
    from ..loss.distillation import Teacher

    scores = labels["candidate_scores"]
    nothing = scores.new_zeros(0)
    return Teacher(
        scores, labels.get("negative_scores", nothing),
        labels.get("negative_owner", nothing.long()),
    )  # fmt: skip


def router_loss(router: ModalityRouter, query: Tensor, target_modality: Tensor,
                rows: slice = slice(None)) -> Tensor:  # fmt: skip
    """Cross-entropy of the target modality by a head on the queries, a scalar in nats.

    Args: query [B, D], target_modality [B] codes that the head knows; rows as in `stage_loss`.
    """
    from torch.nn.functional import cross_entropy

    columns = router.columns(target_modality[rows])
    return cross_entropy(router(query[rows]), columns, reduction="sum") / len(target_modality)


def part_sizes(vectors: Tensor, target_modality: Tensor) -> list[int]:
    """How many of the N vectors are queries, candidates and hard negatives: [B, B, K]."""
    pairs = len(target_modality)
    return [pairs, pairs, len(vectors) - 2 * pairs]
