"""The losses: the authors' values and gradients, plain references, invariants, refusals."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from unite_core.data.modality import Modality
from unite_core.loss.contrastive import in_batch_accuracy, info_nce, mamcl, surviving_share

REFERENCE = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
MODALITY = torch.tensor([1, 2, 4, 3, 1, 1, 2, 4])  # row 3 is alone in text+image


def unit(n, dim=16, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, dim, generator=generator, dtype=torch.float64), dim=1).to(
        dtype
    )


def by_modality(query, candidate, modality, **options):
    """The definition: one dense loss per modality, weighted by its number of rows."""
    total = 0
    for code in modality.unique():
        rows = modality == code
        total = total + rows.sum() * info_nce(query[rows], candidate[rows], **options)
    return total / len(query)


# The authors' code


@pytest.fixture(scope="module")
def reference():
    tensors = load_file(REFERENCE / "reference.safetensors")
    expected = json.loads((REFERENCE / "reference.json").read_text())
    inputs = {
        name: tensors[f"loss.{name}"].requires_grad_()
        for name in ("query", "candidate", "negative")
    }
    return inputs, tensors["loss.target_modal"], tensors, expected["losses"]


def authors_negatives(query, candidate, negatives, modality):
    """MAMCL with the authors' quirk: candidates masked, every hard negative kept."""
    return by_modality(query, candidate, modality, negatives=negatives)


CASES = {
    "info_nce": lambda q, c, n, m: info_nce(q, c),
    "info_nce_dual": lambda q, c, n, m: info_nce(q, c, symmetric=True),
    "info_nce_negatives": lambda q, c, n, m: info_nce(q, c, negatives=n),
    "mamcl": lambda q, c, n, m: mamcl(q, c, m),
    "mamcl_negatives": authors_negatives,
    "mamcl_dual_reference_quirk": lambda q, c, n, m: (mamcl(q, c, m) + info_nce(c, q)) / 2,
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_equal_the_authors_code(reference, case):
    inputs, modality, tensors, expected = reference
    loss = CASES[case](*inputs.values(), modality)
    used = [name for name in inputs if f"loss.{case}.grad_{name}" in tensors]
    gradients = torch.autograd.grad(loss, [inputs[name] for name in used])
    assert used[:2] == ["query", "candidate"]
    torch.testing.assert_close(loss.item(), expected[case], atol=1e-5, rtol=1e-5)
    for name, gradient in zip(used, gradients, strict=True):
        wanted = tensors[f"loss.{case}.grad_{name}"]
        assert wanted.abs().max() > 0.01
        torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-5, msg=name)


def test_ours_masks_the_reverse_direction_and_the_negatives_unlike_the_authors(reference):
    inputs, modality, _, expected = reference
    query, candidate, negative = inputs.values()
    both = mamcl(query, candidate, modality, symmetric=True)
    torch.testing.assert_close(both, by_modality(query, candidate, modality, symmetric=True))
    assert both < expected["mamcl_dual_reference_quirk"] - 0.1
    hard = mamcl(query, candidate, modality, negatives=negative)
    assert hard < expected["mamcl_negatives"] - 0.1


# Plain references


def test_info_nce_is_cross_entropy():
    query, candidate, negatives = unit(9), unit(9, seed=1), unit(5, seed=2)
    labels = torch.arange(9)
    logits = query @ candidate.T / 0.05
    torch.testing.assert_close(info_nce(query, candidate, 0.05), F.cross_entropy(logits, labels))
    both = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(info_nce(query, candidate, 0.05, symmetric=True), both)
    wide = query @ torch.cat([candidate, negatives]).T / 0.05
    torch.testing.assert_close(
        info_nce(query, candidate, 0.05, negatives), F.cross_entropy(wide, labels)
    )


def mean_over_positives(logits, positives):
    """The documented definition, one positive at a time."""
    rows = []
    for row, positive in zip(logits, positives.bool(), strict=True):
        rivals = row[~positive]
        rows.append(sum(torch.cat([s[None], rivals]).logsumexp(0) - s for s in row[positive]))
    return (torch.stack(rows) / positives.sum(1)).mean()


@pytest.mark.parametrize("symmetric", [False, True])
def test_equal_ids_are_positives_in_both_directions_and_among_negatives(symmetric):
    query, candidate, negatives = unit(4), unit(4, seed=1), unit(2, seed=2)
    positives = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
    hard = torch.tensor([[0, 0], [0, 1], [0, 0], [0, 0]])
    logits = query @ torch.cat([candidate, negatives]).T / 0.03
    wanted = mean_over_positives(logits, torch.cat([positives, hard], 1))
    if symmetric:
        wanted = (wanted + mean_over_positives(logits[:, :4].T, positives)) / 2
    options = {"candidate_ids": [7, 8, 7, 9], "negative_ids": [5, 8], "symmetric": symmetric}
    torch.testing.assert_close(info_nce(query, candidate, 0.03, negatives, **options), wanted)
    modality = torch.tensor([1, 2, 1, 1])
    masked = mamcl(query, candidate, modality, 0.03, negatives, torch.tensor([1, 2]), **options)
    assert masked < wanted


def test_ids_change_the_gradient_of_exact_repeats_and_soft_labels_do_not():
    query, repeats = unit(3).requires_grad_(), unit(3, seed=1)[[0, 0, 1]]
    soft = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]], dtype=torch.float64)
    losses = (
        info_nce(query, repeats, 0.5),
        F.cross_entropy(query @ repeats.T / 0.5, soft),
        info_nce(query, repeats, 0.5, candidate_ids=[4, 4, 5]),
    )
    ignored, softened, ours = (torch.autograd.grad(loss, query)[0] for loss in losses)
    torch.testing.assert_close(softened, ignored)
    assert (ours - ignored).abs().max() > 1e-3


@pytest.mark.parametrize("symmetric", [False, True])
def test_mamcl_is_one_loss_per_modality(symmetric):
    query, candidate, negatives = unit(8), unit(8, seed=1), unit(8, seed=2)
    options = {"temperature": 0.05, "symmetric": symmetric}
    torch.testing.assert_close(
        mamcl(query, candidate, MODALITY, **options),
        by_modality(query, candidate, MODALITY, **options),
    )
    wanted = 0
    for code in MODALITY.unique():
        rows = code == MODALITY
        own = info_nce(query[rows], candidate[rows], negatives=negatives[rows], **options)
        wanted += rows.sum() * own / 8
    torch.testing.assert_close(
        mamcl(query, candidate, MODALITY, negatives=negatives, **options), wanted
    )


def test_mamcl_with_one_modality_is_info_nce():
    query, candidate, negatives = unit(8), unit(8, seed=1), unit(3, seed=2)
    torch.testing.assert_close(
        mamcl(query, candidate, [2] * 8, 0.03, negatives, [2] * 3, symmetric=True),
        info_nce(query, candidate, 0.03, negatives, symmetric=True),
    )


# Parts of a batch


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_parts_of_a_partition_add_up_in_value_and_gradients(symmetric, masked):
    vectors = [unit(8, seed=seed).requires_grad_() for seed in range(3)]
    ids = [0, 1, 2, 3, 0, 5, 1, 7]
    options = {"candidate_ids": ids, "negative_ids": [9] * 7 + [2], "symmetric": symmetric}

    def loss(rows=None):
        query, candidate, negatives = vectors
        if masked:
            return mamcl(query, candidate, MODALITY, 0.1, negatives, rows=rows, **options)
        return info_nce(query, candidate, 0.1, negatives, rows=rows, **options)

    whole = loss()
    wanted = torch.autograd.grad(whole, vectors)
    parts = [loss(slice(0, 3)), loss(torch.tensor([7, 4])), loss([3, 5, 6]), loss([])]
    assert all(part < whole for part in parts) and parts[-1] == 0
    torch.testing.assert_close(sum(parts), whole, rtol=0, atol=1e-13)
    for gradient, expected in zip(torch.autograd.grad(sum(parts), vectors), wanted, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-13)


# Invariants


def test_the_mask_removes_something_and_never_adds():
    query, candidate = unit(8), unit(8, seed=1)
    assert surviving_share(MODALITY) == (9 + 4 + 4 + 1) / 64
    assert surviving_share([3, 3]) == 1
    assert mamcl(query, candidate, MODALITY) < info_nce(query, candidate) - 0.1


@settings(max_examples=50, deadline=None)
@given(
    codes=st.lists(st.integers(1, 7), min_size=1, max_size=12),
    seed=st.integers(0, 10_000),
    tau=st.floats(0.01, 2),
    symmetric=st.booleans(),
    repeats=st.booleans(),
)
def test_mamcl_is_bounded_by_info_nce_and_blind_to_order(codes, seed, tau, symmetric, repeats):
    n, modality = len(codes), torch.tensor(codes)
    query, candidate = unit(n, 4, seed), unit(n, 4, seed + 1)
    ids = modality * 100 + torch.arange(n) % 2 if repeats else torch.arange(n)
    loss = mamcl(query, candidate, modality, tau, symmetric=symmetric, candidate_ids=ids)
    whole = info_nce(query, candidate, tau, symmetric=symmetric, candidate_ids=ids)
    assert 0 <= loss <= whole + 1e-12
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = mamcl(
        query[order],
        candidate[order],
        modality[order],
        tau,
        symmetric=symmetric,
        candidate_ids=ids[order],
    )
    torch.testing.assert_close(shuffled, loss)


def test_blind_to_offsets_common_to_one_modality():
    query, candidate = unit(8), unit(8, seed=1)
    shift = unit(8, seed=3)[MODALITY]  # one translation per target modality
    masked = mamcl(query, candidate + shift, MODALITY)
    torch.testing.assert_close(masked, mamcl(query, candidate, MODALITY))
    assert abs(info_nce(query, candidate + shift) - info_nce(query, candidate)) > 0.1


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_lone_modality_costs_exactly_zero_and_has_no_gradient(symmetric):
    query, candidate = unit(4).requires_grad_(), unit(4, seed=1).requires_grad_()
    lone = mamcl(query, candidate, [1, 2, 4, 3], symmetric=symmetric)
    assert lone == 0
    for gradient in torch.autograd.grad(lone, (query, candidate)):
        assert torch.equal(gradient, torch.zeros_like(gradient))
    loss = mamcl(query, candidate, [1, 1, 4, 1], symmetric=symmetric)
    (gradient,) = torch.autograd.grad(loss, query)
    assert (gradient[2] == 0).all()
    assert (gradient[[0, 1, 3]] != 0).any(1).all()


@pytest.mark.parametrize("symmetric", [False, True])
def test_gradients_equal_finite_differences(symmetric):
    vectors = [unit(5, 3, seed).requires_grad_() for seed in range(3)]

    def loss(query, candidate, negatives):
        return mamcl(
            query,
            candidate,
            [1, 2, 1, 1, 4],
            0.1,
            negatives,
            symmetric=symmetric,
            candidate_ids=[0, 1, 0, 2, 3],
            negative_ids=[9, 9, 9, 2, 9],
        )

    assert torch.autograd.gradcheck(loss, vectors)


def test_bfloat16_and_autocast_keep_float32_logits():
    query, candidate = unit(32, dtype=torch.bfloat16), unit(32, seed=1, dtype=torch.bfloat16)
    query.requires_grad_()
    codes = torch.arange(32) % 5
    exact = mamcl(query.detach().double(), candidate.double(), codes, 0.01, symmetric=True)
    plain = mamcl(query, candidate, codes, 0.01, symmetric=True)
    with torch.autocast("cpu", torch.bfloat16):
        cast = mamcl(query.float(), candidate.float(), codes, 0.01, symmetric=True)
    for loss in (plain, cast):
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(plain, query)
    assert gradient.dtype == torch.bfloat16
    assert gradient.isfinite().all()
    assert gradient.any()


def test_inputs_are_not_changed():
    inputs = [unit(8), unit(8, seed=1), MODALITY.clone()]
    before = [tensor.clone() for tensor in inputs]
    mamcl(*inputs, symmetric=True, candidate_ids=torch.arange(8))
    assert all(map(torch.equal, inputs, before))


# What the trainer logs


def test_accuracy_counts_only_rivals_of_the_same_target_modality():
    basis = torch.eye(4)
    query = basis[[0, 1, 2, 3, 0]]
    candidate = basis[[0, 2, 1, 3, 0]]
    modality = [Modality.TEXT, Modality.TEXT, Modality.TEXT, Modality.IMAGE, Modality.IMAGE]
    accuracy = in_batch_accuracy(query, candidate, modality)
    assert accuracy == {1: pytest.approx(1 / 3), 2: 1.0}
    assert in_batch_accuracy(query, candidate, modality, [5, 6, 6, 7, 8])[1] == 1.0


def test_accuracy_of_a_collapsed_model_is_zero_and_lone_rows_are_absent():
    same = torch.ones(5, 3)
    assert in_batch_accuracy(same, same, [1, 1, 1, 2, 4]) == {1: 0.0}
    assert in_batch_accuracy(same, same, [1, 1, 1, 2, 4], [3, 3, 3, 4, 5]) == {}


# Refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q, c: info_nce(q, c[:3]), r"\[4, 16\] and \[3, 16\]"),
        (lambda q, c: info_nce(q[0], c[0]), "N >= 1"),
        (lambda q, c: info_nce(q[:0], c[:0]), "N >= 1"),
        (lambda q, c: info_nce(q.long(), c.long()), "query must be floating point"),
        (lambda q, c: info_nce(q, c, 0.0), "temperature must be positive, not 0"),
        (lambda q, c: info_nce(q, c, float("nan")), "temperature must be positive"),
        (
            lambda q, c: info_nce(q, c, negatives=c[:, :5]),
            r"\[K, 16\] or \[4, k, 16\].*not \[4, 5\]",
        ),
        (lambda q, c: info_nce(q, c, candidate_ids=[1, 2]), r"candidate_ids.*\[4\], not \[2\]"),
        (lambda q, c: info_nce(q, c, negative_ids=[1]), "need both"),
        (lambda q, c: mamcl(q, c, [1, 2]), r"target_modality.*\[4\], not \[2\]"),
        (lambda q, c: mamcl(q, c, [1.0, 1, 1, 1]), "integers, not torch.float32"),
        (lambda q, c: mamcl(q, c, [1] * 4, negatives=c[:2]), "give negative_modality"),
        (lambda q, c: mamcl(q, c, [1] * 4, negative_modality=[1]), "without negatives"),
        (lambda q, c: mamcl(q, c, [1, 1, 1, 2], candidate_ids=[1, 2, 3, 3]), "one modality"),
        (lambda q, c: surviving_share([]), "empty"),
        (lambda q, c: info_nce(q, c, rows=[0, 4]), r"rows must lie in \[0, 4\), not 0 to 4"),
        (lambda q, c: info_nce(q, c, rows=[-1]), r"rows must lie in \[0, 4\), not -1"),
        (lambda q, c: info_nce(q, c, rows=[1, 1]), "twice"),
    ],
)
def test_bad_input_is_refused_with_its_values(call, message):
    with pytest.raises(ValueError, match=message):
        call(unit(4), unit(4, seed=1))
