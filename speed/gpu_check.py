"""Everything that only a GPU can show, in one command of at most eight minutes.

    python speed/gpu_check.py [--wheels DIR] [--output DIR] [--parts kernels losses ...]
    python speed/gpu_check.py --tiny          # every part at toy sizes, also on a CPU

Works from a plain checkout without network. Each part is a process of its own with a time limit of
its own (and what earlier ones left of theirs), so a crash, a hang or a lack of memory in one leaves
the rows of the others; what a part found before it failed stays, too. After each part the results
are written: `gpu_check.json`, `gpu_check.txt` (the same as tables) and `gpu_check.log` (what the
parts printed). Weights are random at the real sizes of Qwen2-VL-2B, made on the device. Packages
that are missing can come as wheels for that machine's python: pydantic, pydantic_core,
annotated_types and typing_inspection are needed, liger_kernel, inf_cl and sentence_transformers are
compared with, av decodes clips. Parts and peers whose package is missing are skipped by name.

This file needs python alone. Exit code 0: every part ran and every check held.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from gpu.tables import Part, write_results  # noqa: E402

TOTAL = 480  # seconds
PLAN = {  # seconds of each part, imports included; the first one pays for a cold disk
    "kernels": 65,
    "losses": 65,
    "encoding": 85,
    "steps": 115,
    "resuming": 75,
    "attention": 30,
}
MARGIN = TOTAL - sum(PLAN.values())
GRACE = 5  # seconds between the end that a part is told and the one where it is killed


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    limits = PLAN | dict(options.limit)
    end = time.monotonic() + TOTAL
    parts = [Part(name, planned=limits[name]) for name in options.parts]
    (output / "gpu_check.log").write_text("")
    head = {
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "commit": commit(),
        "arguments": " ".join(sys.argv[1:] if arguments is None else arguments),
    }
    with tempfile.TemporaryDirectory() as scratch:
        environment = environment_of(options.wheels, Path(scratch, "wheels"), options.device)
        spare = 0.0  # seconds that earlier parts left: the sum of the plan is never exceeded
        for part in parts:
            limit = min(limits[part.name] + spare, end - time.monotonic())
            run_part(part, limit, Path(scratch, part.name), output, environment, options)
            spare = max(0.0, limit - part.seconds)
            write_results(parts, output, head)
    print((output / "gpu_check.txt").read_text())
    return 0 if all(part.good for part in parts) else 1


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="toy sizes")
    parser.add_argument("--device", choices=("cuda", "cpu"),
                        help="default: cuda, and with --tiny whatever is there")  # fmt: skip
    parser.add_argument("--parts", nargs="+", choices=PLAN, default=list(PLAN))
    parser.add_argument("--wheels", type=Path, help="folder of wheels for missing packages")
    parser.add_argument("--output", type=Path, default=HERE.parent / "runs" / "gpu_check")
    parser.add_argument("--limit", type=seconds_of, action="append", default=[],
                        metavar="PART=SECONDS", help="another time limit")  # fmt: skip
    parser.add_argument("--break", dest="broken", help=argparse.SUPPRESS)  # PART=raise|exit|hang
    return parser.parse_args(arguments)


def seconds_of(text: str) -> tuple[str, float]:
    name, _, seconds = text.partition("=")
    if name not in PLAN:
        raise argparse.ArgumentTypeError(f"{name!r} is no part: {', '.join(PLAN)}")
    return name, float(seconds)


def commit() -> str:
    """Of this checkout, with a + for changed files."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def environment_of(wheels: Path | None, unpacked: Path, device: str | None) -> dict[str, str]:
    """The parts' environment: wheels unpacked and put on the path, before this checkout."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    path = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    if wheels is not None:
        files = sorted(wheels.glob("*.whl"))
        if not files:
            raise SystemExit(f"{wheels} holds no wheels")
        for file in files:
            zipfile.ZipFile(file).extractall(unpacked)
        path.insert(0, str(unpacked))
    return (
        os.environ
        | hidden
        | {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # products that give the same bits each time
        }
    )


def run_part(part: Part, limit: float, scratch: Path, output: Path, environment: dict,
             options: argparse.Namespace) -> None:  # fmt: skip
    """Run one part in its process and read what it found; never raises for its sake."""
    if limit < GRACE:
        part.status = "skipped: no time was left"
        return
    scratch.mkdir()
    found = scratch / "rows.jsonl"
    task = {"part": part.name, "tiny": options.tiny, "device": options.device,
            "seconds": limit - GRACE, "rows": str(found), "scratch": str(scratch)}  # fmt: skip
    if options.broken and options.broken.partition("=")[0] == part.name:
        task["break"] = options.broken.partition("=")[2] or "raise"
    command = [sys.executable, "-m", "gpu.part", json.dumps(task)]
    begin = time.monotonic()
    with (output / "gpu_check.log").open("a") as log:
        log.write(f"\n--- {part.name}\n")
        log.flush()
        process = subprocess.Popen(command, env=environment, cwd=HERE.parent, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        try:
            process.wait(limit)
            part.status = status_of(process.returncode)
        except subprocess.TimeoutExpired:
            part.status = f"killed at its limit of {limit:.0f} s"
        finally:  # the part's own processes, too, also when this one is interrupted
            kill_group(process)
    part.seconds = time.monotonic() - begin
    part.read(found)


def kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def status_of(code: int) -> str:
    """In words; a part that fails by itself says why in its rows."""
    if code == 0:
        return "ran"
    if code < 0:
        return f"died of {signal.Signals(-code).name}"
    return f"failed with exit code {code}"


if __name__ == "__main__":
    raise SystemExit(main())
