"""Narrow LoRA layers in one product: same loss, same gradients, and the layers as before after."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from unite_core.model.lora import fused_lora


def adapted(rank=16, wide=256, dropout=0.0, **options):
    """A narrow layer of 24 to 32 and a wide one, both with a LoRA that is not zero."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, wide, bias=False))
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=dropout,
                          target_modules=["0", "2"], **options)  # fmt: skip
    model = get_peft_model(model.double(), settings, autocast_adapter_dtype=False)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)
    return model.train()


def gradients(model, recompute=False):
    model.zero_grad()
    torch.manual_seed(1)
    x = torch.randn(50, 24, dtype=torch.float64)
    if recompute:
        value = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
    else:
        value = model(x)
    loss = value.square().mean()
    loss.backward()
    return [loss.detach()] + [w.grad.clone() for w in model.parameters() if w.requires_grad]


def replaced(model):
    return [name for name, layer in model.named_modules() if "forward" in vars(layer)]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("scaling", [{}, {"use_rslora": True}])
def test_loss_and_gradients_are_the_same(recompute, scaling):
    model = adapted(**scaling)
    wanted = gradients(model, recompute)
    with fused_lora(model):
        assert len(replaced(model)) == 2
        found = gradients(model, recompute)
    assert len(found) == 5 and min(w.abs().max() for w in wanted) > 1e-3
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_layers_are_as_before_after_it_even_after_an_error():
    model = adapted()
    with pytest.raises(RuntimeError, match="stop"), fused_lora(model):
        raise RuntimeError("stop")
    assert not replaced(model)
    for weight in model.parameters():
        weight.data += 0.1
    wanted = gradients(model)
    with fused_lora(model):
        found = gradients(model)
    assert torch.allclose(found[0], wanted[0], rtol=1e-12), "it has seen the new weights"


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 2),
        ({"rank": 4}, 0),  # 3 * 4 * (24 + 32) < 24 * 32
        ({"rank": 8}, 1),  # 3 * 8 * (32 + 256) < 32 * 256
        ({"dropout": 0.1}, 0),
        ({"use_dora": True}, 0),
    ],
)
def test_only_layers_that_gain_by_it_and_that_it_can_do(options, count):
    model = adapted(**options)
    with fused_lora(model):
        assert len(replaced(model)) == count


def test_merged_and_disabled_adapters_stay_as_they_are():
    model = adapted()
    model.merge_adapter()
    with fused_lora(model):
        assert not replaced(model)
    model.unmerge_adapter()
    with model.disable_adapter(), fused_lora(model):
        assert not replaced(model)
