"""Distillation is its plain definition, what peers compute, and the sum of its parts."""

import pytest
import torch
from torch.nn.functional import kl_div, normalize

from unite_core.loss.distillation import Teacher, distill_kl, margin_mse

LOSSES = {"margin_mse": margin_mse, "distill_kl": distill_kl}


def drawn(counts, seed=0, size=8):
    """Vectors and a teacher of pairs with so many hard negatives each."""
    generator = torch.Generator().manual_seed(seed)
    n, k = len(counts), sum(counts)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    leaves = [normalize(normal(rows, size), dim=1).requires_grad_() for rows in (n, n, k)]
    owner = torch.arange(n).repeat_interleave(torch.tensor(counts))
    return leaves, Teacher(3 * normal(n), 3 * normal(k), owner)


def plain(name, leaves, teacher, tau, divisor):
    """The definitions, query by query."""
    query, candidate, negatives = leaves
    total = 0.0
    for row in range(len(query)):
        own = teacher.owner == row
        targets = torch.cat([candidate[row : row + 1], negatives[own]])
        student = targets @ query[row] / tau
        scores = torch.cat([teacher.candidate[row : row + 1], teacher.negatives[own]]) / divisor
        if name == "margin_mse":
            margins = (student[0] - student[1:]) - (scores[0] - scores[1:])
            total = total + (margins**2).sum() / len(negatives)
        else:
            wanted = scores.softmax(0)
            total = total + kl_div(student.log_softmax(0), wanted, reduction="sum") / len(query)
    return total


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("counts", [[2, 2, 2], [0, 3, 1, 0], [1]])
@pytest.mark.parametrize(("tau", "divisor"), [(0.05, 1.0), (1.0, 2.5)])
def test_value_and_gradients_are_those_of_the_definition(name, counts, tau, divisor):
    leaves, teacher = drawn(counts)
    found = LOSSES[name](*leaves, teacher, tau, teacher_temperature=divisor)
    wanted = plain(name, leaves, teacher, tau, divisor)
    torch.testing.assert_close(found, wanted)
    grads = (torch.autograd.grad(loss, leaves) for loss in (found, wanted))
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second)


def test_margin_mse_is_the_loss_of_sentence_transformers():
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import losses

    (query, candidate, negatives), teacher = drawn([1] * 5)
    peer = losses.MarginMSELoss(torch.nn.Identity())
    labels = teacher.candidate - teacher.negatives
    wanted = peer.compute_loss_from_embeddings([query, candidate, negatives], labels)
    torch.testing.assert_close(margin_mse(query, candidate, negatives, teacher, 1.0), wanted)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_parts_add_up_to_the_whole(loss):
    leaves, teacher = drawn([0, 3, 1, 2])
    parts = [loss(*leaves, teacher, rows=rows) for rows in (slice(0, 1), slice(1, 1), slice(1, 4))]
    torch.testing.assert_close(sum(parts), loss(*leaves, teacher))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_without_hard_negatives_there_is_nothing_to_learn(loss):
    leaves, teacher = drawn([0, 0])
    value = loss(*leaves, teacher)
    assert value == 0
    assert not any(grad.any() for grad in torch.autograd.grad(value, leaves[:2]))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_student_that_agrees_has_no_loss(loss):
    (query, candidate, negatives), teacher = drawn([2, 1, 3])
    own = (query[teacher.owner] * negatives).sum(1)
    agrees = Teacher((query * candidate).sum(1) / 0.1 + 7, own / 0.1 + 7, teacher.owner)
    assert loss(query, candidate, negatives, agrees, 0.1) < 1e-12


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_temperature_can_belong_to_a_modality(loss):
    leaves, teacher = drawn([2, 2])
    both = loss(*leaves, teacher, {1: 0.05, 2: 0.5}, [1, 2])
    parts = [loss(*leaves, teacher, tau, rows=[row]) for row, tau in enumerate((0.05, 0.5))]
    torch.testing.assert_close(both, sum(parts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher_temperature": 0.0}, "teacher_temperature must be positive"),
        ({"teacher": Teacher(torch.zeros(2), torch.zeros(1), torch.zeros(1).long())}, "does not"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    (query, candidate, negatives), teacher = drawn([1, 2])
    with pytest.raises(ValueError, match=message):
        margin_mse(query, candidate, negatives, **{"teacher": teacher} | change)
