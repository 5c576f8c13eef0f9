"""Training pairs of record files, as text and columns so that millions fit: in memory or mapped."""

# Shapes: N pairs.

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from functools import cached_property, partial
from heapq import nsmallest
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zlib import crc32

import numpy as np
import torch

from .bad_media import BadMediaError, BadMediaRow, list_bad
from .identities import merge_identities
from .items import files_of
from .packed_pairs import PackedPairs, Pair, PairTable
from .pair_store import open_pairs
from .readers import Row, iter_rows
from .records import (
    GROUPS,
    ITEM_GROUPS,
    RecordError,
    content_id,
    instructed_query,
    target_modality,
    validate_record,
)

__all__ = ["MEDIA_LISTED", "Pair", "PairDataset", "PairTable", "Pick", "content_number"]


MEDIA_LISTED = 20_000  # media files of a data set that are listed


class Pick(NamedTuple):
    """A pair with those of its hard negatives that `PairSampler` drew."""

    index: int
    negatives: tuple[int, ...]


class PairDataset(torch.utils.data.Dataset):
    """The pairs of one or more record files, in file order.

    Args
        files       record files of any format of `data.readers`
        media_root  folder that media paths are relative to and must not leave
        store       folder to keep the pairs in, see `pair_store`: not read again at the next start,
                    and not held in memory; None: in memory
    Raises RecordError for a file that cannot be read to its end or has no valid record,
    BadMediaError if no record is usable.

    `media` lists the pairs' media files, in order; of many those `MEDIA_LISTED` with the smallest
    hashes of their paths. `media_count` is the number of all.

    Invalid records, and those that name a missing or empty media file, are left out and listed in
    `bad`, of which `max_bad_share` allows some; damage inside a file shows only when it is encoded.
    A record without `source` gets its file's stem. A hard
    negative with the same content as its own positive is dropped, with one warning that counts
    them: the loss would push the positive away.
    """

    def __init__(self, files: Sequence[str | Path], media_root: str | Path = ".",
                 store: str | Path | None = None):  # fmt: skip
        root = Path(media_root)
        if store is None:
            self.pairs, notes = _read(files, root)
        else:
            self.pairs, notes = open_pairs(
                store, files, root, partial(_read, files, root), lambda path: _defect(root / path)
            )
        self.bad = [BadMediaRow(*row) for row in notes["bad"]]
        self.group_names: dict[int, str] = {  # by the numbers in `Pair.groups`
            int(number): name for number, name in notes["group_names"]
        }
        self.media: list[str] = notes["media"]
        self.media_count: int = notes["media_count"]
        if repeated := notes["repeated"]:
            warnings.warn(
                f"{repeated[0]} hard negatives repeat their record's candidate and are left "
                f"out, the first in {repeated[1]}: remove them from the records",
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
        rows = np.flatnonzero(self.pairs.column("scores") < 0)
        return self.pairs[int(rows[0])].where if len(rows) else ""

    @property
    def contents(self) -> tuple[np.ndarray, np.ndarray]:
        """Content numbers of queries and of candidates, [N] int64 each."""
        return self.pairs.column("query_content"), self.pairs.column("candidate_content")

    @cached_property
    def identity_of(self) -> dict[int, int]:
        """Identity of each content that some record puts into a group, see `merge_identities`.

        What is of one identity counts as one item.
        """
        return self._merged(ITEM_GROUPS)

    @cached_property
    def identities(self) -> tuple[np.ndarray, np.ndarray]:
        """As `contents`, with the group's number in its place for what is in a group."""
        return self._replaced(self.identity_of)

    @property
    def grouped(self) -> bool:
        """Whether some record has a `group`."""
        return bool(self.pairs.column("group").any())

    @cached_property
    def families(self) -> tuple[np.ndarray, np.ndarray]:
        """As `identities`, equal also for candidates of records of one `group`."""
        return self._replaced(self._merged(GROUPS)) if self.grouped else self.identities

    def _merged(self, names: Sequence[str]) -> dict[int, int]:
        query, candidate = self.contents
        members = []
        for name, contents in zip(names, (query, candidate, candidate), strict=False):
            groups = self.pairs.column(name)
            rows = np.flatnonzero(groups)
            members += zip(contents[rows].tolist(), groups[rows].tolist(), strict=True)
        return merge_identities(members)

    def _replaced(self, known: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
        if not known:
            return self.contents
        query, candidate = (
            np.array([known.get(content, content) for content in side.tolist()], dtype=np.int64)
            for side in self.contents
        )
        return query, candidate


def _read(files: Sequence[str | Path], root: Path,
          text: BinaryIO | None = None) -> tuple[PackedPairs, dict[str, Any]]:  # fmt: skip
    """The usable pairs, and what else is known of the records: see PairDataset."""
    pairs, bad, group_names = PackedPairs(text), [], {}
    invalid = 0
    repeated: list[str] = []  # places of hard negatives that equal their positive
    defects: dict[str, str | None] = {}  # path -> defect of the file, "" for none, None if used
    for file in map(Path, files):
        for row, found in enumerate(iter_rows(file, media_root=root), 1):
            try:
                record = _record(found, root)
                pair = _pair(record, file.stem, f"{file}, record {row}", repeated)
            except RecordError as error:
                bad.append(_invalid(found.where, str(error)))
                invalid += 1
                continue
            paths = list(_paths(pair))
            if defect := _first_defect(paths, root, defects):
                path, cause = defect
                bad.append(BadMediaRow(pair.where, cause, f"{pair.where}: {path}: {cause}"))
                continue
            defects.update(dict.fromkeys(paths))
            contents = content_number(pair.query), content_number(pair.candidate)
            pairs.append(pair, str(file), row, contents)
            group_names |= zip(pair.groups, map(record.get, GROUPS), strict=True)
    if not pairs:
        kind = RecordError if invalid == len(bad) else BadMediaError
        raise kind(f"{', '.join(map(str, files))}: no usable record\n{list_bad(bad)}")
    media = [path for path, defect in defects.items() if defect is None]
    return pairs, {
        "bad": [astuple(row) for row in bad],
        "group_names": list(group_names.items()),
        "media": sorted(nsmallest(MEDIA_LISTED, media, lambda path: crc32(path.encode()))),
        "media_count": len(media),
        "absent": [path for path, defect in defects.items() if defect],
        "repeated": [len(repeated), repeated[0]] if repeated else [],
    }


def _first_defect(paths: Iterable[str], root: Path,
                  defects: dict[str, str | None]) -> tuple[str, str] | None:  # fmt: skip
    """The first of a pair's media files that is not usable, and why; each is looked up once."""
    for path in paths:
        if path not in defects:
            defects[path] = _defect(root / path)
        if cause := defects[path]:
            return path, cause
    return None


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
        groups=(
            *(_group_number(record.get(name)) for name in ITEM_GROUPS),
            _group_number(record.get("group"), "records"),
        ),
        scores=(float(scores[0]), *(float(scores[1 + n]) for n in kept)) if scores else (),
    )


def _group_number(name: str | None, kind: str = "group") -> int:
    """A group's name as a number apart from content and other kinds; 0 for no group."""
    return content_number({"text": f"{kind} {name}"}) | 1 << 61 if name else 0


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
