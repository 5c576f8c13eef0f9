"""Runs killed by SIGKILL and started again end with the bits of one that nobody touched."""

import json
import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unite_core.data.records import write_records
from unite_core.train import checkpoints
from unite_core.train import trainer as trainer_module
from unite_core.train.checkpoints import check_manifest, write_manifest
from unite_core.train.config import TrainConfig
from unite_core.train.run import train
from unite_core.train.trainer import UniteTrainer

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
COLOURS = ("red", "green", "blue", "black", "yellow", "purple", "orange", "gray")
STEPS, SAVE_STEPS = 6, 2
TIMING = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
BEFORE, AFTER, WRITING, UNNAMED = "before a step", "after its gradients", "weights", "whole"


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_writing(weights, path):
    """Leave the first half of a file of weights."""
    from safetensors.torch import save

    data = save(weights)
    Path(path).write_bytes(data[: len(data) // 2])
    die()


def arrange_death(moment: str, step: int) -> None:
    """Patch the trainer of this process so that it kills itself there, and nowhere else."""
    step_of, write_of = UniteTrainer.training_step, UniteTrainer._save_checkpoint

    def training_step(self, *args, **kwargs):
        now = self.state.global_step + 1 == step
        if now and moment == BEFORE:
            die()
        loss = step_of(self, *args, **kwargs)
        if now and moment == AFTER:
            die()
        return loss

    def save_checkpoint(self, *args, **kwargs):
        if self.state.global_step == step and moment == WRITING:
            checkpoints.save_file = die_writing
        if self.state.global_step == step and moment == UNNAMED:
            trainer_module.write_manifest = die
        return write_of(self, *args, **kwargs)

    UniteTrainer.training_step, UniteTrainer._save_checkpoint = training_step, save_checkpoint


def kill_points(stage: str) -> list[tuple[str, int]]:
    """Deaths of one run in the order of its steps: two anywhere, one while a checkpoint is made."""
    draw = random.Random(stage)
    points = [(draw.choice((BEFORE, AFTER)), step) for step in draw.sample(range(1, STEPS + 1), 2)]
    moment = WRITING if stage == "stage1" else UNNAMED
    points.append((moment, draw.choice(range(SAVE_STEPS, STEPS + 1, SAVE_STEPS))))
    return sorted(points, key=lambda point: (point[1], point[0] in (WRITING, UNNAMED)))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Plain pictures with captions, both ways; the second file has hard negatives."""
    root = tmp_path_factory.mktemp("corpus")
    pairs, hard = [], []
    for colour, other in zip(COLOURS, COLOURS[1:] + COLOURS[:1], strict=True):
        name, caption = f"{colour}.png", {"text": f"a {colour} sheet"}
        Image.new("RGB", (56, 56), colour).save(root / name)
        pairs += [
            {"query": caption, "candidate": {"image": name}},
            {"query": {"image": name}, "candidate": caption},
        ]
        negative = {"image": f"{other}.png"}
        hard.append({"query": caption, "candidate": {"image": name}, "negative": negative})
    write_records(root / "stage1.jsonl", pairs)
    write_records(root / "stage2.jsonl", pairs + hard)
    return root


def config_of(corpus, folder, stage) -> TrainConfig:
    """Stage 2 starts from what stage 1 left in the same folder."""
    model = folder / "stage1" / "model" if stage == "stage2" else CHECKPOINT
    fields = {
        "name": stage, "batch_size": 6, "max_steps": STEPS, "save_steps": SAVE_STEPS,
        "learning_rate": 5e-3, "lora_dropout": 0.2,
    }  # fmt: skip
    if stage == "stage2":
        fields |= {"router_weight": 0.3, "modality_weight": 0.2}
    return TrainConfig(
        str(model), str(corpus / f"{stage}.jsonl"), str(folder / stage), fields,
        media_root=str(corpus), logging_steps=2, forward_items=8,
    )  # fmt: skip


def run(config, death) -> None:
    torch.set_num_threads(1)
    if death:
        arrange_death(*death)
    train(config)


def start(config, *death) -> int:
    """Train in a process of its own, new but for what it has imported; returns how it ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unite_core.train.run"])
    process = context.Process(target=run, args=(config, death))
    process.start()
    process.join()
    return process.exitcode


def history_of(output: Path) -> list[dict]:
    rows = json.loads((output / "history.json").read_text())
    return [{name: row[name] for name in row if name not in TIMING} for row in rows]


def assert_same(first, second, where: str) -> None:
    """Equal to the bit: tensors, numbers, and whatever holds them."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for name in first:
            assert_same(first[name], second[name], f"{where}/{name}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for place, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}/{place}")
    else:
        assert first == second, where


def assert_same_run(first: Path, second: Path) -> None:
    last = f"checkpoint-{STEPS}"
    names = ["adapter/adapter_model", "model/model", f"{last}/trained"]
    names += ["model/router"] if first.name == "stage2" else []
    for file in (f"{name}.safetensors" for name in names):
        assert_same(load_file(first / file), load_file(second / file), file)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        loaded = [torch.load(run / last / name, weights_only=False) for run in (first, second)]
        if name == "rng_state.pth":  # numpy's state is a tuple with an array
            loaded = [{key: state[key] for key in ("python", "cpu")} for state in loaded]
        assert_same(*loaded, name)
    assert history_of(first) == history_of(second)


@pytest.mark.slow
def test_runs_killed_at_random_points_end_like_untouched_ones(corpus, tmp_path):
    for stage in ("stage1", "stage2"):
        whole = config_of(corpus, tmp_path / "whole", stage)
        assert start(whole) == 0
        killed = config_of(corpus, tmp_path / "killed", stage)
        output = Path(killed.output)
        for moment, step in kill_points(stage):
            assert start(killed, moment, step) == -signal.SIGKILL
            assert not (output / "model").exists()
            assert (output / "checkpoint.partial").exists() or moment in (BEFORE, AFTER)
            for checkpoint in output.glob("checkpoint-*"):
                check_manifest(checkpoint)
        assert start(killed) == 0
        assert not (output / "checkpoint.partial").exists()
        assert_same_run(Path(whole.output), output)


def test_dropout_is_at_work_in_these_runs(corpus, tmp_path):
    trainer = UniteTrainer.from_config(config_of(corpus, tmp_path, "stage1"))
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    gradients = []
    for _ in range(2):
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, batch).backward()
        some = next(p for n, p in trainer.model.named_parameters() if "lora_B" in n)
        gradients.append(some.grad.clone())
    assert not torch.equal(*gradients)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), r"has \d+ bytes instead of \d+"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1] + b"\xee"), "other contents"),
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.with_name("manifest.json").unlink(), "no manifest.json"),
    ],
)
def test_a_harmed_folder_is_refused_by_name(tmp_path, harm, message):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.pt").write_bytes(bytes(100))
    (tmp_path / "optimizer.pt").write_bytes(bytes(range(200)))
    write_manifest(tmp_path)
    check_manifest(tmp_path)
    harm(tmp_path / "optimizer.pt")
    with pytest.raises(ValueError, match=message + ".*; remove that folder"):
        check_manifest(tmp_path)


def test_a_file_that_was_added_to_a_folder_does_no_harm(tmp_path):
    (tmp_path / "optimizer.pt").write_bytes(bytes(9))
    write_manifest(tmp_path)
    (tmp_path / "notes").mkdir()
    for name in (".DS_Store", "notes/x.txt"):
        (tmp_path / name).write_text("not of the run")
    check_manifest(tmp_path)


def test_a_run_does_not_go_on_from_a_cut_checkpoint(corpus, tmp_path):
    config = config_of(corpus, tmp_path, "stage1")
    trainer = UniteTrainer.from_config(config)
    trainer.args.max_steps = SAVE_STEPS
    trainer.train()
    optimizer = Path(config.output, f"checkpoint-{SAVE_STEPS}", "optimizer.pt")
    optimizer.write_bytes(optimizer.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"optimizer.pt has 1000 bytes instead of \d+; remove"):
        train(config)
