"""Where a row comes from: commit, processor, threads, versions."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch

from ..versions import note_versions

__all__ = ["provenance"]


def provenance() -> dict[str, str | int]:
    """What a number may depend on besides its configuration.

    `commit` is that of the checkout that this package lies in, with "+" where its files were
    changed since; "" for an installed package.
    """
    return {
        "commit": _commit(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        **{f"version_{name}": value for name, value in note_versions().items()},
    }


def _commit() -> str:
    package = Path(__file__).parents[1]
    if not (package.parent / ".git").exists():
        return ""
    commit = _git("rev-parse", "--short=12", "HEAD", cwd=package)
    return commit + "+" * bool(_git("status", "--porcelain", "--", ".", cwd=package))


def _git(*words: str, cwd: Path) -> str:
    done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    """The GPU's name, or the CPU's; Linux tells it in /proc."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
