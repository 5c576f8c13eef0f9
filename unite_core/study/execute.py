"""Run a study part by part: what it shares, its first stages, its runs, its table.

Each part is complete or absent, so a killed study goes on with the part that it was in. The parts
of a level do not depend on each other: several processes, or snakemake, may share them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ..evaluation.tasks import RetrievalTask
from ..files import file_hash, read_json, write_json
from ..model.router import ModalityRouter, router_file
from ..settings import read_config
from ..train.config import TrainConfig
from .arms import Run, Size, Study, runs_of
from .gaps import gaps_of
from .rows import described, read_table, row_of, rows_of, write_table
from .scoring import fit_scores, rank_tasks
from .training import (
    fit_records,
    folder_of,
    prepare,
    run_items,
    study_tasks,
    train_run,
    train_stage_1,
)

__all__ = ["make_row", "parts_of", "run_part", "run_study", "stored_table"]


def parts_of(study: Study, size: Size) -> list[str]:
    """All parts in order: `prepare`, `stage1-SEED`, `run-ARM-BLOCK`, `table`."""
    runs = list(runs_of(study, size))
    seeds = size.seeds if study.shared_stage_1 else ()
    return [
        "prepare",
        *(f"stage1-{seed}" for seed in seeds),
        *(f"run-{run.name}" for run in runs),
        "table",
    ]


def run_part(study: Study, size_name: str, part: str) -> Path:
    """Do one part of `parts_of`, unless it is done; returns the file or folder it made."""
    size, folder = study.sizes[size_name], folder_of(study, size_name)
    if part not in parts_of(study, size):
        raise ValueError(f"{part!r} is no part of study {study.name}: see --list")
    kind, _, name = part.partition("-")
    if kind == "prepare":
        return prepare(study, size, folder)
    if kind == "stage1":
        return train_stage_1(size, folder, int(name))
    if kind == "run":
        (run,) = (run for run in runs_of(study, size) if run.name == name)
        return make_row(study, size, folder, run, folder / "runs" / run.name)
    return _table(study, size, size_name, folder)


def run_study(study: Study, size_name: str) -> Iterator[tuple[str, Path]]:
    """Do all parts in order; yields each with what it made."""
    for part in parts_of(study, study.sizes[size_name]):
        yield part, run_part(study, size_name, part)


def make_row(study: Study, size: Size, folder: Path, run: Run, home: Path) -> Path:
    """Train and score a run of a study in `folder` into `home`, where its row lies then."""
    if (home / "row.json").is_file():
        return home / "row.json"
    torch.set_num_threads(1)  # sums depend on it; two runs side by side beat one of two threads
    train_run(study, size, folder, run, home)
    tasks = study_tasks(study, size)
    vectors = dict(zip(run_items(study, size), np.load(home / "vectors.npy"), strict=True))
    fit = None
    if study.needs_fit:
        config = read_config(TrainConfig, home / "train.json")
        router = ModalityRouter.load(home) if router_file(home) else None
        fit = fit_scores(fit_records(size), vectors, config.stage.temperature, router)
    ranks = list(rank_tasks(tasks, vectors, study.scores, fit))
    identity = {
        "run": run.name, "study": study.name, "arm": run.arm, "block": run.block,
        **read_json(home / "source.json"),
        "config": read_json(home / "train.json"), "vectors": file_hash(home / "vectors.npy"),
        "gap": gaps_of(tasks, vectors),
    }  # fmt: skip
    write_json(home / "row.json", row_of(identity, ranks))
    return home / "row.json"


def stored_table(study: Study, size_name: str) -> Path:
    """Where the rows lie that `make_again` compares with, without suffix: for `small` the table
    that is committed, else that of the runs' own folder."""
    folder = Path("figures/study") if size_name == "small" else folder_of(study, size_name)
    return folder / study.name


def _table(study: Study, size: Size, size_name: str, folder: Path) -> Path:
    """Write the table of the runs of this folder that are done, which need not be all.

    Rows of `small` that `stored_table` lacks are added there, too; none there is ever replaced,
    since on another kind of processor a run gives another row.
    """
    own, stored = folder / study.name, stored_table(study, size_name)
    planned = [folder / "runs" / run.name / "row.json" for run in runs_of(study, size)]
    found = {row["run"]: row for row in map(read_json, filter(Path.is_file, planned))}
    if not (found or own.with_suffix(".parquet").is_file()):
        raise ValueError(f"{folder} has no finished run: run the other parts first")
    tasks = study_tasks(study, size)
    rows = _rows_at(own, tasks) | found  # a run's folder may be gone
    write_table(own, rows.values(), tasks)
    print(f"{len(rows)} of {len(planned)} runs")
    if stored != own:
        there = _rows_at(stored, tasks)
        if rows.keys() - there:
            write_table(stored, (rows | there).values(), tasks)
        both = rows.keys() & there
        differ = sum(rows[name]["vectors"] != there[name]["vectors"] for name in both)
        print(f"{stored}: {len(rows.keys() - there)} added; {differ} of its rows differ from these")
    return own.with_suffix(".parquet")


def _rows_at(path: Path, tasks: Sequence[RetrievalTask]) -> dict:
    """Rows of a table, if there is one; ValueError where they answered other tasks than these."""
    if not path.with_suffix(".parquet").is_file():
        return {}
    table = read_table(path)
    if table.tasks != described(tasks):
        raise ValueError(
            f"{path}.parquet has rows of other tasks than the corpus has now: build the corpus "
            "that they are of, or move the table away"
        )
    return rows_of(table)
