"""Step time of stages 1 and 2 as `make run` trains them, now and at an earlier commit, in one run.

    python speed/stages.py [--root data/emoji] [--steps 15] [--repeats 3] [--commit 25c199c]

The earlier sources are taken out of git into a temporary folder. Both trainers start from today's
unite-tiny and get the same batches, drawn by today's sampler, and must log the same losses. The
batches come twice: first media have to be read and decoded, then (as in later epochs of a stage)
they are cached as far as either caches them. Each run is a process of its own; now and then take
turns. Aim: at most 60 % of the time.

`--cpu` counts processor seconds of one thread instead, which other programs on the machine disturb
less, and writes a section of its own: what a change costs or buys since a given commit.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path
from statistics import median

from _report import RESULTS, machine, spread, table, versions, write_section

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "25c199c"  # the last commit before the trainers were made faster


class Fixed:
    """Given batches in place of a sampler."""

    def __init__(self, batches: list[list[int]], epoch_size: int):
        self.batches, self.epoch_size, self.batch_size = batches, epoch_size, len(batches[0])

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def stage_of(number: int, steps: int):
    """The stage of `make run` without its router, which older commits lack, for so many steps."""
    from unite_core.tiny import TINY_STAGE_1, TINY_STAGE_2

    stage = (TINY_STAGE_1, TINY_STAGE_2)[number - 1]
    plain = {"router_weight": 0.0} if hasattr(stage, "router_weight") else {}
    return replace(stage, max_steps=steps, save_steps=steps, **plain)


def train_here(task: dict) -> dict[str, list[float]]:
    """Train on given batches with the unite_core that python finds; a child process does this."""
    import torch
    from transformers import TrainerCallback

    from unite_core.train.config import TrainConfig
    from unite_core.train.trainer import UniteTrainer

    class Clock(TrainerCallback):
        ticks: list[float] = []

        def on_step_end(self, *_, **__):
            self.ticks.append(time.process_time() if task["cpu"] else time.perf_counter())

    if task["cpu"]:
        torch.set_num_threads(1)
    batches = task["batches"]
    stage = stage_of(task["stage"], len(batches))
    config = {
        "model": task["model"], "data": f"{task['root']}/{stage.name}.jsonl",
        "media_root": task["root"], "output": task["output"], "stage": stage,
        "cache_vision": True, "logging_steps": 1,
    }  # fmt: skip
    known = {field.name for field in fields(TrainConfig)}  # cache_vision is newer than BEFORE
    trainer = UniteTrainer.from_config(TrainConfig(**{k: config[k] for k in config.keys() & known}))
    trainer.sampler = Fixed(batches, len(trainer.train_dataset))
    trainer.add_callback(Clock)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    seconds = [b - a for a, b in zip(Clock.ticks, Clock.ticks[1:], strict=False)]
    return {"seconds": seconds, "losses": losses}


def train_in(tree: Path, task: dict) -> dict[str, list[float]]:
    """`train_here` in a fresh process with the sources of `tree`."""
    with tempfile.TemporaryDirectory() as folder:
        result, given = Path(folder, "result.json"), Path(folder, "task.json")
        given.write_text(json.dumps(task | {"output": f"{folder}/run"}), encoding="utf-8")
        command = [sys.executable, __file__, "--task", str(given), "--result", str(result)]
        environment = os.environ | {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"training with {tree} failed:\n{done.stderr[-4000:]}")
        return json.loads(result.read_text(encoding="utf-8"))


def sources_at(commit: str, folder: Path) -> Path:
    """The package as it was, unpacked into a folder."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", commit, "unite_core"]
    packed = subprocess.run(command, capture_output=True)
    if packed.returncode:
        raise SystemExit(
            f"{commit} cannot be had from git ({packed.stderr.decode().strip()}): run this in a "
            "full clone"
        )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def batches_of(number: int, root: Path, steps: int) -> list[list[int]]:
    """The first batches of the stage, twice over."""
    from unite_core.data.pairs import PairDataset
    from unite_core.notebook.stages import stage_weights
    from unite_core.train.sampler import PairSampler

    stage = stage_of(number, steps)
    dataset = PairDataset([root / f"{stage.name}.jsonl"], root)
    sampler = PairSampler(dataset, stage.batch_size, steps, stage_weights(stage, root), stage.seed)
    return 2 * list(sampler)


def check_same(before: list[float], now: list[float]) -> None:
    """The logged losses of both; they part slowly, as rounding does under training."""
    worst = max(abs(a - b) / max(1e-2, abs(a)) for a, b in zip(before, now, strict=True))
    if abs(before[0] - now[0]) > 1e-4 * before[0] or worst > 0.1:
        raise SystemExit(f"not the same training: losses {before} and {now}")


def measure(number: int, trees: dict[str, Path], root: Path, steps: int, repeats: int, cpu: bool):
    """Rows of the table for one stage: media new, media met before, both."""
    task = {"stage": number, "root": str(root), "batches": batches_of(number, root, steps),
            "cpu": cpu, "model": str(ROOT / "unite_core" / "tiny" / "weights")}  # fmt: skip
    found: dict[str, list[dict]] = {name: [] for name in trees}
    for _ in range(repeats):
        for name, tree in trees.items():
            found[name].append(train_in(tree, task))
            print(f"stage {number}, {name}: {median(found[name][-1]['seconds']):.3f} s a step")
        check_same(*(found[name][-1]["losses"] for name in trees))
    # between the ticks of 2 n steps lie 2 n - 1; the first step, which warms up, is not counted
    parts = {"media new": slice(0, steps - 1), "media met before": slice(steps - 1, None),
             "both": slice(None)}  # fmt: skip
    rows = []
    for part, cut in parts.items():
        times = {n: [median(run["seconds"][cut]) for run in found[n]] for n in trees}
        share = [100 * b / a for a, b in zip(*times.values(), strict=True)]
        cells = [spread(values) for values in (*times.values(), share)]
        rows.append([f"stage {number}, {part}", *cells])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("data/emoji"))
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--commit", default=BEFORE)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--task", type=Path, help=argparse.SUPPRESS)  # what a child process does
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        result = train_here(json.loads(options.task.read_text(encoding="utf-8")))
        options.result.write_text(json.dumps(result), encoding="utf-8")
        return
    if not (options.root / "stage2.jsonl").is_file():
        raise SystemExit(f"{options.root} holds no corpus: run `make run` once, or name another")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        trees = {options.commit: sources_at(options.commit, Path(folder)), "now": ROOT}
        for number in (1, 2):
            rows += measure(number, trees, options.root.resolve(), options.steps, options.repeats,
                            options.cpu)  # fmt: skip
    head = ["stage", f"{options.commit}, s a step", "now, s a step", "now, % of before"]
    title, aim = "Time of both stages (`speed/stages.py`)", "Aim: at most 60 %."
    if options.cpu:
        title = f"Processor time of both stages since {options.commit} (`speed/stages.py --cpu`)"
        aim = "Processor seconds of one thread."
    text = f"""## {title}

{machine()}; {versions("transformers", "peft")}. Corpus {options.root.name}, {options.steps} batches
of 64 pairs twice over, {options.repeats} runs each in turns. Medians over steps, of these the
median [lowest, highest] over runs. Losses of both agree. {aim}

{table(head, rows)}"""
    write_section("stages_cpu" if options.cpu else "stages", text, options.output)
    print(text)


if __name__ == "__main__":
    main()
