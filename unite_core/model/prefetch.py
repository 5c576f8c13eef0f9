"""Decode the media of coming plans in other processes while this one computes."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from .batching import BatchPlan
from .preprocessing import MediaReader, MediaSource, Pixels, Read, reads_here

__all__ = ["read_ahead"]


_CHUNK = 4  # media files that a process reads before it answers
_AHEAD = 4  # chunks per process that are being read or wait to be used

_reading: tuple[MediaReader, str | Path]  # set in each reading process


def read_ahead(plans: Iterable[tuple[Any, BatchPlan]], reader: MediaReader, media_root: str | Path,
               workers: int) -> Iterator[tuple[Any, BatchPlan, Iterator]]:  # fmt: skip
    """Yield each plan with its media, in the order of `BatchPlan.reads`.

    Args
        plans    (label, plan); the next one is drawn while the last is in use
        workers  reading processes; 0: read in this one, when a media file is needed
    Yields (label, plan, iterator of a function per media file): use it up before the next plan.
    Holds at most two plans and 16 media files per process. RuntimeError if a process dies.
    """
    if not workers:
        for label, plan in plans:
            yield label, plan, reads_here(reader, plan.reads, media_root)
        return
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_start, initargs=(reader, media_root)
    ) as pool:
        try:
            yield from _Window(iter(plans), pool, workers * _AHEAD)
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process that reads media died, perhaps for lack of memory: use fewer workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


class _Window:
    """Chunks of media being read: those of the plan in use, then those of the next one."""

    def __init__(
        self, plans: Iterator[tuple[Any, BatchPlan]], pool: ProcessPoolExecutor, size: int
    ):
        self.plans, self.pool, self.size = plans, pool, size
        self.planned: deque[tuple[Any, BatchPlan]] = deque()
        self.left: Iterator[MediaSource] = iter(())  # of the newest plan
        self.running: deque[Future] = deque()

    def __iter__(self) -> Iterator[tuple[Any, BatchPlan, Iterator]]:
        self.fill()
        while self.planned:
            label, plan = self.planned.popleft()
            yield label, plan, self.results(sum(len(batch.fresh) for batch in plan.batches))
            self.fill()

    def fill(self) -> None:
        while len(self.running) < self.size:
            if chunk := list(islice(self.left, _CHUNK)):
                self.running.append(self.pool.submit(_read, chunk))
            elif self.planned or not self.plan_another():
                return

    def plan_another(self) -> bool:
        entry = next(self.plans, None)
        if entry is not None:
            self.planned.append(entry)
            self.left = iter(entry[1].reads)
        return entry is not None

    def results(self, count: int) -> Iterator[Read]:
        for _ in range(0, count, _CHUNK):
            self.fill()
            for pixels in self.running.popleft().result():
                yield partial(_same, pixels)


def _start(reader: MediaReader, media_root: str | Path) -> None:
    """Set up a reading process; it ends when its parent does, however that happens."""
    global _reading
    _reading = reader, media_root
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)


def _same(pixels: Pixels | ValueError) -> Pixels | ValueError:
    return pixels


def _read(sources: list[MediaSource]) -> list[Pixels | ValueError]:
    reader, media_root = _reading
    return [reader.try_read(source, media_root) for source in sources]
