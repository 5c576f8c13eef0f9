"""What notebook 07 measures: counterparts of a corpus, embedded by each model, or given vectors."""

# Shapes: N items of a modality, D embedding size.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.records import content_id
from ..evaluation.tasks import RetrievalTask
from ..gap.vectors import MINIMUM, load_vectors, unit_vectors
from .runs import from_root

__all__ = ["find_counterparts", "embed_counterparts", "given_vectors", "text_as"]


_PROMPT_WORDS = {"image": "image", "video": "video", "text": "sentence"}


def find_counterparts(
    tasks: Sequence[RetrievalTask], limit: int, seed: int = 0
) -> dict[str, dict[str, list[dict]]]:
    """Things that a corpus has in several modalities, from its plain tasks' right answers.

    Args
        tasks  of splits that training left out; their "a → b" tasks of two bare modalities count
        limit  things at most in each group, drawn at random
    Returns {group: {role: items}}, item i of every role the same thing:
        pairs     text, image
        three     text, image, video; left out below 50 things
        replaced  query (image), first (text of its answer), second (another image of it); left
                  out below 50
    """
    rng = np.random.default_rng(seed)
    answers = {way: _answers(tasks, *way) for way in (("text", "image"), ("text", "video"))}
    images, videos = answers["text", "image"], answers["text", "video"]
    texts = {content_id(image): text for text, image in images.values()}
    groups = {
        "pairs": [{"text": text, "image": image} for text, image in images.values()],
        "three": [
            {"text": text, "image": image, "video": videos[key][1]}
            for key, (text, image) in images.items()
            if key in videos
        ],
        "replaced": [
            {"query": query, "first": texts[content_id(answer)], "second": answer}
            for query, answer in _answers(tasks, "image", "image").values()
            if content_id(answer) in texts
        ],
    }
    if len(groups["pairs"]) < MINIMUM:
        raise ValueError(
            f"the tasks pair {len(groups['pairs'])} texts with images, {MINIMUM} are needed: name "
            "more splits"
        )
    result = {}
    for name, things in groups.items():
        if len(things) >= MINIMUM:
            chosen = [things[row] for row in np.sort(rng.permutation(len(things))[:limit])]
            result[name] = {role: [thing[role] for thing in chosen] for role in chosen[0]}
    return result


def text_as(item: Mapping, modality: str) -> dict:
    """A text with the summary line of another modality, for an embedder with the "raw" prompt.

    With "text" it is the prompt that "unite" gives the text, token for token.
    """
    word = _PROMPT_WORDS[modality]
    return {"text": f"{item['text'].strip()}\nSummary above {word} in one word:"}


def embed_counterparts(
    model: str | Path, groups: Mapping[str, Mapping[str, list]], root: str | Path
) -> dict[str, dict[str, np.ndarray]]:
    """Vectors of all groups by one model, as float64: {group: {role: [N, D]}}.

    The group "prompt" is added: the texts of "pairs" under the image's prompt.
    """
    from ..model.embedder import UniteEmbedder

    embedder = UniteEmbedder.load(model)
    flat = {content_id(item): item
            for roles in groups.values() for items in roles.values() for item in items}  # fmt: skip
    rows = embedder.embed(list(flat.values()), media_root=root, progress=False)
    place = {identity: row for row, identity in enumerate(flat)}
    vectors = {
        group: {role: _unit(rows[[place[content_id(item)] for item in items]])
                for role, items in roles.items()}
        for group, roles in groups.items()
    }  # fmt: skip
    prompted = [text_as(item, "image") for item in groups["pairs"]["text"]]
    raw = UniteEmbedder.load(model, prompt="raw")
    vectors["prompt"] = {"text as image": _unit(raw.embed(prompted, progress=False))}
    return vectors


def given_vectors(files: str) -> dict[str, np.ndarray]:
    """Vectors named in a parameter: "text: texts.npy, image: store.safetensors::image".

    After two colons stands a tensor's or a column's name. Row i is the same thing in all files.
    ValueError says what is wrong with the list or with a file.
    """
    vectors = {}
    for part in filter(None, (part.strip() for part in files.split(","))):
        name, colon, path = part.partition(":")
        if not colon:
            raise ValueError(f"{part!r}: give vectors as modality: file, separated by commas")
        path, _, column = path.strip().partition("::")
        vectors[name.strip()] = unit_vectors(load_vectors(from_root(path), column), name)
    if len({len(rows) for rows in vectors.values()}) != 1 or len(vectors) < 2:
        sizes = {name: list(rows.shape) for name, rows in vectors.items()}
        raise ValueError(f"two or more modalities of the same things are needed, not {sizes}")
    return vectors


def _answers(tasks, first: str, second: str) -> dict[str, tuple[dict, dict]]:
    """{content of the first: (first, second)} over the tasks either way; the first answer only."""
    found: dict[str, tuple[dict, dict]] = {}
    for task in tasks:
        way = tuple(task.name.split(" → "))
        if way not in ((first, second), (second, first)):
            continue
        for query, right in zip(task.queries, task.positives, strict=True):
            pair = (query, task.candidates[right[0]])
            one, other = pair if way == (first, second) else pair[::-1]
            found.setdefault(content_id(one), (one, other))
    return found


def _unit(rows) -> np.ndarray:
    """Float64 rows of norm 1; float32 rounds norms."""
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
