"""InfoNCE and MAMCL in which hard negatives weigh more, as a dense function of embeddings.

Unlike `contrastive` it holds the whole matrix of scores: 64 MB for 4 096 pairs.
"""

# Shapes: N pairs in a batch, K hard negatives, M = N + K targets, R rows asked for, D embedding
# size.

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .arguments import (
    Labels,
    Temperature,
    check_vectors,
    content_labels,
    integer_labels,
    inverse_temperature,
    negative_labels,
    row_indices,
)

__all__ = ["hardness_weighted"]


def hardness_weighted(query: Tensor, candidate: Tensor, strength: float,
                      temperature: Temperature = 0.03, negatives: Tensor | None = None,
                      target_modality: Labels | None = None,
                      negative_modality: Labels | None = None, symmetric: bool = False,
                      candidate_ids: Labels | None = None, negative_ids: Labels | None = None, *,
                      cross_modal_weight: float = 0.0,
                      rows: slice | Labels | None = None) -> Tensor:  # fmt: skip
    """InfoNCE whose negatives weigh exp(strength * cosine), which is taken as a constant.

        L = mean_i mean_{p in P(i)} -log  e_ip / (e_ip + sum_{j not in P(i)} w_ij e_ij)
        e_ij = exp(q_i . t_j / tau),   w_ij = exp(strength * stop_gradient(q_i . t_j))

    Args (the others as in `info_nce` and `mamcl`)
        strength         >= 0  alpha of LLaVE (arXiv 2503.04812, Eq. 5), 9 there; 0: no weights
        target_modality  [N]   given: as `mamcl`, with its cross_modal_weight; else as `info_nce`
    Returns a scalar in nats, as `info_nce`. It is sentence-transformers'
    MultipleNegativesRankingLoss with hardness_mode "all_negatives".
    Raises ValueError as `mamcl`, and for a strength that is negative or not finite.

    >>> query = candidate = torch.eye(2)
    >>> hardness_weighted(query, candidate.flip(0), 2.0, temperature=1.0)  # log(1 + exp(2 + 1))
    tensor(3.0486)
    """
    if not 0 <= strength < math.inf:
        raise ValueError(f"strength must be a number >= 0, not {strength}")
    negatives = check_vectors(query, candidate, negatives)
    if negatives.ndim != 2:
        raise ValueError("negatives must be [K, D]: each query sees all of them")
    modality = torch.zeros(len(query), dtype=torch.long, device=query.device)
    others = modality.new_zeros(len(negatives))
    if target_modality is not None:
        modality = integer_labels(target_modality, query, (len(query),), "target_modality")
        others = negative_labels(negatives, negative_modality, modality)
    codes = None if target_modality is None else modality
    scale, index = inverse_temperature(temperature, codes, query, candidate, negatives)
    labels = content_labels(query, negatives, candidate_ids, negative_ids)
    content, part = labels["content"], row_indices(rows, query)
    directions = [(
        query, torch.cat([candidate, negatives]), torch.cat([modality, others]),
        torch.cat([content, labels["negative_content"]]),
    )]  # fmt: skip
    if symmetric:
        directions.append((candidate, query, modality, content))
    losses = []
    for anchors, targets, groups, contents in directions:
        with torch.autocast(query.device.type, enabled=False):
            cosines = anchors[part].to(scale.dtype) @ targets.to(scale.dtype).T  # [R, M]
        same = modality[part, None] == groups
        weights = torch.where(same, 0.0, _log(cross_modal_weight)).to(cosines)
        weights = weights + strength * cosines.detach()
        positive = content[part, None] == contents
        losses.append(_rows_loss(cosines * scale[index[part], None], weights, positive).sum())
    return torch.stack(losses).mean() / len(query)


def _rows_loss(logits: Tensor, weights: Tensor, positive: Tensor) -> Tensor:
    """Loss of each row [R] of logits [R, M], logarithmic weights of negatives, and positives."""
    nothing = torch.finfo(logits.dtype).min  # not -inf: a row may have no negative
    counted = ~positive & (weights > nothing)
    negative = (logits + weights.clamp_min(nothing / 2)).masked_fill(~counted, nothing)
    against = negative.logsumexp(1, keepdim=True)
    terms = softplus(against - logits).masked_fill(~positive, 0.0)
    return terms.sum(1) / positive.sum(1)


def _log(weight: float) -> float:
    if not 0 <= weight <= 1:
        raise ValueError(f"cross_modal_weight must lie in [0, 1], not {weight}")
    return math.log(weight) if weight else -math.inf
