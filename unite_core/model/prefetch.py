"""Decode the media of coming plans in other processes while this one computes.

The processes are loky's: they outlast a call, end when they are idle or this process does, and do
not run the main script again, so that scripts need no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from .batching import BatchPlan
from .preprocessing import MediaReader, MediaSource, Pixels, Read, reads_here

__all__ = ["read_ahead"]


_CHUNK = 4  # media files that a process reads before it answers
_AHEAD = 4  # chunks per process that are being read or wait to be used
_IDLE = 120  # seconds after which a process without work ends


def read_ahead(plans: Iterable[tuple[Any, BatchPlan]], reader: MediaReader, media_root: str | Path,
               workers: int) -> Iterator[tuple[Any, BatchPlan, Iterator]]:  # fmt: skip
    """Yield each plan with its media, in the order of `BatchPlan.reads`.

    Args
        plans    (label, plan); the next one is drawn while the last is in use
        workers  reading processes; 0: read in this one, when a media file is needed
    Yields (label, plan, iterator of a function per media file): use it up before the next plan.
    Holds at most two plans and 16 media files per process. Objects in memory, and what is not worth
    a process's start, are read here. RuntimeError if a process dies.
    """
    if not workers:
        for label, plan in plans:
            yield label, plan, reads_here(reader, plan.reads, media_root)
        return
    window = _Window(iter(plans), reader, media_root, workers)
    try:
        yield from window
    finally:
        for chunk in window.running:
            chunk.cancel()


class _Window:
    """Chunks of media being read: those of the plan in use, then those of the next one."""

    def __init__(self, plans: Iterator[tuple[Any, BatchPlan]], reader: MediaReader,
                 media_root: str | Path, workers: int):  # fmt: skip
        self.plans, self.workers = plans, workers
        self.reader, self.media_root = reader, media_root
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
        while len(self.running) < self.workers * _AHEAD:
            if chunk := list(islice(self.left, _CHUNK)):
                self.running.append(self.start(chunk))
            elif self.planned or not self.plan_another():
                return

    def start(self, chunk: list[MediaSource]) -> Future:
        """The chunk's reads, once another process has done them; at once if they are for here."""
        if len(chunk) < _CHUNK or not all(map(_of_files, chunk)):
            here: Future = Future()
            here.set_result(list(reads_here(self.reader, chunk, self.media_root)))
            return here
        return _processes(self.workers).submit(_read, self.reader, chunk, self.media_root)

    def plan_another(self) -> bool:
        entry = next(self.plans, None)
        if entry is not None:
            self.planned.append(entry)
            self.left = iter(entry[1].reads)
        return entry is not None

    def results(self, count: int) -> Iterator[Read]:
        for _ in range(0, count, _CHUNK):
            self.fill()
            try:
                reads = self.running.popleft().result()
            except BrokenProcessPool as error:
                raise RuntimeError(
                    "a process that reads media died, perhaps for lack of memory: use fewer workers"
                ) from error
            yield from reads


def _of_files(source: MediaSource) -> bool:
    parts = source.media if isinstance(source.media, list | tuple) else [source.media]
    return all(isinstance(part, str | os.PathLike) for part in parts)


def _processes(count: int):
    from loky import get_reusable_executor

    return get_reusable_executor(
        count, timeout=_IDLE, initializer=_start, initargs=(os.getpid(),),
        env={"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip


def _start(parent: int) -> None:
    """Set up a reading process; it ends when its parent does, however that happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _same(pixels: Pixels | ValueError) -> Pixels | ValueError:
    return pixels


def _read(reader: MediaReader, sources: list[MediaSource], media_root: str | Path) -> list[Read]:
    return [partial(_same, reader.try_read(source, media_root)) for source in sources]
