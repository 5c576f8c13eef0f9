"""The cross-entropy of the target modality through the scores: plain oracle, identity, parts."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from unite_core import info_nce, mamcl
from unite_core.train.config import STAGE_2
from unite_core.train.losses import LossBatch, modality_cross_entropy, stage_loss

CODES = torch.tensor([1, 2, 1, 4, 2, 1, 2, 3])
IDS = torch.tensor([0, 1, 0, 3, 4, 5, 4, 7])  # equal content twice
NEGATIVE_CODES, NEGATIVE_IDS = torch.tensor([1, 2, 2, 4]), torch.tensor([20, 4, 21, 22])
N, K, D = len(CODES), len(NEGATIVE_CODES), 6
PLAIN = {"temperature": 0.1}
OPTIONS = [
    PLAIN,
    {"temperature": {"text": 0.1, "image": 0.2, "text+image": 0.3, "video": 0.4}},
    PLAIN | {"dims": (2, D)},
    PLAIN | {"false_negative_margin": 0.2},
    PLAIN | {"symmetric": True},
    PLAIN | {"cross_modal_weight": 0.3},
]


def stage_of(weight=0.7, **fields):
    return replace(STAGE_2, modality_weight=weight, **fields)


def labels_of(ids=True, hard=True) -> dict:
    labels = {"target_modality": CODES, "candidate_ids": IDS if ids else torch.arange(N)}
    hard_labels = {"negative_modality": NEGATIVE_CODES, "negative_ids": NEGATIVE_IDS}
    return labels | hard_labels if hard else labels


def vectors_of(seed=0, hard=True) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    size = 2 * N + K if hard else 2 * N
    return normalize(torch.randn(size, D, generator=draw, dtype=torch.float64), dim=1)


def oracle(vectors, labels, stage) -> torch.Tensor:
    """mean_i mean_{p in P(i)} -log p(m_i | q_i), by log-sum-exps over the targets of each modality.

    Other positives of a query take no part, nor do targets that the margin drops.
    """
    query, targets = vectors[:N], vectors[N:].detach()
    codes = torch.cat([CODES, labels.get("negative_modality", CODES[:0])])
    ids = torch.cat([labels["candidate_ids"], labels.get("negative_ids", IDS[:0])])
    losses = []
    for dim in stage.dims or (None,):
        part, other = query, targets
        if dim:
            part, other = (normalize(x[:, :dim], dim=1) for x in (query, targets))
        for i in range(N):
            cosines = part[i] @ other.T
            tau = stage.temperature
            if isinstance(tau, dict):
                names = {1: "text", 2: "image", 3: "text+image", 4: "video"}
                tau = tau[names[int(CODES[i])]]
            kept = ids != ids[i]
            if stage.false_negative_margin is not None:
                kept &= cosines <= cosines[i] + stage.false_negative_margin
            terms = []
            for p in torch.nonzero(ids == ids[i])[:, 0].tolist():
                seen = kept.clone()
                seen[p] = True
                groups = torch.stack([
                    torch.logsumexp(cosines[seen & (codes == code)] / tau, 0)
                    for code in codes[seen].unique()
                ])  # fmt: skip
                place = codes[seen].unique().tolist().index(int(CODES[i]))
                terms.append(-torch.log_softmax(groups, 0)[place])
            losses.append(torch.stack(terms).mean())
    return torch.stack(losses).mean()


def term_of(stage, vectors, labels, rows=None):
    """What `modality_weight` adds to the loss."""
    without = replace(stage, modality_weight=0.0)
    return stage_loss(stage, vectors, labels, rows) - stage_loss(without, vectors, labels, rows)


@pytest.mark.parametrize("hard", [False, True], ids=["in batch", "hard negatives"])
@pytest.mark.parametrize("ids", [False, True], ids=["all differ", "equal content"])
@pytest.mark.parametrize("fields", OPTIONS, ids=lambda fields: "-".join(fields))
def test_value_and_gradient_are_those_of_the_plain_cross_entropy(fields, ids, hard):
    stage, labels = stage_of(**fields), labels_of(ids, hard)
    vectors = vectors_of(hard=hard).requires_grad_(True)
    found, wanted = term_of(stage, vectors, labels), 0.7 * oracle(vectors, labels, stage)
    assert wanted > 0.1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    (grad,) = torch.autograd.grad(found, vectors)
    (expected,) = torch.autograd.grad(wanted, vectors)
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-12)
    assert grad[:N].abs().max() > 0.01
    torch.testing.assert_close(grad[N:], torch.zeros_like(grad[N:]), rtol=0, atol=1e-15)


@pytest.mark.parametrize("fields", OPTIONS, ids=lambda fields: "-".join(fields))
def test_parts_add_up_to_the_whole(fields):
    stage, labels = stage_of(**fields), labels_of()
    vectors = vectors_of().requires_grad_(True)
    whole = stage_loss(stage, vectors, labels)
    parts = [stage_loss(stage, vectors, labels, rows)
             for rows in (slice(0, 3), slice(3, 3), slice(3, 8))]  # fmt: skip
    assert parts[0] != parts[2]
    torch.testing.assert_close(sum(parts), whole, rtol=0, atol=1e-12)
    grads = [torch.autograd.grad(loss, vectors)[0] for loss in (sum(parts), whole)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 7), min_size=2, max_size=12),
       st.sampled_from([0.01, 0.03, 0.1, 1.0]))  # fmt: skip
def test_info_nce_is_mamcl_plus_the_cross_entropy_of_the_modality(seed, codes, tau):
    count, draw = len(codes), torch.Generator().manual_seed(seed)
    query, candidate = normalize(
        torch.randn(2, count, D, generator=draw, dtype=torch.float64), dim=-1
    )
    codes = torch.tensor(codes)
    logits = query @ candidate.T / tau
    groups = torch.stack([
        torch.logsumexp(logits.masked_fill(codes != code, -torch.inf), 1)
        for code in codes.unique()
    ], 1)  # fmt: skip
    right = codes[:, None] == codes.unique()
    cross_entropy = -groups.log_softmax(1)[right].mean()
    batch = LossBatch(query, candidate, query[:0], codes, torch.arange(count), tau)
    found = modality_cross_entropy(batch, STAGE_2)
    scale = 1 + float(cross_entropy)  # at 0.01 a loss may be near 100 nats
    assert abs(float(found - cross_entropy)) <= 1e-12 * scale
    whole = info_nce(query, candidate, tau)
    assert abs(float(whole - mamcl(query, candidate, codes, tau) - found)) <= 1e-12 * scale
    assert found >= -1e-12
    if len(codes.unique()) == 1:
        assert abs(float(found)) <= 1e-12


def test_with_a_weight_of_1_queries_get_the_gradient_of_info_nce():
    vectors, labels = vectors_of().requires_grad_(True), labels_of()
    plain = replace(STAGE_2, loss="info_nce")
    losses = [stage_loss(stage, vectors, labels) for stage in (stage_of(1.0), plain)]
    torch.testing.assert_close(*losses)
    both, wanted = (torch.autograd.grad(loss, vectors)[0] for loss in losses)
    torch.testing.assert_close(both[:N], wanted[:N])
    masked, = torch.autograd.grad(stage_loss(STAGE_2, vectors, labels), vectors)  # fmt: skip
    torch.testing.assert_close(both[N:], masked[N:])
    assert (masked[N:] - wanted[N:]).abs().max() > 1e-3


@pytest.mark.parametrize("loss", ["info_nce", "random_mask"])
def test_it_belongs_to_mamcl(loss):
    with pytest.raises(ValueError, match=f"modality_weight is 0.3: must be 0 for the loss {loss}"):
        replace(STAGE_2, loss=loss, modality_weight=0.3)
