"""The matrices that notebook 03 shows are the losses that train, whatever the mask."""

import numpy as np
import pytest
import torch

from unite_core.data.modality import modality_of
from unite_core.loss import reference
from unite_core.loss.contrastive import info_nce, mamcl, surviving_share
from unite_core.loss.reference import effective_negatives, log_probabilities, loss_of, weights_of
from unite_core.notebook.batches import FIGURE_2B, mixed_batch

CODES = np.array(FIGURE_2B)


@pytest.fixture
def vectors():
    drawn = torch.randn(2, len(CODES), 6, dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=-1)


@pytest.mark.parametrize("tau", [0.01, 0.1, 1])
def test_by_hand_is_what_trains(vectors, tau):
    query, candidate = vectors
    cosines = (query @ candidate.T).numpy()
    asked = {
        "none": info_nce(query, candidate, tau),
        "modality": mamcl(query, candidate, CODES, tau),
        "soft": mamcl(query, candidate, CODES, tau, cross_modal_weight=0.3),
        "random": mamcl(query, candidate, CODES, tau, random_mask=5),
    }
    assert list(asked) == list(reference.MASKS)
    for mask, loss in asked.items():
        weights = weights_of(mask, CODES, 0.3, seed=5)
        assert loss_of(log_probabilities(cosines, tau, weights)) == pytest.approx(float(loss))


def test_weights_count_what_they_say():
    kept = {mask: weights_of(mask, CODES, 0.25, seed=1) for mask in reference.MASKS}
    assert all((weights.diagonal() == 1).all() for weights in kept.values())
    assert kept["modality"].mean() == surviving_share(CODES) == 18 / 64
    assert set(kept["soft"][kept["modality"] == 0]) == {0.25}
    assert (kept["random"].sum(1) == kept["modality"].sum(1)).all()
    assert (kept["random"] != kept["modality"]).any()
    assert (weights_of("soft", CODES, 0) == kept["modality"]).all()
    with pytest.raises(ValueError, match="mask 'all'"):
        weights_of("all", CODES)


def test_probabilities_add_up_and_no_temperature_is_too_low(vectors):
    cosines = (vectors[0] @ vectors[1].T).numpy()
    for tau in (1e-4, 0.03, 10):
        log_p = log_probabilities(cosines, tau, weights_of("modality", CODES))
        np.testing.assert_allclose(np.exp(log_p).sum(1), 1)
        assert np.isfinite(log_p.diagonal()).all()
    with pytest.raises(ValueError, match="positive"):
        log_probabilities(cosines, 0)


def test_the_push_is_the_gradient(vectors):
    cosines = (vectors[0] @ vectors[1].T).requires_grad_()
    loss = -(cosines / 0.1).log_softmax(1).diagonal().mean()
    (gradient,) = torch.autograd.grad(loss, cosines)
    gradient = gradient.numpy() * 0.1 * len(CODES)
    log_p = log_probabilities(cosines.detach().numpy(), 0.1)
    push = reference.push_by_modality(log_p, CODES)
    assert set(push) == {1, 2, 3, 4} and all(set(row) == set(push) for row in push.values())
    text, video = CODES == 1, CODES == 4
    assert push[1][4] == pytest.approx(gradient[text][:, video].sum(1).mean())
    pull = -gradient.diagonal()[text].mean()
    assert sum(push[1].values()) == pytest.approx(pull)
    masked = log_probabilities(
        cosines.detach().numpy(), 0.1, weights_of("modality", CODES)
    )  # fmt: skip
    push = reference.push_by_modality(masked, CODES)
    assert all(push[a][b] == 0 for a in push for b in push if a != b)
    assert push[3][3] == 0 < push[1][1]


def test_effective_negatives_lie_between_one_and_all():
    alike = log_probabilities(np.zeros((8, 8)), 0.03)
    np.testing.assert_allclose(effective_negatives(alike), 7)
    hard = np.zeros((8, 8))
    hard[:, 2] = 1
    count = effective_negatives(log_probabilities(hard, 0.001))
    np.testing.assert_allclose(np.delete(count, 2), 1)
    masked = effective_negatives(log_probabilities(hard * 0, 1, weights_of("modality", CODES)))
    np.testing.assert_allclose(masked, [2, 1, 1, 0, 2, 2, 1, 1])


def pair(number, query="image", candidate="text"):
    def item(keys, side):
        return dict.fromkeys(keys.split("+"), f"{side} {number}")

    return item(query, "query"), item(candidate, "candidate")


def test_a_mixed_batch_has_the_modalities_in_order_and_no_repeats():
    pairs = [pair(0), pair(0), pair(1, "text+image", "image"), pair(2, "text", "image")]
    pairs += [pair(3), pair(4, "text+image", "video")]
    batch = mixed_batch(pairs, (1, 3, 2, 1))
    assert [int(modality_of(candidate)) for _, candidate in batch] == [1, 3, 2, 1]
    assert batch[1] == pairs[2][::-1], "nobody's target: turned round, and not used a second time"
    assert [batch[n] for n in (0, 2, 3)] == [pairs[n] for n in (0, 3, 4)]
    given = [*pairs, pair(5, "text", "text+image")]
    assert mixed_batch(given, (3, 2)) == [given[6], given[2]]
    with pytest.raises(ValueError, match=r"\{1: 3\}"):
        mixed_batch(pairs, (1, 1, 1))
