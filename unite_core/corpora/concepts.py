"""What a corpus's training split knows of each concept: its texts, pictures and clip.

From these a study draws mixes that show the same concepts in different modalities.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..files import from_row, read_json, write_json

__all__ = ["CONCEPTS_FILE", "Concept", "read_concepts", "write_concepts"]


CONCEPTS_FILE = "concepts.json"


@dataclass(frozen=True)
class Concept:
    """One concept of the training split.

    name    its label across modalities
    family  concepts of a family look alike; what holds for one may hold for all
    texts   from coarse to fine; the second one is the fine caption
    images  paths of pictures, at least one
    video   path of its clip, "" for none
    """

    name: str
    family: str
    texts: list[str]
    images: list[str]
    video: str = ""


def read_concepts(root: str | Path) -> list[Concept]:
    """The concepts of a corpus; FileNotFoundError says how to get them."""
    path = Path(root, CONCEPTS_FILE)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: build the corpus again, or write a list of objects with name, "
            "family, texts, images and video"
        )
    rows = read_json(path)
    return [from_row(Concept, row, f"{path}, concept {n}") for n, row in enumerate(rows, 1)]


def write_concepts(root: str | Path, concepts: Iterable[Concept]) -> None:
    """Write a corpus's concepts, atomically."""
    write_json(Path(root, CONCEPTS_FILE), list(map(asdict, concepts)))
