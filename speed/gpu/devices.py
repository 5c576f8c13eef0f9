"""Clock, memory, matrix-product peak and what the device does meanwhile."""

from __future__ import annotations

import gc
import re
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import torch
from _report import machine, reset_peak, resident

from .part import Setup

__all__ = ["Kernels", "copy_rate", "describe", "kernels_of", "matmul_peak", "measured", "release",
           "synchronize", "times_of"]  # fmt: skip


PACKAGES = ("torch", "triton", "transformers", "peft", "accelerate", "sentence-transformers",
            "liger-kernel", "inf-cl", "av", "pydantic")  # fmt: skip


def describe(setup: Setup) -> dict[str, str]:
    """Card, processor and versions in words."""
    found = {"processor": machine(), "sizes": "tiny" if setup.tiny else "Qwen2-VL-2B, random"}
    if setup.cuda:
        card = torch.cuda.get_device_properties(setup.device)
        found["card"] = (f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute "
                         f"{card.major}.{card.minor}, CUDA {torch.version.cuda}")  # fmt: skip
    else:
        found["card"] = "none, on the CPU"
    found["packages"] = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Give memory of what is no longer used back."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def times_of(call: Callable[[], Any], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls, to their end on the device."""
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def measured(call: Callable[[], Any], device: torch.device) -> tuple[Any, float, float]:
    """Result, seconds and GiB that a call takes at most beyond what is allocated before it.

    On a CPU the memory is that of the process, which holds back what was freed: a rough number.
    """
    release(device)
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    else:
        reset_peak()
        before, _ = resident()
    start = time.perf_counter()
    result = call()
    synchronize(device)
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident()[1]
    return result, seconds, max(0, peak - before) / 2**30


def matmul_peak(setup: Setup, dtype: torch.dtype, tf32: bool = False) -> float:
    """TFLOP/s of a large matrix product of random numbers; the best of five."""
    size = 8192 if setup.cuda else 256
    first, second = (torch.randn(size, size, device=setup.device).to(dtype) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        times_of(lambda: first @ second, setup.device, 2)
        best = min(times_of(lambda: first @ second, setup.device, 5))
    finally:
        torch.set_float32_matmul_precision(before)
    return 2 * size**3 / best / 1e12


def copy_rate(setup: Setup) -> float:
    """GB/s of a copy in device memory, bytes read and written."""
    source = torch.randn(2**29 if setup.cuda else 2**20, device=setup.device)
    target = torch.empty_like(source)
    best = min(times_of(lambda: target.copy_(source), setup.device, 4))
    return 2 * source.nbytes / best / 1e9


class Kernels(NamedTuple):
    """What ran on the device during a call; on a CPU, torch's operators."""

    seconds: float  # of the call, profiler included
    waits: float | None  # share of them in which no kernel ran; None where the profiler saw none
    spent: Counter  # kernel name -> seconds
    count: int


def kernels_of(call: Callable[[], Any], device: torch.device) -> Kernels:
    """Profile a call."""
    from torch.profiler import ProfilerActivity, profile

    kind = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    wanted = "CUDA" if device.type == "cuda" else "CPU"
    synchronize(device)
    with profile(activities=[kind]) as profiler:
        start = time.perf_counter()
        call()
        synchronize(device)
        seconds = time.perf_counter() - start
    # the raw events: `profiler.events()` builds a tree, which takes minutes for a whole corpus
    events = [
        (event.start_ns(), event.duration_ns(), event.name())
        for event in profiler.profiler.kineto_results.events()
        if str(event.device_type()).endswith(wanted) and not _NO_WORK.match(event.name())
    ]
    spent: Counter = Counter()
    busy = end = 0
    for begin, duration, name in sorted(events):
        spent[name] += duration / 1e9
        busy += max(0, begin + duration - max(begin, end))
        end = max(end, begin + duration)
    waits = max(0.0, 1 - busy / 1e9 / seconds) if events else None
    return Kernels(seconds, waits, spent, len(events))


_NO_WORK = re.compile(
    r"Memcpy (HtoD|DtoH)|ProfilerStep|PyTorch Profiler|autograd::|cuda(Launch|Dev)"
)
"""Events that only hold others, and copies to and from the device, during which it waits."""
