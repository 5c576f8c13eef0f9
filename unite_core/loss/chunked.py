"""The kernel under `loss`: contrastive losses with their gradients, never an N x N matrix.

Pairs are sorted into groups that do not see each other; inside a group, rows are worked off in
chunks. Each chunk's logits become its gradient weights in place, while they are still at hand, so
a direction costs three matrix products (scores, gradient of the anchors, of the targets) and
nothing but gradients is kept for the backward pass. Both directions together also cost three when
the group's logits are no larger than the embeddings, else four: scores are computed again.
"""

# Shapes: N pairs, D embedding size, K negatives seen by all queries, k by one query alone,
# R rows asked for, c anchors of a chunk, M targets that they see. An anchor is a query, or in the
# reverse direction a candidate; its targets are then the queries.

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .negatives import Contest, Pairs, drawn_at_random, groups, matches, sort

__all__ = ["chunk_rows", "contrast"]


CPU_ROWS, GPU_ROWS = 512, 4096
SMALL = 1 << 20  # logits that may always be kept


@dataclass(frozen=True)
class _Part:
    """An input and the tensor in which its gradient adds up (None: none is asked for)."""

    values: Tensor
    gradient: Tensor | None

    def add(self, index: Tensor, gradient: Tensor) -> None:
        if self.gradient is not None:
            self.gradient.index_add_(0, index, gradient)

    def take(self, index: Tensor, dtype: torch.dtype) -> Tensor:
        """Copy of some entries."""
        return self.values.index_select(0, index).to(dtype)


@dataclass(frozen=True)
class _Parts:
    query: _Part
    candidate: _Part
    negatives: _Part  # [K, D] or [N, k, D]
    scale: _Part  # [T]

    @property
    def learned(self) -> bool:
        """Whether any gradient is asked for."""
        parts = (self.query, self.candidate, self.negatives, self.scale)
        return any(part.gradient is not None for part in parts)


@dataclass(frozen=True)
class _Targets:
    """What the anchors of a group compete for, with room for its gradient."""

    table: Tensor  # [M, D] candidates (queries), then hard negatives
    gradient: Tensor | None
    members: Tensor  # pair numbers of the first targets
    others: Tensor  # numbers of the hard negatives
    content: Pairs  # `sort` of all their contents
    own: int  # k, more targets of each anchor that only it sees


def contrast(
    query: Tensor, candidate: Tensor, negatives: Tensor, scale: Tensor, contest: Contest
) -> Tensor:
    """Sum of the losses of `contest.rows`, divided by N.

    Args: query, candidate [N, D]; negatives [K, D] (K = 0: none) or [N, k, D]; scale 1 / tau [T],
    in the data type of all logits and sums; contest says the rest.
    Returns a scalar in nats, differentiable once, in all four tensors. Gradients are computed
    together with the loss and only multiplied by what `backward` brings.
    """
    return _Contrast.apply(query, candidate, negatives, scale, contest)


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, candidate, negatives, scale, contest):
        inputs = [
            _Part(x, torch.zeros_like(x, dtype=scale.dtype) if needed else None)
            for x, needed in zip((query, candidate, negatives, scale), ctx.needs_input_grad[:4],
                                 strict=True)
        ]  # fmt: skip
        with torch.autocast(query.device.type, enabled=False):
            loss = _run(_Parts(*inputs), contest)
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
        if outer.device.type == "cpu" and outer == 1:  # on a GPU this look would be a wait
            return *ctx.saved_tensors, None
        return *(g if g is None else g * outer.to(g.dtype) for g in ctx.saved_tensors), None


def _run(parts: _Parts, contest: Contest) -> Tensor:
    """The loss; on the way the gradients add up in `parts`."""
    loss = parts.scale.values.new_zeros(())
    for members, rows, others in groups(contest):
        if len(members) == 1 and not len(others) and parts.negatives.values.ndim == 2:
            continue  # nothing to compete with: loss and gradient are 0
        if _is_plain(contest, members, rows):
            loss += _both_ways(parts, contest, members, others)
            continue
        loss += _one_way(parts, contest, rows, members, others)
        if contest.symmetric:
            loss += _one_way(parts, contest, rows, members, others[:0], reverse=True)
    return loss


def _is_plain(contest: Contest, members: Tensor, rows: Tensor) -> bool:
    """Whether both directions of all rows are asked, and nothing distinguishes their scores."""
    if not contest.symmetric or not contest.apart or contest.margin is not None:
        return False
    if len(rows) < len(members):
        return False
    tempered = contest.tempered[members]
    _, repeats = contest.content[members].unique(return_counts=True)
    few = repeats.square().sum() <= 8 * len(members)  # positives of the whole group are listed
    return bool(few & (tempered == tempered[0]).all())


def chunk_rows(device: torch.device) -> int:
    """Rows of a chunk: as few as keep the matrix products efficient."""
    return CPU_ROWS if device.type == "cpu" else GPU_ROWS


# One direction


def _one_way(parts, contest, rows, members, others, reverse=False) -> Tensor:
    """Loss of `rows` against the targets of `members` and the negatives `others`."""
    anchors, aims = parts.query, parts.candidate
    if reverse:
        anchors, aims = aims, anchors
    targets = _targets(parts, contest, aims, members, others, own=not reverse)
    loss = targets.table.new_zeros(())
    for chunk in rows.split(chunk_rows(rows.device)):
        scaled = _scaled(parts, contest, anchors, chunk)
        logits = _scores(parts, chunk, scaled, targets)
        pairs = _positives(contest, chunk, targets)
        positive = logits[pairs]
        if contest.margin is not None:
            own = (scaled * aims.values[chunk]).sum(1)
            limit = own + contest.margin * parts.scale.values[contest.tempered[chunk]]
            logits.masked_fill_(logits > limit[:, None], -torch.inf)
        _restrict(logits, contest, chunk, targets, pairs, reverse)
        loss += _surprise(logits, pairs, positive, _weight(contest))
        _spread(parts, contest, anchors, chunk, targets, scaled, logits)
    _hand_back(parts, aims, targets)
    return loss


def _weight(contest: Contest) -> float:
    """What a row counts in each direction."""
    return (0.5 if contest.symmetric else 1.0) / len(contest.group)


def _targets(parts, contest, aims, members, others, own: bool) -> _Targets:
    """Targets of a group side by side, wide enough for the logits."""
    own = own and parts.negatives.values.ndim == 3
    wide, content = parts.scale.values.dtype, contest.content[members]
    whole = len(members) == len(aims.values)  # members are then all pairs in order
    table = aims.values.to(wide) if whole else aims.take(members, wide)
    learned, gradient = aims.gradient is not None, None
    if whole and not len(others):
        gradient = aims.gradient
    if len(others):
        table = torch.cat([table, parts.negatives.take(others, wide)])
        content = torch.cat([content, contest.negative_content[others]])
        learned = learned or parts.negatives.gradient is not None
    if learned and gradient is None:
        gradient = torch.zeros_like(table)
    return _Targets(
        table=table,
        gradient=gradient,
        members=members,
        others=others,
        content=sort(content),
        own=parts.negatives.values.shape[1] if own else 0,
    )


def _hand_back(parts, aims: _Part, targets: _Targets) -> None:
    """Add the gradient of a group's targets to that of the inputs."""
    if targets.gradient is not None and targets.gradient is not aims.gradient:
        size = len(targets.members)
        aims.add(targets.members, targets.gradient[:size])
        if len(targets.table) > size:
            parts.negatives.add(targets.others, targets.gradient[size:])


def _scaled(parts, contest, anchors: _Part, chunk: Tensor) -> Tensor:
    """The anchors over tau, [c, D]."""
    scale = parts.scale.values[contest.tempered[chunk]]
    return anchors.take(chunk, scale.dtype).mul_(scale[:, None])


def _scores(parts, chunk, scaled, targets: _Targets, out: Tensor | None = None) -> Tensor:
    """Scores over tau, [c, M + k], those of the anchors' own negatives last."""
    size = len(targets.table)
    logits = scaled.new_empty(len(chunk), size + targets.own) if out is None else out
    torch.mm(scaled, targets.table.T, out=logits[:, :size])
    if targets.own:
        theirs = parts.negatives.take(chunk, scaled.dtype)  # [c, k, D]
        logits[:, size:] = (theirs @ scaled[:, :, None])[:, :, 0]
    return logits


def _spread(parts, contest, anchors: _Part, chunk, targets: _Targets, scaled, weights) -> None:
    """From d loss / d logits to the gradients of anchors, targets, own negatives and scale."""
    size, wide = len(targets.table), scaled.dtype
    if targets.gradient is not None:
        targets.gradient.addmm_(weights[:, :size].T, scaled)
    if targets.own and parts.negatives.gradient is not None:
        parts.negatives.add(chunk, weights[:, size:, None] * scaled[:, None])
    if anchors.gradient is None and parts.scale.gradient is None:
        return
    toward = weights[:, :size] @ targets.table  # [c, D], gradient of the scaled anchors
    if targets.own:
        toward += (weights[:, None, size:] @ parts.negatives.take(chunk, wide))[:, 0]
    tempered = contest.tempered[chunk]
    if parts.scale.gradient is not None:
        parts.scale.add(tempered, (toward * anchors.values[chunk]).sum(1))
    anchors.add(chunk, toward.mul_(parts.scale.values[tempered][:, None]))


def _surprise(logits: Tensor, pairs: Pairs, positive: Tensor, weight: float) -> Tensor:
    """Weighted sum of the rows' losses; `logits` become its derivative by them, in place.

    A row's loss is the mean over its positives p of log(1 + exp(level - s_p)), where level is the
    log-sum-exp of its negatives, -inf where it has none. `positive` holds the s_p at `pairs`.
    """
    rows = pairs[0]
    share = weight / torch.bincount(rows, minlength=len(logits))[rows].to(logits.dtype)
    logits[pairs] = -torch.inf
    fused = _kernels(logits.device.type)
    if fused:
        top, total = fused.row_sums(logits)
    else:
        top = logits.amax(1).clamp_min_(torch.finfo(logits.dtype).min)  # -inf - -inf would be nan
        total = logits.sub_(top[:, None]).exp_().sum(1)
    gap = (top + total.log())[rows] - positive
    pull = torch.sigmoid(gap).mul_(share)
    pulled = torch.zeros_like(top).index_add_(0, rows, pull)
    factor = pulled / total.clamp_min(torch.finfo(logits.dtype).tiny)
    if fused:
        fused.weigh(logits, top, factor)
    else:
        logits.mul_(factor[:, None])
    logits[pairs] = -pull
    return (_softplus(gap) * share).sum()


def _kernels(device: str):
    """The module `fused` for tensors of a GPU, where triton is installed; else None."""
    if device != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    from . import triton_kernels as fused

    return fused


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to the last digits of float64; torch's default gives x itself from 20 on."""
    return F.softplus(x, threshold=40.0)


# Both directions of a whole group


def _both_ways(parts, contest, members, others) -> Tensor:
    """Loss of all rows of a group in both directions, each chunk's scores used for both.

    A column's level must be known before any of its gradients, so a first sweep over the chunks
    collects levels; the second finds the scores still there, or computes them again.
    """
    targets = _targets(parts, contest, parts.candidate, members, others, own=True)
    size, width = len(members), len(targets.table) + targets.own
    chunks, places = members.split(chunk_rows(members.device)), None
    if size * width <= max(2 * parts.query.values.numel(), SMALL):
        places = targets.table.new_empty(size, width).split([len(chunk) for chunk in chunks])
    columns = _Columns.empty(targets.table, size)
    for number, chunk in enumerate(chunks):
        scaled = _scaled(parts, contest, parts.query, chunk)
        logits = _scores(parts, chunk, scaled, targets, places and places[number])
        columns = columns.seen(logits[:, :size], _positives(contest, chunk, targets, size))
    loss, offset, pulls = columns.settled(_weight(contest))
    for number, chunk in enumerate(chunks):
        scaled = _scaled(parts, contest, parts.query, chunk)
        logits = places[number] if places else _scores(parts, chunk, scaled, targets)
        if parts.learned:
            back = (logits[:, :size] - offset).exp_()
            back[_positives(contest, chunk, targets, size)] = -pulls[number]
        pairs = _positives(contest, chunk, targets)
        positive = logits[pairs]
        _restrict(logits, contest, chunk, targets, pairs)
        loss += _surprise(logits, pairs, positive, _weight(contest))
        if parts.learned:
            logits[:, :size] += back
            _spread(parts, contest, parts.query, chunk, targets, scaled, logits)
    _hand_back(parts, parts.candidate, targets)
    return loss


@dataclass(frozen=True)
class _Columns:
    """Levels of the columns of scores seen chunk by chunk, and the positives on the way."""

    top: Tensor  # [n] largest negative so far
    total: Tensor  # [n] sum of exp(negative - top)
    positives: tuple[tuple[Tensor, Tensor], ...] = ()  # columns and scores of each chunk

    @classmethod
    def empty(cls, like: Tensor, size: int) -> _Columns:
        lowest = torch.finfo(like.dtype).min
        return cls(like.new_full((size,), lowest), like.new_zeros(size))

    def seen(self, logits: Tensor, pairs: Pairs) -> _Columns:
        """With one more chunk [c, n]; the logits are left as they were."""
        positive = logits[pairs]
        logits[pairs] = -torch.inf
        top = torch.maximum(self.top, logits.amax(0))
        total = self.total * (self.top - top).exp() + (logits - top).exp_().sum(0)
        logits[pairs] = positive
        return _Columns(top, total, (*self.positives, (pairs[1], positive)))

    def settled(self, weight: float) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Weighted loss; what to take from logits so that exp gives the gradient weights of
        negatives, [n]; minus the gradient weights of the positives of each chunk.
        """
        column = torch.cat([columns for columns, _ in self.positives])
        share = weight / torch.bincount(column, minlength=len(self.top))[column].to(self.top.dtype)
        level = self.top + self.total.log()
        gap = level[column] - torch.cat([scores for _, scores in self.positives])
        pull = torch.sigmoid(gap).mul_(share)
        pulled = torch.zeros_like(level).index_add_(0, column, pull)
        offset = level - pulled.log()  # nan for a column of positives only, which are set apart
        pulls = pull.split([len(columns) for columns, _ in self.positives])
        return (_softplus(gap) * share).sum(), offset, pulls


# Who is a positive, who is a negative


def _positives(contest, chunk, targets: _Targets, size: int | None = None) -> Pairs:
    """Entries of a chunk's logits that are positives; `size` leaves out all negatives given."""
    wanted = contest.content[chunk]
    rows, columns = matches(wanted, targets.content)
    if size is not None:
        among = columns < size
        return rows[among], columns[among]
    if targets.own:
        theirs = contest.negative_content[chunk] == wanted[:, None]  # [c, k]
        own_rows, own_columns = theirs.nonzero(as_tuple=True)
        rows = torch.cat([rows, own_rows])
        columns = torch.cat([columns, own_columns + len(targets.table)])
    return rows, columns


def _restrict(logits, contest, chunk, targets: _Targets, pairs: Pairs, reverse=False) -> None:
    """Weigh down or take out negatives of other groups, or random ones, in place."""
    group, size = contest.group[chunk], len(targets.table)
    groups = contest.group[targets.members]
    if size > len(groups):
        groups = torch.cat([groups, contest.negative_group[targets.others]])
    theirs = contest.negative_group[chunk] if targets.own else group[:, None][:, :0]  # [c, k]
    if contest.seed is not None:
        many = torch.bincount(groups)[group]
        many = many + (theirs == group[:, None]).sum(1) - torch.bincount(pairs[0])
        seed = 2 * contest.seed + reverse
        kept = drawn_at_random(seed, chunk, many, logits.shape[1], pairs)
        logits.masked_fill_(~kept, -torch.inf)
        return
    weights = [1.0, contest.cross_weight]
    penalty = logits.new_tensor([math.log(w) if w else -torch.inf for w in weights])
    if not contest.apart:
        logits[:, :size] += penalty[(groups != group[:, None]).long()]
    if targets.own:
        logits[:, size:] += penalty[(theirs != group[:, None]).long()]
