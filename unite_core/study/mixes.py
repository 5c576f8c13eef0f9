"""The records of the study of data: mixes that are equal in concepts, pairs and texts.

A pair joins one of a concept's first three texts to its picture, its clip or the clip's middle
frame, or two of its texts. Mixes differ in which of these a pair is, and in nothing else that can
be kept equal.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..corpora.concepts import Concept
from ..data.videos import read_clip
from ..files import replacing

__all__ = ["FRAMES", "Mix", "draw_records", "frame_path", "save_frames", "swap_texts"]


TEXTS = 3  # of a concept, each in one pair
FRAMES = "frames"
_KINDS = ("text", "image", "video", "frame")


@dataclass(frozen=True)
class Mix:
    """What an arm shows in stage 1.

    shares      share of pairs of each kind: text, image, video, frame (a clip as one picture)
    wide        pictures of all concepts, not only of those with a clip
    swapped     share of pairs whose text is another concept's
    curated     drop pairs that alignment finds to be mismatched, and repeat others in their place
    steps       share of the study's steps
    fine        when fine captions are shown: "" as any text, "within" stage 1, "between" the
                stages, "after" in stage 2; but for "" a stage 2 follows
    """

    shares: Mapping[str, float]
    wide: bool = False
    swapped: float = 0.0
    curated: bool = False
    steps: float = 1.0
    fine: str = ""

    def __post_init__(self):
        if not set(self.shares) <= set(_KINDS) or abs(sum(self.shares.values()) - 1) > 1e-9:
            raise ValueError(f"shares must add up to 1 and name {', '.join(_KINDS)}: {self.shares}")


def draw_records(concepts: Sequence[Concept], mix: Mix, seed: int,
                 texts: Sequence[int] = range(TEXTS)) -> list[dict]:  # fmt: skip
    """Draw the pairs of a mix: one for each text of each concept that has a clip.

    Args
        texts  which of a concept's texts are used
    With one seed, mixes have the same concepts (but for `wide`), texts, pictures and directions,
    and the pairs of a kind in a small share are among those in a larger one. `wide` has as many
    pairs of more concepts. Concepts with fewer than three texts are left out.
    """
    rich = [concept for concept in concepts if len(concept.texts) >= TEXTS]
    chosen = [concept for concept in rich if concept.video]
    slots = [(concept, text) for concept in chosen for text in texts]
    if mix.wide:
        everything = [(concept, text) for concept in rich for text in texts]
        slots = random.Random(f"wide {seed}").sample(everything, len(slots))
    kinds = _kinds(mix.shares, len(slots), seed)
    records = [
        _pair(concept, text, kind, random.Random(f"{seed} {concept.name} {text}"))
        for (concept, text), kind in zip(slots, kinds, strict=True)
    ]
    if mix.swapped:
        families = [concept.family for concept, _ in slots]
        records = swap_texts(records, families, mix.swapped, seed)
    random.Random(seed).shuffle(records)
    return records


def swap_texts(records: Sequence[dict], families: Sequence[str], share: float,
               seed: int) -> list[dict]:  # fmt: skip
    """Give a share of the records the text of another one, in a circle; families differ.

    The text is the query's, or the candidate's where the query is none. Records keep their place.
    """
    rng = random.Random(f"swap {seed}")
    rows = rng.sample(range(len(records)), round(share * len(records)))
    rows.sort(key=lambda row: (families[row], row))
    half = len(rows) // 2  # sorted by family: half a circle away is another one
    swapped = list(records)
    for place, row in enumerate(rows):
        other = rows[(place + half) % len(rows)]
        if families[other] == families[row]:
            continue
        side, source = _text_side(records[row]), records[other]
        swapped[row] = records[row] | {
            side: {"text": source[_text_side(source)]["text"]}, "task": "swapped"
        }  # fmt: skip
    return swapped


def frame_path(video: str) -> str:
    """Path of a clip's middle frame below the corpus."""
    return f"{FRAMES}/{Path(video).stem}.png"


def save_frames(concepts: Sequence[Concept], root: str | Path) -> None:
    """Write the middle frame of every clip that has none yet."""
    for concept in concepts:
        path = Path(root, frame_path(concept.video)) if concept.video else None
        if path is None or path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = read_clip(concept.video, root, fps=8.0, min_frames=3, max_frames=3).frames
        with replacing(path, durable=False) as partial:
            frames[len(frames) // 2].save(partial, "PNG")


def _kinds(shares: Mapping[str, float], count: int, seed: int) -> list[str]:
    """A kind for each slot, in exact shares; a larger share keeps the slots of a smaller one."""
    order = list(range(count))
    random.Random(f"kinds {seed}").shuffle(order)
    kinds, done, edge = [""] * count, 0, 0.0
    for kind in _KINDS:
        edge += shares.get(kind, 0.0)
        stop = round(edge * count)
        for slot in order[done:stop]:
            kinds[slot] = kind
        done = stop
    return kinds


def _pair(concept: Concept, text: int, kind: str, rng: random.Random) -> dict:
    words, reverse = {"text": concept.texts[text]}, rng.random() < 0.5
    picture = rng.choice(concept.images)
    other = {
        # the text after it, for the last one its other label or the first
        "text": {"text": concept.texts[(text + 1) % len(concept.texts)]},
        "image": {"image": picture},
        "video": {"video": concept.video},
        "frame": {"image": frame_path(concept.video)},
    }[kind]
    query, candidate = (other, words) if reverse else (words, other)
    return {"query": query, "candidate": candidate, "task": f"text-{kind}", "source": "study"}


def _text_side(record: Mapping) -> str:
    return "query" if set(record["query"]) == {"text"} else "candidate"
