"""The corpus of a notebook: its folder and its tasks."""

from __future__ import annotations

import os
from pathlib import Path

from ..corpora.registry import CORPORA
from ..data.modality import modality_of
from ..evaluation.tasks import RetrievalTask, read_tasks
from .runs import from_root

__all__ = ["kind_of", "open_corpus", "tasks_of"]


def open_corpus(corpus: str, data_root: str = "") -> Path:
    """The folder of a registered corpus, `data_root` or `data/<corpus>`; built if that is cheap.

    Raises FileNotFoundError, which says what to run, for a missing corpus that needs a download,
    and ValueError for a name that is not in `CORPORA`.
    """
    entry = CORPORA[corpus]
    root = from_root(data_root or f"data/{corpus}")
    if not (root / "manifest.json").is_file():
        if not entry.on_the_fly:
            raise FileNotFoundError(entry.missing(root))
        entry.build(os.path.relpath(root))
    return root


def tasks_of(root: str | Path, *splits: str) -> list[RetrievalTask]:
    """The corpus's tasks of the named splits, in the order of its file.

    Raises ValueError for a split without tasks.
    """
    tasks = read_tasks(Path(root) / "tasks.json")
    known = {task.split for task in tasks}
    if lacking := sorted(set(splits) - known):
        raise ValueError(
            f"{Path(root) / 'tasks.json'} has no task of split {', '.join(lacking)}, only of "
            f"{', '.join(sorted(known))}: remove the corpus's manifest.json and build it again"
        )
    return [task for task in tasks if task.split in splits]


def kind_of(task: RetrievalTask) -> str:
    """ "plain", "asked" or "instructed", see `RetrievalTask`.

    Where the task file does not say it, a task is instructed if a side of it mixes modalities.
    """
    if task.kind:
        return task.kind
    fused = any("+" in modality_of(side[0]).label for side in (task.queries, task.candidates))
    return "instructed" if fused else "plain"
