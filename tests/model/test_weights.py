"""Weights: the quick check finds what `isfinite` finds, and conversions change no value."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from unite_core.model.mapped import drop_pages, map_pages
from unite_core.model.weights import CheckpointError, check_weights

TYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def few_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", TYPES)
@given(
    size=st.integers(1, 5000),
    place=st.integers(0, 4999),
    value=st.sampled_from([math.nan, -math.nan, math.inf, -math.inf, 0.0, -0.0, 6e4, -6e4, 1e-8]),
)
def test_what_is_no_number_is_found_anywhere(dtype, size, place, value, tmp_path_factory):
    weight = torch.linspace(-1, 1, size).to(dtype)
    weight[place % size] = value
    folder = tmp_path_factory.getbasetemp()
    if torch.isfinite(weight).all():
        found = check_weights({"w": weight}, {"w": weight.shape}, folder)
        assert found["w"] is weight
    else:
        with pytest.raises(CheckpointError, match="NaN or infinite values: w"):
            check_weights({"w": weight}, {"w": weight.shape}, folder)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", TYPES)
def test_mapped_weights_convert_to_the_same_values(dtype, threads, tmp_path, few_threads):
    few_threads(threads)
    torch.manual_seed(0)
    shapes = {"a": (3, 5), "b": (1000, 1000), "c": (), "d": (0, 4), "e": (70000,)}
    kept = {name: torch.randn(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
    save_file(kept, tmp_path / "model.safetensors")
    mapped = load_file(tmp_path / "model.safetensors")
    sizes = {name: torch.Size(shape) for name, shape in shapes.items()}
    found = check_weights(mapped, sizes, tmp_path, dtype)
    for name, weight in kept.items():
        assert found[name].dtype == dtype and torch.equal(found[name], weight.to(dtype))
        assert torch.equal(mapped[name], weight), "pages that were given back are read again"
        assert (found[name].data_ptr() == mapped[name].data_ptr()) == (
            dtype == torch.bfloat16 or name == "d"
        ), "copied only to convert"


def test_pages_of_weights_that_are_no_file_s_stay(tmp_path):
    weights = torch.arange(10000.0)
    part = weights[100:9000]
    map_pages(part)
    assert torch.equal(weights, torch.arange(10000.0))
    save_file({"w": weights}, tmp_path / "w.safetensors")
    mapped = load_file(tmp_path / "w.safetensors")["w"]
    map_pages(mapped)
    drop_pages(mapped)
    assert torch.equal(mapped, weights)
