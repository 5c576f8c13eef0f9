"""Training records and held-out retrieval tasks of the icons corpus.

Stage 1 pairs each picture of a training concept with its title as found, and with the category and
other names where its set has them; stage 2 asks for another drawing, a description or a picture.
Tasks ask for held-out concepts that at least two sets draw: one picture of each is in the pool, one
of another set is a query.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ..concepts import Concept
from .catalogue import SPLITS, Icon, split_of

__all__ = ["concepts", "fine", "retrieval_tasks", "stage1_records", "stage2_records"]


QUERIES = 600  # of a task, at most
_SAME = "<|IMAGE|>\nanother drawing of the same"
_DESCRIBE = "<|IMAGE|>\nDescribe this picture."
_FIND = "Find a picture of: {title}"


def fine(icon: Icon) -> str:
    """Title, category and other names: `"account. A kind of Account / User: user, person."`"""
    kind = f" A kind of {icon.category}" if icon.category else ""
    others = f"{':' if kind else ' Also:'} {', '.join(icon.keywords)}" if icon.keywords else ""
    return f"{icon.title}.{kind}{others}{'.' if kind or others else ''}"


def stage1_records(icons: Iterable[Icon]) -> Iterator[dict]:
    """Pairs of each picture of a training concept: its title and, if there is more, all of it."""
    for icon in _training(icons):
        image = {"image": icon.path}
        yield _record("title-image", {"text": icon.title}, image)
        if icon.category or icon.keywords:
            yield _record("text-image", {"text": fine(icon)}, image)


def stage2_records(icons: Iterable[Icon], seed: int) -> Iterator[dict]:
    """Instructions for pictures of training concepts."""
    rng = random.Random(f"stage2 {seed}")
    for drawings in _by_concept(_training(icons)).values():
        for icon in drawings:
            image = {"image": icon.path}
            others = [other for other in drawings if other is not icon]
            if others:
                yield _record("I-I", {"text": _SAME} | image, {"image": rng.choice(others).path})
            if rng.random() < 0.5:
                yield _record("I-T", {"text": _DESCRIBE} | image, {"text": icon.title})
            else:
                yield _record("T-I", {"text": _FIND.format(title=icon.title)}, image)


def retrieval_tasks(icons: Sequence[Icon], seed: int) -> list[dict]:
    """Text to image, image to text and image to image for the held-out concepts of each split."""
    return [task for split in SPLITS for task in _split_tasks(icons, split, seed)]


def concepts(icons: Iterable[Icon]) -> Iterator[Concept]:
    """The training concepts with all their titles and pictures; a family shares its first word."""
    for concept, drawings in _by_concept(_training(icons)).items():
        title = _title(drawings)
        texts = list(dict.fromkeys([title, *map(fine, drawings), *(i.title for i in drawings)]))
        yield Concept(title, concept.split()[0], texts, [icon.path for icon in drawings])


def _split_tasks(icons: Sequence[Icon], split: str, seed: int) -> Iterator[dict]:
    rng = random.Random(f"tasks {split} {seed}")
    drawn = _by_concept(icon for icon in icons if split_of(icon.concept) == split)
    chosen = []
    for concept, drawings in drawn.items():
        target = rng.choice(drawings)
        others = [icon for icon in drawings if icon.set_name != target.set_name]
        if others:
            chosen.append((concept, _title(drawings), target, rng.choice(others)))
    if not chosen:
        return
    rng.shuffle(chosen)
    texts = [({"text": title}, concept) for concept, title, _, _ in chosen]
    targets = [({"image": target.path}, concept) for concept, _, target, _ in chosen]
    sources = [({"image": source.path}, concept) for concept, _, _, source in chosen]
    for name, queries, pool in (
        ("text → image", texts, targets),
        ("image → text", targets, texts),
        ("image → image", sources, targets),
    ):
        yield _task(name, split, queries, pool)


def _task(name: str, split: str, queries: list[tuple], pool: list[tuple]) -> dict:
    asked = queries[:QUERIES]
    return {
        "name": name,
        "split": split,
        "kind": "plain",
        "queries": [item for item, _ in asked],
        "candidates": [item for item, _ in pool],
        "positives": [[place] for place in range(len(asked))],
        "families": [concept.split()[0] for _, concept in asked],
        "description": f"icons; {len(queries)} concepts that two sets or more draw",
        "query_concepts": [concept for _, concept in asked],
        "candidate_concepts": [concept for _, concept in pool],
    }


def _title(drawings: Sequence[Icon]) -> str:
    """The most frequent order of the concept's words among its drawings, the first of equals."""
    orders = Counter(_ordered(icon) for icon in drawings)
    return max(orders, key=orders.__getitem__)


def _ordered(icon: Icon) -> str:
    """The concept's words in the order of the icon's title."""
    left = Counter(icon.concept.split())
    words = []
    for word in icon.title.split():
        if left[word]:
            left[word] -= 1
            words.append(word)
    return " ".join(words)


def _by_concept(icons: Iterable[Icon]) -> dict[str, list[Icon]]:
    groups = defaultdict(list)
    for icon in icons:
        groups[icon.concept].append(icon)
    return groups


def _training(icons: Iterable[Icon]) -> Iterator[Icon]:
    return (icon for icon in icons if split_of(icon.concept) == "train")


def _record(task: str, query: dict, candidate: dict) -> dict:
    return {"query": query, "candidate": candidate, "task": task, "source": "icons"}
