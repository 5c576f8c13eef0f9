"""A recipe: which sources, by which rules, in which shares make a mix; read from JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..jsonfile import from_row, read_json
from .judge import RuleConfig
from .profile import ProfileConfig
from .source import Source

__all__ = ["Recipe", "read_recipe"]


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
