"""Run a study part by part: what it shares, its first stages, its runs, its table.

Each part is complete or absent, so a killed study goes on with the part that it was in. The parts
of a level do not depend on each other: several processes, or snakemake, may share them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..files import file_hash, read_json, write_json
from ..model.router import ModalityRouter, router_file
from ..settings import read_config
from ..train.config import TrainConfig
from .arms import Run, Size, Study, runs_of
from .gaps import gaps_of
from .rows import read_table, row_of, rows_of, write_table
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

__all__ = ["make_row", "parts_of", "run_part", "run_study", "table_of"]


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


def table_of(study: Study, size_name: str) -> Path:
    """Where the table of a size lies, without suffix."""
    folder = folder_of(study, size_name)
    return (Path("figures/study") if size_name == "small" else folder) / study.name


def _table(study: Study, size: Size, size_name: str, folder: Path) -> Path:
    """Write the table of the runs that are done, which need not be all.

    Rows of runs that the table has and this folder lacks stay: they were run elsewhere.
    """
    path = table_of(study, size_name)
    rows = rows_of(read_table(path)) if path.with_suffix(".parquet").is_file() else {}
    found = [folder / "runs" / run.name / "row.json" for run in runs_of(study, size)]
    rows |= {row["run"]: row for row in map(read_json, filter(Path.is_file, found))}
    if not rows:
        raise ValueError(f"{folder} has no finished run: run the other parts first")
    write_table(path, rows.values(), study_tasks(study, size))
    print(f"{len(rows)} of {len(found)} runs")
    return path.with_suffix(".parquet")
