"""Training of a stage on the tiny reference checkpoint and generated pictures."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.functional import normalize
from transformers import Trainer

from unite_core.data.bad_media import BadMediaError
from unite_core.data.records import write_records
from unite_core.files import write_json
from unite_core.loss.contrastive import info_nce, mamcl
from unite_core.model.embedder import UniteEmbedder
from unite_core.settings import read_config, write_config
from unite_core.train import trainer as trainer_module
from unite_core.train.config import STAGE_1, STAGE_2, StageConfig, TrainConfig
from unite_core.train.losses import stage_loss
from unite_core.train.run import train
from unite_core.train.trainer import UniteTrainer

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
COLOURS = ("red", "green", "blue", "black", "yellow", "purple")
SHAPES = ("circle", "square")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Twelve pictures with captions, both directions, and instructions that end in pictures."""
    root = tmp_path_factory.mktemp("corpus")
    pairs, instructions = [], []
    for colour in COLOURS:
        for shape in SHAPES:
            name, caption = f"{colour}_{shape}.png", {"text": f"a {colour} {shape}"}
            picture = Image.new("RGB", (56, 56), "white")
            draw = ImageDraw.Draw(picture)
            (draw.ellipse if shape == "circle" else draw.rectangle)((8, 8, 48, 48), fill=colour)
            picture.save(root / name)
            pairs += [
                {"query": caption, "candidate": {"image": name}, "task": "T-I"},
                {"query": {"image": name}, "candidate": caption, "task": "I-T"},
            ]
            other = f"{colour}_{SHAPES[shape == 'circle']}.png"
            ask = {"text": f"<|IMAGE|>\nthe same as a {shape}", "image": other}
            instructions.append({"query": ask, "candidate": {"image": name}})
            clip = {"video": [[name, other, name, other]]}
            instructions.append({"query": caption, "candidate": clip, "negative": {"image": other}})
    write_records(root / "stage1.jsonl", pairs)
    write_records(root / "stage2.jsonl", instructions)
    return root


def config_of(corpus, output, stage="stage1", model=CHECKPOINT, **more) -> TrainConfig:
    settings = {"name": stage, "batch_size": 8, "max_steps": 6, "save_steps": 2,
                "learning_rate": 5e-3}  # fmt: skip
    settings |= {key: more.pop(key) for key in list(more) if key in StageConfig.__annotations__}
    more = {"media_root": str(corpus), "logging_steps": 4, "forward_items": 8} | more
    return TrainConfig(str(model), str(corpus / f"{stage}.jsonl"), str(output), settings, **more)


@pytest.fixture(scope="module")
def stage_1(corpus, tmp_path_factory) -> Path:
    """The output folder of a finished stage 1 of 30 steps."""
    output = tmp_path_factory.mktemp("stage1")
    assert train(config_of(corpus, output, max_steps=30, save_steps=10)) == output / "model"
    return output


def weights_of(output) -> dict[str, torch.Tensor]:
    return load_file(Path(output, "model", "model.safetensors"))


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def history_of(output) -> list[dict]:
    rows = json.loads(Path(output, "history.json").read_text())
    return [row for row in rows if "loss" in row]


def test_thirty_steps_lower_the_loss(stage_1):
    rows = history_of(stage_1)
    assert rows[-1]["step"] == 30
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["accuracy/image"] > 0.8 > rows[0]["accuracy/image"]


def test_what_is_logged_is_in_the_event_file(stage_1):
    events = EventAccumulator(str(stage_1 / "tensorboard"))
    events.Reload()
    names = {"loss", "learning_rate", "accuracy/text", "accuracy/image", "surviving_share"}
    assert {f"train/{name}" for name in names} <= set(events.Tags()["scalars"])
    for name in names:
        logged = [(event.step, event.value) for event in events.Scalars(f"train/{name}")]
        expected = [(row["step"], row[name]) for row in history_of(stage_1)]
        np.testing.assert_allclose(logged, expected, rtol=1e-6)


def test_the_learning_rate_warms_up_and_decays(stage_1):
    rates = [row["learning_rate"] for row in history_of(stage_1)]
    assert rates[0] == 0 < rates[-1] < rates[1] <= 5e-3


def test_an_epoch_is_counted_in_pairs(stage_1):
    assert history_of(stage_1)[-1]["epoch"] == 30 * 8 / 24


def test_the_share_of_surviving_pairs_is_that_of_the_batches(stage_1):
    assert all(0.5 <= row["surviving_share"] < 0.7 for row in history_of(stage_1))


def test_only_the_language_model_projections_change(stage_1):
    before = UniteEmbedder.load(CHECKPOINT).backbone.state_dict()
    after = UniteEmbedder.load(stage_1 / "model").backbone.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    projection = re.compile(
        r"language_model\.layers\.\d\.(self_attn\.[qkvo]|mlp\.\w+)_proj\.weight"
    )
    assert changed == {name for name in before if projection.fullmatch(name)}
    assert len(changed) == 3 * 7


def test_gradients_reach_the_lora_only(corpus, tmp_path):
    trainer = UniteTrainer.from_config(config_of(corpus, tmp_path))
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.compute_loss(trainer.model, batch).backward()
    touched = {name for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert touched and all("lora_" in name for name in touched)


def test_the_adapter_on_the_base_is_the_merged_model(stage_1):
    items = [{"text": "a red circle"}, {"image": str(CHECKPOINT / "inputs" / "image0.png")}]
    embedder = UniteEmbedder.load(CHECKPOINT)
    base = embedder.embed(items, media_root="/", progress=False)
    embedder.load_lora(stage_1 / "adapter")
    adapted = embedder.embed(items, media_root="/", progress=False)
    merged = UniteEmbedder.load(stage_1 / "model").embed(items, media_root="/", progress=False)
    np.testing.assert_allclose(adapted, merged, atol=1e-5)
    assert np.abs(base - merged).max() > 1e-2


def test_stage_2_starts_from_the_merged_weights_of_stage_1(corpus, stage_1, tmp_path):
    config = config_of(corpus, tmp_path, "stage2", stage_1 / "model", max_steps=4)
    start = UniteTrainer.from_config(config).model.embedder.base.state_dict()
    merged = UniteEmbedder.load(stage_1 / "model").backbone.state_dict()
    frozen = {k.replace(".base_layer", ""): v for k, v in start.items() if "lora_" not in k}
    assert equal(frozen, merged)
    train(config)
    rows = history_of(tmp_path)
    assert not equal(weights_of(tmp_path), weights_of(stage_1))
    assert {"accuracy/image", "accuracy/video"} <= rows[-1].keys()


def test_the_same_seed_gives_the_same_bits_another_seed_does_not(corpus, tmp_path):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        train(config_of(corpus, tmp_path / name, seed=seed, max_steps=3))
    first, again, other = (weights_of(tmp_path / name) for name in ("first", "again", "other"))
    assert equal(first, again)
    assert not equal(first, other)


class Killed(Exception):
    pass


def kill(monkeypatch, method: str, when) -> None:
    """Let a method of the trainer raise once `when(trainer)` is true."""
    original = getattr(UniteTrainer, method)

    def dying(self, *args, **kwargs):
        if when(self):
            raise Killed
        return original(self, *args, **kwargs)

    monkeypatch.setattr(UniteTrainer, method, dying)


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    train(config_of(corpus, output))
    return output


@pytest.mark.parametrize(
    ("method", "step", "left"),
    [
        ("training_step", 1, None),  # before the first checkpoint
        ("training_step", 5, "checkpoint-4"),  # between checkpoints, in the second epoch
        ("_save_rng_state", 4, "checkpoint-2"),  # in the middle of writing one
        ("_finalize_training", 6, "checkpoint-6"),  # after the last step
    ],
)
def test_a_resumed_run_ends_like_an_uninterrupted_one(
    corpus, tmp_path, monkeypatch, uninterrupted, method, step, left
):
    with monkeypatch.context() as patch:
        kill(patch, method, lambda trainer: trainer.state.global_step == step)
        with pytest.raises(Killed):
            train(config_of(corpus, tmp_path))
    whole = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert (whole[-1] if whole else None) == left
    assert not (tmp_path / "model").exists()
    train(config_of(corpus, tmp_path))
    assert equal(weights_of(tmp_path), weights_of(uninterrupted))
    assert history_of(tmp_path) == history_of(uninterrupted)
    steps = [f"checkpoint-{n}" for n in (4, 6)]
    assert sorted(path.name for path in tmp_path.glob("checkpoint*")) == steps


def test_a_run_killed_while_saving_the_model_saves_it_again(
    corpus, tmp_path, monkeypatch, uninterrupted
):
    def half(self, folder):
        Path(folder).mkdir(parents=True)
        Path(folder, "model.safetensors").write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(UniteEmbedder, "save", half)
        with pytest.raises(Killed):
            train(config_of(corpus, tmp_path))
    assert not (tmp_path / "model").exists()
    train(config_of(corpus, tmp_path))
    assert equal(weights_of(tmp_path), weights_of(uninterrupted))


def test_workers_and_cache_change_no_bit(corpus, tmp_path, uninterrupted):
    train(config_of(corpus, tmp_path, workers=1, cache_mib=0))
    assert equal(weights_of(tmp_path), weights_of(uninterrupted))


def test_a_finished_run_is_not_repeated(corpus, monkeypatch, uninterrupted):
    monkeypatch.setattr(UniteTrainer, "from_config", None)  # calling it would fail
    config = config_of(corpus, uninterrupted, workers=2, save_total_limit=5)
    assert train(config) == uninterrupted / "model"
    assert read_config(TrainConfig, uninterrupted / "train.json") == config_of(
        corpus, uninterrupted
    )


def test_another_configuration_in_the_same_folder_is_refused(corpus, uninterrupted):
    config = config_of(corpus, uninterrupted, learning_rate=1e-3, max_bad_share=0.5)
    message = r"max_bad_share was 0.01, now 0.5; stage.learning_rate was 0.005, now 0.001. Choose"
    with pytest.raises(ValueError, match=message):
        train(config)


def test_other_records_of_the_same_name_are_refused(corpus, tmp_path):
    records = tmp_path / "stage1.jsonl"
    records.write_text((corpus / "stage1.jsonl").read_text())
    config = config_of(corpus, tmp_path / "out")
    config = TrainConfig(**{**vars(config), "data": str(records)})
    train(config)
    records.write_text("".join((corpus / "stage1.jsonl").read_text().splitlines(True)[:-1]))
    with pytest.raises(ValueError, match=r"stage1.jsonl was '\w+', now '\w+'"):
        train(config)


def with_bad_pictures(corpus, folder, count) -> TrainConfig:
    """A run whose corpus has `count` records of 24 + count with a cut picture."""
    whole = (corpus / "red_circle.png").read_bytes()
    for i in range(count):
        (corpus / f"cut{i}.png").write_bytes(whole[: len(whole) // 2])
    lines = (corpus / "stage1.jsonl").read_text().splitlines()
    lines += [
        json.dumps({"query": {"text": f"cut {i}"}, "candidate": {"image": f"cut{i}.png"}})
        for i in range(count)
    ]
    (folder / "bad.jsonl").write_text("\n".join(lines))
    config = config_of(corpus, folder / "out", max_steps=4, max_bad_share=0.1)
    return TrainConfig(**{**vars(config), "data": str(folder / "bad.jsonl")})


def test_a_few_bad_media_are_skipped_and_listed(corpus, tmp_path):
    train(with_bad_pictures(corpus, tmp_path, 2))
    rows = json.loads((tmp_path / "out" / "skipped.json").read_text())
    assert sorted(row["where"][-2:] for row in rows) == ["25", "26"]
    assert {row["cause"] for row in rows} == {"cannot be decoded"}


def test_too_many_bad_media_stop_the_run(corpus, tmp_path):
    with pytest.raises(BadMediaError, match=r"of 32 records .* 10.00%(?s:.*)x cannot be decoded"):
        train(with_bad_pictures(corpus, tmp_path, 8))


def test_the_loss_of_a_batch_is_that_of_its_stage():
    vectors = normalize(torch.randn(11, 8), dim=1)
    q, c, n = vectors.split([4, 4, 3])
    ids, modality = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 1, 2, 2])
    labels = {"target_modality": modality, "candidate_ids": ids}
    hard = {"negative_ids": torch.tensor([5, 2, 6]), "negative_modality": torch.tensor([1, 1, 2])}
    first = info_nce(q, c, 0.03, n, True, ids, hard["negative_ids"])
    second = mamcl(q, c, modality, 0.03, n, hard["negative_modality"], False, ids,
                   hard["negative_ids"])  # fmt: skip
    torch.testing.assert_close(stage_loss(STAGE_1, vectors, labels | hard), first)
    torch.testing.assert_close(stage_loss(STAGE_2, vectors, labels | hard), second)
    plain = mamcl(q, c, modality, candidate_ids=ids)
    torch.testing.assert_close(stage_loss(STAGE_2, vectors[:8], labels), plain)


def test_the_vision_tower_is_trained_only_when_asked(corpus, tmp_path):
    train(config_of(corpus, tmp_path, train_vision=True, max_steps=2))
    before = UniteEmbedder.load(CHECKPOINT).backbone.state_dict()
    after = UniteEmbedder.load(tmp_path / "model").backbone.state_dict()
    visual = [name for name in before if name.startswith("visual.") and before[name].ndim > 1]
    assert visual and not any(torch.equal(before[name], after[name]) for name in visual)
    assert not (tmp_path / "adapter").exists()


def test_a_loss_that_is_not_finite_stops_the_run(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(
        trainer_module, "stage_loss", lambda stage, vectors, *_: vectors.sum() * torch.nan
    )
    with pytest.raises(FloatingPointError, match="loss is nan at step 1"):
        train(config_of(corpus, tmp_path))


def test_a_checkpoint_of_another_stage_is_refused(corpus, tmp_path, uninterrupted):
    trainer = UniteTrainer.from_config(config_of(corpus, tmp_path, train_vision=True))
    with pytest.raises(ValueError, match="not those that this stage trains"):
        trainer.train(resume_from_checkpoint=str(uninterrupted / "checkpoint-6"))


def test_too_few_pairs_for_a_batch_are_refused(corpus, tmp_path):
    config = config_of(corpus, tmp_path, batch_size=64, max_steps=-1)
    with pytest.raises(ValueError, match="24 pairs make no batch of 64"):
        train(config)


def test_epochs_decide_the_steps_where_max_steps_does_not(corpus, tmp_path):
    config = config_of(corpus, tmp_path, max_steps=-1, epochs=2.5, weights={"T-I": 2.0})
    assert UniteTrainer.from_config(config).args.max_steps == int(2.5 * 36 / 8)


def test_a_run_of_several_processes_is_not_gone_on_with_by_one(uninterrupted, corpus):
    inputs = json.loads((uninterrupted / "inputs.json").read_text())
    assert inputs["processes"] == 1
    try:
        write_json(uninterrupted / "inputs.json", inputs | {"processes": 2})
        with pytest.raises(ValueError, match="processes was 2, now 1"):
            train(config_of(corpus, uninterrupted))
    finally:
        write_json(uninterrupted / "inputs.json", inputs)


def test_sharded_training_is_refused(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(
        UniteTrainer,
        "create_accelerator_and_postprocess",
        lambda self: (Trainer.create_accelerator_and_postprocess(self),
                      setattr(self, "is_deepspeed_enabled", True)),
    )  # fmt: skip
    with pytest.raises(ValueError, match="FSDP and DeepSpeed are not supported"):
        UniteTrainer.from_config(config_of(corpus, tmp_path))


def test_the_command_trains_what_a_file_describes(corpus, tmp_path, unite, capsys, uninterrupted):
    write_config(config_of(corpus, uninterrupted), tmp_path / "run.json")
    assert unite("train", tmp_path / "run.json") == 0
    assert capsys.readouterr().out.strip() == str(uninterrupted / "model")


def test_a_configuration_survives_its_file(tmp_path):
    stage = {"name": "stage2", "max_steps": 7}
    config = TrainConfig("m", ["a.jsonl", "b.jsonl"], "out", stage, weights={"x": 2.0})
    write_config(config, tmp_path / "train.json")
    assert read_config(TrainConfig, tmp_path / "train.json") == config
    assert config.stage.loss == "mamcl" and config.stage.max_steps == 7
    assert TrainConfig("m", "a.jsonl", "out", "stage2").stage == STAGE_2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage": {"name": "x", "alpha": 3}}, "stage.alpha is no field"),
        ({"stage": "stage3"}, "stage is 'stage3': must be one of stage1, stage2"),
        ({"stage": {"max_steps": 3}}, "stage.name is missing"),
        ({"data": ()}, "data is .*one or more"),
        ({"weights": {"a": -1.0}}, "weights.a is -1.0: must be .* at least 0"),
        ({"logging_steps": 0, "workers": -1}, "logging_steps is 0.*workers is -1"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**({"model": "m", "data": "a.jsonl", "output": "o"} | fields))
