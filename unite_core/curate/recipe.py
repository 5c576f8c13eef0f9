"""Recipes: the sources, rules and shares that make a training mix, read from JSON."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ..data.readers import HUB, RawLine, Row, raw_rows, row_files
from ..settings import (
    Name,
    Natural,
    NonNegative,
    PathName,
    Share,
    Strings,
    as_tuple,
    nested,
    read_config,
    settings,
)
from .adapters import Adapter, adapter
from .config import ProfileConfig, RuleConfig
from .media_folders import FILENAME, folder_files, folder_rows

__all__ = ["FOLDER", "Recipe", "Source", "read_recipe"]


FOLDER = "folder"


@settings
class Source:
    """Records to take from, and how many of them at most."""

    name: Name
    """Unique in a recipe; records without a `source` get it."""
    path: Name
    """File, folder or hub data set, see `readers.iter_rows`; files lie below the data folder."""
    media: str = ""
    """Folder below the media root that the source's media paths are relative to."""
    adapter: Name = "native"
    """Layout of the rows, a name of `ADAPTERS`; "folder": media with texts of the same name,
    or, with the option caption "filename", with the words of their names."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the adapter."""
    split: Name = "train"
    """Split of a hub data set or a saved one."""
    weight: NonNegative = 0.0
    """Share of the mix, in proportion to the other sources' weights; 0: all its records."""
    quota: Natural = 0
    """Records at most; 0: no limit."""
    tasks: Strings = ()
    """Only records of these tasks."""
    pair_types: Strings = ()
    """Only records of these pair types, such as "text > image"."""

    def __post_init__(self):
        folder = PurePosixPath(self.media)
        if folder.is_absolute() or ".." in folder.parts:
            raise ValueError(f"media {self.media!r} must be below the media root")

    def converter(self) -> Adapter:
        """Return the adapter with its options set; RecordError for an unknown name or option."""
        return adapter(self.adapter, **self.options)

    def iter_rows(
        self, data: str | Path = ".", media_root: str | Path = "."
    ) -> Iterator[Row | RawLine]:
        """Yield all rows in order, JSON Lines still undecoded; `path` is relative to `data`.

        Media that stand in a table become files below `media` below `media_root`.
        """
        if self.adapter == FOLDER:
            return folder_rows(self._below(data), self.options.get("caption") == FILENAME)
        return raw_rows(self._below(data), self.split, os.path.join(media_root, self.media))

    def stamp(self, data: str | Path = ".") -> str:
        """Digest (32 hex digits) of names, sizes and times of all files that rows come from.

        Files of a hub set are not checked; a missing path is an error only when rows are read.
        """
        digest = hashlib.sha256()
        for file in self._files(data):
            state = file.stat()
            name = os.path.relpath(file, data)
            digest.update(os.fsencode(name) + f"\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
        return digest.hexdigest()[:32]

    def _files(self, data: str | Path) -> Iterable[Path]:
        if self.path.startswith(HUB) or not os.path.exists(self._below(data)):
            return []
        return (folder_files if self.adapter == FOLDER else row_files)(self._below(data))

    def _below(self, data: str | Path) -> str | Path:
        return self.path if self.path.startswith(HUB) else Path(data) / self.path


Sources = Annotated[tuple[nested(Source), ...], BeforeValidator(as_tuple)]


@settings
class Recipe:
    """Everything that decides what a mix is; paths are relative to the recipe's own folder."""

    name: Name
    """Name of the mix."""
    sources: Annotated[Sources, Field(min_length=1)]
    """Where records come from."""
    output: PathName
    """Folder of the mix."""
    media_root: PathName = "."
    """Folder that all media of all sources lie below."""
    tests: Sources = ()
    """Evaluation sets, tasks.json or records, which are never trained on."""
    size: Natural = 0
    """Records of the mix; 0: as many as the weights allow."""
    max_bad_share: Share = 0.01
    """Share of a source's rows that may be no valid records."""
    rules: nested(RuleConfig) = RuleConfig()
    """What is filtered out."""
    profile: nested(ProfileConfig) = ProfileConfig()
    """How the mix is described."""
    model: str = ""
    """For alignment by an embedder: model folder or hub id."""
    seed: Natural = 0
    """Decides which records are drawn."""

    def __post_init__(self):
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"sources {names}: each needs a name of its own")
        weighted = [source.weight > 0 for source in self.sources]
        if any(weighted) and not all(weighted):
            raise ValueError(
                "some sources have a weight and some have none: give all one, or use quotas"
            )
        if self.size and not all(weighted):
            raise ValueError("size needs weights that say of which source how much")
        if (self.rules.alignment == "embedder") != bool(self.model):
            raise ValueError('a model is for rules.alignment = "embedder", which needs one')


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe from JSON; a ValueError names the file and the field of what is wrong."""
    return read_config(Recipe, path)
