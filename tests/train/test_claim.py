"""What a run was started with: what may change when it goes on, and what is refused."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unite_core.data.bad_media import BadMediaError
from unite_core.data.records import write_records
from unite_core.files import InUseError, read_json, working_in, write_json
from unite_core.model.identify import default_config
from unite_core.settings import write_config
from unite_core.train import claim as claim_module
from unite_core.train import trainer as trainer_module
from unite_core.train.claim import check_run, claim
from unite_core.train.config import StageConfig, TrainConfig
from unite_core.train.run import train
from unite_core.train.setup import adapted_model
from unite_core.train.trainer import UniteTrainer

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
COLOURS = ("red", "green", "blue", "black", "yellow", "purple")


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A model's folder, six pictures, and a folder of records in two files."""
    shutil.copytree(CHECKPOINT, tmp_path / "start", ignore=shutil.ignore_patterns("inputs", "ref*"))
    write_config(default_config(CHECKPOINT, CHECKPOINT, "unite"), tmp_path / "start" / "unite.json")
    pairs = []
    for colour in COLOURS:
        Image.new("RGB", (56, 56), colour).save(tmp_path / f"{colour}.bmp")
        pairs.append({"query": {"text": colour}, "candidate": {"image": f"{colour}.bmp"}})
    (tmp_path / "rows").mkdir()
    write_records(tmp_path / "rows" / "a.jsonl", pairs[:4])
    write_records(tmp_path / "rows" / "b.jsonl", pairs[4:])
    return tmp_path


def config_of(corpus, **more) -> TrainConfig:
    stage = {"name": "stage1", "batch_size": 4, "max_steps": 4, "save_steps": 2,
             "learning_rate": 5e-3, "lora_dropout": 0.0}  # fmt: skip
    stage |= {name: more.pop(name) for name in list(more) if name in StageConfig.__annotations__}
    return TrainConfig(**{
        "model": str(corpus / "start"), "data": str(corpus / "rows"), "output": str(corpus / "out"),
        "stage": stage, "media_root": str(corpus), "logging_steps": 2, **more,
    })  # fmt: skip


class Killed(Exception):
    pass


def die_at(patch, step: int) -> None:
    original = UniteTrainer.training_step

    def dying(self, *args, **kwargs):
        if self.state.global_step == step:
            raise Killed
        return original(self, *args, **kwargs)

    patch.setattr(UniteTrainer, "training_step", dying)


def stopped(corpus, monkeypatch, **more) -> TrainConfig:
    """A run that ended in its fourth step."""
    with monkeypatch.context() as patch:
        die_at(patch, 3)
        with pytest.raises(Killed):
            train(config_of(corpus, **more))
    return config_of(corpus, **more)


def change_json(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def recolour(corpus: Path) -> None:
    """Another picture of the same size and, if it matters, the same time."""
    stat = (corpus / "red.bmp").stat()
    Image.new("RGB", (56, 56), "orange").save(corpus / "red.bmp")
    assert (corpus / "red.bmp").stat().st_size == stat.st_size


CHANGES = {
    "the model's own settings": (
        lambda c: change_json(c / "start" / "unite.json", max_frames=4),
        r"start/unite.json was '\w+', now",
    ),
    "its architecture": (
        lambda c: change_json(c / "start" / "config.json", note=1), r"start/config.json was"),
    "its tokenizer": (
        lambda c: change_json(c / "start" / "vocab.json", zz=1), r"start/vocab.json was"),
    "its pixels": (
        lambda c: (c / "start" / "preprocessor_config.json").write_text('{"min_pixels": 784}'),
        r"start/preprocessor_config.json was"),
    "rows of a folder": (
        lambda c: write_records(c / "rows" / "b.jsonl",
                                [{"query": {"text": "x"}, "candidate": {"text": "y"}}]),
        r"rows was '\w+', now"),
    "a file more of rows": (
        lambda c: write_records(c / "rows" / "c.jsonl",
                                [{"query": {"text": "x"}, "candidate": {"text": "y"}}]),
        r"rows was '\w+', now"),
    "a picture": (recolour, r"media files, .* differ \(6 files then, 6 now\)"),
    "a picture that is gone": (
        lambda c: (c / "red.bmp").unlink(), r"differ \(6 files then, 5 now\)"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_does_not_go_on_with_other_inputs(corpus, monkeypatch, change):
    config = stopped(corpus, monkeypatch, max_bad_share=0.5)
    harm, message = CHANGES[change]
    harm(corpus)
    with pytest.raises(ValueError, match=f"{corpus / 'out'} holds a run .*{message}"):
        train(config)


def test_an_adapter_s_base_is_an_input(corpus, tmp_path):
    from unite_core.model.embedder import UniteEmbedder

    embedder = UniteEmbedder.load(corpus / "start", device="cpu")
    embedder.attach_lora(2, 4)
    embedder.save_lora(corpus / "adapter")
    config = config_of(corpus, model=str(corpus / "adapter"))
    noted = check_run(config)
    names = {Path(name).name for name in noted if name.startswith(f"{corpus}/")}
    assert {"adapter", "adapter_config.json", "start", "config.json", "rows"} <= names
    change_json(corpus / "start" / "config.json", note=1)
    assert check_run(config)[f"{corpus}/start/config.json"] != noted[f"{corpus}/start/config.json"]


def test_pictures_written_again_are_the_same_pictures(corpus, monkeypatch):
    config = stopped(corpus, monkeypatch)
    for path in corpus.glob("*.bmp"):
        os.utime(path, (1, 1))
    train(config)


def test_media_are_read_again_only_where_their_times_differ(corpus, monkeypatch):
    config = stopped(corpus, monkeypatch)
    monkeypatch.setattr(claim_module, "_ends", None)  # calling it would fail
    train(config)


FREE = {
    "forward_items": 2, "forward_tokens": 64, "grad_cache": True, "gradient_checkpointing": True,
    "shard_frozen": True, "logging_steps": 1, "save_steps": 1, "cache_mib": 0, "workers": 1,
    "save_total_limit": 5, "global_batch_size": 4,
}  # fmt: skip


def test_settings_of_speed_and_memory_may_change_when_a_run_goes_on(corpus, monkeypatch):
    train(config_of(corpus, output=str(corpus / "whole")))
    stopped(corpus, monkeypatch)
    train(config_of(corpus, **FREE))
    whole, other = (
        load_file(corpus / name / "model" / "model.safetensors") for name in ("whole", "out")
    )
    assert all(torch.allclose(whole[name], other[name], atol=1e-4) for name in whole)
    steps = sorted(path.name for path in (corpus / "out").glob("checkpoint-*"))
    assert steps == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]  # from then on, each step
    history = [row["step"] for row in read_json(corpus / "out" / "history.json") if "loss" in row]
    assert history[-2:] == [3, 4]


def test_more_processes_may_go_on_with_the_same_batches(corpus):
    config = config_of(corpus)
    noted = check_run(config)
    write_json(corpus / "out" / "train.json", {})
    assert claim_module._changes(config, noted, config, noted) == []
    halves = replace(config, stage=replace(config.stage, batch_size=2))
    assert claim_module._changes(config, noted, halves, noted | {"processes": 2}) == []
    (change,) = claim_module._changes(config, noted, config, noted | {"processes": 2})
    assert change == "processes was 1, now 2"


def test_other_versions_of_packages_are_said(corpus, monkeypatch):
    config = stopped(corpus, monkeypatch)
    inputs = read_json(corpus / "out" / "inputs.json")
    versions = inputs["versions"] | {"torch": "1.0"}
    write_json(corpus / "out" / "inputs.json", inputs | {"versions": versions})
    with pytest.warns(UserWarning, match="out was begun with other versions .torch 1.0 before, "):
        train(config)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"model": "/no/such/folder"}, FileNotFoundError),
        ({"batch_size": 64, "max_steps": -1}, ValueError),
        ({"data": "no_such_file.jsonl"}, (OSError, ValueError)),
        ({"embed": {"positions": "mrope"}, "media_root": "/no/such/root"}, BadMediaError),
    ],
)
def test_a_start_that_fails_claims_nothing(corpus, wrong, error):
    with pytest.raises(error):
        train(config_of(corpus, **wrong))
    assert not list((corpus / "out").glob("*"))
    assert train(config_of(corpus)) == corpus / "out" / "model"


def test_two_trainings_of_one_output_at_once_are_refused(corpus):
    with working_in(corpus / "out"), pytest.raises(InUseError):
        train(config_of(corpus))
    assert not (corpus / "out").exists()


def test_a_claim_of_an_earlier_version_is_compared_as_far_as_it_goes(corpus, monkeypatch):
    config = stopped(corpus, monkeypatch)
    inputs = read_json(corpus / "out" / "inputs.json")
    old = {name: inputs[name] for name in (config.model, *config.data, "processes")}
    write_json(corpus / "out" / "inputs.json", old)
    assert claim_module.check_run(config)
    trainer = UniteTrainer.from_config(config)
    claim(config, check_run(config), trainer.train_dataset)


@pytest.mark.parametrize("bf16", [False, True])
def test_without_bf16_a_bfloat16_checkpoint_is_computed_in_float32(corpus, bf16, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "unite_core.train.setup.UniteEmbedder.load",
        lambda model, device, dtype, **_: asked.append(dtype),
    )
    for name in ("mark_trained", "keep_input_types"):
        monkeypatch.setattr(f"unite_core.train.setup.{name}", lambda *_: None)
    adapted_model(config_of(corpus, bf16=bf16), "cpu")
    assert asked == [None if bf16 else torch.float32]


def test_a_trained_tower_is_float32_whatever_the_checkpoint_is(corpus):
    config = config_of(corpus, train_vision=True, bf16=True)
    embedder = adapted_model(config, "cpu", torch.bfloat16)
    trained = {n: w.dtype for n, w in embedder.named_parameters() if w.requires_grad}
    assert any("visual." in name for name in trained)
    assert set(trained.values()) == {torch.float32}
    frozen = {w.dtype for n, w in embedder.named_parameters() if not w.requires_grad}
    assert frozen == {torch.bfloat16}
    embedder.merge_lora()
    embedder.save(corpus / "saved")
    again = type(embedder).load(corpus / "saved", device="cpu")
    picture = [{"image": "red.bmp"}]
    wanted = again.embed(picture, corpus, progress=False)
    found = embedder.embed(picture, corpus, progress=False)  # half of it bfloat16
    assert (wanted * found).sum() > 0.99


def test_a_float32_tower_trains_beside_a_bfloat16_decoder(corpus, monkeypatch):
    half = partial(adapted_model, dtype=torch.bfloat16)
    monkeypatch.setattr(trainer_module, "adapted_model", half)
    config = config_of(corpus, train_vision=True, bf16=True, learning_rate=1e-5)
    trainer = UniteTrainer.from_config(config)
    tower = trainer.model.embedder.base.visual
    before = {name: weight.clone() for name, weight in tower.named_parameters()}
    trainer.train()
    for name, weight in tower.named_parameters():
        step = (weight - before[name]).abs().max()
        assert 1e-7 < step < 1e-4, name  # far below what bfloat16 can tell apart in most weights


def test_the_vision_tower_has_a_learning_rate_of_its_own(corpus):
    fields = {"train_vision": True, "learning_rate": 1e-3, "weight_decay": 0.1}
    plain = UniteTrainer.from_config(config_of(corpus, **fields)).create_optimizer()
    trainer = UniteTrainer.from_config(config_of(corpus, **fields, vision_learning_rate=1e-5))
    groups = trainer.create_optimizer().param_groups
    assert {group["lr"] for group in plain.param_groups} == {1e-3}
    tower = set(trainer.model.embedder.base.visual.parameters())
    rates = {weight: group["lr"] for group in groups for weight in group["params"]}
    decay = {weight: group["weight_decay"] for group in groups for weight in group["params"]}
    trained = [w for w in trainer.model.parameters() if w.requires_grad]
    assert rates.keys() == set(trained) and len(rates) == sum(len(g["params"]) for g in groups)
    assert all(rate == (1e-5 if weight in tower else 1e-3) for weight, rate in rates.items())
    assert {decay[w] for w in tower if w.ndim > 1} == {0.1}


def test_a_run_with_two_learning_rates_goes_on_exactly(corpus, monkeypatch):
    fields = {"train_vision": True, "vision_learning_rate": 1e-5}
    train(config_of(corpus, output=str(corpus / "whole"), **fields))
    train(stopped(corpus, monkeypatch, **fields))
    whole, other = (
        load_file(corpus / name / "model" / "model.safetensors") for name in ("whole", "out")
    )
    assert all(torch.equal(whole[name], other[name]) for name in whole)


def test_a_learning_rate_of_a_tower_that_is_not_trained_is_refused():
    with pytest.raises(
        ValueError, match="vision_learning_rate .*null where train_vision is frozen"
    ):
        StageConfig("x", vision_learning_rate=1e-5)


def test_every_adapter_below_the_start_is_part_of_the_claim(tmp_path):
    for name, base in (("lower", str(CHECKPOINT)), ("upper", "../lower")):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "adapter_config.json", {"base_model_name_or_path": base})
        (tmp_path / name / "adapter_model.safetensors").write_bytes(name.encode())
    write_records(tmp_path / "pairs.jsonl", [{"query": {"text": "a"}, "candidate": {"text": "b"}}])
    config = TrainConfig(str(tmp_path / "upper"), (str(tmp_path / "pairs.jsonl"),), str(tmp_path))
    before = check_run(config)
    (tmp_path / "lower" / "adapter_model.safetensors").write_bytes(b"another")
    after = check_run(config)
    assert {name for name in before if before[name] != after[name]} == {str(tmp_path / "lower")}


def test_many_records_are_a_table_that_goes_on_and_is_claimed_alike(corpus, monkeypatch):
    from unite_core.train import setup

    expected = json.loads((train(config_of(corpus)).parent / "history.json").read_text())
    shutil.rmtree(corpus / "out")
    monkeypatch.setattr(setup, "_IN_MEMORY", 1)
    config = stopped(corpus, monkeypatch)
    assert (corpus / "out" / "records" / "text.json").is_file()
    (corpus / "red.bmp").rename(corpus / "away.bmp")
    with pytest.raises(ValueError, match="media files, or which of them are missing, differ"):
        train(config)
    (corpus / "away.bmp").rename(corpus / "red.bmp")
    found = json.loads((train(config).parent / "history.json").read_text())
    assert [row["loss"] for row in found if "loss" in row] == pytest.approx(
        [row["loss"] for row in expected if "loss" in row], rel=1e-6
    )
