"""Which data helps what: mixes of pair types, equal in size, trained alike and compared.

Mixes differ in what the pairs are made of and in nothing else: as many pairs, all distinct, as many
steps. So each pair of a mix is seen as often as each pair of another. Draws are nested: the image
pairs of a mix are among those of a larger one. What stays different goes with the pair type
itself: how long its texts are, how many tokens a step has, and, as a batch holds one mix, how many
of the negatives have the positive's modality.
"""

# Shapes: Q queries of a task, S seeds.

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..data.modality import modality_of
from ..data.records import content_id
from .metrics import paired_interval
from .results import EvaluationResult
from .tasks import RetrievalTask

__all__ = ["MIXES", "compare", "describe", "draw_mix", "effects", "pair_type", "parse_mixes"]


PairType = str

MIXES = (
    "text-text, text-image, text-video, text-image + text-video, "
    "text-text + text-image + text-video"
)
"""Single pair types and mixes as in the paper's analysis (PAPER §4)."""


def pair_type(record: Mapping) -> PairType:
    """Such as "text-image", whichever of the two is the query."""
    sides = sorted(modality_of(record[side]) for side in ("query", "candidate"))
    return "-".join(side.label for side in sides)


def parse_mixes(text: str) -> dict[str, tuple[PairType, ...]]:
    """ "text-image, text-image + text-video" -> {name: its pair types, which get equal shares}."""
    mixes = {}
    for part in filter(None, map(str.strip, text.split(","))):
        types = tuple(name.strip() for name in part.split("+"))
        if not all(types) or len(set(types)) < len(types):
            raise ValueError(f"mix {part!r}: give each pair type once, joined by +")
        mixes[" + ".join(types)] = types
    if len(mixes) < 2:
        raise ValueError(f"mixes {text!r}: give two or more, with commas in between")
    return mixes


def draw_mix(
    records: Iterable[Mapping], types: Sequence[PairType], pairs: int, seed: int = 0
) -> list[Mapping]:
    """`pairs` distinct records in equal shares of these pair types, in a random order.

    The same seed draws the same records of a type for every mix, more or fewer of them. ValueError
    naming the type that has too few.
    """
    of_type = defaultdict(list)
    for record in records:
        of_type[pair_type(record)].append(record)
    drawn = []
    for place, name in enumerate(types):
        wanted = pairs * (place + 1) // len(types) - pairs * place // len(types)
        if len(of_type[name]) < wanted:
            known = ", ".join(
                f"{len(rows)} {each}" for each, rows in sorted(of_type.items()) if rows
            )
            raise ValueError(
                f"{wanted} pairs of {name} are asked for; there are {known}: lower the number of "
                "pairs, or name other types"
            )
        random.Random(f"{seed} {name}").shuffle(of_type[name])
        drawn += of_type[name][:wanted]
    random.Random(seed).shuffle(drawn)
    return drawn


def describe(mixes: Mapping[str, Sequence[Mapping]]) -> list[dict]:
    """Rows of mix, pairs, distinct items, words of a text on average, and shares of targets."""
    rows = []
    for name, records in mixes.items():
        items = [record[side] for record in records for side in ("query", "candidate")]
        words = [len(item["text"].split()) for item in items if "text" in item]
        targets = Counter(modality_of(record["candidate"]).label for record in records)
        rows.append(
            {"mix": name, "pairs": len(records), "items": len({content_id(i) for i in items}),
             "words": np.mean(words or [0]), "targets": ", ".join(
                 f"{n / len(records):.0%} {label}" for label, n in targets.most_common())}
        )  # fmt: skip
    return rows


def compare(
    first: Sequence[EvaluationResult],
    second: Sequence[EvaluationResult],
    task: RetrievalTask,
    metric: str = "recall@10",
) -> tuple[float, float, float]:
    """Gain of the second model over the first on a task: (difference, low, high).

    Args
        first, second  results of S seeds each, of which a query's values are averaged
    The 95 % interval is over families of queries; it does not cover what other seeds would give.
    """
    if len({each.tasks_hash for each in (*first, *second)}) > 1:
        raise ValueError("the models were evaluated on different tasks: evaluate them anew")
    before, after = (_per_query(results, task, metric) for results in (first, second))
    families = first[0].families[task.split][task.name]
    return paired_interval(before, after, families, seed=first[0].seed)


def effects(
    results: Mapping[str, Sequence[EvaluationResult]],
    reference: Sequence[EvaluationResult],
    tasks: Sequence[RetrievalTask],
    metric: str = "recall@10",
) -> list[dict]:
    """Rows of mix, task, n, value, its lowest and highest seed, and `compare`d with the reference.

    Args
        results    {mix: results of S seeds}
        reference  of the model that all mixes started from
    """
    rows = []
    for mix, several in results.items():
        for task in tasks:
            values = [each.score(task.name, task.split, metric).value for each in several]
            gain, low, high = compare(reference, several, task, metric)
            rows.append(
                {"mix": mix, "task": task.name, "n": len(task.queries), "value": np.mean(values),
                 "lowest": min(values), "highest": max(values), "gain": gain, "low": low,
                 "high": high}
            )  # fmt: skip
    return rows


def _per_query(results: Sequence[EvaluationResult], task: RetrievalTask, metric: str) -> np.ndarray:
    """[Q] mean over seeds."""
    scores = [each.score(task.name, task.split, metric) for each in results]
    return np.mean([score.per_query for score in scores], axis=0)
