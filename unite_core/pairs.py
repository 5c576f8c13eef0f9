"""Pairs in memory: text and columns instead of objects, so that millions of them fit."""

# Shapes: N pairs.

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["PackedPairs", "Pair", "PairTable"]

_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Pair(NamedTuple):
    """One record as training sees it."""

    query: dict
    candidate: dict
    negatives: list[dict]
    target_modality: int
    source: str
    task: str
    where: str  # how errors name it: "stage1.jsonl, record 7"
    groups: tuple[int, int] = (0, 0)  # of query and candidate, 0 for none


class PairTable(NamedTuple):
    """What sampling knows of the pairs: columns of N rows."""

    source: np.ndarray  # [N] index into `sources`
    task: np.ndarray  # [N] index into `tasks`
    target_modality: np.ndarray  # [N] codes of `Modality`
    negatives: np.ndarray  # [N] how many hard negatives a pair has
    sources: Sequence[str]
    tasks: Sequence[str]  # "" for a pair without one


class PackedPairs(Sequence):
    """Pairs as one block of JSON and columns of numbers, parsed when they are asked for."""

    def __init__(self):
        self.text = bytearray()
        self.ends = array("q")  # of each pair's JSON in `text`
        self.columns = {name: array("i") for name in ("source", "task", "file", "row", "negatives")}
        self.columns["target_modality"] = array("B")
        self.columns |= {"query_group": array("q"), "candidate_group": array("q")}
        self.labels = {name: _Labels() for name in ("source", "task", "file")}

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Pair:
        index = range(len(self))[index]
        query, candidate, *negatives = self.items(index)
        row = {name: column[index] for name, column in self.columns.items()}
        source, task, file = (self.labels[name].names[row[name]] for name in self.labels)
        where = f"{file}, record {row['row']}"
        groups = row["query_group"], row["candidate_group"]
        modality = row["target_modality"]
        return Pair(query, candidate, negatives, modality, source, task, where, groups)

    def items(self, index: int) -> list[dict]:
        """Query, candidate and hard negatives of pair `index`, counted from 0."""
        start = self.ends[index - 1] if index else 0
        return json.loads(self.text[start : self.ends[index]].decode())

    def append(self, pair: Pair, file: str, row: int) -> None:
        """Add record `row` of a file; its items must be JSON, as they are when read from one."""
        items = [pair.query, pair.candidate, *pair.negatives]
        self.text += _compact(items).encode()
        self.ends.append(len(self.text))
        for name, label in (("source", pair.source), ("task", pair.task), ("file", file)):
            self.columns[name].append(self.labels[name].code(label))
        self.columns["row"].append(row)
        self.columns["negatives"].append(len(pair.negatives))
        self.columns["target_modality"].append(pair.target_modality)
        for name, group in zip(("query_group", "candidate_group"), pair.groups, strict=True):
            self.columns[name].append(group)

    def table(self) -> PairTable:
        """The columns that sampling needs, copied."""
        columns = {name: np.array(self.columns[name]) for name in PairTable._fields[:4]}
        sources, tasks = (self.labels[name].names for name in ("source", "task"))
        return PairTable(**columns, sources=sources, tasks=tasks)


class _Labels:
    """Names numbered in the order in which they appear."""

    def __init__(self):
        self.names: list[str] = []
        self.codes: dict[str, int] = {}

    def code(self, name: str) -> int:
        if name not in self.codes:
            self.codes[name] = len(self.names)
            self.names.append(name)
        return self.codes[name]
