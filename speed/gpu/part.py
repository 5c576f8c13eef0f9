"""Run one part: `python -m gpu.part TASK`, as `gpu_check.py` does.

A part is a module with a function `run(report, setup)`. Whatever ends it, its rows are on disk.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["Report", "Setup"]


OURS = {"gpu", "unite_core", "_report", "encode", "loss"}  # modules that must not be missing


@dataclass(frozen=True)
class Setup:
    """What a part is told."""

    tiny: bool
    device: torch.device
    end: float  # by time.monotonic
    scratch: Path

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's weights."""
        return torch.bfloat16

    def left(self) -> float:
        """Seconds left."""
        return self.end - time.monotonic()


class Report:
    """Writes rows as they come, one JSON line each.

    Args: broken is how to fail after the first row (raise, exit, hang), or "".
    """

    def __init__(self, file: str | Path, broken: str = ""):
        self.file = Path(file)
        self.broken = broken

    def row(self, name: str, **values: Any) -> None:
        """Note a row. Numbers are python's; `ok` is whether a check held."""
        self._write({"name": name, **values})
        print(name, values, flush=True)
        if self.broken:
            _fail(self.broken)

    def check(self, name: str, apart: float, allowed: float, **values: Any) -> None:
        """Note how far two results are apart; above `allowed`, or NaN, the check failed."""
        apart, allowed = float(apart), float(allowed)
        self.row(name, **values, apart=apart, allowed=allowed, ok=apart <= allowed)

    def note(self, name: str, text: str) -> None:
        """Note in words what a row would have been."""
        self.row(name, note=text)

    def facts(self, **values: str) -> None:
        self._write({"facts": values})

    def status(self, text: str) -> None:
        """Say how the part ended, if not well."""
        self._write({"status": text})

    def _write(self, entry: dict) -> None:
        with self.file.open("a") as lines:
            lines.write(json.dumps(entry, default=float) + "\n")


def _fail(how: str) -> None:
    if how == "hang":
        time.sleep(3600)
    if how == "exit":
        os._exit(9)
    raise RuntimeError("broken on request")


def main() -> int:
    task = json.loads(sys.argv[1])
    report = Report(task["rows"], task.get("break", ""))
    name = task["device"] or ("cuda" if torch.cuda.is_available() or not task["tiny"] else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        report.status("failed: torch sees no CUDA device; on a CPU use --tiny")
        return 1
    setup = Setup(task["tiny"], torch.device(name), time.monotonic() + task["seconds"],
                  Path(task["scratch"]))  # fmt: skip
    try:
        from .devices import describe

        report.facts(**describe(setup))
        importlib.import_module(f".{task['part']}", __package__).run(report, setup)
    except ModuleNotFoundError as error:
        traceback.print_exc()
        missing = (error.name or "").split(".")[0]
        kind = "failed: no module" if missing in OURS else "skipped: needs"
        report.status(f"{kind} {missing}; a wheel of it can come by --wheels")
        return 1
    except torch.OutOfMemoryError as error:
        traceback.print_exc()
        report.status(f"failed: out of memory ({str(error).splitlines()[0][:200]})")
        return 1
    except Exception as error:
        traceback.print_exc()
        words = " ".join(str(error).split())[:300]
        report.status(f"failed: {type(error).__name__}: {words}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
