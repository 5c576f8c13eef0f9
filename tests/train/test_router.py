"""A router is trained with its stage: its loss, its gradient, its checkpoints, its file."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import normalize

from tests.train.stopping import StopAt
from unite_core.data.records import write_records
from unite_core.model import CheckpointError, ModalityRouter, UniteEmbedder
from unite_core.train.checkpoints import trained_weights
from unite_core.train.config import STAGE_2, StageConfig, TrainConfig
from unite_core.train.losses import router_loss
from unite_core.train.run import train
from unite_core.train.setup import make_router
from unite_core.train.trainer import UniteTrainer

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
COLOURS = ("red", "green", "blue", "black", "yellow", "purple")
WEIGHTS = {"router_weight": 0.3, "modality_weight": 0.2}


# The loss


def head_and_queries(seed=0):
    draw, router = torch.Generator().manual_seed(seed), ModalityRouter(6, (1, 2, 4), 20)
    with torch.no_grad():
        router.weight.copy_(0.1 * torch.randn(3, 6, generator=draw))
        router.bias.copy_(torch.randn(3, generator=draw))
    query = normalize(torch.randn(7, 6, generator=draw), dim=1).requires_grad_(True)
    return router, query, torch.tensor([4, 1, 2, 2, 1, 4, 4])


def test_its_loss_and_gradients_are_those_of_the_plain_cross_entropy():
    router, query, codes = head_and_queries()
    loss = router_loss(router, query, codes)
    weight, bias, rows = (x.detach().double().numpy() for x in (router.weight, router.bias, query))
    logits = 20 * rows @ weight.T + bias
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    right = codes.numpy()[:, None] == np.array(router.codes)
    assert loss.item() == pytest.approx(-np.log(shares[right]).mean(), rel=1e-5)
    grads = torch.autograd.grad(loss, [query, router.weight, router.bias])
    outer = (shares - right) / len(codes)
    for found, wanted in zip(grads, (20 * outer @ weight, 20 * outer.T @ rows, outer.sum(0)),
                             strict=True):  # fmt: skip
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        assert abs(wanted).max() > 1e-2


def records_that_ask_for(*codes):
    return SimpleNamespace(table=SimpleNamespace(target_modality=np.array(codes)))


@pytest.mark.parametrize(("changes", "temperature"), [
    ({"temperature": 0.05}, 0.05),
    ({"temperature": {"text": 0.05, "image": 0.02}}, None),
    ({"learn_temperature": True}, None),
])  # fmt: skip
def test_it_has_the_temperature_of_its_training_if_there_is_one(changes, temperature):
    stage = replace(STAGE_2, router_weight=0.3, **changes)
    router = make_router(stage, 8, records_that_ask_for(1, 2, 2, 3))
    assert router.codes == (1, 2, 3) and router.temperature == temperature


def test_without_two_modalities_to_tell_apart_none_is_trained():
    assert make_router(STAGE_2, 8, records_that_ask_for(1, 2)) is None
    assert make_router(replace(STAGE_2, router_weight=1.0), 8, records_that_ask_for(2, 2)) is None


def test_parts_of_it_add_up():
    router, query, codes = head_and_queries()
    whole = router_loss(router, query, codes)
    parts = [router_loss(router, query, codes, rows)
             for rows in (slice(0, 2), slice(2, 2), slice(2, 7))]  # fmt: skip
    assert parts[1] == 0
    torch.testing.assert_close(sum(parts), whole)
    grads = (torch.autograd.grad(x, [query, router.weight]) for x in (sum(parts), whole))
    torch.testing.assert_close(*grads)


def test_a_weight_is_not_negative():
    with pytest.raises(ValueError, match="router_weight"):
        replace(STAGE_2, router_weight=-0.1)
    with pytest.raises(ValueError, match="modality_weight"):
        replace(STAGE_2, modality_weight=-0.1)


def test_a_few_hundred_steps_of_adamw_are_enough_for_vectors_that_lie_close_together():
    draw, dim = torch.Generator().manual_seed(0), 64
    codes = torch.tensor([1, 2, 4])[torch.randint(3, (512,), generator=draw)]
    common, centres = torch.randn(dim, generator=draw), torch.randn(5, dim, generator=draw)
    own = 0.2 * centres[codes] + 0.4 * torch.randn(512, dim, generator=draw)
    query = normalize(common + own, dim=1)
    assert query.mean(0).norm() > 0.85, "as between trained queries, cosines are high"

    def held_out_loss(*scale):
        router = ModalityRouter(dim, (1, 2, 4), *scale)
        optimizer = torch.optim.AdamW(router.parameters(), 1e-3)
        for _ in range(200):
            optimizer.zero_grad()
            router_loss(router, query[:256], codes[:256]).backward()
            optimizer.step()
        return router_loss(router, query[256:], codes[256:]).item()

    assert held_out_loss() < 0.4 and held_out_loss(1.0) > 0.8  # nats; knowing nothing is log 3


# Runs


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    pairs = []
    for colour in COLOURS:
        name, caption = f"{colour}.png", {"text": f"a {colour} sheet"}
        Image.new("RGB", (56, 56), colour).save(root / name)
        pairs += [
            {"query": caption, "candidate": {"image": name}},
            {"query": {"image": name}, "candidate": caption},
            {"query": caption, "candidate": {"image": name, "text": f"<|IMAGE|> {colour}"}},
        ]
    write_records(root / "pairs.jsonl", pairs)
    return root


def config_of(corpus, output, **more) -> TrainConfig:
    stage = {"name": "stage2", "batch_size": 6, "max_steps": 4, "save_steps": 2,
             "learning_rate": 5e-3, "lora_dropout": 0.2}  # fmt: skip
    stage |= {name: more.pop(name) for name in list(more) if name in StageConfig.__annotations__}
    return TrainConfig(str(CHECKPOINT), str(corpus / "pairs.jsonl"), str(output), stage,
                       media_root=str(corpus), logging_steps=1, **more)  # fmt: skip


@pytest.fixture(scope="module")
def routed(corpus, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("routed")
    train(config_of(corpus, output, **WEIGHTS))
    return output


def test_it_is_saved_with_the_model_and_not_with_the_adapter(routed):
    router = ModalityRouter.load(routed / "model")
    assert router.labels == ["text", "image", "text+image"]
    assert router.weight.abs().max() > 1e-3 and router.bias.abs().max() > 1e-3
    assert router.temperature == 0.03
    stored = load_file(routed / "checkpoint-4" / "trained.safetensors")
    assert torch.equal(stored["router.weight"], router.weight)
    assert torch.equal(stored["router.bias"], router.bias)
    assert not (routed / "adapter" / "router.safetensors").exists()
    embedder = UniteEmbedder.load(routed / "model")
    vectors = embedder.embed([{"text": "a red sheet"}])
    assert router.log_probabilities(vectors).shape == (1, 3)
    embedder.save(routed / "again")
    with pytest.raises(CheckpointError, match="no such file"):
        ModalityRouter.load(routed / "again")


def test_what_is_added_to_the_loss_is_logged(corpus, tmp_path, routed):
    rows = [r for r in json.loads((routed / "history.json").read_text()) if "loss" in r]
    assert rows[0]["router_loss"] == pytest.approx(np.log(3))
    assert all(0 <= row["router_accuracy"] <= 1 and row["modality_loss"] > 0 for row in rows)
    assert rows[-1]["router_loss"] != rows[0]["router_loss"]
    train(config_of(corpus, tmp_path))
    (plain, *_) = json.loads((tmp_path / "history.json").read_text())
    assert not {"router_accuracy", "router_loss", "modality_loss"} & set(plain)
    added = 0.3 * rows[0]["router_loss"] + 0.2 * rows[0]["modality_loss"]
    assert rows[0]["loss"] == pytest.approx(plain["loss"] + added, rel=1e-5)  # the same dropout
    with pytest.raises(CheckpointError, match="has no router: train stage 2"):
        ModalityRouter.load(tmp_path / "model")


@pytest.mark.parametrize(
    "fields",
    [{"modality_weight": 0.3}, {"router_weight": 0.3}, {"router_weight": 1.0, "loss": "info_nce"},
     {"sampling": {"group_by": "modality", "sub_batch": 6, "distinct": True}}],
    ids=lambda fields: "-".join(fields),
)  # fmt: skip
def test_three_steps(corpus, tmp_path, fields):
    train(config_of(corpus, tmp_path, max_steps=3, **fields))
    rows = [r for r in json.loads((tmp_path / "history.json").read_text()) if "loss" in r]
    assert len(rows) == 3 and all(np.isfinite(row["loss"]) for row in rows)
    if "sampling" in fields:
        assert [row["surviving_share"] for row in rows] == [1.0] * 3


def test_its_gradient_reaches_the_embedder(corpus, tmp_path):
    trainer = UniteTrainer.from_config(
        config_of(corpus, tmp_path, router_weight=1.0, lora_dropout=0.0)
    )
    batch, model = next(iter(trainer.get_train_dataloader())), trainer.model
    with torch.no_grad():
        model.router.weight.add_(0.002 * torch.randn(model.router.weight.shape))
    vectors = model(batch["groups"], batch["order"])
    loss = router_loss(model.router, vectors[:6], batch["target_modality"])
    loss.backward()
    grads = [w.grad for n, w in model.named_parameters() if "lora_B" in n]
    assert max(float(grad.abs().max()) for grad in grads if grad is not None) > 1e-4


def test_a_resumed_run_ends_with_the_same_router_to_the_bit(corpus, tmp_path, routed):
    config = config_of(corpus, tmp_path, **WEIGHTS)
    trainer = UniteTrainer.from_config(config)
    trainer.callback_handler.add_callback(StopAt(2))
    trainer.train()
    assert not (tmp_path / "checkpoint-4").exists()
    train(config)
    for name in ("model/model", "model/router", "checkpoint-4/trained"):
        whole, resumed = (load_file(run / f"{name}.safetensors") for run in (routed, tmp_path))
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_run_does_not_go_on_with_another_weight(corpus, tmp_path, name):
    config = config_of(corpus, tmp_path, max_steps=2, **WEIGHTS)
    train(config)
    changed = replace(config, stage=replace(config.stage, **{name: 0.0}))
    with pytest.raises(ValueError, match=rf"stage.{name} was 0.\d, now 0.0"):
        train(changed)


def test_without_a_weight_there_is_nothing_more_to_train(corpus, tmp_path):
    trainer = UniteTrainer.from_config(config_of(corpus, tmp_path, modality_weight=0.3))
    assert trainer.model.router is None
    assert all("lora_" in name for name in trained_weights(trainer.model))
