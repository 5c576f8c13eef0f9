"""Contrastive losses as pure functions of embeddings: InfoNCE and its modality-masked form.

MAMCL (PAPER §2) lets a query compete only with targets of its own target's modality. That mask
is an equivalence relation, so the masked loss *is* plain InfoNCE inside each modality, averaged
over all rows: no modality mask is built, no -1e9 and no NaN can appear, and a row whose modality
occurs once has nothing to compete with and costs exactly 0.

Logits are float32 or wider whatever the embeddings are, also under autocast.
"""

# Shapes: N pairs in a batch, K hard negatives, D embedding size.

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["in_batch_accuracy", "info_nce", "mamcl", "surviving_share"]

Labels = Tensor | Sequence[int]


def info_nce(
    query: Tensor,
    candidate: Tensor,
    temperature: float = 0.03,
    negatives: Tensor | None = None,
    symmetric: bool = False,
    candidate_ids: Labels | None = None,
    negative_ids: Labels | None = None,
    *,
    rows: slice | Labels | None = None,
) -> Tensor:
    """InfoNCE: the mean surprise at finding a positive among the negatives of the batch, in nats.

        L = mean_i mean_{p in P(i)} -log  exp(s_ip) / (exp(s_ip) + sum_{j not in P(i)} exp(s_ij))

    where s_ij = q_i . t_j / tau and the targets t are the N candidates, then the K hard negatives.

    Args
        query          [N, D]  embeddings, unit norm (the caller's duty)
        candidate      [N, D]  row i is a positive of query i
        temperature    > 0     tau
        negatives      [K, D]  hard negatives; every query sees all of them
        symmetric              add the candidate-to-query loss and halve; hard negatives are no
                               queries, so they stay out of that direction
        candidate_ids  [N]     integers; P(i) is every target with the id of candidate i, in both
                               directions. Without ids P(i) = {i}
        negative_ids   [K]     ids of the hard negatives; one that repeats a candidate's id is a
                               positive of that candidate's query. Without them none is
        rows           [R]     only these pairs' losses (slice or row numbers), still divided by N:
                               the parts of a partition of the rows add up to the whole loss, in
                               value and gradients, so processes can share the work
    Returns
        scalar loss in nats, >= 0, float32 (float64 for float64 input).

    Positives never compete with each other. The usual soft labels (1/k on each of k positives)
    would: for exact repeats of a candidate their gradient is the one of no ids at all.
    Raises ValueError on shapes that disagree, a temperature <= 0, or ids without their vectors.
    """
    _check(query, candidate, temperature, negatives)
    positives = _positives(query, negatives, candidate_ids, negative_ids)
    part = _rows(rows, query)
    losses = _row_losses(query, candidate, temperature, negatives, symmetric, positives, part)
    return losses.sum() / len(query)


def mamcl(
    query: Tensor,
    candidate: Tensor,
    target_modality: Labels,
    temperature: float = 0.03,
    negatives: Tensor | None = None,
    negative_modality: Labels | None = None,
    symmetric: bool = False,
    candidate_ids: Labels | None = None,
    negative_ids: Labels | None = None,
    *,
    rows: slice | Labels | None = None,
) -> Tensor:
    """Modality-aware masked InfoNCE: each query competes only inside its target's modality.

        L as in `info_nce`, its sum over j restricted to targets with m_j = m_i

    Args (the others as in `info_nce`)
        target_modality    [N]  modality of each candidate: `Modality` or any integer group label
        negative_modality  [K]  modality of each hard negative, masked by the same rule. Without
                                it, K = N means that negative i has the modality of candidate i;
                                any other K needs it
        symmetric               candidate j, too, competes only with queries whose target has its
                                modality
    Returns
        scalar loss in nats; a row alone in its modality (no hard negative) contributes exactly 0.

    Equals `info_nce` when all modalities agree and never exceeds it. Blind to an offset common
    to all scores of one modality: it does not make scores of different modalities comparable.
    The released code leaves hard negatives and the reverse direction unmasked (PAPER §2.2).
    Raises ValueError as `info_nce`, and for equal ids whose modalities differ.
    """
    _check(query, candidate, temperature, negatives)
    positives = _positives(query, negatives, candidate_ids, negative_ids)
    modality = _labels(target_modality, query, len(query), "target_modality")
    others = _negative_modality(negatives, negative_modality, modality)
    all_modalities = torch.cat([modality, others])  # [N + K]
    if (positives & (modality[:, None] != all_modalities)).any():
        raise ValueError(
            "equal candidate_ids carry different modalities: equal content has one modality, "
            "so give each id to one modality only"
        )
    part = _rows(rows, query)
    losses = []
    for members, columns in _groups(modality, others):
        losses.append(
            _row_losses(
                query[members],
                candidate[members],
                temperature,
                None if negatives is None else negatives[columns],
                symmetric,
                positives[members][:, torch.cat([members, columns + len(query)])],
                torch.searchsorted(members, part[modality[part] == modality[members[0]]]),
            )
        )
    return torch.cat(losses).sum() / len(query)


def surviving_share(target_modality: Labels) -> float:
    """Share of the N x N query-candidate pairs that the MAMCL mask keeps, positives included.

    Args: target_modality [N] integers, N >= 1. Returns a share in [1/N, 1]; 1 means that the
    mask removes nothing and MAMCL is InfoNCE.
    """
    codes = torch.as_tensor(target_modality)
    if codes.numel() == 0:
        raise ValueError("target_modality is empty: the share of no pairs is undefined")
    codes = _labels(codes, codes, codes.numel(), "target_modality")
    _, counts = codes.unique(return_counts=True)
    return float(counts.double().square().sum() / counts.sum().double().square())


@torch.no_grad()
def in_batch_accuracy(
    query: Tensor,
    candidate: Tensor,
    target_modality: Labels,
    candidate_ids: Labels | None = None,
) -> dict[int, float]:
    """Share of queries whose positive beats every negative of its modality, by target modality.

    Args as in `mamcl`; a candidate is a positive of query i when it has the id of candidate i.
    Returns {modality code: share in [0, 1]}. A tie with a negative is a miss, so a collapsed
    model scores 0. Rows without any negative say nothing and are not counted; a modality with
    only such rows is absent.
    """
    _check(query, candidate, 1.0, None)
    positives = _positives(query, None, candidate_ids, None)
    modality = _labels(target_modality, query, len(query), "target_modality")
    accuracy = {}
    for rows, _ in _groups(modality, modality[:0]):
        positive = positives[rows][:, rows]
        counted = ~positive.all(1)
        if counted.any():
            scores = _logits(query[rows], candidate[rows], 1.0)
            best = scores.masked_fill(~positive, -torch.inf).amax(1)
            rival = scores.masked_fill(positive, -torch.inf).amax(1)
            accuracy[int(modality[rows[0]])] = float((best > rival)[counted].double().mean())
    return accuracy


def _row_losses(query, candidate, temperature, negatives, symmetric, positives, rows) -> Tensor:
    """Loss of each pair of `rows`, [R]; `positives` [N, N + K] holds booleans."""
    targets = candidate if negatives is None else torch.cat([candidate, negatives])
    losses = _contrast(_logits(query[rows], targets, temperature), positives[rows])
    if symmetric:
        reverse = _logits(candidate[rows], query, temperature)  # [R, N]
        losses = (losses + _contrast(reverse, positives[:, rows].T)) / 2
    return losses


def _contrast(logits: Tensor, positives: Tensor) -> Tensor:
    """Mean over the positives of each row of -log p(positive | it and the negatives), [rows]."""
    negatives = logits.masked_fill(positives, -torch.inf).logsumexp(1)  # -inf where there is none
    rows, columns = positives.nonzero(as_tuple=True)
    surprise = F.softplus(negatives[rows] - logits[rows, columns])
    return logits.new_zeros(len(logits)).index_add(0, rows, surprise) / positives.sum(1)


def _logits(query: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Scores over temperature in float32 or wider; autocast would bring bfloat16 back."""
    wide = torch.promote_types(torch.promote_types(query.dtype, targets.dtype), torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        return query.to(wide) @ targets.to(wide).T / temperature


def _positives(query, negatives, candidate_ids, negative_ids) -> Tensor:
    """Which targets are positives of which query, [N, N + K] booleans."""
    n, k = len(query), 0 if negatives is None else len(negatives)
    if negative_ids is not None and (negatives is None or candidate_ids is None):
        raise ValueError("negative_ids need both negatives and candidate_ids")
    ids = torch.arange(n) if candidate_ids is None else candidate_ids
    ids = _labels(ids, query, n, "candidate_ids")
    candidates = ids[:, None] == ids  # [N, N]
    if negative_ids is None:
        return torch.cat([candidates, candidates.new_zeros(n, k)], 1)
    return torch.cat(
        [candidates, ids[:, None] == _labels(negative_ids, query, k, "negative_ids")], 1
    )


def _rows(rows: slice | Labels | None, query: Tensor) -> Tensor:
    """Row numbers of a part of the batch, sorted, each in [0, N) and once."""
    everything = torch.arange(len(query), device=query.device)
    if rows is None or isinstance(rows, slice):
        return everything if rows is None else everything[rows]
    part = torch.as_tensor(rows, device=query.device)
    part = _labels(part if part.numel() else part.long(), query, part.numel(), "rows").sort()[0]
    if part.numel() and not 0 <= part[0] <= part[-1] < len(query):
        raise ValueError(f"rows must lie in [0, {len(query)}), not {part[0]} to {part[-1]}")
    if (part[1:] == part[:-1]).any():
        raise ValueError("rows names a pair twice: its loss would count twice")
    return part


def _groups(modality: Tensor, negative_modality: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Row numbers of the pairs and of the hard negatives of each target modality."""
    for code in modality.unique():
        yield (modality == code).nonzero()[:, 0], (negative_modality == code).nonzero()[:, 0]


def _negative_modality(negatives, negative_modality, modality: Tensor) -> Tensor:
    """Modality of each hard negative, [K]; the default is the one stated in `mamcl`."""
    if negatives is None:
        if negative_modality is not None:
            raise ValueError("negative_modality is given without negatives")
        return modality[:0]
    if negative_modality is not None:
        return _labels(negative_modality, modality, len(negatives), "negative_modality")
    if len(negatives) != len(modality):
        raise ValueError(
            f"{len(negatives)} negatives for {len(modality)} queries: only one negative per "
            "query has a default modality, so give negative_modality"
        )
    return modality


def _labels(values: Labels, like: Tensor, size: int, name: str) -> Tensor:
    """Integer labels as a tensor on the device of `like`, checked to have shape [size]."""
    labels = torch.as_tensor(values, device=like.device)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name} must hold integers, not {labels.dtype}")
    if labels.shape != (size,):
        raise ValueError(f"{name} must have shape [{size}], not {list(labels.shape)}")
    return labels


def _check(query: Tensor, candidate: Tensor, temperature: float, negatives: Tensor | None) -> None:
    """Refuse shapes, dtypes and temperatures that have no meaning."""
    if query.ndim != 2 or query.shape != candidate.shape or len(query) == 0:
        raise ValueError(
            "query and candidate must both be [N, D] with N >= 1, not "
            f"{list(query.shape)} and {list(candidate.shape)}"
        )
    if negatives is not None and (negatives.ndim != 2 or negatives.shape[1] != query.shape[1]):
        raise ValueError(
            f"negatives must be [K, {query.shape[1]}] like the queries, not {list(negatives.shape)}"
        )
    for name, vectors in (("query", query), ("candidate", candidate), ("negatives", negatives)):
        if vectors is not None and not vectors.is_floating_point():
            raise ValueError(f"{name} must be floating point, not {vectors.dtype}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
