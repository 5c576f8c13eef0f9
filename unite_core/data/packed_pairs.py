"""Training pairs as one block of text and columns of numbers, in memory or mapped from a folder."""

# Shapes: N pairs.

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..files import read_json, write_json
from .packed import PackedRows
from .records import GROUPS

__all__ = ["PackedPairs", "Pair", "PairTable"]


class Pair(NamedTuple):
    """One record: a query, its positive, hard negatives and labels."""

    query: dict
    candidate: dict
    negatives: list[dict]
    target_modality: int
    source: str
    task: str
    where: str  # how errors name it: "stage1.jsonl, record 7"
    groups: tuple[int, int, int] = (0, 0, 0)  # numbers of its `records.GROUPS`, 0 for none
    scores: tuple[float, ...] = ()  # a teacher's, of candidate and hard negatives, or none


class PairTable(NamedTuple):
    """The columns that sampling needs, without the items."""

    source: np.ndarray  # [N] index into `sources`
    task: np.ndarray  # [N] index into `tasks`
    target_modality: np.ndarray  # [N] codes of `Modality`
    negatives: np.ndarray  # [N] number of hard negatives
    sources: Sequence[str]
    tasks: Sequence[str]  # "" for a pair without one


_COLUMNS = {
    **dict.fromkeys(("source", "task", "file", "row", "negatives"), "i"),
    "target_modality": "B",
    **dict.fromkeys(GROUPS, "q"),
    **dict.fromkeys(("query_content", "candidate_content"), "q"),  # content numbers
    "scores": "q",  # where those of a pair start in `scores`, -1 for none
}
_LABELS = ("source", "task", "file")


class PackedPairs(Sequence):
    """Pairs as PackedRows of their items and columns of numbers.

    Args
        text  file for the items' text, in place of memory; read it with `save` and `open`
    """

    def __init__(self, text: BinaryIO | None = None):
        self.rows = PackedRows(file=text)  # [query, candidate, *hard negatives] of each pair
        self.columns = {name: array(kind) for name, kind in _COLUMNS.items()}
        self.scores = array("d")
        self.labels = {name: _Labels() for name in _LABELS}
        self.folder: Path | None = None  # that it is mapped from

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Pair:
        index = range(len(self))[index]
        query, candidate, *negatives = self.rows[index]
        row = {name: int(column[index]) for name, column in self.columns.items()}
        source, task, file = (self.labels[name].names[row[name]] for name in _LABELS)
        where = f"{file}, record {row['row']}"
        groups = tuple(row[name] for name in GROUPS)
        modality, start = row["target_modality"], row["scores"]
        scores = map(float, self.scores[start : start + 1 + len(negatives)] if start >= 0 else ())
        return Pair(query, candidate, negatives, modality, source, task, where, groups,
                    tuple(scores))  # fmt: skip

    def __reduce__(self):
        """To another process a mapped one goes as the name of its folder."""
        if self.folder is not None:
            return type(self).open, (self.folder,)
        return super().__reduce__()

    def append(self, pair: Pair, file: str, row: int, contents: tuple[int, int]) -> None:
        """Add record `row` of a file; media must be paths, as in a file.

        Args
            contents  content numbers of query and candidate
        """
        self.rows.append([pair.query, pair.candidate, *pair.negatives])
        for name, label in (("source", pair.source), ("task", pair.task), ("file", file)):
            self.columns[name].append(self.labels[name].code(label))
        self.columns["row"].append(row)
        self.columns["negatives"].append(len(pair.negatives))
        self.columns["target_modality"].append(pair.target_modality)
        self.columns["scores"].append(len(self.scores) if pair.scores else -1)
        self.scores.extend(pair.scores)
        for name, group in zip(GROUPS, pair.groups, strict=True):
            self.columns[name].append(group)
        for side, content in zip(("query", "candidate"), contents, strict=True):
            self.columns[f"{side}_content"].append(content)

    def column(self, name: str) -> np.ndarray:
        """A column [N]; copied if it is in memory, where it may still grow."""
        column = self.columns[name]
        return column if isinstance(column, np.ndarray) else np.array(column)

    def digest(self) -> str:
        """A hash of all items in their order; labels, scores and files are not in it."""
        digest = hashlib.sha256(np.asarray(self.rows.ends).tobytes())
        digest.update(self.rows.text)
        return digest.hexdigest()

    def table(self) -> PairTable:
        """The columns that sampling needs."""
        columns = {name: self.column(name) for name in PairTable._fields[:4]}
        sources, tasks = (self.labels[name].names for name in ("source", "task"))
        return PairTable(**columns, sources=sources, tasks=tasks)

    def save(self, folder: Path) -> None:
        """Write all but the items' text, which `text` of the constructor holds: `open` needs both.

        That file is `text.json` of the folder.
        """
        for name, column in {
            **self.columns,
            "of_teacher": self.scores,
            "ends": self.rows.ends,
        }.items():
            np.save(folder / f"{name}.npy", np.frombuffer(column, dtype=column.typecode))
        write_json(folder / "labels.json", {name: self.labels[name].names for name in _LABELS})

    @classmethod
    def open(cls, folder: str | Path) -> PackedPairs:
        """Map a saved folder: processes that open it share its pages."""
        folder, pairs = Path(folder), cls()
        columns = {
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
            for name in (*_COLUMNS, "of_teacher", "ends")
        }
        pairs.scores, ends = columns.pop("of_teacher"), columns.pop("ends")
        text = np.asarray(np.memmap(folder / "text.json", dtype=np.uint8, mode="r"))
        pairs.rows, pairs.columns, pairs.folder = PackedRows.of(text, ends), columns, folder
        for name, names in read_json(folder / "labels.json").items():
            for label in names:
                pairs.labels[name].code(label)
        return pairs


class _Labels:
    """Numbers names in the order in which they appear."""

    def __init__(self):
        self.names: list[str] = []
        self.codes: dict[str, int] = {}

    def code(self, name: str) -> int:
        if name not in self.codes:
            self.codes[name] = len(self.names)
            self.names.append(name)
        return self.codes[name]
