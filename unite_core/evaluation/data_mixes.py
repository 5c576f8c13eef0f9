"""Data mixes for ablations: mixes of pair types equal in size, and the gains of their models.

Mixes have the same number of pairs, all distinct, and are trained for the same number of steps, so
every pair of every mix is seen equally often. Draws are nested: the image pairs of a mix are among
those of any mix with more of them. What still differs comes with the pair type: text length, tokens
per step, and how many in-batch negatives have the target modality.
"""

# Shapes: Q queries of a task, S seeds.

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..data.modality import modality_of
from ..data.records import content_id
from .families import effective_families, family_interval
from .results import EvaluationResult
from .tasks import RetrievalTask

__all__ = [
    "MIXES", "compare", "describe", "draw_mix", "effects", "parse_mixes", "undirected_pair_type",
]  # fmt: skip


MIXES = (
    "text-text, text-image, text-video, text-image + text-video, "
    "text-text + text-image + text-video"
)
"""Single pair types and their mixes, as in the paper's ablation of training data."""


def undirected_pair_type(record: Mapping) -> str:
    """Modalities of a pair, such as "text-image", whichever of the two is the query."""
    sides = sorted(modality_of(record[side]) for side in ("query", "candidate"))
    return "-".join(side.label for side in sides)


def parse_mixes(text: str) -> dict[str, tuple[str, ...]]:
    """Parse "text-image, text-image + text-video" to {name of the mix: its pair types}."""
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
    records: Iterable[Mapping], types: Sequence[str], pairs: int, seed: int = 0
) -> list[Mapping]:
    """Draw `pairs` distinct records in equal shares of the pair types, in random order.

    With one seed, the records of a type in a small share are among those in a larger one.
    ValueError naming the type that has too few records.
    """
    of_type = defaultdict(list)
    for record in records:
        of_type[undirected_pair_type(record)].append(record)
    drawn = []
    for place, name in enumerate(types):
        wanted = pairs * (place + 1) // len(types) - pairs * place // len(types)
        if len(of_type[name]) < wanted:
            known = ", ".join(
                f"{len(rows)} {kind}" for kind, rows in sorted(of_type.items()) if rows
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
    """Describe mixes: rows of mix, pairs, items (distinct), words (mean per text), targets."""
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
) -> tuple[float, float | None, float | None]:
    """Mean gain of the second model over the first on a task: (gain, low, high).

    Args
        first, second  results of S seeds each; a query's values are averaged over the seeds
    The 95 % interval is over families of queries, None if these are few; it does not cover the
    variation of seeds.
    """
    if len({result.tasks_hash for result in (*first, *second)}) > 1:
        raise ValueError("the models were evaluated on different tasks: evaluate them anew")
    before, after = (_per_query(results, task, metric) for results in (first, second))
    families = first[0].families[task.split][task.name]
    return float((after - before).mean()), *family_interval(after - before, families, first[0].seed)


def effects(
    results: Mapping[str, Sequence[EvaluationResult]],
    reference: Sequence[EvaluationResult],
    tasks: Sequence[RetrievalTask],
    metric: str = "recall@10",
) -> list[dict]:
    """Effect of each mix on each task against a common reference.

    Args
        results    {mix: results of S seeds}
        reference  results of the model that all mixes started from
    Returns
        rows of mix, task, kind, n, families, effective_families, value (mean over seeds), lowest
        and highest (seed), and gain, low, high as `compare` gives them.
    """
    rows = []
    for mix, seeds in results.items():
        for task in tasks:
            values = [result.score(task.name, task.split, metric).value for result in seeds]
            gain, low, high = compare(reference, seeds, task, metric)
            rows.append(
                {"mix": mix, "task": task.name, "kind": task.kind, "n": len(task.queries),
                 "families": len(set(task.families)),
                 "effective_families": effective_families(task.families), "value": np.mean(values),
                 "lowest": min(values), "highest": max(values), "gain": gain, "low": low,
                 "high": high}
            )  # fmt: skip
    return rows


def _per_query(results: Sequence[EvaluationResult], task: RetrievalTask, metric: str) -> np.ndarray:
    """[Q] mean over seeds."""
    scores = [result.score(task.name, task.split, metric) for result in results]
    return np.mean([score.per_query for score in scores], axis=0)
