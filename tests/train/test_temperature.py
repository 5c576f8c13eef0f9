"""Temperatures per target modality, and temperatures that are trained."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import normalize

from tests.train.stopping import StopAt
from unite_core.data.records import write_records
from unite_core.train.checkpoints import trained_weights
from unite_core.train.config import STAGE_1, STAGE_2, TrainConfig
from unite_core.train.losses import stage_loss
from unite_core.train.run import train
from unite_core.train.temperature import HIGHEST, LOWEST, LearnedTemperature
from unite_core.train.trainer import UniteTrainer

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
COLOURS = ("red", "green", "blue", "black", "yellow", "purple")
BOTH = {"text": 0.03, "image": 0.05}
BY_CODE = {1: 0.03, 2: 0.05}
CODES = (1, 2, 1, 2, 2)  # text, image
GENERATOR = torch.Generator().manual_seed(0)
VECTORS = normalize(torch.randn(10, 6, generator=GENERATOR, dtype=torch.float64), dim=1)
LABELS = {"target_modality": torch.tensor(CODES), "candidate_ids": torch.arange(5)}
MASKED = replace(STAGE_2, temperature=BOTH)
PLAIN = replace(STAGE_1, symmetric=False)


# Temperatures by modality


@pytest.mark.parametrize("stage", [MASKED, PLAIN], ids=["mamcl", "info_nce"])
def test_each_row_is_divided_by_the_temperature_of_its_target(stage):
    query, candidate = VECTORS[:5], VECTORS[5:]
    losses = []
    for i, code in enumerate(CODES):
        tau = BY_CODE[code]
        seen = [j for j in range(5) if stage.loss == "info_nce" or CODES[j] == code]
        scores = {j: math.exp(float(query[i] @ candidate[j]) / tau) for j in seen}
        losses.append(-math.log(scores[i] / sum(scores.values())))
    found = stage_loss(stage, VECTORS, LABELS, temperature=None if stage is MASKED else BY_CODE)
    assert float(found) == pytest.approx(sum(losses) / 5)


@pytest.mark.parametrize("loss", ["info_nce", "mamcl", "random_mask"])
def test_equal_temperatures_are_one_temperature(loss):
    stage = replace(STAGE_2, loss=loss)
    several = stage_loss(stage, VECTORS, LABELS, temperature={1: 0.03, 2: 0.03})
    torch.testing.assert_close(several, stage_loss(stage, VECTORS, LABELS))


def test_a_modality_without_a_temperature_is_refused():
    stage = replace(MASKED, temperature={"text": 0.03})
    with pytest.raises(ValueError, match=r"no value for the modalities \[2\]"):
        stage_loss(stage, VECTORS, LABELS)


# Learned temperatures


@pytest.mark.parametrize("initial", [0.04, BOTH], ids=["one", "by modality"])
@pytest.mark.parametrize("stage", [MASKED, PLAIN], ids=["mamcl", "info_nce"])
def test_a_learned_temperature_starts_as_given_and_has_the_gradient_of_the_loss(stage, initial):
    learned = LearnedTemperature(initial)
    values = initial if initial is not BOTH else BY_CODE
    fixed = stage_loss(stage, VECTORS, LABELS, temperature=values)
    loss = stage_loss(stage, VECTORS, LABELS, temperature=learned())
    torch.testing.assert_close(loss, fixed, rtol=1e-5, atol=0)
    (whole,) = torch.autograd.grad(loss, learned.log)
    halves = slice(2), slice(2, 5)
    parts = [stage_loss(stage, VECTORS, LABELS, rows, learned()) for rows in halves]
    torch.testing.assert_close(torch.autograd.grad(sum(parts), learned.log)[0], whole)
    with torch.no_grad():
        learned.log += 1e-3
        above = stage_loss(stage, VECTORS, LABELS, temperature=learned())
        learned.log -= 2e-3
        below = stage_loss(stage, VECTORS, LABELS, temperature=learned())
    assert float(above - below) / 2e-3 == pytest.approx(float(whole.sum()), rel=1e-2)


def test_a_learned_temperature_stays_in_its_range():
    learned = LearnedTemperature({"image": 0.5, "text": 0.01})
    with torch.no_grad():
        learned.log += torch.tensor([9.0, -9.0])
    learned.clamp()
    values = {"temperature/image": HIGHEST, "temperature/text": LOWEST}
    assert learned.named_values() == pytest.approx(values)
    for initial in (2.0, {"text": 0.001, "image": 0.05}):
        with pytest.raises(ValueError, match=r"must start in \[0.005, 1.0\]"):
            LearnedTemperature(initial)


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
        ]
    write_records(root / "pairs.jsonl", pairs)
    return root


def config_of(corpus, output, **stage) -> TrainConfig:
    fields = {"name": "stage2", "batch_size": 6, "max_steps": 4, "save_steps": 2,
              "learning_rate": 5e-3, "lora_dropout": 0.2} | stage  # fmt: skip
    return TrainConfig(str(CHECKPOINT), str(corpus / "pairs.jsonl"), str(output), fields,
                       media_root=str(corpus), logging_steps=1)  # fmt: skip


@pytest.fixture(scope="module")
def learned_run(corpus, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("learned")
    train(config_of(corpus, output, temperature=BOTH, learn_temperature=True))
    return output


def test_a_learned_temperature_moves_is_logged_and_is_written_down(learned_run):
    final = json.loads((learned_run / "temperature.json").read_text())
    rows = json.loads((learned_run / "history.json").read_text())
    logged = [row["temperature/text"] for row in rows if "loss" in row]
    assert logged[0] == pytest.approx(0.03) != logged[-1] == final["temperature/text"]
    assert set(final) == {"temperature/text", "temperature/image"}
    assert all(abs(math.log(final[f"temperature/{name}"] / BOTH[name])) > 1e-3 for name in BOTH)
    stored = load_file(learned_run / "checkpoint-4" / "trained.safetensors")["temperature.log"]
    assert stored.exp().tolist() == list(final.values())


def test_a_resumed_run_has_the_same_temperature_to_the_bit(corpus, tmp_path, learned_run):
    config = config_of(corpus, tmp_path, temperature=BOTH, learn_temperature=True)
    trainer = UniteTrainer.from_config(config)
    trainer.callback_handler.add_callback(StopAt(2))
    trainer.train()
    assert not (tmp_path / "checkpoint-4").exists()
    train(config)
    for name in ("model/model", "checkpoint-4/trained"):
        whole, resumed = (load_file(run / f"{name}.safetensors") for run in (learned_run, tmp_path))
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    files = [(run / "temperature.json").read_text() for run in (learned_run, tmp_path)]
    assert files[0] == files[1]


def test_without_the_option_there_is_no_temperature_to_train(corpus, tmp_path):
    trainer = UniteTrainer.from_config(config_of(corpus, tmp_path))
    assert trainer.model.temperature is None
    assert all("lora_" in name for name in trained_weights(trainer.model))
    learned = UniteTrainer.from_config(config_of(corpus, tmp_path, learn_temperature=True))
    assert [name for name in trained_weights(learned.model) if "lora_" not in name] == [
        "temperature.log"
    ]


def test_weight_decay_leaves_the_temperature_alone(corpus, tmp_path):
    config = config_of(corpus, tmp_path, learn_temperature=True, weight_decay=0.1)
    trainer = UniteTrainer.from_config(config)
    decayed = trainer.get_decay_parameter_names(trainer.model)
    assert decayed and not any("temperature" in name for name in decayed)
