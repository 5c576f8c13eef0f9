"""What encoding a corpus, indexing it, probing a model and mining hard negatives can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ..model.config import EmbedConfig
from ..model.loading import LoadConfig
from ..settings import (
    Count,
    Name,
    Names,
    Natural,
    NonNegative,
    PathName,
    Share,
    fields_of,
    nested,
    one_or_more,
    settings,
)

__all__ = ["EncodeConfig", "IndexConfig", "MineConfig", "ProbeConfig"]

Side = Literal["query", "candidate"]
_Depth = Annotated[int, Field(ge=1, le=65536)]


@settings
class EncodeConfig:
    """A corpus to vectors on disk: what is embedded, by which model, and how it is written.

    Rows of `data` are items, with or without an `id` of their own, or records, whose sides named
    in `take` are items.
    """

    model: PathName
    """Model folder or hub id."""
    output: PathName
    """Folder of the shards."""
    data: Annotated[tuple[PathName, ...], BeforeValidator(one_or_more)] = ()
    """Files of items or records."""
    media_root: PathName = "."
    """Folder that media paths are relative to and must not leave."""
    take: Annotated[tuple[Side, ...], BeforeValidator(one_or_more), Field(min_length=1)] = (
        "candidate",
    )
    """Sides of records that are embedded."""
    instruction: Name | None = None
    """What the vectors are for, where an item does not say so itself; put where the model reads
    it."""
    number_format: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    """How numbers are stored."""
    dim: Count | None = None
    """Keep the first so many coordinates of each vector, normalised again; null: all."""
    shard_items: Count = 4096
    """Items of a shard, the unit that a killed run resumes from."""
    max_bad_share: Share = 0.01
    """Share of items that may be unreadable before encoding stops."""
    embed: fields_of(EmbedConfig) = Field(default_factory=dict)
    """Fields of EmbedConfig in place of those that the model was saved with."""
    load: nested(LoadConfig) = Field(default_factory=LoadConfig)
    """How the model is loaded and fed."""


@settings
class IndexConfig:
    """How candidates are searched.

    "flat" compares with every candidate and is exact; "hnsw" walks a graph of near ones, "ivf"
    looks into the `probes` nearest of `cells` cells: both are faster and miss some.
    """

    kind: Literal["flat", "hnsw", "ivf"] = "flat"
    """Exact search, a graph of neighbours, or cells."""
    neighbours: Annotated[int, Field(ge=2, le=1024)] = 32
    """hnsw: links of each candidate."""
    build_depth: _Depth = 200
    """hnsw: candidates looked at to place one."""
    search_depth: _Depth = 128
    """hnsw: candidates looked at to find k, at least k."""
    cells: Count | None = None
    """ivf: number of cells; null: 4 sqrt(n), at most n / 39."""
    probes: Count = 32
    """ivf: cells that are searched."""
    partition_depth: _Depth = 256
    """hnsw, ivf: best candidates that a factorised score sums exactly."""
    partition_sample: Annotated[int, Field(ge=2)] = 4096
    """hnsw, ivf: draws of a modality that stand for its other candidates."""


@settings
class ProbeConfig:
    """A modality probe: which model's vectors it reads, and the training records it is fitted on.

    Use the records that the last stage was trained on, whose queries ask as users will.
    """

    model: PathName
    """Model folder or hub id."""
    data: Names
    """Files of records."""
    output: PathName | None = None
    """File of the probe; null: modality_probe.safetensors in the model's folder."""
    media_root: PathName = "."
    """Folder that media paths are relative to and must not leave."""
    vectors: PathName | None = None
    """Folder of stored vectors, such as that of mining; null: none are kept."""
    records: Count = 4000
    """Records drawn at random; fewer if there are fewer."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of the cross-validation that chooses the penalty; a group's queries stay together."""
    seed: Natural = 0
    """Draws the records."""
    max_bad_share: Share = 0.01
    """Share of the records drawn that may have unreadable media."""
    embed: fields_of(EmbedConfig) = Field(default_factory=dict)
    """Fields of EmbedConfig in place of those that the model was saved with."""
    load: nested(LoadConfig) = Field(default_factory=LoadConfig)
    """How the model is loaded and fed."""


@settings
class MineConfig:
    """Hard negatives for records: what finds them, and which of the candidates found are kept.

    The candidates of all records are the corpus. For every query the `depth` best are looked at;
    what can be a positive is removed, and the best `negatives` of the rest are written.
    """

    model: PathName
    """Model folder or hub id."""
    data: Names
    """Files of records."""
    output: PathName
    """JSON Lines file; its name with .report.json is written beside it."""
    media_root: PathName = "."
    """Folder that media paths are relative to and must not leave."""
    vectors: PathName | None = None
    """Folder of stored vectors; null: `vectors` beside the output."""
    negatives: Count = 4
    """Hard negatives of a record, besides those that it has."""
    depth: Count = 100
    """Ranks looked at, known positives among them."""
    skip: Natural = 0
    """First ranks passed over, after known positives and identical items."""
    margin: NonNegative | None = None
    """A hard negative scores at most the positive's score minus this."""
    ratio: Share | None = 0.95
    """A hard negative scores at most positive - (1 - ratio) |positive|."""
    same_modality: bool = True
    """Only candidates of the positive's modality, the only ones that MAMCL compares."""
    max_bad_share: Share = 0.01
    """Share of records that may have unreadable media before mining stops."""
    load: nested(LoadConfig) = Field(default_factory=LoadConfig)
    """How the model is loaded and fed."""

    def __post_init__(self):
        if self.depth < self.skip + self.negatives:
            raise ValueError(
                f"depth {self.depth} must hold skip {self.skip} and negatives {self.negatives}: "
                "raise depth"
            )
