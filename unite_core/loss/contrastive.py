"""Contrastive losses as pure functions of embeddings: InfoNCE and its modality-masked form.

MAMCL (PAPER §2) lets a query compete only with targets of its own target's modality. That mask
is an equivalence relation, so the masked loss *is* plain InfoNCE inside each modality, averaged
over all rows: no modality mask is built, no -1e9 and no NaN can appear, and a row whose modality
occurs once has nothing to compete with and costs exactly 0. Any integer labels group that way:
modality, data set, both.

Work grows with the sum of squared group sizes, memory with N (`contrast` says how). Logits are
float32 or wider whatever the embeddings are, also under autocast. Gradients can be taken once.
"""

# Shapes: N pairs in a batch, K hard negatives (k of each query), D embedding size.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .chunked import chunk_rows, contrast
from .negatives import Contest, groups, matches, sort

__all__ = ["in_batch_accuracy", "info_nce", "mamcl", "surviving_share"]


Labels = Tensor | Sequence[int]
Temperature = float | Tensor | Mapping[int, float | Tensor]


def info_nce(
    query: Tensor,
    candidate: Tensor,
    temperature: float | Tensor = 0.03,
    negatives: Tensor | None = None,
    symmetric: bool = False,
    candidate_ids: Labels | None = None,
    negative_ids: Labels | None = None,
    *,
    dims: Sequence[int] | None = None,
    false_negative_margin: float | None = None,
    rows: slice | Labels | None = None,
) -> Tensor:
    """InfoNCE: the mean surprise at finding a positive among the negatives of the batch, in nats.

        L = mean_i mean_{p in P(i)} -log  exp(s_ip) / (exp(s_ip) + sum_{j not in P(i)} exp(s_ij))

    where s_ij = q_i . t_j / tau and the targets t are the N candidates, then the K hard negatives.

    Args
        query          [N, D]  embeddings, unit norm (the caller's duty)
        candidate      [N, D]  row i is a positive of query i
        temperature    > 0     tau, a number or a tensor of one, which may be learned
        negatives      [K, D]  hard negatives; every query sees all of them. Or [N, k, D]: query i
                               sees its own k
        symmetric              add the candidate-to-query loss and halve; hard negatives are no
                               queries, so they stay out of that direction
        candidate_ids  [N]     integers; P(i) is every target with the id of candidate i, in both
                               directions. Without ids P(i) = {i}
        negative_ids   [K]     or [N, k]: ids of the hard negatives; one that repeats a candidate's
                               id is a positive of that candidate's query. Without them none is
        dims                   Matryoshka: mean of the losses of these first coordinates, each
                               prefix normalised again; sizes in 1 ... D
        false_negative_margin  drop negatives j of query i with q_i . t_j > q_i . c_i + margin (in
                               cosines, from the scores at hand, as constants); in the reverse
                               direction, of candidate i with q_j . c_i > q_i . c_i + margin
        rows           [R]     only these pairs' losses (slice or row numbers), still divided by N:
                               the parts of a partition of the rows add up to the whole loss, in
                               value and gradients, so processes can share the work
    Returns
        scalar loss in nats, >= 0, float32 (float64 for float64 input).

    Positives never compete with each other. The usual soft labels (1/k on each of k positives)
    would: for exact repeats of a candidate their gradient is the one of no ids at all.
    Raises ValueError on shapes that disagree, a temperature <= 0, or ids without their vectors;
    RuntimeError from a backward pass with create_graph.
    """
    negatives = _check(query, candidate, negatives)
    if isinstance(temperature, Mapping) or torch.as_tensor(temperature).ndim > 0:
        raise ValueError("info_nce has one temperature; mamcl takes one for each modality")
    scale, tempered = _scale(temperature, None, query, candidate, negatives)
    contest = Contest(
        group=torch.zeros_like(tempered),
        tempered=tempered,
        rows=_rows(rows, query),
        negative_group=tempered.new_zeros(negatives.shape[:-1]),
        symmetric=symmetric,
        margin=_margin(false_negative_margin),
        **_content(query, negatives, candidate_ids, negative_ids),
    )
    return _of_prefixes(query, candidate, negatives, scale, contest, dims)


def mamcl(
    query: Tensor,
    candidate: Tensor,
    target_modality: Labels,
    temperature: Temperature = 0.03,
    negatives: Tensor | None = None,
    negative_modality: Labels | None = None,
    symmetric: bool = False,
    candidate_ids: Labels | None = None,
    negative_ids: Labels | None = None,
    *,
    cross_modal_weight: float = 0.0,
    random_mask: int | None = None,
    dims: Sequence[int] | None = None,
    false_negative_margin: float | None = None,
    rows: slice | Labels | None = None,
) -> Tensor:
    """Modality-aware masked InfoNCE: each query competes only inside its target's modality.

        L as in `info_nce`, its sum over j restricted to targets with m_j = m_i

    Args (the others as in `info_nce`)
        target_modality    [N]  modality of each candidate: `Modality` or any integer group label
        temperature             also {modality: tau}, or a tensor [T] that the modality indexes: a
                                row's scores are divided by the tau of its target's modality
        negative_modality  [K]  or [N, k]: modality of each hard negative, masked by the same rule.
                                Without it, K = N means that negative i has the modality of
                                candidate i, and so have the own negatives [N, k, D] of query i;
                                any other K needs it
        symmetric               candidate j, too, competes only with queries whose target has its
                                modality
        cross_modal_weight      in [0, 1]: how much exp(s_ij) of a negative of another modality
                                counts. 0 is MAMCL, 1 is InfoNCE
        random_mask             a seed >= 0: the control that masks as much and knows nothing. Each
                                row keeps as many negatives as MAMCL would, drawn from all
    Returns
        scalar loss in nats; a row alone in its modality (no hard negative) contributes exactly 0.

    Equals `info_nce` when all modalities agree and never exceeds it. Blind to an offset common
    to all scores of one modality: it does not make scores of different modalities comparable.
    The released code leaves hard negatives and the reverse direction unmasked (PAPER §2.2).
    Raises ValueError as `info_nce`, and for equal ids whose modalities differ.
    """
    negatives = _check(query, candidate, negatives)
    _check_mask(cross_modal_weight, random_mask)
    modality = _labels(target_modality, query, (len(query),), "target_modality")
    scale, tempered = _scale(temperature, modality, query, candidate, negatives)
    others = _negative_modality(negatives, negative_modality, modality)
    group, negative_group = _dense(modality, others)
    contest = Contest(
        group=group,
        tempered=tempered,
        rows=_rows(rows, query),
        negative_group=negative_group,
        symmetric=symmetric,
        cross_weight=cross_modal_weight,
        margin=_margin(false_negative_margin),
        seed=random_mask,
        **_content(query, negatives, candidate_ids, negative_ids),
    )
    _check_ids(contest)
    return _of_prefixes(query, candidate, negatives, scale, contest, dims)


def surviving_share(target_modality: Labels) -> float:
    """Share of the N x N query-candidate pairs that the MAMCL mask keeps, positives included.

    Args: target_modality [N] integers, N >= 1. Returns a share in [1/N, 1]; 1 means that the
    mask removes nothing and MAMCL is InfoNCE.
    """
    codes = torch.as_tensor(target_modality)
    if codes.numel() == 0:
        raise ValueError("target_modality is empty: the share of no pairs is undefined")
    codes = _labels(codes, codes, (codes.numel(),), "target_modality")
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
    negatives = _check(query, candidate, None)
    modality = _labels(target_modality, query, (len(query),), "target_modality")
    (group,) = _dense(modality)
    labels = _content(query, negatives, candidate_ids, None)
    everything = _rows(None, query)
    contest = Contest(group, tempered=everything, rows=everything, negative_group=group[:0],
                      **labels)  # fmt: skip
    accuracy = {}
    for members, _, _ in groups(contest):
        hits = _hits(query[members], candidate[members], contest.content[members])
        if len(hits):
            accuracy[int(modality[members[0]])] = float(hits.double().mean())
    return accuracy


def _hits(query: Tensor, candidate: Tensor, content: Tensor) -> Tensor:
    """Of the rows that have a negative: whether a positive beats all of them."""
    wide = _wide(query, candidate)
    candidate, known, hits = candidate.to(wide), sort(content), []
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


def _of_prefixes(query, candidate, negatives, scale, contest, dims) -> Tensor:
    """Mean of the losses of the Matryoshka prefixes, or the loss of the whole vectors."""
    if contest.cross_weight == 1:
        contest = contest.unmasked()
    if dims is None:
        return contrast(query, candidate, negatives, scale, contest)
    dims, size = list(dims), query.shape[1]
    if not dims or len(set(dims)) < len(dims) or not all(0 < dim <= size for dim in dims):
        raise ValueError(f"dims must be different sizes in 1 ... {size}, not {dims}")
    losses = []
    for dim in dims:
        # prefixes of bfloat16 vectors are normalised in the wide type
        prefixes = [F.normalize(x[..., :dim].to(scale.dtype), dim=-1)
                    for x in (query, candidate, negatives)]  # fmt: skip
        losses.append(contrast(*prefixes, scale, contest))
    return torch.stack(losses).mean()


def _wide(*tensors: Tensor) -> torch.dtype:
    """The type of logits and sums: float32, or wider when an input is."""
    wide = torch.float32
    for tensor in tensors:
        wide = torch.promote_types(wide, tensor.dtype)
    return wide


def _scale(temperature: Temperature, modality: Tensor | None, *vectors: Tensor):
    """1 / tau of each modality [T], and which of them applies to each pair [N]."""
    like = vectors[0]
    tempered = torch.zeros(len(like), dtype=torch.long, device=like.device)
    values = temperature
    if isinstance(temperature, Mapping) or torch.as_tensor(temperature).ndim > 0:
        codes, tempered = modality.unique(return_inverse=True)
        values = _by_modality(temperature, codes)
    values = torch.as_tensor(values, dtype=_wide(*vectors), device=like.device).reshape(-1)
    if not (values > 0).all():
        raise ValueError(f"temperature must be positive, not {temperature}")
    return values.reciprocal(), tempered


def _by_modality(temperature: Tensor | Mapping[int, float | Tensor], codes: Tensor) -> Tensor:
    """The temperatures of the modalities `codes` that occur."""
    if isinstance(temperature, Tensor):
        if temperature.ndim > 1 or not 0 <= codes[0] <= codes[-1] < len(temperature):
            raise ValueError(
                f"temperature of shape {list(temperature.shape)} has no entry for some of the "
                f"modalities {codes.tolist()}: a tensor is indexed by the modality's code"
            )
        return temperature[codes]
    missing = [code for code in codes.tolist() if code not in temperature]
    if missing:
        raise ValueError(f"temperature names no value for the modalities {missing}")
    values = [temperature[code] for code in codes.tolist()]
    return torch.stack([torch.as_tensor(tau, device=codes.device).double() for tau in values])


def _content(query, negatives, candidate_ids, negative_ids) -> dict[str, Tensor]:
    """`content` of pairs and hard negatives: dense numbers, equal for equal ids."""
    if negative_ids is not None and (not len(negatives) or candidate_ids is None):
        raise ValueError("negative_ids need both negatives and candidate_ids")
    everything = torch.arange(len(query), device=query.device)
    ids = everything
    if candidate_ids is not None:
        ids = _labels(candidate_ids, query, (len(query),), "candidate_ids")
    shape = negatives.shape[:-1]
    if negative_ids is None:
        (ids,) = _dense(ids)
        return {"content": ids, "negative_content": ids.new_full(shape, -1)}
    content, others = _dense(ids, _labels(negative_ids, query, shape, "negative_ids"))
    return {"content": content, "negative_content": others}


def _dense(*labels: Tensor) -> tuple[Tensor, ...]:
    """The same labels numbered from 0."""
    _, numbers = torch.cat([label.flatten() for label in labels]).unique(return_inverse=True)
    parts = numbers.split([label.numel() for label in labels])
    return tuple(part.view(label.shape) for part, label in zip(parts, labels, strict=True))


def _check_ids(contest: Contest) -> None:
    """Refuse a content that occurs in two modalities, one of them a candidate's."""
    content = torch.cat([contest.content, contest.negative_content.flatten()])
    group = torch.cat([contest.group, contest.negative_group.flatten()])
    # the group of a candidate with each content; the last entry is that of content -1
    groups = group.new_full((int(content.max()) + 2,), -1)
    wanted = groups.scatter_(0, contest.content, contest.group)[content]
    if ((wanted >= 0) & (wanted != group)).any():
        raise ValueError(
            "equal candidate_ids carry different modalities: equal content has one modality, "
            "so give each id to one modality only"
        )


def _rows(rows: slice | Labels | None, query: Tensor) -> Tensor:
    """Row numbers of a part of the batch, sorted, each in [0, N) and once."""
    everything = torch.arange(len(query), device=query.device)
    if rows is None or isinstance(rows, slice):
        return everything if rows is None else everything[rows]
    part = torch.as_tensor(rows, device=query.device)
    part = _labels(part if part.numel() else part.long(), query, (part.numel(),), "rows").sort()[0]
    if part.numel() and not 0 <= part[0] <= part[-1] < len(query):
        raise ValueError(f"rows must lie in [0, {len(query)}), not {part[0]} to {part[-1]}")
    if (part[1:] == part[:-1]).any():
        raise ValueError("rows names a pair twice: its loss would count twice")
    return part


def _negative_modality(negatives, negative_modality, modality: Tensor) -> Tensor:
    """Modality of each hard negative, [K] or [N, k]; the default is the one stated in `mamcl`."""
    shape = negatives.shape[:-1]
    if negative_modality is not None:
        if not len(negatives):
            raise ValueError("negative_modality is given without negatives")
        return _labels(negative_modality, modality, shape, "negative_modality")
    if len(shape) == 2:
        return modality[:, None].expand(shape)
    if len(negatives) not in (0, len(modality)):
        raise ValueError(
            f"{len(negatives)} negatives for {len(modality)} queries: only one negative per "
            "query has a default modality, so give negative_modality"
        )
    return modality[: len(negatives)]


def _labels(values: Labels, like: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """Integer labels as a tensor on the device of `like`, checked to have this shape."""
    labels = torch.as_tensor(values, device=like.device)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name} must hold integers, not {labels.dtype}")
    if labels.shape != tuple(shape):
        raise ValueError(f"{name} must have shape {list(shape)}, not {list(labels.shape)}")
    return labels.long()


def _margin(margin: float | None) -> float | None:
    """Refuse a margin that compares with nothing."""
    if margin is not None and not math.isfinite(margin):
        raise ValueError(f"false_negative_margin must be a finite number, not {margin}")
    return margin


def _check_mask(cross_modal_weight: float, random_mask: int | None) -> None:
    """Refuse masks without meaning."""
    if not 0 <= cross_modal_weight <= 1:
        raise ValueError(f"cross_modal_weight must lie in [0, 1], not {cross_modal_weight}")
    if random_mask is not None:
        if isinstance(random_mask, bool) or not isinstance(random_mask, int) or random_mask < 0:
            raise ValueError(f"random_mask must be a seed >= 0, not {random_mask!r}")
        if cross_modal_weight:
            raise ValueError("random_mask replaces the modality mask: no cross_modal_weight then")


def _check(query: Tensor, candidate: Tensor, negatives: Tensor | None) -> Tensor:
    """Refuse shapes and types that have no meaning; returns the negatives, [0, D] for none."""
    if query.ndim != 2 or query.shape != candidate.shape or len(query) == 0:
        raise ValueError(
            "query and candidate must both be [N, D] with N >= 1, not "
            f"{list(query.shape)} and {list(candidate.shape)}"
        )
    n, size = query.shape
    if negatives is None:
        negatives = query.detach()[:0]
    fits = negatives.ndim == 2 or (negatives.ndim == 3 and len(negatives) == n)
    if not fits or negatives.shape[-1] != size:
        raise ValueError(
            f"negatives must be [K, {size}] or [{n}, k, {size}] like the queries, not "
            f"{list(negatives.shape)}"
        )
    for name, vectors in (("query", query), ("candidate", candidate), ("negatives", negatives)):
        if not vectors.is_floating_point():
            raise ValueError(f"{name} must be floating point, not {vectors.dtype}")
    return negatives
