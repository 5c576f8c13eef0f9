"""A teacher's scores travel with their records from the file to the loss, and train a model."""

# ruff: noqa: F811 - a fixture of another module is an argument
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from tests.train.test_claim import COLOURS, config_of, corpus, stopped  # noqa: F401 - a fixture
from tests.train.test_parallel import Towers, gradients, run_processes, share_of, whole_batch
from unite_core.data.pairs import PairDataset, Pick
from unite_core.data.records import RecordError, validate_record, write_records
from unite_core.files import read_json
from unite_core.loss.distillation import Teacher, distill_kl, margin_mse
from unite_core.loss.hardness import hardness_weighted
from unite_core.train.config import STAGE_1, STAGE_2, StageConfig
from unite_core.train.losses import stage_loss
from unite_core.train.parallel import average_gradients, gather_batch
from unite_core.train.run import train
from unite_core.train.trainer import UniteTrainer

SHARES = [(3, 2), (5, 0), (0, 0), (2, 3)]  # pairs and hard negatives of each process
OWNERS = {2: [0, 2], 0: [], 3: [0, 0, 1]}


def scored_share(rank):
    """`share_of` with a teacher's scores."""
    items, codes, labels = share_of(SHARES, rank)
    pairs, hard = SHARES[rank]
    draw = torch.Generator().manual_seed(rank)
    labels["candidate_scores"] = torch.randn(pairs, generator=draw)
    if hard:
        labels["negative_scores"] = torch.randn(hard, generator=draw)
        labels["negative_owner"] = torch.tensor(OWNERS[hard])
    return items, codes, labels


def step_of_rank(rank, world, loss):
    model = Towers()
    items, codes, labels = scored_share(rank)
    vectors, labels, rows = gather_batch(model(items, codes), labels)
    value = world * stage_loss(replace(STAGE_1, loss=loss, temperature=0.3), vectors, labels, rows)
    value.backward()
    average_gradients(model.parameters())
    return value.item() / world, gradients(model), labels


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["margin_mse", "distill_kl"])
def test_processes_share_the_loss_and_its_gradients(loss):
    results = run_processes(4, step_of_rank, loss)
    items, codes, labels = whole_batch(SHARES)
    parts = [scored_share(rank)[2] for rank in range(4)]
    for name in ("candidate_scores", "negative_scores"):
        labels[name] = torch.cat([part[name] for part in parts if name in part])
    labels["negative_owner"] = torch.tensor([0, 2, 8, 8, 9])
    model = Towers()
    stage = replace(STAGE_1, loss=loss, temperature=0.3)
    value = stage_loss(stage, model(items, codes), labels)
    value.backward()
    assert value > 0.01
    assert sum(part for part, *_ in results) == pytest.approx(value.item(), abs=1e-6)
    for _, grads, seen in results:
        assert all(torch.equal(seen[name], labels[name]) for name in labels)
        for name, grad in gradients(model).items():
            assert (grad is None) == (grads[name] is None)
            if grad is not None:
                torch.testing.assert_close(grads[name], grad, rtol=0, atol=1e-6)


def batch():
    draw = torch.Generator().manual_seed(3)
    vectors = normalize(torch.randn(13, 8, generator=draw, dtype=torch.float64), dim=1)
    labels = {
        "target_modality": torch.tensor([1, 1, 2, 2, 1]), "candidate_ids": torch.arange(5),
        "negative_modality": torch.tensor([1, 2, 1]), "negative_ids": torch.arange(5, 8),
        "candidate_scores": torch.tensor([2.0, 1, 0, 3, 1]),
        "negative_scores": torch.tensor([1.0, -1, 2]), "negative_owner": torch.tensor([0, 3, 3]),
    }  # fmt: skip
    return vectors, labels


def test_a_stage_s_fields_reach_the_losses():
    vectors, labels = batch()
    query, candidate, negatives = vectors.split([5, 5, 3])
    teacher = Teacher(
        labels["candidate_scores"], labels["negative_scores"], labels["negative_owner"]
    )
    for name, loss in {"margin_mse": margin_mse, "distill_kl": distill_kl}.items():
        stage = replace(STAGE_2, loss=name, temperature=0.1, teacher_temperature=2.0)
        wanted = loss(query, candidate, negatives, teacher, 0.1, teacher_temperature=2.0)
        torch.testing.assert_close(stage_loss(stage, vectors, labels), wanted)
        by_modality = replace(stage, temperature={"text": 0.1, "image": 0.5})
        wanted = loss(query, candidate, negatives, teacher, {1: 0.1, 2: 0.5},
                      labels["target_modality"], teacher_temperature=2.0)  # fmt: skip
        torch.testing.assert_close(stage_loss(by_modality, vectors, labels), wanted)
        del (bare := dict(labels))["candidate_scores"]
        with pytest.raises(ValueError, match=f"the loss {name} needs scores in every record"):
            stage_loss(stage, vectors, bare)


@pytest.mark.parametrize("loss", ["info_nce", "mamcl"])
def test_hardness_reaches_both_losses(loss):
    vectors, labels = batch()
    query, candidate, negatives = vectors.split([5, 5, 3])
    stage = replace(STAGE_2, loss=loss, hardness=4.0, temperature=0.1)
    wanted = hardness_weighted(
        query, candidate, 4.0, 0.1, negatives, labels["target_modality"],
        labels["negative_modality"], False, labels["candidate_ids"], labels["negative_ids"],
        cross_modal_weight=float(loss == "info_nce"),
    )  # fmt: skip
    found = stage_loss(stage, vectors, labels)
    torch.testing.assert_close(found, wanted)
    assert found != stage_loss(replace(stage, hardness=0.0), vectors, labels)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"loss": "random_mask", "hardness": 1.0}, "must be 0 for the loss random_mask"),
     ({"hardness": 1.0, "dims": (4,)}, "neither dims nor false_negative_margin"),
     ({"hardness": -1.0}, "at least 0")],
)  # fmt: skip
def test_hardness_without_meaning_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        StageConfig("x", **fields)


PAIR = {"query": {"text": "q"}, "candidate": {"text": "c"}}
HARD = [{"text": "a"}, {"text": "c"}, {"text": "b"}]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (PAIR | {"scores": [1.0, 2.0]}, "write a list of 1 numbers"),
        (PAIR | {"negative": HARD, "scores": [1.0, 2.0]}, "write a list of 4 numbers"),
        (PAIR | {"negative": HARD[0], "scores": [1.0]}, "write a list of 2 numbers"),
        (PAIR | {"scores": 3.0}, "write a list of 1 numbers"),
        (PAIR | {"scores": [float("nan")]}, r"scores\[1\].*no finite number"),
        (PAIR | {"scores": [True]}, "no finite number"),
    ],
)
def test_scores_that_are_none_are_refused(record, message):
    with pytest.raises(RecordError, match=message):
        validate_record(record)


def test_scores_follow_the_hard_negatives_that_are_kept_and_drawn(tmp_path):
    rows = [PAIR | {"negative": HARD, "scores": [9, 1.5, 2, 3]}, PAIR | {"scores": [4]}, PAIR]
    write_records(tmp_path / "rows.jsonl", rows)
    with pytest.warns(UserWarning, match="1 hard negatives repeat"):
        dataset = PairDataset([tmp_path / "rows.jsonl"])
    assert dataset[0].negatives == [{"text": "a"}, {"text": "b"}]
    assert [pair.scores for pair in dataset] == [(9.0, 1.5, 3.0), (4.0,), ()]
    assert dataset[Pick(0, (1,))].scores == (9.0, 3.0)
    assert dataset[Pick(2, ())].scores == ()
    assert dataset.unscored.endswith("record 3")


@pytest.fixture
def scored(corpus) -> Path:
    """Each colour with two others that a teacher likes less, the second least of all."""
    rows = []
    for number, colour in enumerate(COLOURS):
        others = [COLOURS[(number + step) % len(COLOURS)] for step in (1, 2)]
        rows.append({
            "query": {"text": colour}, "candidate": {"image": f"{colour}.bmp"},
            "negative": [{"image": f"{other}.bmp"} for other in others], "scores": [4, 1, -2],
        })  # fmt: skip
    write_records(corpus / "rows" / "a.jsonl", rows)
    (corpus / "rows" / "b.jsonl").unlink()
    return corpus


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["margin_mse", "distill_kl"])
def test_forty_steps_lower_the_loss_and_a_killed_run_ends_with_the_same_bits(
    scored, monkeypatch, loss
):
    fields = {"loss": loss, "max_steps": 40, "batch_size": 6, "temperature": 0.1,
              "logging_steps": 10}  # fmt: skip
    train(config_of(scored, output=str(scored / "whole"), **fields))
    found = [r["loss"] for r in read_json(scored / "whole" / "history.json") if "loss" in r]
    assert found[-1] < 0.5 * found[0]
    train(stopped(scored, monkeypatch, **fields))
    first, second = (
        load_file(scored / name / "model" / "model.safetensors") for name in ("whole", "out")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_weighted_hard_negatives_train(corpus):
    fields = {"hardness": 9.0, "max_steps": 40, "batch_size": 6, "logging_steps": 10}
    train(config_of(corpus, **fields))
    found = [r["loss"] for r in read_json(corpus / "out" / "history.json") if "loss" in r]
    assert found[-1] < 0.5 * found[0]


def test_a_record_without_scores_is_named(corpus):
    with pytest.raises(ValueError, match="rows, record 1: no scores, which the loss distill_kl"):
        UniteTrainer.from_config(config_of(corpus, loss="distill_kl"))


def test_scores_change_nothing_for_other_losses(scored):
    trainer = UniteTrainer.from_config(config_of(scored))
    given = next(iter(trainer.get_train_dataloader()))
    assert given["candidate_scores"].tolist() == [4.0] * 4
    assert given["negative_owner"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    bare = {name: value for name, value in given.items() if "score" not in name}
    torch.manual_seed(0)
    with_scores = trainer.compute_loss(trainer.model, given)
    assert torch.equal(with_scores, trainer.compute_loss(trainer.model, bare))
