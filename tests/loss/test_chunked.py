"""The loss in chunks: memory and work, autograd's corner cases, random draws, numerical range."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from unite_core.loss import chunked, negatives
from unite_core.loss.contrastive import in_batch_accuracy, info_nce, mamcl
from unite_core.loss.negatives import draw_columns, matches, sort_content

SIZES = (168, 164, 64, 3, 1)


def unit(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


def codes(sizes=SIZES):
    """Labels of groups of these sizes, mixed."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


# Memory and work


class Watch(TorchDispatchMode):
    """Largest tensor made, and multiplications in matrix products."""

    def __init__(self):
        super().__init__()
        self.largest, self.multiplications = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes() // 8)
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm", "addmm_"):
            left, right = args[-2:]
            self.multiplications += left.shape[0] * left.shape[1] * right.shape[1]
        return out


OPTIONS = {
    "plain": {},
    "symmetric": {"symmetric": True},
    "soft": {"cross_modal_weight": 0.5},
    "random": {"random_mask": 3},
    "margin, rows": {"false_negative_margin": 0.1, "symmetric": True, "rows": slice(0, 200)},
    "repeats": {"symmetric": True, "candidate_ids": codes()},
    "dims": {"dims": [4, 8], "temperature": dict.fromkeys(range(5), 0.1)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_no_tensor_is_larger_than_a_chunk_of_rows(options):
    modality = codes()
    n, rows = len(modality), 20
    vectors = [unit(n, 8, seed=seed).requires_grad_() for seed in range(2)]
    with mock.patch.multiple(chunked, CPU_ROWS=rows), Watch() as watch:
        mamcl(*vectors, modality, **options).backward()
    assert rows * 60 < watch.largest <= n * max(rows, 2 * 8)
    assert watch.largest < n * n / 16


def test_accuracy_makes_no_tensor_larger_than_a_chunk_of_rows():
    modality, vectors = codes(), [unit(len(codes()), 8, seed=seed) for seed in range(2)]
    wanted = in_batch_accuracy(*vectors, modality, codes((50,) * 8))
    with mock.patch.multiple(chunked, CPU_ROWS=20), Watch() as watch:
        found = in_batch_accuracy(*vectors, modality, codes((50,) * 8))
    assert found == wanted and watch.largest <= len(modality) * 20


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_direction_is_three_products_of_the_groups_not_of_the_batch(symmetric):
    modality = codes()
    vectors = [unit(len(modality), 8, seed=seed).requires_grad_() for seed in range(2)]
    with mock.patch.multiple(chunked, CPU_ROWS=20), Watch() as watch:
        mamcl(*vectors, modality, symmetric=symmetric).backward()
    squares = [size**2 for size in SIZES if size > 1]
    assert watch.multiplications == 8 * 3 * (1 + symmetric) * sum(squares)
    assert sum(squares) < len(modality) ** 2 / 2


def test_only_the_gradients_asked_for_are_computed():
    modality = codes()
    query, candidate = (unit(len(modality), 8, seed=seed) for seed in range(2))
    with Watch() as watch:
        mamcl(query, candidate, modality)
    scores = watch.multiplications
    with Watch() as watch:
        mamcl(query.requires_grad_(), candidate, modality).backward()
    assert watch.multiplications == 2 * scores
    assert candidate.grad is None and query.grad.any()


# Autograd


@pytest.mark.parametrize("symmetric", [False, True])
def test_gradcheck_with_own_negatives_and_learned_temperatures(symmetric):
    inputs = [unit(5, 3, seed=0), unit(5, 3, seed=1), unit(5, 2, 3, seed=2)]
    inputs.append(torch.tensor([0.3, 0.2, 0.4], dtype=torch.float64))
    inputs = [x.requires_grad_() for x in inputs]
    labels = {"candidate_ids": [0, 1, 0, 3, 4], "negative_ids": [[9, 0]] + [[9, 9]] * 4}

    def loss(query, candidate, negatives, tau, **options):
        groups = [1, 2, 1, 1, 0]
        return mamcl(query, candidate, groups, tau, negatives, symmetric=symmetric, **options)

    assert torch.autograd.gradcheck(lambda *x: loss(*x, **labels), inputs)
    soft = {"cross_modal_weight": 0.4, "dims": [2, 3]}
    assert torch.autograd.gradcheck(lambda *x: loss(*x, **soft), inputs)


def test_a_second_derivative_is_refused():
    query, candidate = unit(4, 3).requires_grad_(), unit(4, 3, seed=1)
    with pytest.raises(RuntimeError, match="only once"):
        torch.autograd.grad(info_nce(query, candidate), query, create_graph=True)


def test_the_outer_gradient_scales_and_a_kept_graph_can_be_walked_again():
    query, candidate = unit(4, 3).requires_grad_(), unit(4, 3, seed=1).requires_grad_()
    loss = info_nce(query, candidate, 0.1)
    (first,) = torch.autograd.grad(loss, query, retain_graph=True)
    (twice,) = torch.autograd.grad(2 * loss, query, retain_graph=True)
    torch.testing.assert_close(twice, 2 * first)
    loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(query.grad, 2 * first)


def test_without_gradients_the_value_is_the_same():
    query, candidate = unit(9, 4), unit(9, 4, seed=1)
    options = {"symmetric": True, "negatives": unit(9, 2, 4, seed=2)}
    with torch.inference_mode():
        value = mamcl(query, candidate, [1, 2, 1] * 3, **options)
    learned = mamcl(query.requires_grad_(), candidate, [1, 2, 1] * 3, **options)
    assert learned.requires_grad and not value.requires_grad
    torch.testing.assert_close(value, learned.detach(), rtol=1e-14, atol=0)


def test_a_learned_temperature_is_lowered_where_positives_lead():
    tau = torch.tensor(0.5, requires_grad=True)
    query = unit(6, 8, dtype=torch.float32)
    info_nce(query, query, tau).backward()
    assert tau.grad > 0 and tau.grad.dtype == torch.float32


def test_the_gradient_adds_up_over_processes_to_the_true_scale():
    """The released code's all_gather gives each of W processes 1/W of it."""
    modality = codes((7, 5, 3, 1))
    vectors = [unit(16, 4, seed=seed).requires_grad_() for seed in range(2)]
    wanted = torch.autograd.grad(mamcl(*vectors, modality, symmetric=True), vectors)
    shares = [
        torch.autograd.grad(mamcl(*vectors, modality, symmetric=True, rows=rows), vectors)
        for rows in torch.arange(16).chunk(4)
    ]
    for whole, *parts in zip(wanted, *shares, strict=True):
        torch.testing.assert_close(sum(parts), whole, rtol=0, atol=1e-13)


def test_repeats_of_a_candidate_do_not_weigh_more():
    """The released code sums over a row's positives; ours is their mean."""
    query, candidate = unit(3, 8), unit(3, 8, seed=1)
    one = info_nce(query[:2], candidate[:2], candidate_ids=[0, 1])
    again = info_nce(query[[0, 0, 1]], candidate[[0, 0, 1]], candidate_ids=[0, 0, 1])
    level = info_nce(query[:2], candidate[:2], candidate_ids=[0, 1], rows=[1])
    # row 1 now has two equal rivals, row 0 and its copy still have one
    crowded = info_nce(query[[0, 0, 1]], candidate[[0, 0, 1]], candidate_ids=[0, 0, 1], rows=[2])
    torch.testing.assert_close(3 * (again - crowded), 2 * 2 * (one - level))


# Numerical range


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("symmetric", [False, True])
def test_extreme_scores_stay_finite_and_right(dtype, symmetric):
    query = torch.cat([unit(6, 8), -unit(6, 8)]).to(dtype).requires_grad_()
    candidate = query.detach().roll(6, 0)  # opposite of its query: losses of 2 / tau
    modality = torch.tensor([1, 2, 2, 4, 1, 1] * 2)
    options = {"temperature": 0.002, "symmetric": symmetric}
    loss = mamcl(query, candidate, modality, **options)
    (gradient,) = torch.autograd.grad(loss, query)
    wide = query.detach().double().requires_grad_()
    exact = mamcl(wide, candidate.double(), modality, **options)
    (wanted,) = torch.autograd.grad(exact, wide)
    assert exact > 400
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(gradient.double(), wanted, rtol=tolerance, atol=tolerance)


def test_a_chunk_size_changes_only_the_rounding():
    modality = codes()
    query, candidate = (unit(len(modality), 8, seed=s, dtype=torch.float32) for s in range(2))
    options = {"symmetric": True, "random_mask": 1}
    losses = []
    for rows in (7, 512):
        with mock.patch.object(chunked, "CPU_ROWS", rows):
            losses.append(mamcl(query, candidate, modality, **options))
    torch.testing.assert_close(*losses)
    again = mamcl(query, candidate, modality, **options)
    assert torch.equal(again, losses[1])


# Matches and draws


def test_matches_are_the_equal_entries():
    wanted, content = torch.tensor([3, 1, 7, 3]), torch.tensor([1, 3, -1, 3, 1, 4])
    rows, columns = matches(wanted, sort_content(content))
    found = torch.zeros(4, 6, dtype=torch.bool)
    found[rows, columns] = True
    assert torch.equal(found, wanted[:, None] == content)
    assert len(rows) == found.sum() and (rows.diff() >= 0).all()


def test_a_draw_has_its_size_avoids_positives_and_depends_on_its_own_row_only():
    anchors, counts = torch.arange(40), torch.arange(40) % 30
    never = (anchors, anchors % 50)
    drawn = draw_columns(5, anchors, counts, 50, never)
    assert torch.equal(drawn.sum(1), counts) and not drawn[never].any()
    part = draw_columns(5, anchors[7:9], counts[7:9], 50, (anchors[:2], anchors[7:9]))
    assert torch.equal(part, drawn[7:9])
    other = draw_columns(6, anchors, counts, 50, never)
    assert (other != drawn).any(1).sum() > 30


def test_a_draw_has_its_size_even_if_all_hashes_were_equal():
    anchors = torch.arange(3)
    with mock.patch.object(negatives, "_hash", torch.zeros_like):
        drawn = draw_columns(0, anchors, anchors + 1, 9, (anchors, anchors))
    assert torch.equal(drawn.sum(1), anchors + 1)


def test_draws_are_uniform_and_rows_independent():
    anchors = torch.arange(4000)
    never = (anchors, torch.zeros_like(anchors))
    drawn = draw_columns(1, anchors, torch.full_like(anchors, 5), 21, never).double()
    share = drawn[:, 1:].mean(0)  # 5 of 20; standard error .0068
    assert (share - 0.25).abs().max() < 0.03
    correlation = torch.corrcoef(drawn[:, 1:].T) - torch.eye(20, dtype=torch.float64)
    assert (correlation + 1 / 19 * (1 - torch.eye(20))).abs().max() < 0.08
    neighbours = (drawn[1:] * drawn[:-1]).sum(1).mean()  # 5 * 5 / 20 shared columns on average
    assert abs(neighbours - 1.25) < 0.06


def test_the_random_mask_keeps_as_many_and_is_not_mamcl():
    modality = codes((30, 20, 10))
    query, candidate = unit(60, 4), unit(60, 4, seed=1)
    same = torch.zeros(60, 4, dtype=torch.float64)
    same[:, 0] = 1  # all scores equal: a row's loss is log(1 + negatives kept)
    torch.testing.assert_close(
        mamcl(same, same, modality, random_mask=0), mamcl(same, same, modality)
    )
    losses = {float(mamcl(query, candidate, modality, random_mask=seed)) for seed in range(5)}
    assert len(losses) == 5
    assert abs(float(mamcl(query, candidate, modality)) - sum(losses) / 5) < 1
    assert max(losses) < info_nce(query, candidate)


def test_a_margin_drops_what_looks_like_another_positive():
    basis = torch.eye(3, dtype=torch.float64)
    query, candidate = basis[[0, 1]], torch.stack([(basis[0] + basis[1]) / 2, basis[0]])
    # query 0 scores .5 on its own candidate and 1 on the other; query 1 scores 0 and .5
    assert info_nce(query, candidate, 1.0, false_negative_margin=0.6) == info_nce(
        query, candidate, 1.0
    )
    assert info_nce(query, candidate, 1.0, false_negative_margin=0.4) == 0
    assert info_nce(query, candidate, 1.0, false_negative_margin=-0.6) == 0


# Refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q, c: info_nce(q, c, {1: 0.1}), "one temperature"),
        (lambda q, c: info_nce(q, c, torch.tensor([0.1, 0.2])), "one temperature"),
        (lambda q, c: info_nce(q, c, torch.tensor(-1.0)), "positive"),
        (lambda q, c: mamcl(q, c, [1, 1, 2, 2], {1: 0.1}), r"no value for the modalities \[2\]"),
        (lambda q, c: mamcl(q, c, [1, 1, 2, 2], torch.ones(2)), r"modalities \[1, 2\]"),
        (lambda q, c: mamcl(q, c, [1, 1, 2, 2], {1: 0.1, 2: 0.0}), "positive"),
        (lambda q, c: mamcl(q, c, [1] * 4, cross_modal_weight=1.5), r"in \[0, 1\], not 1.5"),
        (lambda q, c: mamcl(q, c, [1] * 4, random_mask=-1), "seed >= 0"),
        (lambda q, c: mamcl(q, c, [1] * 4, random_mask=True), "seed >= 0"),
        (lambda q, c: mamcl(q, c, [1] * 4, random_mask=1, cross_modal_weight=0.1), "replaces"),
        (lambda q, c: info_nce(q, c, dims=[]), r"1 ... 16, not \[\]"),
        (lambda q, c: info_nce(q, c, dims=[0, 4]), "1 ... 16"),
        (lambda q, c: info_nce(q, c, dims=[17]), "1 ... 16"),
        (lambda q, c: info_nce(q, c, dims=[4, 4]), "different"),
        (lambda q, c: info_nce(q, c, false_negative_margin=float("nan")), "finite"),
        (lambda q, c: info_nce(q, c, negatives=c[:3, None]), r"\[4, k, 16\].*not \[3, 1, 16\]"),
        (lambda q, c: mamcl(q, c, [1] * 4, negatives=c[:, None], negative_modality=[1] * 4),
         r"negative_modality must have shape \[4, 1\]"),
    ],
)  # fmt: skip
def test_options_without_meaning_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(unit(4, 16), unit(4, 16, seed=1))
