"""Contrastive losses as pure functions of embeddings: InfoNCE and its modality-masked form.

MAMCL (docs/method.md) lets a query compete only with targets of its own target's modality. That
mask is an equivalence relation, so the masked loss *is* plain InfoNCE inside each modality,
averaged over all rows: no modality mask is built, no -1e9 and no NaN can appear, and a row whose
modality occurs once has no negatives and contributes exactly 0. Any integers can be group labels:
modality, data set, both.

Work grows with the sum of squared group sizes, memory with N (`chunked` says how). Logits are
float32 or wider whatever the embeddings are, also under autocast. Gradients can be taken once.
"""

# Shapes: N pairs in a batch, K hard negatives (k of each query), D embedding size.

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import (
    Labels,
    Temperature,
    check_equal_content,
    check_margin,
    check_mask,
    check_vectors,
    content_labels,
    dense,
    integer_labels,
    inverse_temperature,
    negative_labels,
    row_indices,
    wide_type,
)
from .chunked import chunk_rows, chunked_loss
from .negatives import NegativeMask, iter_groups, matches, sort_content

__all__ = ["in_batch_accuracy", "info_nce", "mamcl", "surviving_share"]


def info_nce(query: Tensor, candidate: Tensor, temperature: float | Tensor = 0.03,
             negatives: Tensor | None = None, symmetric: bool = False,
             candidate_ids: Labels | None = None, negative_ids: Labels | None = None, *,
             dims: Sequence[int] | None = None, false_negative_margin: float | None = None,
             rows: slice | Labels | None = None) -> Tensor:  # fmt: skip
    """InfoNCE: mean negative log-likelihood of the positive among the negatives of the batch.

        L = mean_i mean_{p in P(i)} -log  exp(s_ip) / (exp(s_ip) + sum_{j not in P(i)} exp(s_ij))

    where s_ij = q_i . t_j / tau and the targets t are the N candidates, then the K hard negatives.

    Args
        query          [N, D]  embeddings, unit norm (the caller's duty)
        candidate      [N, D]  row i is a positive of query i
        temperature    > 0     tau, a number or a tensor of one, which may be learned
        negatives      [K, D]  hard negatives; every query sees all of them. Or [N, k, D]: query i
                               sees its own k
        symmetric              mean of this and the candidate-to-query loss; hard negatives take
                               no part in that direction, because they are no queries
        candidate_ids  [N]     integers; P(i) is every target with the id of candidate i, in both
                               directions. Without ids P(i) = {i}
        negative_ids   [K]     or [N, k]: ids of the hard negatives; one that repeats a candidate's
                               id is a positive of that candidate's query. Without them none is
        dims                   Matryoshka: mean of the losses of these prefixes of the vectors,
                               each normalised again; sizes in 1 ... D
        false_negative_margin  drop negatives j of query i with q_i . t_j > q_i . c_i + margin (in
                               cosines; no gradient flows through the comparison); in the reverse
                               direction, of candidate i with q_j . c_i > q_i . c_i + margin
        rows           [R]     only these pairs' losses (slice or indices), still divided by N:
                               the parts of a partition of the rows add up to the whole loss, in
                               value and gradients, so processes can share the work
    Returns
        scalar loss in nats, >= 0, float32 (float64 for float64 input).

    Positives never compete with each other. The usual soft labels (1/k on each of k positives)
    would: for exact repeats of a candidate their gradient is the one of no ids at all.
    Raises ValueError on shapes that disagree, a temperature <= 0, or ids without their vectors;
    RuntimeError from a backward pass with create_graph.

    >>> query = candidate = torch.eye(2)  # two pairs that match perfectly
    >>> info_nce(query, candidate, temperature=1.0)  # log(1 + exp(0 - 1))
    tensor(0.3133)
    >>> info_nce(query, candidate.flip(0), temperature=1.0)  # log(1 + exp(1 - 0))
    tensor(1.3133)
    """
    negatives = check_vectors(query, candidate, negatives)
    scale, index = inverse_temperature(temperature, None, query, candidate, negatives)
    mask = NegativeMask(
        group=torch.zeros_like(index),
        temperature_index=index,
        rows=row_indices(rows, query),
        negative_group=index.new_zeros(negatives.shape[:-1]),
        symmetric=symmetric,
        false_negative_margin=check_margin(false_negative_margin),
        **content_labels(query, negatives, candidate_ids, negative_ids),
    )
    return _loss_of_prefixes(query, candidate, negatives, scale, mask, dims)


def mamcl(query: Tensor, candidate: Tensor, target_modality: Labels,
          temperature: Temperature = 0.03, negatives: Tensor | None = None,
          negative_modality: Labels | None = None, symmetric: bool = False,
          candidate_ids: Labels | None = None, negative_ids: Labels | None = None, *,
          cross_modal_weight: float = 0.0, random_mask: int | None = None,
          dims: Sequence[int] | None = None, false_negative_margin: float | None = None,
          rows: slice | Labels | None = None) -> Tensor:  # fmt: skip
    """Modality-aware masked InfoNCE: each query competes only inside its target's modality.

        L as in `info_nce`, its sum over j restricted to targets with m_j = m_i

    Args (the others as in `info_nce`)
        target_modality    [N]  modality of each candidate: `Modality` or any integer group label
        temperature             also {modality: tau}, or a tensor [T] that the modality indexes: a
                                row's scores are divided by the tau of its target's modality
        negative_modality  [K]  or [N, k]: modality of each hard negative, masked by the same rule.
                                The default is the modality of query i's candidate for negative i
                                of K = N and for the negatives [i, :] of [N, k]; any other K needs
                                it
        symmetric               candidate j, too, competes only with queries whose target has its
                                modality
        cross_modal_weight      in [0, 1]: weight of exp(s_ij) of negatives of another modality.
                                0 is MAMCL, 1 is InfoNCE
        random_mask             a seed >= 0: the control for the effect of the mask. Each row keeps
                                as many negatives as with MAMCL, drawn at random from all
    Returns
        scalar loss in nats; a row alone in its modality (no hard negative) contributes exactly 0.

    Equals `info_nce` when all modalities agree and never exceeds it. Invariant to an offset common
    to all scores of one modality: it does not make scores of different modalities comparable.
    The released code leaves hard negatives and the reverse direction unmasked.
    Raises ValueError as `info_nce`, and for equal ids whose modalities differ.

    >>> query = candidate = torch.eye(3)
    >>> mamcl(query, candidate, [1, 1, 2], temperature=1.0)  # rows 0 and 1 compete, row 2 is alone
    tensor(0.2088)
    >>> mamcl(query, candidate, [1, 1, 1], temperature=1.0) == info_nce(query, candidate, 1.0)
    tensor(True)
    """
    negatives = check_vectors(query, candidate, negatives)
    check_mask(cross_modal_weight, random_mask)
    modality = integer_labels(target_modality, query, (len(query),), "target_modality")
    scale, index = inverse_temperature(temperature, modality, query, candidate, negatives)
    others = negative_labels(negatives, negative_modality, modality)
    group, negative_group = dense(modality, others)
    mask = NegativeMask(
        group=group,
        temperature_index=index,
        rows=row_indices(rows, query),
        negative_group=negative_group,
        symmetric=symmetric,
        cross_modal_weight=cross_modal_weight,
        false_negative_margin=check_margin(false_negative_margin),
        random_mask=random_mask,
        **content_labels(query, negatives, candidate_ids, negative_ids),
    )
    check_equal_content(mask)
    return _loss_of_prefixes(query, candidate, negatives, scale, mask, dims)


def surviving_share(target_modality: Labels) -> float:
    """Share of the N x N query-candidate pairs that the MAMCL mask keeps, positives included.

    Args: target_modality [N] integers, N >= 1. Returns a share in [1/N, 1]; 1 means that the
    mask removes nothing and MAMCL is InfoNCE.

    >>> surviving_share([1, 1, 2])  # 2 x 2 + 1 x 1 of 3 x 3
    0.5555555555555556
    """
    codes = torch.as_tensor(target_modality)
    if codes.numel() == 0:
        raise ValueError("target_modality is empty: the share of no pairs is undefined")
    codes = integer_labels(codes, codes, (codes.numel(),), "target_modality")
    _, counts = codes.unique(return_counts=True)
    return float(counts.double().square().sum() / counts.sum().double().square())


@torch.no_grad()
def in_batch_accuracy(
    query: Tensor,
    candidate: Tensor,
    target_modality: Labels,
    candidate_ids: Labels | None = None,
) -> dict[int, float]:
    """Share of queries whose positive outscores every negative of its modality, by target modality.

    Args as in `mamcl`; a candidate is a positive of query i when it has the id of candidate i.
    Returns {modality code: share in [0, 1]}. A tie with a negative is a miss, so a collapsed
    model scores 0. Rows without any negative are not counted; a modality with only such rows is
    absent.
    """
    negatives = check_vectors(query, candidate, None)
    modality = integer_labels(target_modality, query, (len(query),), "target_modality")
    (group,) = dense(modality)
    everything = row_indices(None, query)
    mask = NegativeMask(
        group=group,
        temperature_index=everything,
        rows=everything,
        negative_group=group[:0],
        **content_labels(query, negatives, candidate_ids, None),
    )
    accuracy = {}
    for members, _, _ in iter_groups(mask):
        hits = _hits(query[members], candidate[members], mask.content[members])
        if len(hits):
            accuracy[int(modality[members[0]])] = float(hits.double().mean())
    return accuracy


def _hits(query: Tensor, candidate: Tensor, content: Tensor) -> Tensor:
    """For each row that has a negative, whether a positive outscores all of them."""
    wide = wide_type(query, candidate)
    candidate, known, hits = candidate.to(wide), sort_content(content), []
    for rows in torch.arange(len(query), device=query.device).split(chunk_rows(query.device)):
        with torch.autocast(query.device.type, enabled=False):
            scores = query[rows].to(wide) @ candidate.T  # [c, M]
        pairs = matches(content[rows], known)
        best = scores.new_full((len(rows),), -torch.inf)
        best.scatter_reduce_(0, pairs[0], scores[pairs], "amax")
        scores[pairs] = -torch.inf
        counted = torch.bincount(pairs[0]) < len(candidate)
        hits.append((best > scores.amax(1))[counted])
    return torch.cat(hits)


def _loss_of_prefixes(query, candidate, negatives, scale, mask, dims) -> Tensor:
    """Mean of the losses of the Matryoshka prefixes, or the loss of the whole vectors."""
    if mask.cross_modal_weight == 1:
        mask = mask.unmasked()
    if dims is None:
        return chunked_loss(query, candidate, negatives, scale, mask)
    dims, size = list(dims), query.shape[1]
    if not dims or len(set(dims)) < len(dims) or not all(0 < dim <= size for dim in dims):
        raise ValueError(f"dims must be different sizes in 1 ... {size}, not {dims}")
    losses = []
    for dim in dims:
        # prefixes of bfloat16 vectors are normalised in the wide type
        prefixes = [F.normalize(x[..., :dim].to(scale.dtype), dim=-1)
                    for x in (query, candidate, negatives)]  # fmt: skip
        losses.append(chunked_loss(*prefixes, scale, mask))
    return torch.stack(losses).mean()
