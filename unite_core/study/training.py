"""Train one run of a study and keep its vectors; goes on after a kill.

A study's folder holds `vision` (visual tokens that all runs share), `stage1/SEED` (one for each
seed), and `runs/NAME` for each run: `train` while it trains, then `vectors.npy`, `source.json`
(where they come from), `history.json`, `adapter` and a router if it has one. A run whose vectors
are there is finished.
"""

# Shapes: N items, D embedding size.

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from ..corpora.concepts import read_concepts
from ..corpora.registry import CORPORA
from ..curate.alignment import align
from ..curate.config import AlignConfig
from ..data.modality import modality_of
from ..data.records import content_id, read_records, write_records
from ..evaluation.tasks import RetrievalTask, distinct_items, read_tasks
from ..files import read_json, replacing, working_in, write_json
from ..model.embedder import UniteEmbedder
from ..model.router import ROUTER_FILE
from ..model.vision_store import VisionStore, build_vision_store, embed_stored
from ..tiny.model import TINY
from ..tiny.stages import TINY_STAGE_1, TINY_STAGE_2
from ..train.config import STAGE_1, STAGE_2, SamplingConfig, StageConfig, TrainConfig
from .arms import Run, Size, Study
from .budget import budget_of
from .mixes import TEXTS, Mix, draw_records, frame_path, save_frames
from .provenance import provenance

__all__ = [
    "fit_records", "folder_of", "items_of", "prepare", "run_items", "stage_1_config",
    "stages_of", "study_tasks", "train_run", "train_stage_1",
]  # fmt: skip


_PLAIN_STAGE_2 = replace(TINY_STAGE_2, router_weight=0.0)  # a router is an arm's own
_STAGES = {"tiny": (TINY_STAGE_1, _PLAIN_STAGE_2), "paper": (STAGE_1, STAGE_2)}
_STORE_THREADS = 2  # whatever the machine has: sums depend on it, and rows must come again
_KEPT = ("adapter", "history.json", ROUTER_FILE)


def folder_of(study: Study, size_name: str) -> Path:
    """Where a study of that size keeps its runs: `runs/study/NAME-SIZE`."""
    return Path(os.environ.get("UNITE_RUNS", "runs"), "study", f"{study.name}-{size_name}")


def prepare(study: Study, size: Size, folder: Path) -> Path:
    """Make what all runs share: the corpora and, for a frozen tower, the visual tokens.

    ValueError naming the files that a corpus without a builder lacks.
    """
    for root, options in ((size.train_root, {}), (size.root, size.corpus_options)):
        if size.corpus:
            CORPORA[size.corpus].build(root, **options)
        elif not Path(root, "tasks.json").is_file():
            raise ValueError(
                f"{root} has no tasks.json: this size of study {study.name} needs stage1.jsonl, "
                f"stage2.jsonl, tasks.json{', concepts.json' * study.of_data} and all their media "
                "in that folder; docs/study.md, Three sizes, says what is in them"
            )
    if (folder / "vision" / "index.json").is_file():
        return folder / "vision"
    items = list(items_of(study_tasks(study, size)).values())
    if study.of_data:
        concepts = read_concepts(size.train_root)
        save_frames(concepts, size.root)
        for concept in concepts:
            items += [{"image": path} for path in concept.images]
            if concept.video:
                items += [{"video": concept.video}, {"image": frame_path(concept.video)}]
    for stage in ("stage1", "stage2"):
        for record in read_records(Path(size.train_root, f"{stage}.jsonl")):
            items += [record["query"], record["candidate"], *record.get("negatives", ())]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(_STORE_THREADS)
        with working_in(folder):
            embedder = UniteEmbedder.load(_backbone(size))
            build_vision_store(embedder, items, size.root, folder / "vision")
    finally:
        torch.set_num_threads(threads)
    return folder / "vision"


def train_stage_1(size: Size, folder: Path, seed: int) -> Path:
    """Train stage 1 of a seed, from which all arms of its blocks go on; returns the model."""
    from ..train.run import train

    finished = folder / "stage1" / str(seed) / "model"
    if finished.is_dir():  # perhaps by another checkout, whose unite-tiny lies elsewhere
        return finished
    torch.set_num_threads(1)
    model = train(stage_1_config(size, folder, seed))
    _remove_checkpoints(model.parent)
    return model


def train_run(study: Study, size: Size, folder: Path, run: Run, home: Path) -> None:
    """Train a run of a study in `folder` and embed the items of tasks and fits, into `home`.

    Does nothing if its vectors are there. Uses the threads that torch has. InUseError where another
    process works on it.
    """
    from ..train.run import train

    if (home / "vectors.npy").is_file():
        return
    with working_in(home):
        begun, source = perf_counter(), provenance()
        configs, store = [], VisionStore(folder / "vision")
        model = folder / "stage1" / str(run.block) / "model"  # what an arm without a stage 2 is
        for config in stages_of(study, size, folder, run, home / "train"):
            configs.append(config)
            model = train(config)
        embedder = UniteEmbedder.load(model)
        items = list(run_items(study, size).values())
        vectors = embed_stored(embedder, items, store, size.root)
        source["budget"] = budget_of(configs, store, embedder.processor)
        for name in _KEPT if configs else ():
            for place in (model.parent / name, model / name):
                if place.exists():
                    shutil.rmtree(home / name, ignore_errors=True)
                    place.replace(home / name)
        source["seconds"] = round(perf_counter() - begun, 1)
        write_json(home / "source.json", source)
        with replacing(home / "vectors.npy") as partial, partial.open("wb") as stream:
            np.save(stream, vectors)
        shutil.copy(model.parent / "train.json", home / "train.json")
        shutil.rmtree(home / "train", ignore_errors=True)  # which a stage 1 alone has none of


def stage_1_config(size: Size, folder: Path, seed: int) -> TrainConfig:
    """Stage 1 of a seed."""
    stage = _stage(size, 0, size.steps_1, seed)
    return _config(size, folder, str(_backbone(size)), stage, folder / "stage1" / str(seed))


def stages_of(study: Study, size: Size, folder: Path, run: Run,
              train: Path) -> Iterator[TrainConfig]:  # fmt: skip
    """The stages that a run trains, in order; each starts from the model of the one before. None
    for an arm that is the shared stage 1.

    Args
        folder  of the study: first stages and visual tokens that runs share
        train   of this run, while it trains
    Writes the records that a stage of the study of data has of its own.
    """
    arm = study.arm(run.arm)
    if arm.mix is not None:
        yield from _mix_stages(study, size, folder, arm.mix, run, train)
        return
    if not arm.trained:
        return
    stage = replace(_stage(size, 1, size.steps_2, run.block), **arm.stage)
    start = folder / "stage1" / str(run.block) / "model"
    sampling = SamplingConfig()
    if arm.one_modality:
        sampling = SamplingConfig(group_by="modality", sub_batch=stage.batch_size)
    yield replace(_config(size, folder, str(start), stage, train / "stage2"), sampling=sampling)


def _mix_stages(study: Study, size: Size, folder: Path, mix: Mix, run: Run,
                train: Path) -> Iterator[TrainConfig]:  # fmt: skip
    concepts, seed = read_concepts(size.train_root), run.block
    fine, others = [1], [text for text in range(TEXTS) if text != 1]
    apart = mix.fine in ("between", "after")
    records = draw_records(concepts, mix, seed, others if apart else range(TEXTS))
    if mix.curated:
        records = _curated(records, size, folder, seed)
    first = round(mix.steps * size.steps_1 * (2 / 3 if mix.fine == "between" else 1))
    plan = [(0, first, records)]
    if mix.fine == "between":
        plan.append((0, size.steps_1 - first, draw_records(concepts, mix, seed, fine)))
    if mix.fine:
        later = list(read_records(Path(size.train_root, "stage2.jsonl")))
        if mix.fine == "after":
            later += draw_records(concepts, mix, seed, fine)
        plan.append((1, size.steps_2, later))
    start = str(_backbone(size))
    for number, (stage, steps, rows) in enumerate(plan, 1):
        path = train / f"records{number}.jsonl"
        write_records(path, rows)
        config = _config(size, folder, start, _stage(size, stage, steps, seed),
                         train / f"stage{number}")  # fmt: skip
        yield replace(config, data=(str(path),), weights={})
        start = str(train / f"stage{number}" / "model")


def _curated(records: list[dict], size: Size, folder: Path, seed: int) -> list[dict]:
    """The records that alignment keeps, with draws from them in place of the others.

    Unlike by default, scores are trusted up to an estimated 60 % of mismatched pairs: 30 % are.
    """
    embedder, store = UniteEmbedder.load(_backbone(size)), VisionStore(folder / "vision")
    sides = [[record[side] for record in records] for side in ("query", "candidate")]
    vectors = [embed_stored(embedder, items, store, size.root) for items in sides]
    types = [" > ".join(modality_of(record[s]).label for s in ("query", "candidate"))
             for record in records]  # fmt: skip
    kept = align(*vectors, types, AlignConfig(most_mismatched=0.6)).kept
    good = [record for record, keep in zip(records, kept, strict=True) if keep]
    rng = random.Random(f"fill {seed}")
    filled = good + rng.choices(good, k=len(records) - len(good))
    rng.shuffle(filled)
    return filled


def study_tasks(study: Study, size: Size) -> list[RetrievalTask]:
    """The tasks that a study scores; shapes have all splits that the emoji have."""
    return [task for task in _tasks(size.root) if task.split in study.splits]


def items_of(tasks: Sequence[RetrievalTask]) -> dict[str, Mapping]:
    """Distinct items of tasks by content id, in a fixed order."""
    return dict(sorted(distinct_items(tasks).items()))


def fit_records(size: Size) -> list[dict]:
    """The training pairs of stage 2 on which search-time scores are fitted."""
    return _sample(size.train_root, size.fit_pairs)


@lru_cache(1)
def _sample(root: str, count: int) -> list[dict]:
    records = read_records(Path(root, "stage2.jsonl"))
    return random.Random(0).sample(records, min(count, len(records)))


@lru_cache(1)
def _tasks(root: str) -> list[RetrievalTask]:
    return read_tasks(Path(root, "tasks.json"))


def run_items(study: Study, size: Size) -> dict[str, Mapping]:
    """By content id the items of tasks, then those of fits: the rows of `vectors.npy`."""
    items = items_of(study_tasks(study, size))
    for record in fit_records(size) if study.needs_fit else ():
        for side in ("query", "candidate"):
            items.setdefault(content_id(record[side]), record[side])
    return items


def _backbone(size: Size) -> str | Path:
    return size.model or TINY


def _stage(size: Size, number: int, steps: int, seed: int) -> StageConfig:
    stage = _STAGES[size.recipe][number]
    return replace(stage, max_steps=steps, seed=seed, batch_size=size.batch_size)


def _config(size: Size, folder: Path, model: str, stage: StageConfig, output: Path) -> TrainConfig:
    manifest = Path(size.train_root, "manifest.json")
    weights = read_json(manifest).get("weights", {}) if manifest.is_file() else {}
    return TrainConfig(
        model, (str(Path(size.train_root, f"{stage.name}.jsonl")),), str(output), stage, size.root,
        weights=weights.get(stage.name, {}), logging_steps=max(1, stage.max_steps // 40),
        cache_vision=True, vision_store=str(folder / "vision"), **size.settings,
    )  # fmt: skip


def _remove_checkpoints(output: Path) -> None:
    for checkpoint in output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
