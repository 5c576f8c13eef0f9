"""Rows that training leaves out because an item of them cannot be read or does not fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ..data.bad_media import BadMediaError, BadMediaRow, check_bad_share
from ..data.pairs import PairDataset
from ..distributed import processes
from ..files import from_row, read_json, write_json
from .parallel import gather_bytes

__all__ = ["SkippedRows"]


class SkippedRows:
    """The rows that all processes left out so far, kept in a file; too many of them are an error.

    Args
        path       JSON file, which rank 0 writes in the first step and a resumed run reads
        dataset    its own bad rows are on the list from the start
        max_share  of all rows may be left out; BadMediaError beyond it
    """

    def __init__(self, path: Path, dataset: PairDataset, max_share: float):
        self.path, self.max_share = path, max_share
        self.total = len(dataset) + len(dataset.bad)
        stored = read_json(path) if path.is_file() else []
        rows = [from_row(BadMediaRow, row, f"{path}, row {n}") for n, row in enumerate(stored, 1)]
        self.rows = {row.where: row for row in (*rows, *dataset.bad)}
        self.written = len(rows)
        self._check()

    def add(self, bad: Sequence[BadMediaRow], device: torch.device) -> None:
        """Add this process's rows and those of all others; every process calls it."""
        message = json.dumps([asdict(row) for row in bad]).encode() if bad else b""
        messages = filter(None, gather_bytes(message, device))
        found = [BadMediaRow(**row) for part in messages for row in json.loads(part)]
        self.rows |= {row.where: row for row in found}
        if len(self.rows) != self.written:
            if processes()[0] == 0:
                write_json(self.path, [asdict(row) for row in self.rows.values()])
            self.written = len(self.rows)
            self._check()

    def check_batch(self, pairs: int) -> None:
        """Refuse a global batch of so few pairs; a single process may be left without any."""
        if pairs < 2:
            names = ", ".join(self.rows)
            raise BadMediaError(f"{pairs} pairs are left in a batch; unreadable so far: {names}")

    def _check(self) -> None:
        check_bad_share(list(self.rows.values()), self.total, self.max_share)
