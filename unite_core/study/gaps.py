"""The modality gap of a run's vectors, between plain queries and their positives.

Every task here has one positive per query, so queries and positives are pairs of two modalities.
"""

# Shapes: Q queries, D embedding size.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..evaluation.pools import stack_vectors
from ..evaluation.tasks import RetrievalTask
from ..gap import Measure, measure
from ..gap.vectors import MINIMUM

__all__ = ["GAP_MEASURES", "GAP_TASKS", "gaps_of"]

GAP_TASKS = ("text → image", "text → video")
"""Tasks between whose two sides the gap is measured."""
GAP_MEASURES = ("gap", "offset_share", "pair_cosine", "separability")
"""Names of `unite_core.gap.MEASURES` that a row keeps."""


def gaps_of(tasks: Sequence[RetrievalTask], vectors: Mapping[str, np.ndarray],
            split: str = "concept") -> list[dict[str, Any]]:  # fmt: skip
    """Measure the gap of queries [Q, D] and their positives [Q, D], families as groups.

    Args
        tasks    those of `GAP_TASKS` in the split are measured that have enough pairs
        vectors  {content id: [D]}
    Returns a row of task, split, measure, value, null, low, high for each task and measure; the
    ends of the interval are None below 10 effective families.
    """
    rows = []
    for task in tasks:
        if task.split != split or task.name not in GAP_TASKS:
            continue
        positives = [task.candidate_ids[first] for first, *_ in task.positives]
        if min(len(set(task.query_ids)), len(set(positives))) < MINIMUM:
            continue
        table = measure(
            stack_vectors(task.query_ids, vectors), stack_vectors(positives, vectors), k=1,
            groups=task.families,
        )  # fmt: skip
        rows += [{"task": task.name, "split": split, **_kept(name, table[name])}
                 for name in GAP_MEASURES]  # fmt: skip
    return rows


def _kept(name: str, found: Measure) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    values = {"value": found.value, "null": found.null, "low": low, "high": high}
    return {"measure": name} | {
        key: None if value is None else float(np.float32(value)) for key, value in values.items()
    }
