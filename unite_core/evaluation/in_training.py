"""Scores of a model while it trains: retrieval of held-out items, and the modality gap.

from unite_core.evaluation import TrainingScores

train(config, TrainingScores)  # scores of config.eval_data every config.eval_steps steps
"""

# Shapes: N items of a modality, D embedding size.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np

from ..data.modality import KEYS, modality_of
from ..data.pairs import PairDataset
from ..gap.moments import Moments, debiased_gap_squared
from .own_pairs import pair_tasks
from .pools import TARGET_SHARE, Pool, measure_task
from .tasks import RetrievalTask, embed_tasks, read_tasks

__all__ = ["TrainingScores"]


_RECALLS = ("recall@1", "recall@10")


class TrainingScores:
    """Scores of an embedder on held-out data, for `train`.

    Args
        data        a file of tasks (`read_tasks`; its name ends in tasks.json), or of records,
                    whose pairs become tasks (`pair_tasks`)
        media_root  folder that the items' paths are relative to
    Raises as `read_tasks` and `PairDataset`.
    """

    def __init__(self, data: str | Path, media_root: str | Path = "."):
        self.media_root = media_root
        if Path(data).name.endswith("tasks.json"):
            self.tasks = read_tasks(data)
        else:
            self.tasks = pair_tasks(PairDataset([data], media_root))

    def __call__(self, embedder) -> dict[str, float]:
        """Embed all items and score them: {name: value}.

        single_recall@1, mixed_recall@1, the same at 10, and target_share@10 are means over tasks,
        each of which counts once; gap_squared/text-image and so on are distances of the modalities'
        means. None has an interval: these belong to a finished model (`evaluate`).
        """
        vectors = embed_tasks(embedder, self.tasks, self.media_root, progress=False)
        return _retrieval(self.tasks, vectors) | _gaps(self.tasks, vectors)


def _retrieval(tasks: Sequence[RetrievalTask], vectors: Mapping) -> dict[str, float]:
    """Recall in the single and the mixed pool and the target modality's share of the first ten."""
    found: dict[str, list[float]] = defaultdict(list)
    splits = dict.fromkeys(task.split for task in tasks)
    mixed = {split: Pool.of([t for t in tasks if t.split == split], vectors) for split in splits}
    for task in tasks:
        for kind in ("single", "mixed"):
            pool = mixed[task.split] if kind == "mixed" else Pool.of([task], vectors)
            values, _, _ = measure_task(task, kind, pool, vectors)
            for name in _RECALLS:
                found[f"{kind}_{name}"].append(float(values[name].mean()))
            if kind == "mixed":
                found[TARGET_SHARE].append(float(values[TARGET_SHARE].mean()))
    return {name: fmean(values) for name, values in found.items()}


def _gaps(tasks: Sequence[RetrievalTask], vectors: Mapping[str, np.ndarray]) -> dict[str, float]:
    """{"gap_squared/text-image": distance of the means}, of each two of text, image and video.

    Without sampling bias; see `gap.MEASURES["gap_squared"]`. Of two items or more of each.
    """
    groups: dict[str, dict[str, np.ndarray]] = {key: {} for key in KEYS}
    for task in tasks:
        ids, items = task.query_ids + task.candidate_ids, task.queries + task.candidates
        for identity, item in zip(ids, items, strict=True):
            groups.get(modality_of(item).label, {})[identity] = vectors[identity]
    sides = {key: np.stack(list(g.values())) for key, g in groups.items() if len(g) > 1}
    return {
        f"gap_squared/{x}-{y}": _gap_squared(sides[x], sides[y]) for x, y in combinations(sides, 2)
    }


def _gap_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Of [N, D] and [M, D] vectors."""
    return debiased_gap_squared(Moments.of_vectors(x.astype(float), y.astype(float), paired=False))
