"""Visual tokens equal transformers' own, whatever the mixture of sizes."""

from pathlib import Path

import pytest
import torch

from unite_core import UniteEmbedder
from unite_core.model.vision import is_plain_tower, visual_tokens

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"


@pytest.fixture(scope="module")
def tower():
    return UniteEmbedder.load(FOLDER).base.visual


@pytest.mark.parametrize(
    "grids",
    [[[1, 4, 4]], [[1, 4, 4]] * 3, [[1, 4, 6], [2, 4, 4], [1, 6, 4], [3, 4, 6], [1, 4, 4]]],
)
def test_tokens_and_gradients_are_transformers_own(tower, grids):
    assert is_plain_tower(tower)
    grids = torch.tensor(grids)
    patches = torch.randn(int(grids.prod(1).sum()), 1176, requires_grad=True)
    weights = [patches, *tower.parameters()]
    expected = tower(patches, grid_thw=grids).pooler_output
    tokens = visual_tokens(tower, patches, grids)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)
    factor = torch.randn_like(tokens)
    wanted = torch.autograd.grad((expected * factor).sum(), weights)
    found = torch.autograd.grad((tokens * factor).sum(), weights)
    for gradient, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(gradient, other, atol=1e-3, rtol=1e-3)


def test_a_tower_under_checkpointing_runs_as_transformers_has_it(tower):
    grids = torch.tensor([[1, 4, 4], [2, 4, 4]])
    patches = torch.randn(int(grids.prod(1).sum()), 1176)
    expected = visual_tokens(tower, patches, grids)
    tower.activation_checkpointing_enable()
    try:
        assert not is_plain_tower(tower)
        torch.testing.assert_close(visual_tokens(tower, patches, grids), expected)
    finally:
        tower.activation_checkpointing_disable()
