"""The head that reads the target modality: its probabilities, and its file beside a model."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from unite_core.model import CheckpointError, ModalityRouter

CODES = (4, 1, 3)


def router_of(seed=0, dim=5, codes=CODES) -> ModalityRouter:
    draw, router = torch.Generator().manual_seed(seed), ModalityRouter(dim, codes, 20)
    with torch.no_grad():
        router.weight.copy_(torch.randn(router.weight.shape, generator=draw))
        router.bias.copy_(torch.randn(router.bias.shape, generator=draw))
    return router


def unit(seed, *shape) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 7), st.integers(0, 5))
def test_probabilities_are_those_of_the_plain_formula_and_sum_to_1(seed, dim, modalities, queries):
    router = router_of(seed, dim, range(1, modalities + 1))
    vectors = unit(seed, queries, dim)
    found = router.log_probabilities(vectors)
    assert found.shape == (queries, modalities) and found.dtype == np.float64
    weight, bias = router.weight.detach().double().numpy(), router.bias.detach().double().numpy()
    logits = 20 * vectors @ weight.T + bias
    np.testing.assert_allclose(
        found, logits - np.log(np.exp(logits).sum(1, keepdims=True)), atol=1e-10
    )
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-12)
    tensor = torch.as_tensor(vectors, dtype=torch.float32)
    np.testing.assert_allclose(router(tensor).log_softmax(1).detach(), found, atol=1e-3)


def test_a_new_one_knows_nothing_and_draws_no_random_number():
    state = torch.get_rng_state()
    router = ModalityRouter(5, CODES)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_allclose(router.log_probabilities(unit(0, 4, 5)), -np.log(3))


def test_columns_are_named_by_code():
    router = router_of()
    assert router.columns(torch.tensor([1, 4, 3, 4, 2])).tolist() == [1, 0, 2, 0, -1]
    assert router.labels == ["video", "text", "text+image"]


def test_it_computes_in_float32_under_autocast():
    router, vectors = router_of(), torch.tensor(unit(1, 6, 5), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        logits = router(vectors)
    assert logits.dtype == torch.float32 and torch.equal(logits, router(vectors))


def test_what_is_loaded_is_what_was_saved(tmp_path):
    router, vectors = router_of(), unit(2, 7, 5)
    router.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["router.safetensors"]
    again = ModalityRouter.load(tmp_path)
    assert again.codes == CODES and again.scale == router.scale and again.temperature is None
    ModalityRouter(5, CODES, temperature=0.07).save(tmp_path)
    assert ModalityRouter.load(tmp_path).temperature == 0.07
    assert not any(weight.requires_grad for weight in again.parameters())
    np.testing.assert_array_equal(
        again.log_probabilities(vectors), router.log_probabilities(vectors)
    )


def test_a_model_without_one_says_how_to_get_one(tmp_path):
    with pytest.raises(CheckpointError, match=r"router.safetensors: no such file.*router_weight"):
        ModalityRouter.load(tmp_path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda t: t.pop("codes"), "router.safetensors: its values fit no model .KeyError"),
        (lambda t: t.update(codes=torch.tensor([1, 1, 2])), "codes must be different"),
        (lambda t: t.update(bias=torch.zeros(2)), r"misshapen: bias \[2\] instead of \[3\]"),
        (lambda t: t.update(codes=torch.tensor([1, 2])), "misshapen"),
        (lambda t: t["weight"].fill_(torch.nan), "NaN or infinite values: weight"),
        (lambda t: t.update(temperature=torch.tensor(-0.1)), "temperature must be above 0"),
    ],
)
def test_a_damaged_one_is_refused(tmp_path, harm, message):
    router_of().save(tmp_path)
    tensors = load_file(tmp_path / "router.safetensors")
    harm(tensors)
    save_file(tensors, tmp_path / "router.safetensors")
    with pytest.raises(CheckpointError, match=message):
        ModalityRouter.load(tmp_path)


@pytest.mark.parametrize("codes", [(), (1, 1), (0, 1), (8,)])
def test_codes_are_different_modalities(codes):
    with pytest.raises(ValueError, match="codes must be different modalities"):
        ModalityRouter(4, codes)


@pytest.mark.parametrize("shape", [(5,), (2, 4), (1, 2, 5)])
def test_vectors_of_another_model_are_refused(shape):
    with pytest.raises(ValueError, match=r"vectors must be \[Q, 5\]"):
        router_of().log_probabilities(np.zeros(shape))
