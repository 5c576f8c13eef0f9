"""Run mteb's retrieval tasks, also on local copies of their data, and score them per query.

mteb reports means. Paired tests between models need the score of every query, so these are computed
here from what mteb retrieved, and mteb's own means are returned beside them.
"""

# Shapes: Q queries.

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...files import read_json
from ..metrics import depth_of, ranking_metrics
from ..results import EvaluationResult, single_score
from .mteb_model import MtebEncoder

__all__ = ["local_task", "run_mteb_task", "score_predictions"]


def local_task(name: str, data_root: str | Path | None = None):
    """Get a retrieval task of mteb, on a local copy of its hub data set if there is one.

    The copy is a folder named like the data set, such as `data_root/mteb/MSVD`, with the files of
    the hub. Without it mteb downloads from the hub. ValueError for other kinds of task.
    """
    try:
        import mteb
        from mteb.abstasks.retrieval import AbsTaskRetrieval
    except ImportError:
        raise ImportError(
            "mteb is not installed: install the extra, pip install 'unite-workbook[evaluate]'"
        ) from None
    try:
        task = mteb.get_task(name)
    except KeyError:
        raise ValueError(
            f"mteb {mteb.__version__} has no task {name!r}; see mteb.get_tasks"
        ) from None
    if not isinstance(task, AbsTaskRetrieval):
        raise ValueError(f"{name} is no retrieval task: run it with mteb.evaluate and MtebEncoder")
    where = task.metadata.dataset
    if data_root is not None and (folder := Path(data_root, where["path"]).resolve()).is_dir():
        update = {"dataset": where | {"path": str(folder), "revision": "local"}}
        task.metadata = task.metadata.model_copy(update=update)
    return task


def score_predictions(
    task, predictions: Mapping, metrics: Sequence[str], seed: int = 0
) -> EvaluationResult:
    """Score an mteb retrieval task per query, from what it retrieved.

    Args
        task         the task with its data loaded
        predictions  {subset: {split: {query id: {document id: score}}}}, as in mteb's
                     `prediction_folder`
        metrics      names as `ranking_metrics` takes them
    Each query is a family of its own, as mteb does not group dependent queries. A task of several
    subsets has one split for each, such as "test/eng".
    """
    scores, families, identity = [], {}, {}
    for subset, splits in task.dataset.items():
        for split, parts in splits.items():
            name = split if subset == "default" else f"{split}/{subset}"
            found = predictions[subset][split]
            judged = {q: _relevant(docs) for q, docs in parts["relevant_docs"].items()}
            judged = {q: positives for q, positives in judged.items() if positives}
            queries = [q for q in parts["queries"]["id"] if q in judged]
            documents = {d: row for row, d in enumerate(parts["corpus"]["id"])}
            top_ranked = parts.get("top_ranked")  # of a reranking task
            sizes = [len(top_ranked[q]) if top_ranked else len(documents) for q in queries]
            positives = [[documents[d] for d in judged[q]] for q in queries]
            ranked = [_ranked(task, q, found.get(q, {}), documents) for q in queries]
            values = ranking_metrics(ranked, positives, metrics)
            groups = [str(row) for row in range(len(queries))]
            pools = [(n, min(len(rows), n)) for n, rows in zip(sizes, positives, strict=True)]
            scores += [
                single_score(task.metadata.name, name, metric, values[metric], groups, pools, seed)
                for metric in metrics
            ]
            families.setdefault(name, {})[task.metadata.name] = queries
            identity[name] = [queries, sorted(documents), [sorted(judged[q]) for q in queries]]
    text = json.dumps([task.metadata.name, identity])
    return EvaluationResult(scores, families, hashlib.sha256(text.encode()).hexdigest(), {}, seed)


def run_mteb_task(
    model: MtebEncoder, task, metrics: Sequence[str], progress: bool = True, seed: int = 0
) -> tuple[EvaluationResult, dict]:
    """Run a retrieval task by mteb; returns scores per query, and mteb's own scores.

    The second is {split: [{metric: value, "hf_subset": ...}]} without NaN, which mteb gives for
    calibration measures of few queries. ValueError for a metric deeper than what the task
    retrieves.
    """
    import mteb

    deepest = max(task.k_values)
    if depth_of(metrics) > deepest:
        raise ValueError(
            f"{task.metadata.name} retrieves {deepest} documents, but {', '.join(metrics)} look at "
            f"{depth_of(metrics)}: leave the deepest out"
        )
    task.load_data()
    with tempfile.TemporaryDirectory() as folder:
        done = mteb.evaluate(
            model,
            task,
            cache=None,
            co2_tracker=False,
            prediction_folder=folder,
            encode_kwargs={"show_progress_bar": progress},
            show_progress_bar=progress,
        )
        predictions = read_json(Path(folder, task.prediction_file_name))
    theirs = {
        split: [_finite(row) for row in rows] for split, rows in done.task_results[0].scores.items()
    }
    return score_predictions(task, predictions, metrics, seed), theirs


def _finite(row: Mapping) -> dict:
    return {name: v for name, v in row.items() if not isinstance(v, float) or np.isfinite(v)}


def _relevant(documents: Mapping[str, int]) -> list[str]:
    """Documents with a grade of 1 or more."""
    return [document for document, grade in documents.items() if grade > 0]


def _ranked(task, query: str, found: Mapping[str, float], documents: Mapping[str, int]) -> list:
    """Rows of the documents by score, ties by id, as in the task's own evaluation."""
    order = sorted(found, key=lambda document: (-found[document], document))
    if task.ignore_identical_ids:
        order = [document for document in order if document != query]
    return [documents[document] for document in order[task.skip_first_result :]]
