"""A recipe: which sources, by which rules, in which shares make a mix; read from JSON.

What a recipe says of one source: where its rows are and how they become records.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from ..data.readers import HUB, RawLine, Row, raw_rows, row_files
from ..files import from_row, read_json
from .adapters import Adapter, adapter, folder_files, folder_rows
from .filter import RuleConfig
from .profile import ProfileConfig

__all__ = ["FOLDER", "Recipe", "Source", "read_recipe"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a mix is; paths are relative to the recipe's own folder."""

    name: str
    sources: tuple[Source, ...]
    output: str  # folder of the mix
    media_root: str = "."  # all media of all sources lie below it
    tests: tuple[Source, ...] = ()  # evaluation sets: tasks.json or records, never trained on
    size: int = 0  # records of the mix; 0: as many as the weights allow
    max_bad_share: float = 0.01  # of a source's rows that may be no valid records
    rules: RuleConfig = field(default_factory=RuleConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    model: str = ""  # for alignment by an embedder: folder or hub id
    seed: int = 0

    def __post_init__(self):
        for name, kind in (("sources", Source), ("tests", Source)):
            values = [_made(kind, v, f"{name}[{n}]") for n, v in enumerate(getattr(self, name))]
            object.__setattr__(self, name, tuple(values))
        for name, kind in (("rules", RuleConfig), ("profile", ProfileConfig)):
            object.__setattr__(self, name, _made(kind, getattr(self, name), name))
        names = [source.name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"sources {names}: at least one, each with a name of its own")
        weighted = [source.weight > 0 for source in self.sources]
        if any(weighted) and not all(weighted):
            raise ValueError(
                "some sources have a weight and some have none: give all one, or use quotas"
            )
        if self.size and not all(weighted):
            raise ValueError("size needs weights that say of which source how much")
        if not 0 <= self.max_bad_share <= 1 or self.size < 0:
            raise ValueError(f"max_bad_share {self.max_bad_share}: 0 to 1; size {self.size}: >= 0")
        if (self.rules.alignment == "embedder") != bool(self.model):
            raise ValueError('a model is for rules.alignment = "embedder", which needs one')

    def as_json(self) -> dict:
        """What decides the mix, as JSON can hold it."""
        values = asdict(self)
        values["rules"]["likeness"] = self.rules.likeness._asdict()
        return values


def read_recipe(path: str | Path) -> Recipe:
    """A recipe from JSON; a ValueError names the file and field of what is wrong."""
    return from_row(Recipe, read_json(path), str(path))


def _made(kind, value, where: str):
    return value if isinstance(value, kind) else from_row(kind, value, where)


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
        """Return the adapter with its options set; RecordError for an unknown name or option."""
        return adapter(self.adapter, **self.options)

    def iter_rows(self, data: str | Path = ".") -> Iterator[Row | RawLine]:
        """Yield all rows in order, JSON Lines still undecoded; `path` is relative to `data`."""
        if self.adapter == FOLDER:
            return folder_rows(self._below(data))
        return raw_rows(self._below(data), self.split)

    def stamp(self, data: str | Path = ".") -> str:
        """Digest (32 hex digits) of names, sizes and times of all files that rows come from.

        Files of a hub set are not checked; a missing path is an error only when rows are read.
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
