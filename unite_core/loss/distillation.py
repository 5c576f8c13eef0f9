"""Distillation of a teacher's scores, such as a reranker's: margin-MSE and KL.

Each query is compared with its own candidate and its own hard negatives alone, which the teacher
has scored.
"""

# Shapes: N pairs in a batch, K hard negatives, R rows asked for, W the most targets of a query, D
# embedding size.

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from .arguments import (
    Labels,
    Temperature,
    check_vectors,
    integer_labels,
    inverse_temperature,
    row_indices,
)

__all__ = ["Teacher", "distill_kl", "margin_mse"]


@dataclass(frozen=True)
class Teacher:
    """What a teacher thinks of the pairs of a batch, and whose each hard negative is."""

    candidate: Tensor  # [N] scores of query i and its candidate
    negatives: Tensor  # [K] scores of hard negative k and the query that it belongs to
    owner: Tensor  # [K] index of that query, ascending


def margin_mse(query: Tensor, candidate: Tensor, negatives: Tensor, teacher: Teacher,
               temperature: Temperature = 0.03, target_modality: Labels | None = None, *,
               teacher_temperature: float = 1.0,
               rows: slice | Labels | None = None) -> Tensor:  # fmt: skip
    """Mean squared difference of the margins of student and teacher (arXiv 2010.02666).

        L = 1/K sum_k ((s_i+ - s_ik) - (t_i+ - t_ik) / T)^2

    where i owns hard negative k, s = q . t / tau are the student's scores and t the teacher's.

    Args
        query, candidate     [N, D]  unit vectors
        negatives            [K, D]
        temperature                  tau > 0, a number or, with target_modality [N], one for each
                                     modality code of the candidate
        teacher_temperature  > 0     T
        rows                 [R]     only these pairs' part of the sum, still divided by K
    Returns a scalar >= 0; 0 without hard negatives.
    Raises ValueError on shapes that disagree or a temperature that is not > 0.

    >>> query = candidate = torch.eye(2)
    >>> teacher = Teacher(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 1.0]), torch.tensor([0, 1]))
    >>> margin_mse(query, candidate, candidate.flip(0), teacher, temperature=1.0)
    tensor(0.5000)
    """
    student, scores, there = _tables(
        query, candidate, negatives, teacher, temperature, target_modality, teacher_temperature,
        rows,
    )  # fmt: skip
    margins = (student[:, :1] - student[:, 1:]) - (scores[:, :1] - scores[:, 1:])
    squares = margins.masked_fill(~there[:, 1:], 0.0).square()
    return squares.sum() / max(1, len(negatives))


def distill_kl(query: Tensor, candidate: Tensor, negatives: Tensor, teacher: Teacher,
               temperature: Temperature = 0.03, target_modality: Labels | None = None, *,
               teacher_temperature: float = 1.0,
               rows: slice | Labels | None = None) -> Tensor:  # fmt: skip
    """Mean over queries of KL(teacher || student) over a query's candidate and hard negatives.

        L = mean_i sum_j p_ij log(p_ij / r_ij),   p_i = softmax(t_i / T),   r_i = softmax(s_i)

    Args as `margin_mse`; `rows` are still divided by N.
    Returns a scalar in nats, >= 0 up to rounding; a query without hard negatives contributes 0.

    >>> query = candidate = torch.eye(2)
    >>> teacher = Teacher(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.0]), torch.tensor([0, 1]))
    >>> distill_kl(query, candidate, candidate.flip(0), teacher, temperature=1.0)
    tensor(0.)
    """
    student, scores, there = _tables(
        query, candidate, negatives, teacher, temperature, target_modality, teacher_temperature,
        rows,
    )  # fmt: skip
    wanted, found = scores.log_softmax(1), student.log_softmax(1)
    terms = (wanted - found).masked_fill(~there, 0.0) * wanted.exp()
    return terms.sum() / len(query)


def _tables(query, candidate, negatives, teacher, temperature, modality, divisor, rows):
    """Scores [R, W] of student and teacher, candidate first, and which places are taken.

    Others are the lowest finite number in both: -inf would have gradients that are no numbers.
    """
    check_vectors(query, candidate, negatives)
    if not 0 < divisor < math.inf:
        raise ValueError(f"teacher_temperature must be positive, not {divisor}")
    n, k = len(query), len(negatives)
    if negatives.ndim != 2 or len(teacher.candidate) != n or len(teacher.negatives) != k:
        raise ValueError(
            f"a teacher of {len(teacher.candidate)} candidates and {len(teacher.negatives)} hard "
            f"negatives does not fit {n} pairs and negatives {list(negatives.shape)}"
        )
    if modality is not None:
        modality = integer_labels(modality, query, (n,), "target_modality")
    scale, index = inverse_temperature(temperature, modality, query, candidate, negatives)
    owner = integer_labels(teacher.owner, query, (k,), "owner")
    counts = torch.bincount(owner, minlength=n)
    first = counts.cumsum(0) - counts
    place = torch.arange(k, device=query.device) - first[owner]
    part = row_indices(rows, query)
    width = int(counts.max()) if n else 0
    targets = candidate.new_zeros(n, width, candidate.shape[1]).index_put((owner, place), negatives)
    there = torch.arange(width, device=query.device) < counts[:, None]  # [N, W - 1]
    with torch.autocast(query.device.type, enabled=False):
        both = torch.cat([candidate[:, None], targets], 1)[part].to(scale.dtype)
        student = torch.einsum("nd,nwd->nw", query[part].to(scale.dtype), both)
    student = student * scale[index[part], None]
    known = teacher.negatives.to(student) / divisor
    scores = student.new_zeros(n, width).index_put((owner, place), known)
    scores = torch.cat([teacher.candidate.to(student)[:, None] / divisor, scores], 1)[part]
    there = pad(there, (1, 0), value=True)[part]
    nothing = torch.finfo(student.dtype).min
    return student.masked_fill(~there, nothing), scores.masked_fill(~there, nothing), there
