"""The Triton kernels against torch: compiled where there is a GPU, else in triton's interpreter."""

import importlib.util
import os
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from unite_core.loss import reductions
from unite_core.loss.contrastive import mamcl

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def fused():
    """The module, with kernels that run on DEVICE: triton looks at the variable when decorating."""
    with mock.patch.dict(os.environ, {} if DEVICE == "cuda" else {"TRITON_INTERPRET": "1"}):
        from unite_core.loss import triton_kernels as fused

        yield fused


def random_logits(rows, width, dtype):
    generator = torch.Generator().manual_seed(width)
    logits = 30 * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    logits[0] = -torch.inf
    logits[1, ::2] = -torch.inf
    return logits.to(DEVICE, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 7, 2048, 5000])
def test_the_kernels_equal_torch(fused, dtype, width):
    logits = random_logits(5, width + 3, dtype)[:, :width]  # rows that do not touch
    before = logits.clone()
    top, total = fused.row_sums(logits)
    assert torch.equal(logits, before)
    lowest = torch.finfo(dtype).min
    wanted = before.amax(1).clamp_min(lowest)
    assert torch.equal(top, wanted) and total[0] == 0
    exponentials = (before - wanted[:, None]).exp()
    torch.testing.assert_close(total, exponentials.sum(1))
    factor = torch.linspace(0, 1, 5, dtype=dtype, device=DEVICE)
    fused.weigh(logits, top, factor)
    torch.testing.assert_close(logits, exponentials * factor[:, None])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"symmetric": True},
        {"cross_modal_weight": 0.3, "false_negative_margin": 0.1},
        {"candidate_ids": [0, 1, 0, 2, 0, 3, 4, 5, 6, 7], "symmetric": True, "rows": [1, 2, 9]},
    ],
    ids=str,
)
def test_the_loss_with_kernels_equals_the_loss_without(fused, options):
    generator = torch.Generator().manual_seed(0)
    vectors = [
        F.normalize(torch.randn(10, 4, generator=generator, dtype=torch.float64), dim=1)
        .to(DEVICE)
        .requires_grad_()
        for _ in range(2)
    ]
    modality = torch.tensor([1, 2, 1, 4, 1, 2, 2, 3, 4, 4])
    results = []
    for kernels in (fused, None):
        with mock.patch.object(reductions, "load_kernels", lambda device, kernels=kernels: kernels):
            loss = mamcl(*vectors, modality, **options)
            results.append([loss, *torch.autograd.grad(loss, vectors)])
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)


def test_a_cpu_never_asks_for_triton():
    assert reductions.load_kernels("cpu") is None
