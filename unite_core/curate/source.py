"""What a recipe says of one source: where its rows are and how they become records."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..readers import HUB, RawLine, Row, raw_rows, row_files
from .adapters import Adapter, adapter
from .folders import folder_files, folder_rows

__all__ = ["FOLDER", "Source"]

FOLDER = "folder"


@dataclass(frozen=True)
class Source:
    """Records to take from, and how many of them at most."""

    name: str  # unique in a recipe; records without a `source` get it
    path: str  # file, folder or hub set, see `readers.iter_rows`; files below the data folder
    media: str = ""  # folder below the media root that its media paths are relative to
    adapter: str = "native"  # see `adapters.adapter`; "folder": media with texts of the same name
    options: Mapping = field(default_factory=dict)  # of the adapter
    split: str = "train"  # of a hub or saved set
    weight: float = 0.0  # share of the mix, in proportion to the others' weights; 0: all it has
    quota: int = 0  # at most so many records; 0: no limit
    tasks: tuple[str, ...] = ()  # only records of these tasks
    pair_types: tuple[str, ...] = ()  # only these, such as "text > image"

    def __post_init__(self):
        if not self.name or not self.path:
            raise ValueError("a source needs a name and a path")
        if self.weight < 0 or self.quota < 0:
            raise ValueError(
                f"source {self.name}: weight {self.weight} and quota {self.quota} are at least 0"
            )
        folder = PurePosixPath(self.media)
        if folder.is_absolute() or ".." in folder.parts:
            raise ValueError(
                f"source {self.name}: media {self.media!r} must be below the media root"
            )
        for name in ("tasks", "pair_types"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"source {self.name}: {name} is a list of strings")
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def converter(self) -> Adapter:
        """What makes records of this source's rows; RecordError for an unknown adapter."""
        return adapter("captions" if self.adapter == FOLDER else self.adapter, **self.options)

    def iter_rows(self, data: str | Path = ".") -> Iterator[Row | RawLine]:
        """All rows in order, those of JSON Lines not decoded yet; `data` holds the path."""
        if self.adapter == FOLDER:
            return folder_rows(self._below(data))
        return raw_rows(self._below(data), self.split)

    def stamp(self, data: str | Path = ".") -> str:
        """32 hex digits of names, sizes and times of all files that rows come from.

        Those of a hub set are not looked at; a path without files is refused when rows are read.
        """
        digest = hashlib.sha256()
        for file in self._files(data):
            state = file.stat()
            name = os.path.relpath(file, data)
            digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
        return digest.hexdigest()[:32]

    def _files(self, data: str | Path) -> Iterable[Path]:
        if self.path.startswith(HUB) or not os.path.exists(self._below(data)):
            return []
        return (folder_files if self.adapter == FOLDER else row_files)(self._below(data))

    def _below(self, data: str | Path) -> str | Path:
        return self.path if self.path.startswith(HUB) else Path(data) / self.path
