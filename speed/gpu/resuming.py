"""Part 5: sixty steps, killed and resumed, end with the weights of a run that nobody touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from unite_core.settings import read_config, write_config
from unite_core.train.config import STAGE_2, TrainConfig

from .model import random_embedder, write_records_of
from .part import Report, Setup

__all__ = ["run"]


LAYERS = 2  # of 28 and 32: each at its real width, since this is no matter of depth


def run(report: Report, setup: Setup) -> None:
    """On a GPU a second untouched run shows what repeats to the bit at all; one is killed."""
    steps = 6 if setup.tiny else 60
    model = setup.scratch / "model"
    random_embedder(setup, None if setup.tiny else LAYERS).save(model)
    data = write_records_of(setup.scratch, "stage2", 16 if setup.tiny else 64)
    configs = {name: config_of(setup, model, data, name, steps)
               for name in ("first", *(["second"] if setup.cuda else []), "killed")}  # fmt: skip
    death = steps * 5 // 8
    starts = {name: start(setup, config, death if name == "killed" else 0)
              for name, config in configs.items()}  # fmt: skip
    codes = {name: process.wait(max(1, setup.left())) for name, process in starts.items()}
    last = max((int(folder.name.split("-")[1]) for folder in
                Path(configs["killed"].output).glob("checkpoint-*")), default=0)  # fmt: skip
    report.row("killed", at_step=death, of=steps, last_checkpoint=last,
               ok=codes["killed"] == -signal.SIGKILL and 0 < last < death)  # fmt: skip
    codes["resumed"] = start(setup, configs["killed"], 0).wait(max(1, setup.left()))
    report.row("exit codes", **codes, ok=codes["first"] == codes["resumed"] == 0)
    compare(report, configs)


def compare(report: Report, configs: dict[str, TrainConfig]) -> None:
    """Weights and losses of the resumed run against the first; the second says what is noise."""
    weights = {name: load_file(Path(config.output, "adapter", "adapter_model.safetensors"))
               for name, config in configs.items()}  # fmt: skip
    losses = {name: losses_of(Path(config.output)) for name, config in configs.items()}
    again = "second" if "second" in configs else "first"
    noise = apart(weights["first"], weights[again])
    moved = max(float(weight.abs().max()) for name, weight in weights["first"].items()
                if "lora_B" in name)  # fmt: skip
    report.row("untouched runs, weights", apart=noise, largest_update=moved,
               same_losses=losses["first"] == losses[again],
               repeats_to_the_bit=noise == 0, ok=moved > 0)  # fmt: skip
    report.check("resumed against untouched, weights", apart(weights["first"], weights["killed"]),
                 4 * noise, largest_update=moved)  # fmt: skip
    pairs = zip(losses["first"], losses["killed"], strict=True)
    report.row("losses", first=losses["first"][0], last=losses["first"][-1],
               apart=max(abs(one - other) for one, other in pairs))  # fmt: skip


def apart(one: dict, other: dict) -> float:
    """Largest difference of two sets of weights; NaN where their names differ."""
    if one.keys() != other.keys():
        return float("nan")
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def losses_of(output: Path) -> list[float]:
    history = json.loads((output / "history.json").read_text())
    return [row["loss"] for row in history if "loss" in row]


def config_of(setup: Setup, model: Path, data: Path, name: str, steps: int) -> TrainConfig:
    stage = replace(STAGE_2, max_steps=steps, save_steps=max(1, steps // 4), lora_dropout=0.1,
                    learning_rate=1e-3, batch_size=8)  # fmt: skip
    return TrainConfig(
        str(model), str(data), str(setup.scratch / name), asdict(stage),
        media_root=str(data.parent), bf16=True, gradient_checkpointing=True, logging_steps=1,
        forward_items=8,
    )  # fmt: skip


def start(setup: Setup, config: TrainConfig, death: int) -> subprocess.Popen:
    """Train in a process of its own, on the same device; `death`: the step that it dies in."""
    path = setup.scratch / f"{Path(config.output).name}-{death}.json"
    write_config(config, path)
    return subprocess.Popen([sys.executable, "-m", __spec__.name, str(path), str(death)])


def train_until(path: str, death: str) -> None:
    """What the processes do: repeat to the bit as far as torch can, and die in a step."""
    from unite_core.train.run import train
    from unite_core.train.trainer import UniteTrainer

    torch.use_deterministic_algorithms(True, warn_only=True)
    step_of = UniteTrainer.training_step

    def training_step(self, *arguments, **options):
        loss = step_of(self, *arguments, **options)
        if self.state.global_step + 1 == int(death):
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    UniteTrainer.training_step = training_step
    train(read_config(TrainConfig, path))


if __name__ == "__main__":
    train_until(*sys.argv[1:])
