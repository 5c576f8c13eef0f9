"""Training pairs of record files, held in memory as text and columns so that millions fit."""

# Shapes: N pairs.

from __future__ import annotations

import re
import warnings
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from .bad_media import BadMediaError, BadMediaRow, list_bad
from .identities import merge_identities
from .items import files_of
from .packed import PackedRows
from .readers import Row, iter_rows
from .records import (
    GROUPS,
    RecordError,
    content_id,
    instructed_query,
    target_modality,
    validate_record,
)

__all__ = ["PackedPairs", "Pair", "PairDataset", "PairTable", "Pick", "content_number"]


class Pair(NamedTuple):
    """One record: a query, its positive, hard negatives and labels."""

    query: dict
    candidate: dict
    negatives: list[dict]
    target_modality: int
    source: str
    task: str
    where: str  # how errors name it: "stage1.jsonl, record 7"
    groups: tuple[int, int] = (0, 0)  # group numbers of query and candidate, 0 for none
    scores: tuple[float, ...] = ()  # a teacher's, of candidate and hard negatives, or none


class PairTable(NamedTuple):
    """The columns that sampling needs, without the items."""

    source: np.ndarray  # [N] index into `sources`
    task: np.ndarray  # [N] index into `tasks`
    target_modality: np.ndarray  # [N] codes of `Modality`
    negatives: np.ndarray  # [N] number of hard negatives
    sources: Sequence[str]
    tasks: Sequence[str]  # "" for a pair without one


class PackedPairs(Sequence):
    """Pairs as PackedRows of their items and columns of numbers."""

    def __init__(self):
        self.rows = PackedRows()  # [query, candidate, *hard negatives] of each pair
        self.columns = {name: array("i") for name in ("source", "task", "file", "row", "negatives")}
        self.columns["target_modality"] = array("B")
        self.columns |= {"query_group": array("q"), "candidate_group": array("q")}
        self.columns["scores"] = array("q")  # where those of a pair start in `scores`, -1 for none
        self.scores = array("d")
        self.labels = {name: _Labels() for name in ("source", "task", "file")}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Pair:
        index = range(len(self))[index]
        query, candidate, *negatives = self.rows[index]
        row = {name: column[index] for name, column in self.columns.items()}
        source, task, file = (self.labels[name].names[row[name]] for name in self.labels)
        where = f"{file}, record {row['row']}"
        groups = row["query_group"], row["candidate_group"]
        modality, start = row["target_modality"], row["scores"]
        scores = tuple(self.scores[start : start + 1 + len(negatives)]) if start >= 0 else ()
        return Pair(query, candidate, negatives, modality, source, task, where, groups, scores)

    def append(self, pair: Pair, file: str, row: int) -> None:
        """Add record `row` of a file; media must be paths, as in a file."""
        self.rows.append([pair.query, pair.candidate, *pair.negatives])
        for name, label in (("source", pair.source), ("task", pair.task), ("file", file)):
            self.columns[name].append(self.labels[name].code(label))
        self.columns["row"].append(row)
        self.columns["negatives"].append(len(pair.negatives))
        self.columns["target_modality"].append(pair.target_modality)
        self.columns["scores"].append(len(self.scores) if pair.scores else -1)
        self.scores.extend(pair.scores)
        for name, group in zip(("query_group", "candidate_group"), pair.groups, strict=True):
            self.columns[name].append(group)

    def table(self) -> PairTable:
        """The columns that sampling needs, copied."""
        columns = {name: np.array(self.columns[name]) for name in PairTable._fields[:4]}
        sources, tasks = (self.labels[name].names for name in ("source", "task"))
        return PairTable(**columns, sources=sources, tasks=tasks)


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


class Pick(NamedTuple):
    """A pair with those of its hard negatives that `PairSampler` drew."""

    index: int
    negatives: tuple[int, ...]


class PairDataset(torch.utils.data.Dataset):
    """The pairs of one or more record files, in file order.

    Args
        files       record files of any format of `data.readers`
        media_root  folder that media paths are relative to and must not leave
    Raises RecordError for a file that cannot be read to its end or has no valid record,
    BadMediaError if no record is usable.

    Invalid records, and those that name a missing or empty media file, are left out and listed in
    `bad`, of which `max_bad_share` allows some; damage inside a file shows only when it is encoded.
    A record without `source` gets its file's stem. A hard
    negative with the same content as its own positive is dropped, with one warning that counts
    them: the loss would push the positive away.
    """

    def __init__(self, files: Sequence[str | Path], media_root: str | Path = "."):
        self.pairs = PackedPairs()
        self.bad: list[BadMediaRow] = []
        self.group_names: dict[int, str] = {}  # by the numbers in `Pair.groups`
        invalid = 0
        repeated: list[str] = []  # places of hard negatives that equal their positive
        defects: dict[str, str] = {}  # path -> defect of the file, "" for none
        for file in map(Path, files):
            for row, found in enumerate(iter_rows(file, media_root=media_root), 1):
                try:
                    record = _record(found, media_root)
                    pair = _pair(record, file.stem, f"{file}, record {row}", repeated)
                except RecordError as error:
                    self.bad.append(_invalid(found.where, str(error)))
                    invalid += 1
                    continue
                if not self._is_bad(pair, Path(media_root), defects):
                    self.pairs.append(pair, str(file), row)
                    self.group_names |= zip(pair.groups, map(record.get, GROUPS), strict=True)
        if not self.pairs:
            names = ", ".join(map(str, files))
            kind = RecordError if invalid == len(self.bad) else BadMediaError
            raise kind(f"{names}: no usable record\n{list_bad(self.bad)}")
        if repeated:
            warnings.warn(
                f"{len(repeated)} hard negatives repeat their record's candidate and are left "
                f"out, the first in {repeated[0]}: remove them from the records",
                stacklevel=2,
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | Pick) -> Pair:
        if not isinstance(key, Pick):
            return self.pairs[key]
        pair = self.pairs[key.index]
        negatives = [pair.negatives[n] for n in key.negatives]
        scores = pair.scores and (pair.scores[0], *(pair.scores[1 + n] for n in key.negatives))
        return pair._replace(negatives=negatives, scores=scores)

    @cached_property
    def table(self) -> PairTable:
        """The columns that sampling needs."""
        return self.pairs.table()

    @cached_property
    def unscored(self) -> str:
        """Where the first record without a teacher's scores is; "" if all have them."""
        rows = np.flatnonzero(np.array(self.pairs.columns["scores"]) < 0)
        return self.pairs[int(rows[0])].where if len(rows) else ""

    @cached_property
    def contents(self) -> tuple[np.ndarray, np.ndarray]:
        """Content numbers of queries and of candidates, [N] int64 each."""
        ids = np.empty((2, len(self)), dtype=np.int64)
        for row in range(len(self)):
            query, candidate, *_ = self.pairs.rows[row]
            ids[0, row], ids[1, row] = content_number(query), content_number(candidate)
        return ids[0], ids[1]

    @cached_property
    def identity_of(self) -> dict[int, int]:
        """Identity of each content that some record puts into a group, see `merge_identities`."""
        members = []
        for side, name in enumerate(GROUPS):
            groups = np.array(self.pairs.columns[name])
            for row in np.flatnonzero(groups).tolist():
                members.append((content_number(self.pairs.rows[row][side]), int(groups[row])))
        return merge_identities(members)

    @cached_property
    def identities(self) -> tuple[np.ndarray, np.ndarray]:
        """As `contents`, with the group's number in its place for what is in a group."""
        known = self.identity_of
        if not known:
            return self.contents
        query, candidate = (
            np.array([known.get(content, content) for content in side.tolist()], dtype=np.int64)
            for side in self.contents
        )
        return query, candidate

    def _is_bad(self, pair: Pair, root: Path, defects: dict[str, str]) -> bool:
        for path in _paths(pair):
            if path not in defects:
                defects[path] = _defect(root / path)
            if cause := defects[path]:
                self.bad.append(BadMediaRow(pair.where, cause, f"{pair.where}: {path}: {cause}"))
                return True
        return False


def _record(row: Row, media_root: str | Path) -> dict:
    if row.error:
        raise RecordError(row.error)
    validate_record(row.value, row.where, media_root)
    return row.value


def _invalid(where: str, message: str) -> BadMediaRow:
    """A row that is no record; its cause is what the message says without names and values."""
    message = message.encode("utf-8", "backslashreplace").decode()
    words = re.sub(r"""'[^']*'|"[^"]*"|\([^)]*\)""", "", message.removeprefix(where))
    cause = " ".join(words.split(": ", 1)[-1].split(";")[0].split())
    return BadMediaRow(where, cause.strip(" :,") or "invalid record", message)


def _pair(record: Mapping, stem: str, where: str, repeated: list[str]) -> Pair:
    negatives, kept = _negatives(record, where, repeated)
    scores = record.get("scores") or ()
    return Pair(
        query=instructed_query(record),
        candidate=record["candidate"],
        negatives=negatives,
        target_modality=int(target_modality(record, where)),
        source=record.get("source") or stem,
        task=record.get("task") or "",
        where=where,
        groups=tuple(_group_number(record.get(name)) for name in GROUPS),
        scores=(float(scores[0]), *(float(scores[1 + n]) for n in kept)) if scores else (),
    )


def _group_number(name: str | None) -> int:
    """A group's name as a number apart from all content numbers; 0 for no group."""
    return content_number({"text": f"group {name}"}) | 1 << 61 if name else 0


def _negatives(record: Mapping, where: str, repeated: list[str]) -> tuple[list[dict], list[int]]:
    """The record's hard negatives and their places in it.

    Those equal to its positive go to `repeated` instead.
    """
    given = record.get("negative") or []
    given = [given] if isinstance(given, Mapping) else list(given)
    if not given:
        return given, []
    positive = content_id(record["candidate"])
    same = [content_id(item) == positive for item in given]
    repeated += [f"{where}, negative[{n}]" for n, equal in enumerate(same, 1) if equal]
    kept = [n for n, equal in enumerate(same) if not equal]
    return [given[n] for n in kept], kept


def content_number(item: Mapping) -> int:
    """The item's `content_id` as a 60-bit number: equal content has equal numbers."""
    return int(content_id(item)[:15], 16)


def _paths(pair: Pair) -> Iterator[str]:
    """Media files of a pair."""
    for item in (pair.query, pair.candidate, *pair.negatives):
        yield from files_of(item)


def _defect(path: Path) -> str:
    try:
        return "" if path.stat().st_size else "empty file"
    except FileNotFoundError:
        return "no such file"
    except OSError as error:  # a name that is too long, links in a circle, a folder closed to us
        return (error.strerror or "no such file").lower()
