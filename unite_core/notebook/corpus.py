"""What notebooks share before their own question: a corpus on disk, a trained stage, a table."""

# Shapes: Q queries, N candidates, D embedding size, K results.

from __future__ import annotations

import os
from pathlib import Path

from ..corpora.shapes import build
from ..data.modality import modality_of
from ..evaluation.tasks import RetrievalTask, read_tasks
from .runs import from_root

__all__ = ["is_instruction", "open_corpus", "tasks_of"]


def open_corpus(corpus: str, data_root: str = "") -> Path:
    """The folder of a finished corpus, `data/<corpus>` unless another is named.

    Shapes are generated where they are missing; emoji, a download, are a FileNotFoundError that
    says how to build them.
    """
    if corpus not in ("shapes", "emoji"):
        raise ValueError(f"corpus {corpus!r}: use shapes or emoji")
    root = from_root(data_root or f"data/{corpus}")
    if not (root / "manifest.json").is_file():
        if corpus == "emoji":
            raise FileNotFoundError(
                f"{root} holds no finished emoji corpus: run `python -m unite_core.corpora.emoji --root "
                f'{root}` (a download of about 230 MB), or set corpus = "shapes"'
            )
        build(os.path.relpath(root))
    return root


def tasks_of(root: str | Path, *splits: str) -> list[RetrievalTask]:
    """A corpus's tasks of the named splits, in the order of its file.

    Raises ValueError for a split that has no task.
    """
    tasks = read_tasks(Path(root) / "tasks.json")
    known = {task.split for task in tasks}
    if lacking := sorted(set(splits) - known):
        raise ValueError(
            f"{Path(root) / 'tasks.json'} has no task of split {', '.join(lacking)}, only of "
            f"{', '.join(sorted(known))}: remove the corpus's manifest.json and build it again"
        )
    return [task for task in tasks if task.split in splits]


def is_instruction(task: RetrievalTask) -> bool:
    """Whether a side of the task mixes modalities, as only instructions do (PAPER §3.2)."""
    return any("+" in modality_of(side[0]).label for side in (task.queries, task.candidates))
