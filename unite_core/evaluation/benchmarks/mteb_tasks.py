"""Retrieval tasks of mteb: on local copies of their data, run, and scored query by query.

mteb gives a task's means. Paired tests between models need every query's score, so these are
computed here from what mteb retrieved, and mteb's own are returned beside them.
"""

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
    """mteb's task of a name, on the copy below `data_root` of its hub data set, if there is one.

    The copy is a folder like the data set's own name, `data_root/mteb/MSVD`, with its files as on
    the hub. Without it mteb fetches from the hub. Only retrieval tasks; others are a ValueError.
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
    """Per-query scores of an mteb retrieval task, from what it retrieved, for paired tests.

    Args
        task         the task with its data loaded
        predictions  {subset: {split: {query id: {document id: score}}}}, as mteb's
                     `prediction_folder` holds them
        metrics      names as `ranking.ranking_metrics` takes them
    Each query is a family of its own: mteb does not say which belong together. Tasks of several
    subsets have one "split" for each, `test/eng`.
    """
    scores, families, identity = [], {}, {}
    for subset, splits in task.dataset.items():
        for split, parts in splits.items():
            name = split if subset == "default" else f"{split}/{subset}"
            found = predictions[subset][split]
            judged = {q: _relevant(docs) for q, docs in parts["relevant_docs"].items()}
            judged = {q: right for q, right in judged.items() if right}
            queries = [q for q in parts["queries"]["id"] if q in judged]
            documents = {d: row for row, d in enumerate(parts["corpus"]["id"])}
            tops = parts.get("top_ranked")
            sizes = [len(tops[q]) if tops else len(documents) for q in queries]
            right = [[documents[d] for d in judged[q]] for q in queries]
            ranked = [_ranked(task, q, found.get(q, {}), documents) for q in queries]
            values = ranking_metrics(ranked, right, metrics)
            own = [str(row) for row in range(len(queries))]  # mteb names no families
            pools = [(n, min(len(one), n)) for n, one in zip(sizes, right, strict=True)]
            scores += [
                single_score(task.metadata.name, name, metric, values[metric], own, pools, seed)
                for metric in metrics
            ]
            families.setdefault(name, {})[task.metadata.name] = queries
            identity[name] = [queries, sorted(documents), [sorted(judged[q]) for q in queries]]
    text = json.dumps([task.metadata.name, identity])
    return EvaluationResult(scores, families, hashlib.sha256(text.encode()).hexdigest(), {}, seed)


def run_mteb_task(
    model: MtebEncoder, task, metrics: Sequence[str], progress: bool = True, seed: int = 0
) -> tuple[EvaluationResult, dict]:
    """Let mteb run a retrieval task; returns scores per query, and mteb's own scores.

    The second is {split: [{metric: value, "hf_subset": ...}]}, without what mteb could not
    compute (NaN; calibration measures of few queries). A rank beyond what the task
    retrieves is a ValueError.
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
    """Graded relevance counts as relevant from 1 on."""
    return [document for document, grade in documents.items() if grade > 0]


def _ranked(task, query: str, found: Mapping[str, float], documents: Mapping[str, int]) -> list:
    """Rows of the documents by score, ties by id, as the task's own evaluation sees them."""
    order = sorted(found, key=lambda document: (-found[document], document))
    if task.ignore_identical_ids:
        order = [document for document in order if document != query]
    return [documents[document] for document in order[task.skip_first_result :]]
