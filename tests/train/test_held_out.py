"""Scores on held-out data while training: taken, logged, obeyed, and without a trace in the run."""

# ruff: noqa: F811 - a fixture of another module is an argument
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.test_claim import Killed, config_of, corpus, die_at, stopped  # noqa: F401 - a fixture
from unite_core.data.records import read_records, write_records
from unite_core.evaluation.in_training import TrainingScores
from unite_core.files import read_json
from unite_core.model.embedder import UniteEmbedder
from unite_core.train.claim import check_run
from unite_core.train.run import train
from unite_core.train.trainer import UniteTrainer

STEPS = {"max_steps": 6, "save_steps": 2, "eval_steps": 2}


@pytest.fixture
def held_out(corpus) -> dict:
    """Fields of a run that is scored on pictures for colours and colours for pictures."""
    pairs = [
        pair for file in ("a", "b") for pair in read_records(corpus / "rows" / f"{file}.jsonl")
    ]
    back = [{"query": pair["candidate"], "candidate": pair["query"]} for pair in pairs]
    write_records(corpus / "held_out.jsonl", pairs + back)
    return {"eval_data": str(corpus / "held_out.jsonl"), **STEPS}


def scripted(values):
    """Scores that follow a script: one value after the other, by the step of the run."""

    def make(data, root):
        left = iter(values)
        return lambda embedder: {"mixed_recall@10": next(left)}

    return make


def history(output) -> list[dict]:
    return read_json(Path(output, "history.json"))


def scored(output, name="eval_mixed_recall@10") -> dict[int, float]:
    return {row["step"]: row[name] for row in history(output) if name in row}


def weights(output) -> dict[str, torch.Tensor]:
    return load_file(Path(output, "model", "model.safetensors"))


def assert_equal(first, second) -> None:
    first, second = weights(first), weights(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_scores_are_those_of_the_saved_model_and_are_logged(corpus, held_out):
    train(config_of(corpus, **held_out), TrainingScores)
    out = corpus / "out"
    assert list(scored(out)) == [0, 2, 4, 6]
    again = UniteEmbedder.load(out / "model", "cpu")
    wanted = TrainingScores(held_out["eval_data"], corpus)(again)
    names = {"single_recall@1", "single_recall@10", "mixed_recall@1", "mixed_recall@10",
             "target_share@10", "gap_squared/text-image"}  # fmt: skip
    assert set(wanted) == names
    (last,) = [row for row in history(out) if row["step"] == 6 and "eval_mixed_recall@1" in row]
    for name in names:
        assert last[f"eval_{name}"] == pytest.approx(wanted[name], abs=1e-5), name
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("eval/mixed_recall@10")}
    assert found == pytest.approx(scored(out))


def test_scores_leave_the_run_as_it_is(corpus, held_out):
    """Dropout draws random numbers in every step: a score that drew one would show."""
    fields = {**held_out, "lora_dropout": 0.2}
    train(config_of(corpus, **fields), TrainingScores)
    bare = {name: fields[name] for name in ("max_steps", "save_steps", "lora_dropout")}
    train(config_of(corpus, output=str(corpus / "bare"), **bare))
    assert_equal(corpus / "out", corpus / "bare")
    kept = [row for row in history(corpus / "out") if "loss" in row]
    assert kept == [row for row in history(corpus / "bare") if "loss" in row]


def test_a_killed_run_ends_with_the_same_bits_and_scores(corpus, held_out, monkeypatch):
    fields = {**held_out, "lora_dropout": 0.2, "keep": "best"}
    train(config_of(corpus, output=str(corpus / "whole"), **fields), TrainingScores)
    with monkeypatch.context() as patch:
        die_at(patch, 3)
        with pytest.raises(Killed):
            train(config_of(corpus, **fields), TrainingScores)
    train(config_of(corpus, **fields), TrainingScores)
    assert_equal(corpus / "out", corpus / "whole")
    for name in scored(corpus / "out"), scored(corpus / "whole"):
        assert list(name) == [0, 2, 4, 6]
    assert scored(corpus / "out") == scored(corpus / "whole")
    assert read_json(corpus / "out" / "best" / "scores.json") == read_json(
        corpus / "whole" / "best" / "scores.json"
    )


def test_the_best_weights_become_the_model(corpus, held_out):
    script = scripted([0.1, 0.7, 0.3, 0.7])  # of steps 0, 2, 4, 6: of equals the first
    train(config_of(corpus, **held_out, keep="best"), script)
    assert read_json(corpus / "out" / "best" / "scores.json")["scores"]["step"] == 2
    schedule = {**held_out, "output": str(corpus / "last")}
    config = config_of(corpus, **schedule)
    train(config, scripted([0.1, 0.7, 0.3, 0.7]))
    changed = weights(corpus / "out"), weights(corpus / "last")
    assert any(not torch.equal(changed[0][name], changed[1][name]) for name in changed[0])
    trainer = UniteTrainer.from_config(config, script)
    trainer._load_from_checkpoint(str(corpus / "out" / "best"))
    trainer.model.embedder.merge_lora()
    merged = trainer.model.embedder.backbone.state_dict()
    assert all(torch.equal(merged[name], weight) for name, weight in changed[0].items())


def test_training_stops_without_a_better_score(corpus, held_out):
    fields = {**held_out, "max_steps": 12, "eval_patience": 2}
    train(config_of(corpus, **fields), scripted([0.1, 0.5, 0.4, 0.5, 0.9, 0.9]))
    assert list(scored(corpus / "out")) == [0, 2, 4, 6]


def test_a_run_that_stopped_and_was_killed_stops_there_again(corpus, held_out, monkeypatch):
    fields = {**held_out, "max_steps": 12, "eval_patience": 1}
    values = {0: 0.1, 2: 0.5, 4: 0.4, 6: 0.9, 8: 0.9, 10: 0.9, 12: 0.9}

    def by_step(data, root):
        return lambda embedder: {"mixed_recall@10": values[steps_of[0].state.global_step]}

    steps_of = []
    make = UniteTrainer.from_config.__func__

    def from_config(cls, *given):
        steps_of[:] = [make(cls, *given)]
        return steps_of[0]

    monkeypatch.setattr(UniteTrainer, "from_config", classmethod(from_config))
    with monkeypatch.context() as patch:
        patch.setattr("unite_core.train.run._publish", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(config_of(corpus, **fields), by_step)
    train(config_of(corpus, **fields), by_step)
    assert list(scored(corpus / "out")) == [0, 2, 4]
    assert max(row["step"] for row in history(corpus / "out")) == 4


def test_an_unknown_score_is_refused_before_the_first_step(corpus, held_out):
    with pytest.raises(ValueError, match="eval_metric is 'recall': must be one of gap_squared/te"):
        train(config_of(corpus, **held_out, eval_metric="recall"), TrainingScores)
    assert not list((corpus / "out").glob("checkpoint-*"))


def test_what_decides_the_model_is_claimed(corpus, held_out, monkeypatch):
    fields = {**held_out, "keep": "best"}
    with monkeypatch.context() as patch:
        die_at(patch, 3)
        with pytest.raises(Killed):
            train(config_of(corpus, **fields), TrainingScores)
    with pytest.raises(ValueError, match="eval_steps was 2, now 3"):
        check_run(config_of(corpus, **{**fields, "eval_steps": 3}))
    write_records(corpus / "held_out.jsonl", [{"query": {"text": "x"}, "candidate": {"text": "y"}}])
    with pytest.raises(ValueError, match=r"held_out.jsonl was '\w+', now"):
        check_run(config_of(corpus, **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": "best"}, "need eval_data"),
        ({"eval_patience": 3}, "need eval_data"),
        ({"eval_data": "x.jsonl", "shard_frozen": True}, "cannot be scored with shard_frozen"),
    ],
)
def test_fields_that_contradict_are_refused(corpus, fields, message):
    with pytest.raises(ValueError, match=message):
        config_of(corpus, **fields)


def test_data_without_a_way_to_score_are_refused(corpus, held_out):
    with pytest.raises(ValueError, match="TrainingScores"):
        train(config_of(corpus, **held_out))
    assert not list((corpus / "out").glob("*"))


def test_half_precision_parts_are_scored_as_they_are_trained(corpus, held_out, monkeypatch):
    """A float32 projector behind a bfloat16 tower computes under autocast alone."""
    from functools import partial

    from unite_core.train import trainer as trainer_module
    from unite_core.train.setup import adapted_model

    half = partial(adapted_model, dtype=torch.bfloat16)
    monkeypatch.setattr(trainer_module, "adapted_model", half)
    torch.set_num_threads(2)  # embedding then computes in threads
    fields = {**held_out, "bf16": True, "train_projector": "trained"}
    trainer = UniteTrainer.from_config(config_of(corpus, **fields), TrainingScores)
    assert 0 <= trainer.evaluate()["eval_mixed_recall@10"] <= 1
    torch.set_num_threads(1)
