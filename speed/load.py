"""What a training costs beside other work, by how threads wait for each other.

    python speed/load.py [--busy 4] [--repeats 5] [--steps 8]

Threads of OpenMP spin while they wait. Beside other processes they then eat the time of the thread
that they wait for, and a step takes many times longer. Measured: the loss (2 048 pairs, 768
numbers) and a step of stage 1 on generated shapes; alone and beside busy processes of one thread;
waiting threads spin as long as libgomp's do by default, as `unite_core` asks for, or not at all.
Each cell is a process of its own, since OpenMP reads its settings once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from statistics import median

from _report import machine, spread, table, write_section

WAYS = {
    "default (spins 300 000 times)": {"GOMP_SPINCOUNT": "300000"},
    "spins 20 000 times": {},  # what unite_core asks for
    "does not spin": {"GOMP_SPINCOUNT": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
SPIN = "while True: pass"


def loss_seconds(repeats: int) -> list[float]:
    import torch

    from unite_core.loss import info_nce

    torch.manual_seed(0)
    sides = torch.nn.functional.normalize(torch.randn(2, 2048, 768), dim=-1)
    seconds = []
    for _ in range(repeats + 1):
        query, candidate = (side.clone().requires_grad_() for side in sides)
        start = time.perf_counter()
        info_nce(query, candidate).backward()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def step_seconds(root: str, steps: int) -> list[float]:
    from transformers import TrainerCallback

    from unite_core.tiny import TINY, TINY_STAGE_1
    from unite_core.train.config import TrainConfig
    from unite_core.train.trainer import UniteTrainer

    ticks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            ticks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as output:
        stage = replace(TINY_STAGE_1, max_steps=steps, save_steps=steps + 1)
        config = TrainConfig(str(TINY), f"{root}/stage1.jsonl", output, stage, root,
                             cache_vision=True)  # fmt: skip
        trainer = UniteTrainer.from_config(config)
        trainer.add_callback(Clock())
        trainer.train()
    # media are decoded in the first steps; the later half is training alone
    return [b - a for a, b in zip(ticks[steps // 2 :], ticks[steps // 2 + 1 :], strict=False)]


def measure(what: str, way: dict, busy: int, root: str, options) -> list[float]:
    """Seconds of each repeat in a process of its own, beside `busy` others."""
    environment = os.environ | {"GOMP_SPINCOUNT": "20000"} | way
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(busy)]
    try:
        command = [sys.executable, __file__, "--what", what, "--root", root,
                   "--repeats", str(options.repeats), "--steps", str(options.steps)]  # fmt: skip
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    finally:
        for other in others:
            other.kill()
            other.wait()
    return json.loads(done.stdout.splitlines()[-1])


def report(options) -> str:
    """The section of RESULTS.md."""
    from unite_core.corpora.shapes import ShapesConfig, build

    rows = []
    with tempfile.TemporaryDirectory() as root:
        build(root, ShapesConfig(records=400, queries=2))
        for what in ("loss", "step"):
            for name, way in WAYS.items():
                cells = [measure(what, way, busy, root, options) for busy in (0, options.busy)]
                scaled = [[1000 * second for second in cell] for cell in cells]
                ratio = median(cells[1]) / median(cells[0])
                rows.append([f"{what}, {name}", *map(spread, scaled), f"{ratio:.1f}"])
                print(rows[-1])
    head = ["ms: median [lowest, highest]", "alone", f"beside {options.busy}", "ratio"]
    return f"""## Beside other load (`speed/load.py`)

{machine()}. Loss of 2 048 pairs of 768 numbers,
forward and backward, {options.repeats} repeats; stage 1 on shapes, batches of 64, the later half of
{options.steps} steps.

{table(head, rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--busy", type=int, default=4, help="busy processes beside")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--what", choices=["loss", "step"], help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "loss":
        print(json.dumps(loss_seconds(options.repeats)))
    elif options.what == "step":
        print(json.dumps(step_seconds(options.root, options.steps)))
    else:
        write_section("load", report(options))


if __name__ == "__main__":
    main()
