"""The processes of one run: join them, count them, wait for them, leave them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

__all__ = ["barrier", "join_processes", "leave_processes", "processes", "rank_zero_first"]


def join_processes(patience: float = 3600) -> tuple[int, int]:
    """Meet the others that torchrun, `accelerate launch` or srun started; returns `processes()`.

    Args
        patience  seconds that a process waits for the others in any exchange before it gives up
    On CPUs over gloo, on GPUs over NCCL. Without WORLD_SIZE in the environment this does nothing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(seconds=patience))
    return processes()


def leave_processes() -> None:
    """Take leave of the others, at the end of a program."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def processes() -> tuple[int, int]:
    """Rank of this process and their number W; (0, 1) without a process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def barrier() -> None:
    """Wait until every process is here."""
    if processes()[1] > 1:
        dist.barrier()


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """The body runs on rank 0, then on the others, which see what it wrote, or that it failed."""
    rank, _ = processes()
    if rank:
        barrier()
    try:
        yield
    finally:
        if not rank:
            barrier()
