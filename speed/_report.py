"""What all speed measurements share: the machine, medians, sections of RESULTS.md, peak memory."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import torch

RESULTS = Path(__file__).with_name("RESULTS.md")


def machine() -> str:
    """Processor, threads and software, for the head of a section."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = re.findall(r"model name\s*: (.*)", info.read_text())
        cpu = f"{names[0]} ({len(names)} cores)" if names else cpu
    return (
        f"{cpu}, {torch.get_num_threads()} threads of torch {torch.__version__}, "
        f"python {platform.python_version()}, {platform.system()} {platform.release()}"
    )


def versions(*packages: str) -> str:
    """`name version` of each package, or that it is missing."""
    words = []
    for name in packages:
        try:
            words.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            words.append(f"{name} missing")
    return ", ".join(words)


def spread(values: list[float]) -> str:
    """Median [lowest, highest], three digits each."""
    low, middle, high = (f"{v:.3g}" for v in (min(values), median(values), max(values)))
    return f"{middle} [{low}, {high}]"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    line = "|" + "---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(cells) + " |" for cells in [head]]
                     + [line] + ["| " + " | ".join(cells) + " |" for cells in rows])  # fmt: skip


def write_section(name: str, text: str, file: Path = RESULTS) -> None:
    """Put a section between its markers, in place of the one that is there; atomic."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    whole = file.read_text(encoding="utf-8") if file.exists() else "# Benchmarks\n"
    section = f"{begin}\n{text.strip()}\n{end}"
    if begin in whole:
        before, rest = whole.split(begin, 1)
        whole = before + section + rest.split(end, 1)[1]
    else:
        whole = f"{whole.rstrip()}\n\n{section}\n"
    partial = file.with_name(file.name + ".partial")
    partial.write_text(whole, encoding="utf-8")
    partial.replace(file)


def resident() -> tuple[int, int]:
    """Bytes of this process in memory, now and at most since `reset_peak` (Linux)."""
    status = Path("/proc/self/status").read_text()
    now, peak = (int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) for key in ("VmRSS", "VmHWM"))
    return now * 1024, peak * 1024


def reset_peak() -> None:
    """Start the peak of `resident` anew."""
    Path("/proc/self/clear_refs").write_text("5")
