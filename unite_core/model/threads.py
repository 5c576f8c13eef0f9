"""Several calls at once, each in a thread with its share of torch's threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

__all__ = ["Run", "side_by_side"]


Run = Callable[..., Future]
"""Starts a call of its first argument with the others; gives the future result."""


@contextmanager
def side_by_side(count: int) -> Iterator[Run]:
    """Run calls in `count` threads, each with its share of torch's threads.

    An autocast around the context holds in the threads, too. With one thread each call runs at once
    and raises its errors there. Calls that have not begun when the context ends are dropped.
    """
    if count == 1:
        yield _at_once
        return
    whole = torch.get_num_threads()
    pool = ThreadPoolExecutor(
        count, initializer=_begin, initargs=(max(1, whole // count), _autocast())
    )
    try:
        yield pool.submit
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(whole)  # each thread has its number, but new ones take the last set


def _autocast() -> list[tuple[str, bool, torch.dtype]]:
    """Device, whether autocast is on, and its type, in this thread."""
    return [
        (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in ("cpu", "cuda")
    ]


def _begin(threads: int, autocast: list[tuple[str, bool, torch.dtype]]) -> None:
    torch.set_num_threads(threads)
    for device, enabled, dtype in autocast:
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)


def _at_once(call: Callable, *arguments) -> Future:
    future: Future = Future()
    future.set_result(call(*arguments))
    return future
