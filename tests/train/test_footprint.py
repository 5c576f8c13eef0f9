"""What a run is said to need is what a small one takes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unite_core.model.cost import config_2b, config_7b
from unite_core.model.embedder import UniteEmbedder
from unite_core.train.config import STAGE_1, TrainConfig
from unite_core.train.footprint import Weights, count_weights, footprint, saved_per_token
from unite_core.train.parts import mark_trained

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
STAGES = {
    "LoRA": STAGE_1,
    "language model": replace(STAGE_1, lora=None),
    "tower": replace(STAGE_1, train_vision="trained"),
    "tower's LoRA": replace(STAGE_1, train_vision="lora", lora_rank=3),
}


def run_of(stage, **more) -> TrainConfig:
    return TrainConfig("model", "data.jsonl", "out", stage, bf16=True, **more)


@pytest.mark.parametrize("name", STAGES)
def test_weights_gradients_and_moments_are_those_of_a_step(name):
    embedder = UniteEmbedder.load(CHECKPOINT, "cpu", torch.bfloat16)
    found = count_weights(embedder.base.config, STAGES[name])
    mark_trained(embedder, STAGES[name])
    trained = [weight for weight in embedder.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for weight in trained:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    states = [s for state in optimizer.state.values() for s in state.values() if s.ndim]
    need = footprint(run_of(STAGES[name]), found, embedder.base.config, 0, 0, 0.0)
    assert need.weights == sum(weight.nbytes for weight in embedder.parameters())
    assert need.gradients == sum(weight.grad.nbytes for weight in trained)
    assert need.optimizer == sum(state.nbytes for state in states)
    assert need.total == need.weights + need.gradients + need.optimizer


def test_a_layer_s_tokens_are_those_that_a_whole_model_keeps():
    embedder = UniteEmbedder.load(CHECKPOINT, "cpu", torch.bfloat16)
    config = embedder.base.config
    mark_trained(embedder, STAGE_1)
    embedder.train()
    language = embedder.base.language_model
    own = {weight.untyped_storage().data_ptr() for weight in language.parameters()}

    def kept(tokens: int) -> int:
        storages = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        inputs = torch.randn(1, tokens, config.text_config.hidden_size).bfloat16().requires_grad_()
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16):
            out = language(inputs_embeds=inputs, use_cache=False).last_hidden_state
        del out
        return sum(size for place, size in storages.items() if place not in own)

    layers = config.text_config.num_hidden_layers
    measured = (kept(128) - kept(64)) / 64 / layers
    assert saved_per_token(config, STAGE_1) == pytest.approx(measured, rel=0.15)


def test_spreading_divides_what_it_says():
    weights = Weights(frozen=900, trained=100, decoder=800, layer=80, visual=100)
    model = config_2b()
    lora, whole = run_of(STAGE_1), run_of(replace(STAGE_1, lora=None))
    alone = footprint(lora, weights, model, 1000, 100, 7.0)
    spread = footprint(lora, weights, model, 1000, 100, 7.0, shards=8)
    assert alone.weights - spread.weights == 2 * 700 and spread.gathered == 2 * 2 * 80
    assert (alone.inputs, alone.layer) == (1000 * 28 * 1536 * 2, 700)
    assert spread[1:3] == alone[1:3], "LoRA and its moments stay whole"
    all_weights = Weights(frozen=100, trained=900, decoder=800, layer=80, visual=100)
    full = footprint(whole, all_weights, model, 1000, 100, 7.0, shards=8)
    assert full.weights == 2 * 100 + 4 * 200 and full.gradients == 4 * 200
    assert full.optimizer == 8 * 200 and full.gathered == 4 * 2 * 80
    cached = footprint(run_of(STAGE_1, grad_cache=True), weights, model, 1000, 100, 7.0)
    assert cached.inputs == alone.inputs / 10


@pytest.mark.slow
def test_the_two_sizes_are_those_of_the_published_checkpoints():
    small, large = (count_weights(make(), STAGE_1) for make in (config_2b, config_7b))
    assert (small.frozen, large.frozen) == (2_208_985_600, 7_746_378_240)
    assert (small.trained, large.trained) == (9_232_384, 20_185_088)
