"""Contrastive losses and their gradients in chunks of rows, without an N x N matrix.

Pairs are sorted into groups that do not see each other; inside a group, rows are processed in
chunks. Each chunk's logits are overwritten by their gradient while still at hand, so a direction
costs three matrix products (scores, gradient of the anchors, of the targets) and nothing but
gradients is kept for the backward pass.
"""

# Shapes: N pairs, D embedding size, K negatives seen by all queries, k by one query alone,
# R rows asked for, c anchors of a chunk, M targets that they see. An anchor is a query, or in the
# reverse direction a candidate; its targets are then the queries.

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .negatives import NegativeMask, Pairs, draw_columns, iter_groups, matches, sort_content
from .reductions import row_loss

__all__ = ["chunk_rows", "chunked_loss"]


CPU_ROWS, GPU_ROWS = 512, 4096


@dataclass(frozen=True)
class _Input:
    """An input and the tensor that accumulates its gradient (None: none is needed)."""

    values: Tensor
    gradient: Tensor | None

    def add(self, index: Tensor, gradient: Tensor) -> None:
        if self.gradient is not None:
            self.gradient.index_add_(0, index, gradient)

    def take(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Copy of these rows."""
        return self.values.index_select(0, index).to(dtype)


@dataclass(frozen=True)
class _Inputs:
    query: _Input
    candidate: _Input
    negatives: _Input  # [K, D] or [N, k, D]
    scale: _Input  # [T]


@dataclass(frozen=True)
class _Targets:
    """What the anchors of a group compete for, with room for its gradient."""

    table: Tensor  # [M, D] candidates (queries), then hard negatives
    gradient: Tensor | None
    members: Tensor  # indices of the pairs that the first targets belong to
    others: Tensor  # indices of the hard negatives
    content: Pairs  # `sort` of all their contents
    private: int  # k, further targets of each anchor that no other anchor sees


def chunked_loss(
    query: Tensor, candidate: Tensor, negatives: Tensor, scale: Tensor, mask: NegativeMask
) -> Tensor:
    """Sum of the losses of `mask.rows`, divided by N.

    Args: query, candidate [N, D]; negatives [K, D] (K = 0: none) or [N, k, D]; scale 1 / tau [T],
    in the data type of all logits and sums; mask says which targets count for which anchor.
    Returns a scalar in nats, differentiable once, in all four tensors. The gradients are computed
    together with the loss; `backward` only multiplies them.
    """
    return _ChunkedLoss.apply(query, candidate, negatives, scale, mask)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, candidate, negatives, scale, mask):
        inputs = [
            _Input(x, torch.zeros_like(x, dtype=scale.dtype) if needed else None)
            for x, needed in zip((query, candidate, negatives, scale), ctx.needs_input_grad[:4],
                                 strict=True)
        ]  # fmt: skip
        with torch.autocast(query.device.type, enabled=False):
            loss = _loss_of_groups(_Inputs(*inputs), mask)
        ctx.save_for_backward(
            *(None if x.gradient is None else x.gradient.to(x.values.dtype) for x in inputs)
        )
        return loss

    @staticmethod
    def backward(ctx, outer):
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the loss can be differentiated only once: its gradient keeps no graph, so call "
                "backward or autograd.grad without create_graph=True"
            )
        if outer.device.type == "cpu" and outer == 1:  # on a GPU this test would synchronise
            return *ctx.saved_tensors, None
        return *(g if g is None else g * outer.to(g.dtype) for g in ctx.saved_tensors), None


def _loss_of_groups(inputs: _Inputs, mask: NegativeMask) -> Tensor:
    """The loss; its gradients accumulate in `inputs` on the way."""
    loss = inputs.scale.values.new_zeros(())
    for members, rows, others in iter_groups(mask):
        if len(members) == 1 and not len(others) and inputs.negatives.values.ndim == 2:
            continue  # no negatives: loss and gradient are 0
        loss += _one_direction(inputs, mask, rows, members, others)
        if mask.symmetric:
            loss += _one_direction(inputs, mask, rows, members, others[:0], reverse=True)
    return loss


def chunk_rows(device: torch.device) -> int:
    """Rows of a chunk: as few as keep the matrix products efficient."""
    return CPU_ROWS if device.type == "cpu" else GPU_ROWS


# One direction


def _one_direction(inputs, mask, rows, members, others, reverse=False) -> Tensor:
    """Loss of `rows` against the targets of `members` and the negatives `others`."""
    anchors, partners = inputs.query, inputs.candidate
    if reverse:
        anchors, partners = partners, anchors
    targets = _targets(inputs, mask, partners, members, others, private=not reverse)
    loss, weight = targets.table.new_zeros(()), (0.5 if mask.symmetric else 1.0) / len(mask.group)
    for chunk in rows.split(chunk_rows(rows.device)):
        scaled = _scaled(inputs, mask, anchors, chunk)
        logits = _scores(inputs, chunk, scaled, targets)
        pairs = _positives(mask, chunk, targets)
        positive = logits[pairs]
        if mask.false_negative_margin is not None:
            limit = (scaled * partners.values[chunk]).sum(1)
            limit = (
                limit
                + mask.false_negative_margin * inputs.scale.values[mask.temperature_index[chunk]]
            )
            logits.masked_fill_(logits > limit[:, None], -torch.inf)
        _weigh_negatives(logits, mask, chunk, targets, pairs, reverse)
        loss += row_loss(logits, pairs, positive, weight)
        _add_gradients(inputs, mask, anchors, chunk, targets, scaled, logits)
    _return_gradient(inputs, partners, targets)
    return loss


def _targets(inputs, mask, partners, members, others, private: bool) -> _Targets:
    """Targets of a group side by side, in the data type of the logits."""
    private = private and inputs.negatives.values.ndim == 3
    wide, content = inputs.scale.values.dtype, mask.content[members]
    whole = len(members) == len(partners.values)  # members are then all pairs in order
    table = partners.values.to(wide) if whole else partners.take(members, wide)
    needed, gradient = partners.gradient is not None, None
    if whole and not len(others):
        gradient = partners.gradient
    if len(others):
        table = torch.cat([table, inputs.negatives.take(others, wide)])
        content = torch.cat([content, mask.negative_content[others]])
        needed = needed or inputs.negatives.gradient is not None
    if needed and gradient is None:
        gradient = torch.zeros_like(table)
    return _Targets(
        table=table,
        gradient=gradient,
        members=members,
        others=others,
        content=sort_content(content),
        private=inputs.negatives.values.shape[1] if private else 0,
    )


def _return_gradient(inputs, partners: _Input, targets: _Targets) -> None:
    """Add the gradient of a group's targets to that of the inputs."""
    if targets.gradient is not None and targets.gradient is not partners.gradient:
        size = len(targets.members)
        partners.add(targets.members, targets.gradient[:size])
        if len(targets.table) > size:
            inputs.negatives.add(targets.others, targets.gradient[size:])


def _scaled(inputs, mask, anchors: _Input, chunk: Tensor) -> Tensor:
    """The anchors over tau, [c, D]."""
    scale = inputs.scale.values[mask.temperature_index[chunk]]
    return anchors.take(chunk, scale.dtype).mul_(scale[:, None])


def _scores(inputs, chunk, scaled, targets: _Targets) -> Tensor:
    """Scores over tau, [c, M + k], those of the anchors' private negatives last."""
    size = len(targets.table)
    logits = scaled.new_empty(len(chunk), size + targets.private)
    torch.mm(scaled, targets.table.T, out=logits[:, :size])
    if targets.private:
        private = inputs.negatives.take(chunk, scaled.dtype)  # [c, k, D]
        logits[:, size:] = (private @ scaled[:, :, None])[:, :, 0]
    return logits


def _add_gradients(inputs, mask, anchors: _Input, chunk, targets: _Targets, scaled, weights):
    """Carry d loss / d logits on to anchors, targets, private negatives and scale."""
    size, wide = len(targets.table), scaled.dtype
    if targets.gradient is not None:
        targets.gradient.addmm_(weights[:, :size].T, scaled)
    if targets.private and inputs.negatives.gradient is not None:
        inputs.negatives.add(chunk, weights[:, size:, None] * scaled[:, None])
    if anchors.gradient is None and inputs.scale.gradient is None:
        return
    toward = weights[:, :size] @ targets.table  # [c, D], gradient of the scaled anchors
    if targets.private:
        toward += (weights[:, None, size:] @ inputs.negatives.take(chunk, wide))[:, 0]
    index = mask.temperature_index[chunk]
    if inputs.scale.gradient is not None:
        inputs.scale.add(index, (toward * anchors.values[chunk]).sum(1))
    anchors.add(chunk, toward.mul_(inputs.scale.values[index][:, None]))


# Positives and negatives


def _positives(mask, chunk, targets: _Targets) -> Pairs:
    """Entries of a chunk's logits that are positives."""
    wanted = mask.content[chunk]
    rows, columns = matches(wanted, targets.content)
    if targets.private:
        equal = mask.negative_content[chunk] == wanted[:, None]  # [c, k]
        private_rows, private_columns = equal.nonzero(as_tuple=True)
        rows = torch.cat([rows, private_rows])
        columns = torch.cat([columns, private_columns + len(targets.table)])
    return rows, columns


def _weigh_negatives(logits, mask, chunk, targets: _Targets, pairs: Pairs, reverse: bool) -> None:
    """Weigh down or remove negatives of other groups, or random ones, in place."""
    group, size = mask.group[chunk], len(targets.table)
    groups = mask.group[targets.members]
    if size > len(groups):
        groups = torch.cat([groups, mask.negative_group[targets.others]])
    private = mask.negative_group[chunk] if targets.private else group[:, None][:, :0]  # [c, k]
    if mask.random_mask is not None:
        counts = torch.bincount(groups)[group]
        counts = counts + (private == group[:, None]).sum(1) - torch.bincount(pairs[0])
        seed = 2 * mask.random_mask + reverse
        kept = draw_columns(seed, chunk, counts, logits.shape[1], pairs)
        logits.masked_fill_(~kept, -torch.inf)
        return
    weights = [1.0, mask.cross_modal_weight]
    penalty = logits.new_tensor([math.log(w) if w else -torch.inf for w in weights])
    if not mask.separable:
        logits[:, :size] += penalty[(groups != group[:, None]).long()]
    if targets.private:
        logits[:, size:] += penalty[(private != group[:, None]).long()]
