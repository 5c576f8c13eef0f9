"""Vectors whose modality gap is measured: counterparts in a corpus, or vectors from files."""

# Shapes: N items of a modality, D embedding size.

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from ..data.records import content_id
from ..evaluation.families import effective_families, enough_families, family_interval
from ..evaluation.results import format_families, percent
from ..evaluation.tasks import RetrievalTask
from ..gap.mixed_pool import MixedPool
from ..gap.offsets import prompt_offset
from ..gap.vectors import MINIMUM, distinct_rows, load_vectors, unit_vectors
from .runs import from_root

__all__ = [
    "embed_counterparts", "find_counterparts", "given_vectors", "pool_rows", "prompt_rows",
    "text_as",
]  # fmt: skip


_PROMPT_WORDS = {"image": "image", "video": "video", "text": "sentence"}


def find_counterparts(
    tasks: Sequence[RetrievalTask], limit: int, seed: int = 0
) -> tuple[dict[str, dict[str, list[dict]]], dict[str, list[str]]]:
    """Find things that a corpus has in several modalities, from the positives of its tasks.

    Args
        tasks  of held-out splits; only those from one modality to one, "a → b", are used
        limit  most things per group, drawn at random
    Returns {group: {role: items}}, item i of every role the same thing, and {group: families},
    label i that of thing i, for `gap.measure(groups=)`. Groups are
        pairs     text, image
        three     text, image, video; absent below 50 things
        replaced  query (image), first (text of its positive), second (another image of it);
                  absent below 50
    """
    rng = np.random.default_rng(seed)
    images, videos = (_answers(tasks, "text", other) for other in ("image", "video"))
    texts = {content_id(image): text for text, image, _ in images.values()}
    groups = {
        "pairs": [{"text": text, "image": image, "family": family}
                  for text, image, family in images.values()],
        "three": [
            {"text": text, "image": image, "video": videos[key][1], "family": family}
            for key, (text, image, family) in images.items()
            if key in videos
        ],
        "replaced": [
            {"query": query, "first": texts[content_id(answer)], "second": answer, "family": family}
            for query, answer, family in _answers(tasks, "image", "image").values()
            if content_id(answer) in texts
        ],
    }  # fmt: skip
    if len(groups["pairs"]) < MINIMUM:
        raise ValueError(
            f"the tasks pair {len(groups['pairs'])} texts with images, {MINIMUM} are needed: name "
            "more splits"
        )
    result, families = {}, {}
    for name, things in groups.items():
        if len(things) >= MINIMUM:
            chosen = [things[row] for row in np.sort(rng.permutation(len(things))[:limit])]
            families[name] = [thing.pop("family") for thing in chosen]
            result[name] = {role: [thing[role] for thing in chosen] for role in chosen[0]}
    return result, families


def text_as(item: Mapping, modality: str) -> dict:
    """A text item under the prompt of another modality, for an embedder with the "raw" prompt.

    With "text" the tokens are those of the "unite" prompt.
    """
    word = _PROMPT_WORDS[modality]
    return {"text": f"{item['text'].strip()}\nSummary above {word} in one word:"}


def embed_counterparts(
    model: str | Path, groups: Mapping[str, Mapping[str, list]], root: str | Path
) -> dict[str, dict[str, np.ndarray]]:
    """Embed all groups with one model: {group: {role: float64 [N, D]}}.

    Adds the group "prompt": the texts of "pairs" under the prompt of images.
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


def pool_rows(
    pool: MixedPool, families: Sequence[str] | None = None, seed: int = 0
) -> list[dict[str, str]]:
    """What is found in an index of everything, a row for each query and counterpart modality.

    Recall in percent with its 95 % interval over families, in the counterparts' own pool and in the
    mixed one, and the share of the query's own modality among the K best. `families` [N] has the
    label of each thing; without it each is taken as one of its own, which the table says.
    """
    things = len(next(iter(pool.ranks.values())))
    labels = [str(row) for row in range(things)] if families is None else list(families)
    counts = {"families": len(set(labels)), "effective_families": effective_families(labels)}
    counted = "each row one" if families is None else format_families(counts)

    def said(values):
        return percent(float(np.mean(values)), *family_interval(values, labels, seed))

    own = {name: said(share) for name, share in pool.own_share.items()}
    return [
        {"query": query, "counterpart": other, "n": things, "families": counted}
        | {"own pool R@10": said(pool.single[query, other] <= 10), "mixed R@1": said(ranks <= 1)}
        | {"mixed R@10": said(ranks <= 10), f"own modality in {pool.k}": own[query]}
        for (query, other), ranks in pool.ranks.items()
    ]


def prompt_rows(
    material: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], families: Sequence[str]
) -> list[dict[str, str]]:
    """What the prompt has of the gap between texts and images, a row for each model that was asked.

    Args
        material  {model: groups of `embed_counterparts`}
        families  [N] label of each pair
    Values of `gap.prompt_offset` with 95 % intervals, by leaving each family out once; without
    them where families are too few, or a model's vectors without the largest one.
    """
    rows = []
    for name, groups in material.items():
        if "prompt" in groups:
            (asked,) = groups["prompt"].values()
            sides = {"text": groups["pairs"]["text"], "asked": asked,
                     "image": groups["pairs"]["image"]}  # fmt: skip
            sides, kept = distinct_rows(sides, tuple(sides))
            labels = np.asarray(families)[kept["text"]]
            rows.append({"model": name} | _leaving_out([*sides.values()], labels))
    return rows


def given_vectors(files: str) -> dict[str, np.ndarray]:
    """Read vectors named in a parameter: "text: texts.npy, image: store.safetensors::image".

    Two colons introduce a tensor's or column's name. Row i is the same thing in all files.
    Raises ValueError for a bad list or file.
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


def _leaving_out(sides: Sequence[np.ndarray], families: np.ndarray) -> dict[str, str]:
    """Prompt's offset of all rows with 95 % t intervals from those without one family each."""

    def measured(rows):
        groups = families[rows] if len(set(families[rows])) > 1 else None
        with warnings.catch_warnings():  # few families: the table of the gap has said so
            warnings.filterwarnings("ignore", "groups make", UserWarning)
            return prompt_offset(*(side[rows] for side in sides), groups=groups)

    whole = measured(np.arange(len(families)))
    codes, sizes = np.unique(families, return_inverse=True, return_counts=True)[1:]
    if not enough_families(families) or len(families) - sizes.max() < MINIMUM:
        return {name: f"{value:.3f}" for name, value in whole.items()}
    parts = [measured(np.flatnonzero(codes != code)) for code in range(len(sizes))]
    width = stats.t.ppf(0.975, effective_families(families) - 1)
    said = {}
    for name, value in whole.items():
        spread = np.var([part[name] for part in parts])  # over n, not n - 1
        half = width * ((len(parts) - 1) * spread) ** 0.5
        said[name] = f"{value:.3f} [{value - half:.3f}, {value + half:.3f}]"
    return said


def _answers(tasks, first: str, second: str) -> dict[str, tuple[dict, dict, str]]:
    """{content id of the first: (first, second, family)} of tasks either way, first positives."""
    found: dict[str, tuple[dict, dict, str]] = {}
    for task in tasks:
        way = tuple(task.name.split(" → "))
        if way not in ((first, second), (second, first)):
            continue
        rows = zip(task.queries, task.positives, task.families, strict=True)
        for query, right, family in rows:
            pair = (query, task.candidates[right[0]])
            pair = pair if way == (first, second) else pair[::-1]
            found.setdefault(content_id(pair[0]), (*pair, family))
    return found


def _unit(rows) -> np.ndarray:
    """Float64 rows of norm 1, which float32 rounds."""
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
