"""Does a checkpoint give the numbers that its authors print? `verify(MODEL)`, or `unite verify`.

Each `examples/*.json` is the published example of one checkpoint: items, the cosines printed for
them, the number type they were computed in, and where all this and the media were found. The items
are embedded here in that type and in float32. Two things separate a printed cosine from the one of
float32 without any fault: vectors, products and the printed number are rounded, which has a bound,
and the model computes in a short type, whose effect is measured by how far it moves the cosines
here. A deviation beyond both is one that the number type does not explain.
"""

# Shapes: Q queries, C candidates, D embedding size.

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from ..data.items import images_of, videos_of
from ..model.config import EmbedConfig
from ..model.loading import LoadConfig
from ..registry import Registry
from ..settings import Name, as_tuple, fields_of, nested, read_config, settings
from ..tables import text_table

__all__ = [
    "EXAMPLES", "ExamplePart", "PublishedExample", "VerifiedPair", "example_of", "format_verified",
    "rounding_bound", "verify",
]  # fmt: skip


def _rows(value: Any) -> Any:
    return tuple(map(as_tuple, value)) if isinstance(value, list | tuple) else value


Items = Annotated[
    tuple[dict[str, Any], ...], BeforeValidator(as_tuple), Field(min_length=1)
]  # of UniteEmbedder.embed


@settings
class ExamplePart:
    """Items that are embedded under the same settings, and the cosines printed for them."""

    about: Name
    """What is compared."""
    queries: Items
    """Q items that ask."""
    candidates: Items
    """C items that are compared with each query."""
    cosines: Annotated[tuple[tuple[float | None, ...], ...], BeforeValidator(_rows)]
    """Q lists of C printed cosines; null where none is printed."""
    embed: fields_of(EmbedConfig) = Field(default_factory=dict)
    """Fields of EmbedConfig in place of the checkpoint's."""

    def __post_init__(self):
        shape = len(self.queries), len(self.candidates)
        if [len(row) for row in self.cosines] != [shape[1]] * shape[0]:
            raise ValueError(
                f"cosines must be {shape[0]} lists of {shape[1]}, one for each query and candidate"
            )


@settings
class PublishedExample:
    """A checkpoint's example as its authors print it."""

    model: Name
    """The checkpoint, as its authors write it."""
    known_as: Name
    """Regular expression of its folder's or repository's name in lower case."""
    dtype: Literal["bfloat16", "float16", "float32"]
    """Type in which the printed numbers were computed."""
    source: Name
    """Where the example is printed."""
    parts: Annotated[
        tuple[nested(ExamplePart), ...], BeforeValidator(as_tuple), Field(min_length=1)
    ]
    """Comparisons, each with settings of its own."""
    media_from: str = ""
    """Where its pictures and videos are found."""


EXAMPLES: Registry[PublishedExample] = Registry("published example")
"""By the names of the files in `examples`; a module of yours can register more."""
for _path in sorted(Path(__file__).with_name("examples").glob("*.json")):
    EXAMPLES.register(_path.stem)(read_config(PublishedExample, _path))


@dataclass(frozen=True)
class VerifiedPair:
    """A printed cosine beside the one that is computed here."""

    about: str
    published: float
    here: float  # in the printed number's type
    exact: float  # in float32
    rounding: float  # bound of what rounding vectors, products and the printed number can change
    moved: float  # the most that the type moves a cosine of this example here

    @property
    def deviation(self) -> float:
        return self.here - self.published

    @property
    def is_explained(self) -> bool:
        """Whether the number type explains the deviation."""
        return abs(self.deviation) <= self.rounding + self.moved


def example_of(model: str, chosen: str | None = None) -> PublishedExample:
    """The published example of a checkpoint.

    Args
        model   folder or hub id; every component of it is looked at, the last first
        chosen  the name of a registered example or a JSON file, in place of the model's
    ValueError lists the known ones.
    """
    if chosen is not None:
        if Path(chosen).suffix == ".json":
            return read_config(PublishedExample, chosen)
        return EXAMPLES[chosen]
    path = Path(model).expanduser()
    names = [*reversed(Path(model).parts), *reversed(path.resolve().parts)]
    for name in (name.split("--")[-1].lower() for name in names):
        for example in (EXAMPLES[key] for key in EXAMPLES):
            if re.fullmatch(example.known_as, name):
                return example
    known = ", ".join(f"{name} ({EXAMPLES[name].model})" for name in EXAMPLES)
    raise ValueError(
        f"{model}: no published example is known for a model of this name; choose one with "
        f"--example NAME, or give a JSON file of your own: {known}"
    )


def verify(model: str, example: PublishedExample, media_root: str | Path = ".",
           load: LoadConfig | None = None) -> list[VerifiedPair]:  # fmt: skip
    """Compute the cosines of a published example with a checkpoint.

    Args
        model       what `UniteEmbedder.load` takes
        media_root  folder of the example's media; FileNotFoundError lists those that it lacks
        load        how the model is loaded; with a `dtype` the model runs in that alone, and what
                    it moves is not measured
    """
    _check_media(example, Path(media_root))
    load = load or LoadConfig()
    kinds = [load.dtype] if load.dtype else list(dict.fromkeys([example.dtype, "float32"]))
    runs = [_vectors(model, example, media_root, replace(load, dtype=kind)) for kind in kinds]
    found, exact = runs[0], runs[-1]
    cosines = [[queries @ candidates.T for queries, candidates in run] for run in (found, exact)]
    moved = max(np.abs(a - b).max() for a, b in zip(*cosines, strict=True))
    pairs = []
    for number, part in enumerate(example.parts):
        bounds = rounding_bound(*exact[number], _unit(example.dtype), part.cosines)
        for place, published in np.ndenumerate(np.array(part.cosines, dtype=float)):
            if not np.isnan(published):
                label = f"{part.about} {place[0] + 1} x {place[1] + 1}"
                values = (float(side[number][place]) for side in cosines)
                pairs.append(
                    VerifiedPair(label, float(published), *values, bounds[place], float(moved))
                )
    return pairs


def format_verified(pairs: list[VerifiedPair], example: PublishedExample) -> str:
    """A table of the pairs, and a line that says what was compared and what it means."""
    rows = [
        [pair.about, f"{pair.published:.4f}", f"{pair.here:.4f}", f"{pair.deviation:+.4f}",
         f"{pair.rounding:.4f}", "yes" if pair.is_explained else "no"]
        for pair in pairs
    ]  # fmt: skip
    head = ["pair", "published", "here", "deviation", "rounding", "explained"]
    beyond = sum(not pair.is_explained for pair in pairs)
    verdict = (
        f"{beyond} of {len(pairs)} deviate by more than {example.dtype} explains"
        if beyond else f"all {len(pairs)} within what {example.dtype} explains"
    )  # fmt: skip
    return (
        f"{example.model}: {example.source}\n\n{text_table(rows, head, left=1)}\n\n"
        f"{verdict}: the bound of rounding, and {pairs[0].moved:.4f}, the most that computing in "
        f"{example.dtype} moves one of these cosines here."
    )


def _vectors(model: str, example: PublishedExample, media_root,
             load: LoadConfig) -> list[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Vectors [Q, D] and [C, D] of each part."""
    from ..model.embedder import UniteEmbedder

    embedder, found = UniteEmbedder.load(model, **asdict(load)), []
    for part in example.parts:
        ready = embedder.configured(**part.embed)
        items = [*part.queries, *part.candidates]
        where = [f"{part.about}, item {n + 1}" for n in range(len(items))]
        vectors = ready.embed(items, media_root, batch_size=1, progress=False, where=where)
        found.append((vectors[: len(part.queries)], vectors[len(part.queries) :]))
    return found


def _unit(dtype: str) -> float:
    """The unit roundoff of a number type."""
    import torch

    return torch.finfo(getattr(torch, dtype)).eps / 2


def rounding_bound(queries: np.ndarray, candidates: np.ndarray, unit: float, cosines) -> np.ndarray:
    """[Q, C] bounds of what rounding changes in a printed cosine.

    Args
        queries, candidates  [Q, D], [C, D] unit vectors
        unit                 roundoff of the number type: half the distance from 1 to the next
        cosines              Q lists of C printed numbers, or null
    A vector's length, its division by it (of both sides) and each product may be off by one unit,
    so the sum by 5 units of sum_i |q_i c_i|; the sum by one more of itself; and what is printed by
    half of its last decimal, of which torch prints four.
    """
    printed = np.nan_to_num(np.array(cosines, dtype=float))
    decimals = [[max(4, len(repr(value).partition(".")[2])) for value in row] for row in cosines]
    last = 0.5 * 10.0 ** -np.array(decimals)
    return 5 * unit * (np.abs(queries) @ np.abs(candidates).T) + unit * np.abs(printed) + last


def _check_media(example: PublishedExample, root: Path) -> None:
    items: list[Mapping] = [item for part in example.parts for item in part.queries]
    items += [item for part in example.parts for item in part.candidates]
    names = {name for item in items for name in (*images_of(item), *videos_of(item))}
    lost = sorted(name for name in names if isinstance(name, str) and not (root / name).is_file())
    if lost:
        raise FileNotFoundError(
            f"{root} lacks {', '.join(lost)}, which {example.model}'s example needs: put them there"
            f" (--media-root), from {example.media_from or example.source}"
        )
