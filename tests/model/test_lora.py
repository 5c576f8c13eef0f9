"""Narrow LoRA layers in one product: same loss, same gradients; adapters of peft of every kind."""

import json
import warnings

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from unite_core.model.checkpoint import CheckpointError
from unite_core.model.embedder import UniteEmbedder
from unite_core.model.lora import fused_lora, keep_input_types
from unite_core.tiny import TINY


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


PATTERNS = {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"q_proj": 3}}
ITEMS = [{"text": f"thing {n}"} for n in range(4)]


def saved_adapter(folder, **options):
    """An adapter that peft wrote, not zero, and the vectors of peft's own reading of it."""
    torch.manual_seed(3)
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks for a property by its old name
        model = get_peft_model(UniteEmbedder.load(TINY, device="cpu").backbone, settings)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.05)
        if "magnitude" in name:
            weight.data *= 1 + 0.2 * torch.rand_like(weight)
    model.save_pretrained(folder)
    embedder = UniteEmbedder.load(TINY, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        embedder.backbone = PeftModel.from_pretrained(embedder.backbone, folder).eval()
    return embedder.embed(ITEMS, progress=False)


def changed(folder, settings=(), weights=None):
    """Change an adapter's settings, and its weights by name (None: leave out)."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(settings)))
    if weights:
        path = folder / "adapter_model.safetensors"
        renamed = {weights(name): weight for name, weight in load_file(path).items()}
        renamed.pop(None, None)
        save_file(renamed, path)


def loaded(folder):
    embedder = UniteEmbedder.load(TINY, device="cpu")
    embedder.load_lora(folder)
    return embedder


@pytest.mark.parametrize("options", [{"use_dora": True}, PATTERNS, {"use_dora": True, **PATTERNS}])
def test_dora_and_patterns_load_as_peft_loads_them(options, tmp_path):
    wanted = saved_adapter(tmp_path, **options)
    embedder = loaded(tmp_path)
    np.testing.assert_allclose(embedder.embed(ITEMS, progress=False), wanted, atol=1e-6)
    embedder.save_lora(tmp_path / "again")
    again = loaded(tmp_path / "again")
    np.testing.assert_allclose(again.embed(ITEMS, progress=False), wanted, atol=1e-6)
    again.merge_lora()
    np.testing.assert_allclose(again.embed(ITEMS, progress=False), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "pattern", ["model.layers.0.self_attn.q_proj", r"^model\.layers\.0\..*q_proj"]
)
def test_patterns_with_the_old_names_of_layers_count(pattern, tmp_path):
    wanted = saved_adapter(tmp_path, **PATTERNS)
    ranks, alphas = {pattern: 2}, {"model.layers.[0-9]+.self_attn.q_proj": 3}
    changed(tmp_path, {"rank_pattern": ranks, "alpha_pattern": alphas},
            lambda name: name.replace("language_model.layers", "model.layers"))  # fmt: skip
    np.testing.assert_allclose(loaded(tmp_path).embed(ITEMS, progress=False), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "weights", "message"),
    [
        ({"use_dora": True}, None, "missing: .*layers.0.self_attn.q_proj.lora_magnitude_vector"),
        ({"rank_pattern": {"q_proj": 2}}, None, r"misshapen: .*q_proj.lora_A.weight \[4, 256\]"),
        ({"rank_pattern": {"(q_proj": 2}}, None, r"'\(q_proj', which is no pattern"),
        ({"modules_to_save": ["lm_head"]}, None, r"modules_to_save \['lm_head'\] holds weights be"),
        ({"bias": "all"}, None, "adapter_config.json: bias 'all' holds weights beside the LoRA"),
    ],
)
def test_settings_that_its_weights_do_not_have_are_refused(settings, weights, message, tmp_path):
    saved_adapter(tmp_path)
    changed(tmp_path, settings, weights)
    with pytest.raises(CheckpointError, match=message):
        loaded(tmp_path)


def test_magnitudes_without_dora_are_refused(tmp_path):
    saved_adapter(tmp_path, use_dora=True)
    changed(tmp_path, {"use_dora": False})
    with pytest.raises(CheckpointError, match="not of this model: .*lora_magnitude_vector"):
        loaded(tmp_path)


def test_a_merge_in_bfloat16_moves_the_vectors_a_little_one_in_float32_does_not():
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        embedder = UniteEmbedder.load(TINY, device="cpu", dtype=dtype)
        embedder.attach_lora(8, 16)
        torch.manual_seed(0)
        for name, weight in embedder.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.02)
        before = embedder.embed(ITEMS, progress=False)
        embedder.merge_lora()
        moved[dtype] = abs(embedder.embed(ITEMS, progress=False) - before).max()
    assert moved[torch.float32] < 1e-6
    assert 1e-4 < moved[torch.bfloat16] < 1e-2


def test_under_autocast_inputs_keep_their_type_and_take_less_memory():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 24)).bfloat16()
    settings = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["0", "2"])
    model = get_peft_model(model, settings)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.3)
    x = torch.randn(50, 24).bfloat16()

    def step():
        model.zero_grad()
        kept = {}
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda saved: kept.setdefault(saved.data_ptr(), saved), lambda saved: saved
        )
        with torch.autocast("cpu", torch.bfloat16), hooks:
            model(x).float().square().sum().backward()
        grads = [w.grad.clone() for w in model.parameters() if w.requires_grad]
        rows = [saved for saved in kept.values() if len(saved) == len(x)]
        return grads, sum(saved.nbytes for saved in rows), {saved.dtype for saved in rows}

    wanted, before, _ = step()
    keep_input_types(model)
    found, after, types = step()
    assert after < before
    assert types <= {torch.bfloat16, torch.float32} and len(found) == 4
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32 and theirs.norm() > 0
        assert (ours - theirs).norm() <= 2e-2 * theirs.norm()
