"""Hardness weights: nothing at strength 0, a plain definition above it, and what peers compute."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from unite_core.loss.contrastive import info_nce, mamcl
from unite_core.loss.hardness import hardness_weighted


def drawn(seed: int, n: int, k: int, size: int = 8):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(2 * n + k, size, generator=generator, dtype=torch.float64)
    vectors = normalize(vectors, dim=1)
    codes = torch.randint(1, 4, (n + k,), generator=generator)
    ids = torch.arange(n + k)
    ids[1] = ids[0]
    codes[1] = codes[0]  # equal content has one modality
    leaves = [part.clone().requires_grad_() for part in vectors.split([n, n, k])]
    return leaves, codes[:n], codes[n:], ids[:n], ids[n:]


CASES = st.fixed_dictionaries({
    "seed": st.integers(0, 999), "n": st.integers(2, 9), "k": st.integers(0, 4),
    "symmetric": st.booleans(), "temperature": st.sampled_from([0.05, 1.0]),
})  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(CASES, st.sampled_from([None, 0.0, 0.3, 1.0]))
def test_strength_0_is_info_nce_and_mamcl_in_value_and_gradient(case, cross):
    (query, candidate, negatives), codes, others, ids, negative_ids = drawn(
        case["seed"], case["n"], case["k"]
    )
    options = {key: case[key] for key in ("symmetric", "temperature")} | {"candidate_ids": ids}
    if case["k"]:
        options |= {"negatives": negatives, "negative_ids": negative_ids}
    masks = {}
    if cross is not None:
        masks = {"target_modality": codes, "cross_modal_weight": cross}
        masks |= {"negative_modality": others} if case["k"] else {}
    known = mamcl if masks else info_nce
    wanted = known(query, candidate, **options, **masks)
    found = hardness_weighted(query, candidate, 0.0, **options, **masks)
    torch.testing.assert_close(found, wanted)
    leaves = [query, candidate] + [negatives] * bool(case["k"])
    for first, second in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(wanted, leaves), strict=True
    ):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("strength", [0.5, 9.0])
def test_it_is_the_loss_of_sentence_transformers(strength):
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.util import dot_score

    (query, candidate, negatives), *_ = drawn(3, 6, 6)
    peer = losses.MultipleNegativesRankingLoss(
        torch.nn.Identity(),
        20,
        dot_score,
        hardness_mode="all_negatives",
        hardness_strength=strength,
    )  # fmt: skip
    leaves = [query, candidate, negatives]
    wanted = peer.compute_loss_from_embeddings(leaves, None)
    found = hardness_weighted(query, candidate, strength, 1 / 20, negatives)
    torch.testing.assert_close(found, wanted)
    grads = (torch.autograd.grad(loss, leaves) for loss in (found, wanted))
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second)


def test_weights_are_constants_that_turn_the_gradient_to_hard_negatives():
    (query, candidate, _), *_ = drawn(1, 8, 0)
    plain, hard = (hardness_weighted(query, candidate, s, 0.1) for s in (0.0, 9.0))
    assert hard > plain  # most cosines of random vectors are about 0, the largest decide
    (first,), (second,) = (torch.autograd.grad(loss, [candidate]) for loss in (plain, hard))
    hardest = (query @ candidate.T).fill_diagonal_(-2).max(1).values.argmax()
    column = (query @ candidate.T).fill_diagonal_(-2)[hardest].argmax()
    assert second[column].norm() > first[column].norm()


@pytest.mark.parametrize("masked", [False, True])
def test_parts_add_up_to_the_whole(masked):
    (query, candidate, negatives), codes, others, ids, negative_ids = drawn(5, 7, 3)
    options = {"negatives": negatives, "candidate_ids": ids, "negative_ids": negative_ids}
    if masked:
        options |= {"target_modality": codes, "negative_modality": others}
    whole = hardness_weighted(query, candidate, 2.0, symmetric=True, **options)
    parts = [
        hardness_weighted(query, candidate, 2.0, symmetric=True, rows=rows, **options)
        for rows in (slice(0, 3), slice(3, 3), slice(3, 7))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_a_row_alone_in_its_modality_contributes_nothing():
    (query, candidate, _), *_ = drawn(2, 3, 0)
    loss = hardness_weighted(query, candidate, 3.0, target_modality=[1, 2, 4])
    assert loss == 0
    assert not any(grad.any() for grad in torch.autograd.grad(loss, [query, candidate]))


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_a_strength_without_meaning_is_refused(strength):
    (query, candidate, _), *_ = drawn(2, 3, 0)
    with pytest.raises(ValueError, match="strength must be a number >= 0"):
        hardness_weighted(query, candidate, strength)
