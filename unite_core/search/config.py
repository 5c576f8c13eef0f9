"""TODO."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..files import from_row
from ..model.config import EmbedConfig
from ..settings import _one_of

__all__ = ["EncodeConfig", "MineConfig"]


@dataclass(frozen=True)
class EncodeConfig:
    """A corpus to vectors on disk: what is embedded, by what, and how it is written.

    Rows of `data` are items, with an `id` of their own or not, or records, whose sides named in
    `take` are items.
    """

    model: str  # folder or hub id
    output: str  # folder of shards
    data: tuple[str, ...] = ()  # files of items or records; a single name is taken as one file
    media_root: str = "."
    take: tuple[str, ...] = ("candidate",)  # of records: query, candidate
    number_format: str = "float32"  # or float16, bfloat16, int8
    dim: int | None = None  # the first numbers of each vector, to unit norm again; None: all
    shard_items: int = 4096
    workers: int = 0  # processes that decode ahead; 0 decodes in between
    max_bad_share: float = 0.01  # of the items; beyond it encoding stops
    embed: dict[str, str | int | float] = field(default_factory=dict)
    """Fields of EmbedConfig in place of what `model` was saved with."""

    def __post_init__(self):
        for name in ("data", "take"):
            value = getattr(self, name)
            value = (value,) if isinstance(value, str) else tuple(map(str, value))
            object.__setattr__(self, name, value)
        _one_of("number_format", self.number_format, ("float32", "float16", "bfloat16", "int8"))
        for side in self.take:
            _one_of("take", side, ("query", "candidate"))
        from_row(EmbedConfig, self.embed, "embed")
        if self.shard_items < 1 or self.workers < 0 or (self.dim or 1) < 1 or not self.take:
            raise ValueError(
                f"shard_items {self.shard_items}, dim {self.dim} and the number of sides in take "
                f"must be at least 1, workers {self.workers} at least 0"
            )


@dataclass(frozen=True)
class MineConfig:
    """Hard negatives for records: what finds them, and which of the candidates found are kept.

    The candidates of all records are the corpus. For every query the `depth` best are looked at;
    what can be right is removed, and the best `negatives` of the rest are written.
    """

    model: str  # folder or hub id
    data: tuple[str, ...]  # files of records; a single name is taken as one file
    output: str  # JSON Lines; OUTPUT's name with .report.json beside it
    media_root: str = "."
    vectors: str | None = None  # folder of stored vectors; None: `vectors` beside the output
    negatives: int = 4  # per record, besides those that it has
    depth: int = 100  # ranks looked at, known positives among them
    skip: int = 0  # first ranks passed over, after known positives and identical items
    margin: float | None = None  # a negative scores at most positive - margin
    ratio: float | None = 0.95  # and at most positive - (1 - ratio) |positive|
    same_modality: bool = True  # only candidates of the positive's modality, which MAMCL compares
    max_bad_share: float = 0.01  # of the records, with unreadable media; beyond it mining stops

    def __post_init__(self):
        data = (self.data,) if isinstance(self.data, str) else tuple(map(str, self.data))
        object.__setattr__(self, "data", data)
        if not data:
            raise ValueError("data names no file of records: give at least one")
        if self.negatives < 1 or self.skip < 0 or self.depth < self.skip + self.negatives:
            raise ValueError(
                f"depth {self.depth} must hold skip {self.skip} and negatives {self.negatives}, "
                "at least one of them: raise depth"
            )
        if (self.margin or 0) < 0 or not 0 <= (1 if self.ratio is None else self.ratio) <= 1:
            raise ValueError(
                f"margin {self.margin} must be at least 0 and ratio {self.ratio} in [0, 1]: a "
                "negative above its positive is let through by null, not by a negative margin"
            )
