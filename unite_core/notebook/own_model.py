"""A model for anybody's pairs in a notebook: trained in stages, measured, searched, handed over."""

# Shapes: D embedding size.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.records import content_id, read_records, write_records
from ..evaluation.model_card import add_gap, add_results
from ..evaluation.results import EvaluationResult, comparison, paired_gain, percent
from ..evaluation.tasks import RetrievalTask, embed_tasks, evaluate
from ..export.sentence_transformers import export_model
from ..gap.measures import Measure
from ..model.embedder import UniteEmbedder
from ..search.config import EncodeConfig
from ..search.encode import encode_corpus
from ..search.index import VectorIndex, build_index
from ..search.shards import ShardFolder
from ..train.config import STAGES, StageConfig
from ..train.reach import stage_for
from .own_data import instructed_rows
from .stages import train_stage

__all__ = [
    "comparison_rows", "hand_over", "measure_model", "searchable", "stages_for", "train_stages",
]  # fmt: skip


def stages_for(model: str | Path) -> tuple[StageConfig, StageConfig]:
    """Both stages with the settings that work for a model of its size, see `train.reach`."""
    return tuple(STAGES[stage_for(model, name)] for name in ("stage1", "stage2"))


def train_stages(
    model: str | Path,
    train: str | Path,
    root: str | Path,
    folder: str | Path,
    steps: int,
    seed: int = 0,
) -> dict[str, Path]:
    """Train stage 1, then stage 2 where there are instructions; an interrupted run goes on.

    Args
        train   records file
        folder  gets the stages' runs and their records
        steps   of each stage
    Returns {"stage 1": model's folder, "stage 2": ...}, without those that had no records.
    """
    records = read_records(train)
    asked = instructed_rows(records)
    models: dict[str, Path] = {}
    for stage, chosen in zip(stages_for(model), (~asked, asked), strict=True):
        if chosen.any():
            data = Path(folder, f"{stage.name}.jsonl")
            write_records(data, [records[row] for row in np.flatnonzero(chosen).tolist()])
            stage = replace(stage, max_steps=steps, seed=seed)
            start = next(reversed(models.values()), model)
            name = f"stage {stage.name[-1]}"
            models[name] = train_stage(stage, start, root, Path(folder, stage.name), data)
    return models


def measure_model(
    model: str | Path, tasks: Sequence[RetrievalTask], root: str | Path, seed: int = 0
) -> tuple[EvaluationResult, dict[str, np.ndarray]]:
    """Score a model on tasks; returns the result and the vectors {content id: [D]}."""
    embedder = UniteEmbedder.load(model)
    vectors = embed_tasks(embedder, tasks, root, progress=False)
    return evaluate(embedder, tasks, root, vectors=vectors, seed=seed), vectors


def comparison_rows(results: Mapping[str, EvaluationResult], metric: str = "recall@10") -> list:
    """Rows of each task with the metric in percent by model and the paired gain of the last one.

    Intervals are of 95 %, over families.
    """
    names, rows = list(results), []
    for found in comparison(results, metric):
        row = {"task": found["task"], "queries": found["n"], "pool": found["candidates"]}
        row["by chance"] = f"{100 * found['chance']:.1f}"
        for name in names:
            row[name] = percent(found[name].value, found[name].low, found[name].high)
        if len(names) > 1:
            ends = (results[names[0]], results[names[-1]])
            row["gain"] = percent(*paired_gain(*ends, found["task"], found["split"], metric), "+")
        rows.append(row)
    return rows


def searchable(
    model: str | Path, items: Iterable[Mapping], root: str | Path, folder: str | Path
) -> tuple[VectorIndex, UniteEmbedder, dict[str, Mapping]]:
    """Embed items, each content once, and index them: (index, embedder, {id: item})."""
    embedder = UniteEmbedder.load(model)
    known = {content_id(item): item for item in items}
    config = EncodeConfig(str(model), str(folder), media_root=str(root))
    shards = encode_corpus(config, embedder, list(known.items()), progress=False)
    return build_index(ShardFolder(shards)), embedder, known


def hand_over(
    model: str | Path, results: Mapping[str, EvaluationResult],
    gaps: Mapping[str, Mapping[str, Measure]], folder: str | Path,
) -> Path:  # fmt: skip
    """Complete a model's card by its results and gaps and export it to sentence-transformers.

    Returns the export's folder; one that is there already is kept. The export gives the model's
    vectors, or an ExportError.
    """
    add_results(model, results)
    if gaps:
        add_gap(model, gaps)
    if not Path(folder).exists():
        export_model(model, folder)
    return Path(folder)
