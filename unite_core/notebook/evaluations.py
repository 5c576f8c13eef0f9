"""Evaluations that several notebooks read: models are embedded and scored once."""

# Shapes: D embedding size.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..evaluation.results import EvaluationResult, load_results, save_results
from ..evaluation.tasks import RetrievalTask, distinct_items, embed_tasks, evaluate
from ..files import replacing
from .runs import from_root

__all__ = ["evaluate_models"]


def evaluate_models(
    models: Mapping[str, str | Path],
    tasks: Sequence[RetrievalTask],
    root: str | Path,
    folder: str | Path,
    seed: int = 0,
    earlier: str | Path = "",
) -> tuple[dict[str, EvaluationResult], dict[str, dict[str, np.ndarray]]]:
    """Embed and score tasks with each model, or read what an earlier call left.

    Args
        models   {name: what `UniteEmbedder.load` takes}
        tasks    of a corpus in `root`
        folder   of a run: scores go to `evaluation/NAME.json` (with spaces as _), vectors to
                 `evaluation/NAME.safetensors`
        seed     of the bootstrap
        earlier  run folder of notebook 06 that may have them; looked into first
    Returns {name: result} and {name: {content id: [D]}}.
    Raises ValueError for an earlier evaluation of other tasks.
    """
    scores, vectors = {}, {}
    for name, model in models.items():
        saved = Path("evaluation", f"{name.replace(' ', '_')}.json")
        file = from_root(earlier) / saved if earlier else saved
        if not file.is_file():
            file = Path(folder) / saved
        if not file.is_file():
            print(f"{name}: embedding the items of {len(tasks)} tasks")
            _evaluate(model, tasks, root, file, seed)
        scores[name] = load_results(file)
        vectors[name] = _read_vectors(file.with_suffix(".safetensors"))
        known = {(score.task, score.split) for score in scores[name].scores}
        asked = {(task.name, task.split) for task in tasks}
        if known != asked or not distinct_items(tasks).keys() <= vectors[name].keys():
            raise ValueError(
                f"{file} is of other tasks than those of {root}: give the run of notebook 06 on "
                "this corpus, or no run"
            )
    return scores, vectors


def _evaluate(model, tasks, root, file: Path, seed: int) -> None:
    """Write vectors first, so that scores on disk mean that both are there."""
    from safetensors.numpy import save_file

    from ..model.embedder import UniteEmbedder

    embedder = UniteEmbedder.load(model)
    vectors = embed_tasks(embedder, tasks, root)
    with replacing(file.with_suffix(".safetensors")) as partial:
        ids = "\n".join(vectors)
        save_file({"vectors": np.stack(list(vectors.values()))}, partial, {"ids": ids})
    save_results(file, evaluate(embedder, tasks, root, vectors=vectors, seed=seed))


def _read_vectors(file: Path) -> dict[str, np.ndarray]:
    from safetensors import safe_open

    with safe_open(file, "np") as stored:
        rows, ids = stored.get_tensor("vectors"), stored.metadata()["ids"].split("\n")
    return dict(zip(ids, rows, strict=True))
