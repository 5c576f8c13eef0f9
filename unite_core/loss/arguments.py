"""Checks of the losses' arguments, and labels turned into the dense integers of a NegativeMask."""

# Shapes: N pairs in a batch, K hard negatives (k of each query), D embedding size.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .negatives import NegativeMask

__all__ = [
    "Labels", "Temperature", "check_equal_content", "check_margin", "check_mask", "check_vectors",
    "content_labels", "dense", "integer_labels", "inverse_temperature", "negative_labels",
    "row_indices", "wide_type",
]  # fmt: skip


Labels = Tensor | Sequence[int]
Temperature = float | Tensor | Mapping[int, float | Tensor]


def check_vectors(query: Tensor, candidate: Tensor, negatives: Tensor | None) -> Tensor:
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


def check_margin(margin: float | None) -> float | None:
    """Refuse a margin that is not finite; returns it."""
    if margin is not None and not math.isfinite(margin):
        raise ValueError(f"false_negative_margin must be a finite number, not {margin}")
    return margin


def check_mask(cross_modal_weight: float, random_mask: int | None) -> None:
    """Refuse a weight outside [0, 1], a negative seed, and both options together."""
    if not 0 <= cross_modal_weight <= 1:
        raise ValueError(f"cross_modal_weight must lie in [0, 1], not {cross_modal_weight}")
    if random_mask is not None:
        if isinstance(random_mask, bool) or not isinstance(random_mask, int) or random_mask < 0:
            raise ValueError(f"random_mask must be a seed >= 0, not {random_mask!r}")
        if cross_modal_weight:
            raise ValueError("random_mask replaces the modality mask: no cross_modal_weight then")


def check_equal_content(mask: NegativeMask) -> None:
    """Refuse a content that occurs in two modalities, one of them a candidate's."""
    content = torch.cat([mask.content, mask.negative_content.flatten()])
    group = torch.cat([mask.group, mask.negative_group.flatten()])
    # the group of a candidate with each content; the last entry is that of content -1
    groups = group.new_full((int(content.max()) + 2,), -1)
    wanted = groups.scatter_(0, mask.content, mask.group)[content]
    if ((wanted >= 0) & (wanted != group)).any():
        raise ValueError(
            "equal candidate_ids carry different modalities: equal content has one modality, "
            "so give each id to one modality only"
        )


def integer_labels(values: Labels, like: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """Integer labels as a tensor on the device of `like`, checked to have this shape."""
    labels = torch.as_tensor(values, device=like.device)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name} must hold integers, not {labels.dtype}")
    if labels.shape != tuple(shape):
        raise ValueError(f"{name} must have shape {list(shape)}, not {list(labels.shape)}")
    return labels.long()


def dense(*labels: Tensor) -> tuple[Tensor, ...]:
    """The same labels numbered from 0, equal labels alike in all the tensors."""
    _, numbers = torch.cat([label.flatten() for label in labels]).unique(return_inverse=True)
    parts = numbers.split([label.numel() for label in labels])
    return tuple(part.view(label.shape) for part, label in zip(parts, labels, strict=True))


def content_labels(query, negatives, candidate_ids, negative_ids) -> dict[str, Tensor]:
    """`content` and `negative_content` of a NegativeMask: dense numbers, equal for equal ids."""
    if negative_ids is not None and (not len(negatives) or candidate_ids is None):
        raise ValueError("negative_ids need both negatives and candidate_ids")
    ids = torch.arange(len(query), device=query.device)
    if candidate_ids is not None:
        ids = integer_labels(candidate_ids, query, (len(query),), "candidate_ids")
    shape = negatives.shape[:-1]
    if negative_ids is None:
        (ids,) = dense(ids)
        return {"content": ids, "negative_content": ids.new_full(shape, -1)}
    content, others = dense(ids, integer_labels(negative_ids, query, shape, "negative_ids"))
    return {"content": content, "negative_content": others}


def negative_labels(negatives, negative_modality, modality: Tensor) -> Tensor:
    """Modality of each hard negative, [K] or [N, k]; the default is the one stated in `mamcl`."""
    shape = negatives.shape[:-1]
    if negative_modality is not None:
        if not len(negatives):
            raise ValueError("negative_modality is given without negatives")
        return integer_labels(negative_modality, modality, shape, "negative_modality")
    if len(shape) == 2:
        return modality[:, None].expand(shape)
    if len(negatives) not in (0, len(modality)):
        raise ValueError(
            f"{len(negatives)} negatives for {len(modality)} queries: only one negative per "
            "query has a default modality, so give negative_modality"
        )
    return modality[: len(negatives)]


def row_indices(rows: slice | Labels | None, query: Tensor) -> Tensor:
    """Row indices of a part of the batch, ascending, each in [0, N) and once; None: all."""
    everything = torch.arange(len(query), device=query.device)
    if rows is None or isinstance(rows, slice):
        return everything if rows is None else everything[rows]
    part = torch.as_tensor(rows, device=query.device)
    part = part if part.numel() else part.long()
    part = integer_labels(part, query, (part.numel(),), "rows").sort()[0]
    if part.numel() and not 0 <= part[0] <= part[-1] < len(query):
        raise ValueError(f"rows must lie in [0, {len(query)}), not {part[0]} to {part[-1]}")
    if (part[1:] == part[:-1]).any():
        raise ValueError("rows names a pair twice: its loss would count twice")
    return part


def wide_type(*tensors: Tensor) -> torch.dtype:
    """The data type of logits and sums: float32, or wider where an input is."""
    wide = torch.float32
    for tensor in tensors:
        wide = torch.promote_types(wide, tensor.dtype)
    return wide


def inverse_temperature(temperature: Temperature, modality: Tensor | None, *vectors: Tensor):
    """1 / tau of each modality that occurs [T], and which of them applies to each pair [N]."""
    like = vectors[0]
    index = torch.zeros(len(like), dtype=torch.long, device=like.device)
    values = temperature
    if isinstance(temperature, Mapping) or torch.as_tensor(temperature).ndim > 0:
        if modality is None:
            raise ValueError("info_nce has one temperature; mamcl takes one for each modality")
        codes, index = modality.unique(return_inverse=True)
        values = _by_modality(temperature, codes)
    values = torch.as_tensor(values, dtype=wide_type(*vectors), device=like.device).reshape(-1)
    if not (values > 0).all():
        raise ValueError(f"temperature must be positive, not {temperature}")
    return values.reciprocal(), index


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
    wide = {"dtype": torch.float64, "device": codes.device}
    return torch.stack([torch.as_tensor(temperature[code], **wide) for code in codes.tolist()])
