"""Validate the rows of any source: each becomes records or a reject, counted by cause."""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..data.items import files_of, images_of, videos_of
from ..data.json_stream import RecordError
from ..data.media import MediaError, image_shape, load_image
from ..data.readers import RawLine, Row, decode_line
from ..data.records import validate_record
from ..data.videos import read_clip, video_shape
from .adapters import Adapter
from .item_groups import MediaRoot

__all__ = [
    "DEPTHS", "BadRowsError", "MediaCheck", "Reject", "Report", "cause_of", "check_bad_share",
    "check_rows",
]  # fmt: skip


DEPTHS = ("name", "file", "header", "decode")
_SHOWN = 20  # rejects that an error lists
_CAUSES = (  # patterns of messages, tried in this order
    (r"not valid JSON", "not JSON"),
    (r"cells for", "wrong number of CSV cells"),
    (r"unknown field|no adapter|has no option", "unknown field"),
    (r"no column|named fields|a record is an object|does not fit the layout",
     "not the layout of the adapter"),
    (r"field (query|candidate): missing", "no query or candidate"),
    (r"leaves the media root|is no path|no file under|no such file|outside the media root",
     "no file under the media root"),
    (r"is a URL", "URL instead of a file"),
    (r"blank text", "blank text"),
    (r"half a surrogate", "broken Unicode"),
    (r"empty item", "empty item"),
    (r"is empty; fetch|empty file;", "empty file"),
    (r"unreadable cell", "unreadable cell"),
    (r"cannot be listed", "unreadable folder"),
    (r"a link;|no regular file", "no regular file"),
    (r"sides of more than", "sides too unequal"),
    (r"text without|no text file|cannot be read as UTF-8|is longer than", "no caption"),
    (r"placeholder|reserved token", "wrong placeholders"),
    (r"target_modal", "wrong target_modal"),
    (r"more than \d+ pixels|too much for", "too many pixels"),
    (r"archive", "archive in an image"),
    (r"truncated|is cut|ends after", "truncated"),
    (r"cannot be decoded|no video stream|has no frames|playlist|no 8-bit|another number of frames|"
     r"must have one size", "cannot be decoded"),
    (r"is not a string|an item is an object|is no medium|empty list|mixes frames", "wrong type"),
)  # fmt: skip


class BadRowsError(ValueError):
    """More rows were rejected than allowed; lists causes with counts and the first rejects."""


class Reject(NamedTuple):
    """A row that gives no record, or a record of it that cannot be used."""

    where: str
    cause: str  # kind of defect, from a fixed list
    message: str


@dataclass
class Report:
    """Counts of rows, records and rejects. A row of several records can be rejected in part."""

    rows: int = 0
    records: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    examples: list[Reject] = field(default_factory=list)  # the first rejects

    @property
    def rejects(self) -> int:
        return self.causes.total()

    def add(self, other: Report) -> None:
        """Add the counts of another part of the same source."""
        self.rows += other.rows
        self.records += other.records
        self.causes += other.causes
        self.examples += other.examples[: _SHOWN - len(self.examples)]

    def reject(self, reject: Reject) -> None:
        self.causes[reject.cause] += 1
        if len(self.examples) < _SHOWN:
            self.examples.append(reject)


class MediaCheck:
    """Checks whether the media of records can be used; each file is checked once.

    Args
        root   folder that paths are relative to and must not leave, not even through links
        depth  "name" trusts paths, "file" needs a file that is not empty, "header" reads its
               header, "decode" decodes all of it
    Only "decode" finds truncated files and archives hidden in images. It takes about .2 ms for a
    small image, and for a video as long as decoding it.
    """

    def __init__(self, root: str | Path = ".", depth: str = "file"):
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(DEPTHS)}, not {depth!r}")
        self.root, self.depth = root, depth
        self._files = MediaRoot(root)
        self._faults: dict[str, dict[str, str]] = {"image": {}, "video": {}}

    def fault(self, record: Mapping) -> str:
        """What is wrong with the first bad media file of a valid record, "" if nothing is."""
        if self.depth == "name":
            return ""
        for item in _items(record):
            if "image" in item or "video" in item:
                for kind, file in _media(item):
                    if fault := self._fault(kind, file):
                        return fault
        return ""

    def _fault(self, kind: str, file) -> str:
        if isinstance(file, list | tuple):
            faults = (self._fault("image", frame) for frame in file)
            return next(filter(None, faults), "") or self._frames_fault(file)
        if not isinstance(file, str):
            return ""
        faults = self._faults[kind]
        if file not in faults:
            faults[file] = self._check(kind, file)
        return faults[file]

    def _frames_fault(self, frames) -> str:
        """What is wrong with a video of frames that can be read one by one."""
        try:
            if self.depth != "file":
                video_shape(frames, self.root)
        except MediaError as error:
            return f"{frames[0]}: {error}"
        return ""

    def _check(self, kind: str, path: str) -> str:
        found = self._files.locate(path)
        if not found:
            return f"{path}: no file under the media root {self.root}; correct the path"
        if not found[1]:
            return f"{path} is empty; fetch the file again"
        try:
            if self.depth == "header":
                (image_shape if kind == "image" else video_shape)(path, self.root)
            elif self.depth == "decode":
                (load_image if kind == "image" else read_clip)(path, self.root)
                if kind == "image" and zipfile.is_zipfile(found[0]):
                    return f"{path}: an archive is hidden in it; save the image again"
        except MediaError as error:
            return str(error)
        return ""


def check_rows(
    rows: Iterable[Row | RawLine], convert: Adapter, media: MediaCheck, report: Report
) -> Iterator[dict | Reject]:
    """Yield the validated records of rows, with rejects in their places; `report` counts both.

    Nothing is repaired or replaced. A source that breaks off raises the reader's RecordError.

    >>> from unite_core.curate.adapters import adapter
    >>> good = {"query": {"text": "a cat"}, "candidate": {"image": "cat.png"}}
    >>> rows = [Row("row 1", good), Row("row 2", {"query": {"text": "a dog"}})]
    >>> report = Report()
    >>> record, reject = check_rows(rows, adapter("native"), MediaCheck(depth="name"), report)
    >>> record == good, reject.cause, dict(report.causes)
    (True, 'no query or candidate', {'no query or candidate': 1})
    """
    for row in rows:
        report.rows += 1
        decoded = decode_line(row) if isinstance(row, RawLine) else row
        for result in _check_row(decoded, convert, media):
            if isinstance(result, Reject):
                report.reject(result)
            else:
                report.records += 1
            yield result


def check_bad_share(report: Report, max_share: float, least: int = 1) -> None:
    """Raise BadRowsError if more than a share of max(rows, `least`) rows was rejected."""
    total = max(report.rows, report.records + report.rejects, least)
    if report.rejects > max_share * total:
        causes = [f"  {count} x {cause}" for cause, count in report.causes.most_common()]
        shown = [f"  {reject.message}" for reject in report.examples]
        raise BadRowsError(
            f"{report.rejects} rejects in {report.rows} rows, more than the {max_share:.2%} of "
            "max_bad_share: repair or remove them, or raise the limit\n" + "\n".join(causes + shown)
        )


def cause_of(message: str) -> str:
    """The kind of defect that a message describes, "other" if no pattern matches."""
    return next((cause for words, cause in _RULES if words.search(message)), "other")


def _check_row(row: Row, convert: Adapter, media: MediaCheck) -> Iterator[dict | Reject]:
    if row.error:
        yield _reject(row.where, row.error)
        return
    try:
        for record in convert(row.value):
            yield _checked(record, row.where, media)
    except RecordError as error:
        yield _reject(row.where, str(error))


def _checked(record: dict, where: str, media: MediaCheck) -> dict | Reject:
    try:
        validate_record(record, where, media.root)
    except RecordError as error:
        return _reject(where, str(error))
    fault = media.fault(record)
    return _reject(where, fault, _names(record, media.root)) if fault else record


def _reject(where: str, message: str, names: Iterable[str] = ()) -> Reject:
    """A reject whose cause does not depend on what files, folders and values are called."""
    named = message if message.startswith(where) else f"{where}: {message}"
    words = message.removeprefix(where)
    for name in sorted(names, key=len, reverse=True):
        words = words.removeprefix(name)
    return Reject(_printable(where), cause_of(_QUOTED.sub("", words)), _printable(named))


def _items(record: Mapping) -> list[Mapping]:
    negative = record.get("negative") or []
    negatives = negative if isinstance(negative, list) else [negative]
    return [record["query"], record["candidate"], *negatives]


def _names(record: Mapping, root: str | Path) -> Iterator[str]:
    """How messages about a record's media may begin."""
    for item in _items(record):
        for path in files_of(item):
            yield from (path, os.path.join(root, path), os.path.realpath(os.path.join(root, path)))


def _printable(text: str) -> str:
    """The text with half surrogates, which no file in UTF-8 can hold, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _media(item: Mapping) -> Iterator[tuple[str, object]]:
    yield from (("image", image) for image in images_of(item))
    yield from (("video", video) for video in videos_of(item))


_QUOTED = re.compile(r"""(?<!\w)(?:'[^']*'|"[^"]*")(?!\w)""")
_RULES = [(re.compile(words), cause) for words, cause in _CAUSES]
