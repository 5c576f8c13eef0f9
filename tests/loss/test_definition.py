"""The fast losses against a plain definition in float64, over random configurations."""

from dataclasses import dataclass, field
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from unite_core.loss import chunked
from unite_core.loss.contrastive import info_nce, mamcl
from unite_core.loss.negatives import draw_columns

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def random_vectors(*shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


# The plain definition


@dataclass
class Case:
    """One configuration, with labels written out: nothing is a default."""

    query: torch.Tensor
    candidate: torch.Tensor
    modality: list
    ids: list
    shared: list  # (vector, modality, id) of negatives that all queries see
    own: list  # for each query, such a list of its own negatives
    tau: list  # of each pair
    symmetric: bool = False
    cross_modal_weight: float = 0.0
    random_mask: int | None = None
    margin: float | None = None
    dims: list | None = None
    rows: list = field(default_factory=list)


def row_loss(case, number, anchor, mine, targets, reverse):
    """One anchor, one direction: the mean over its positives of -log p(positive)."""
    tau = case.tau[number]
    scores = torch.stack([anchor @ vector for vector, _, _ in targets])
    is_positive = [identity == case.ids[number] for _, _, identity in targets]
    same = [modality == case.modality[number] for _, modality, _ in targets]
    weights = [1.0 if s else case.cross_modal_weight for s in same]
    if case.random_mask is not None:
        where = torch.tensor([is_positive]).nonzero(as_tuple=True)
        count = sum(s and not p for s, p in zip(same, is_positive, strict=True))
        drawn = draw_columns(2 * case.random_mask + reverse, torch.tensor([number]),
                                torch.tensor([count]), len(targets), where)  # fmt: skip
        weights = drawn[0].double().tolist()
    if case.margin is not None:
        limit = float((anchor @ mine).detach()) + case.margin
        weights = [0.0 if s > limit else w for s, w in zip(scores.tolist(), weights, strict=True)]
    rivals = [
        s / tau + torch.tensor(w, dtype=torch.float64).log()
        for s, w, p in zip(scores, weights, is_positive, strict=True)
        if w and not p
    ]
    losses = [
        torch.stack([s / tau, *rivals]).logsumexp(0) - s / tau
        for s, p in zip(scores, is_positive, strict=True)
        if p
    ]
    return sum(losses) / len(losses)


def plain_prefix(case, query, candidate, shared, own):
    n, total = len(query), 0
    pairs = list(zip(case.modality, case.ids, strict=True))
    candidates = [(candidate[j], *pairs[j]) for j in range(n)]
    queries = [(query[j], *pairs[j]) for j in range(n)]
    for i in case.rows:
        targets = candidates + shared + own[i]
        loss = row_loss(case, i, query[i], candidate[i], targets, reverse=0)
        if case.symmetric:
            loss = (loss + row_loss(case, i, candidate[i], query[i], queries, reverse=1)) / 2
        total = total + loss
    return total / n


def plain(case):
    """The loss of a case by loops over rows, targets and positives."""
    if case.dims is None:
        return plain_prefix(case, case.query, case.candidate, case.shared, case.own)

    def cut(vector, dim):
        return vector[:dim] / vector[:dim].norm()

    def cut_all(negatives, dim):
        return [(cut(vector, dim), *labels) for vector, *labels in negatives]

    return sum(
        plain_prefix(
            case,
            [cut(vector, dim) for vector in case.query],
            [cut(vector, dim) for vector in case.candidate],
            cut_all(case.shared, dim),
            [cut_all(negatives, dim) for negatives in case.own],
        )
        for dim in case.dims
    ) / len(case.dims)


# Random configurations


@st.composite
def configurations(draw):
    """(inputs that need gradients, arguments of mamcl, the function of these inputs of a Case)."""
    codes = st.integers(1, 4)
    modality = draw(st.lists(codes, min_size=1, max_size=8))
    n, size, seed = len(modality), 4, draw(st.integers(0, 10_000))
    kind = draw(st.sampled_from(["none", "shared", "own"]))
    shape = {
        "none": (0,),
        "shared": (draw(st.integers(0, 5)),),
        "own": (n, draw(st.integers(0, 3))),
    }
    shape = shape[kind]
    count = shape[0] if len(shape) == 1 else n * shape[1]
    vectors = [random_vectors(*s, size, seed=seed + i) for i, s in enumerate([(n,), (n,), shape])]
    repeated = draw(st.booleans())
    copies = [draw(st.integers(0, 1)) for _ in range(n + count)]
    ids = [10 * m + c for m, c in zip(modality, copies, strict=False)] if repeated else None
    others = [draw(codes) for _ in range(count)]
    other_ids = [10 * m + c for m, c in zip(others, copies[n:], strict=True)]
    known = bool(repeated and count and draw(st.booleans()))
    tau = draw(st.sampled_from(["number", "scalar", "mapping", "tensor"]))
    weight = draw(st.sampled_from([0.0, 0.0, 0.3, 1.0]))
    options = {
        "symmetric": draw(st.booleans()),
        "cross_modal_weight": weight,
        "random_mask": draw(st.sampled_from([None, 0, 7])) if weight == 0 else None,
        "false_negative_margin": draw(st.sampled_from([None, None, -0.4, 0.0, 0.3])),
        "dims": draw(st.sampled_from([None, None, [4], [2, 4, 3]])),
        "rows": draw(st.sampled_from([None, "some"])),
    }
    if options["rows"]:
        options["rows"] = draw(st.lists(st.integers(0, n - 1), unique=True))
    return {
        "modality": modality,
        "ids": ids,
        "vectors": vectors,
        "kind": kind,
        "shape": shape,
        "others": others,
        "other_ids": other_ids if known else None,
        "tau": tau,
        "options": options,
    }


def temperature(kind):
    """Values for the modalities 1 ... 4, as an argument and as a list indexed by modality."""
    if kind == "number":
        return 0.11, [0.11] * 5, []
    if kind == "scalar":
        learned = torch.tensor(0.07, dtype=torch.float64, requires_grad=True)
        return learned, [learned] * 5, [learned]
    learned = torch.tensor([9.0, 0.05, 0.1, 0.2, 0.4], dtype=torch.float64, requires_grad=True)
    if kind == "mapping":
        return {code: learned[code] for code in range(1, 5)}, learned, [learned]
    return learned, learned, [learned]


def both(config):
    """Loss of `mamcl` and of the plain definition, and the inputs."""
    query, candidate, negatives = (v.clone().requires_grad_() for v in config["vectors"])
    n, shape, options = len(query), config["shape"], config["options"]
    tau, by_code, learned = temperature(config["tau"])
    labels = {"candidate_ids": config["ids"]}
    if config["kind"] != "none" and negatives.numel():
        labels["negatives"] = negatives
        labels["negative_modality"] = torch.tensor(config["others"]).view(shape)
        if config["other_ids"]:
            labels["negative_ids"] = torch.tensor(config["other_ids"]).view(shape)
    ours = mamcl(query, candidate, config["modality"], tau, **labels, **options)
    other_ids = config["other_ids"] or [None] * len(config["others"])
    flat = list(zip(negatives.view(-1, 4), config["others"], other_ids, strict=True))
    own = config["kind"] == "own"
    k = shape[-1] if own else 0
    case = Case(
        query,
        candidate,
        config["modality"],
        config["ids"] or list(range(n)),
        shared=[] if own else flat,
        own=[flat[i * k : (i + 1) * k] for i in range(n)],
        tau=[by_code[m] for m in config["modality"]],
        symmetric=options["symmetric"],
        cross_modal_weight=options["cross_modal_weight"],
        random_mask=options["random_mask"],
        margin=options["false_negative_margin"],
        dims=options["dims"],
        rows=sorted(options["rows"]) if options["rows"] is not None else list(range(n)),
    )
    return ours, plain(case), [query, candidate, negatives, *learned]


def check_equal(config):
    ours, wanted, inputs = both(config)
    torch.testing.assert_close(ours, torch.as_tensor(wanted, dtype=torch.float64), **EXACT)
    if not config["options"]["rows"] and config["options"]["rows"] is not None:
        assert ours == 0  # no rows
        return
    gradients = (
        torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
        for loss in (ours, wanted)
    )
    for gradient, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, expected, **EXACT)


@settings(max_examples=250, deadline=None)
@given(config=configurations(), rows=st.sampled_from([2, 3, 512]))
def test_mamcl_equals_its_plain_definition(config, rows):
    with mock.patch.object(chunked, "CPU_ROWS", rows):
        check_equal(config)


def test_negatives_of_another_modality_than_all_pairs_are_masked():
    query, candidate, negatives = (random_vectors(2, 4, seed=seed) for seed in range(3))
    wanted = mamcl(query, candidate, [5, 5])
    alone = mamcl(query, candidate, [5, 5], 0.03, negatives, [6, 6])
    own = mamcl(query, candidate, [5, 5], 0.03, negatives[:, None], [[6], [6]])
    torch.testing.assert_close(torch.stack([alone, own]), wanted.expand(2), **EXACT)
    torch.testing.assert_close(
        mamcl(query[:1], candidate[:1], [5], 0.03, negatives[:1, None]),
        info_nce(query[:1], candidate[:1], 0.03, negatives[:1]),
        **EXACT,
    )


@pytest.mark.parametrize("kind", ["none", "shared", "own"])
def test_mamcl_of_one_modality_or_full_cross_weight_is_info_nce_with_every_option(kind):
    query, candidate = random_vectors(6, 8, seed=0), random_vectors(6, 8, seed=1)
    shape = {"none": (0,), "shared": (3,), "own": (6, 2)}[kind]
    options = {
        "temperature": torch.tensor(0.1, dtype=torch.float64),
        "symmetric": True,
        "candidate_ids": [0, 1, 2, 0, 4, 5],
        "dims": [4, 8],
        "false_negative_margin": 0.2,
        "rows": [5, 0, 2],
    }
    if kind != "none":
        options["negatives"] = random_vectors(*shape, 8, seed=2)
    wanted = info_nce(query, candidate, **options)
    several = torch.tensor([1, 2, 4, 1, 2, 3])
    if kind != "none":
        options["negative_modality"] = torch.ones(shape, dtype=torch.long)
    torch.testing.assert_close(mamcl(query, candidate, [1] * 6, **options), wanted, **EXACT)
    whole = mamcl(query, candidate, several, cross_modal_weight=1.0, **options)
    torch.testing.assert_close(whole, wanted, **EXACT)
    masked = mamcl(query, candidate, several, **options)
    half = mamcl(query, candidate, several, cross_modal_weight=0.5, **options)
    assert masked + 1e-3 < half < wanted - 1e-3
