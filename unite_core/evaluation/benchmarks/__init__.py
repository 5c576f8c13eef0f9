"""Public benchmarks of universal embedders: what mteb lacks is read here, the rest goes to mteb.

`TASKS` is the registry, `load_task` reads a task from the files that its makers publish, and
`score_task` ranks. Frames, pixels and lengths are the paper's (PAPER §1, §7).
"""

from .registry import TASKS, TaskSpec, averages, find_tasks, load_task
from .task import BenchmarkTask, score_task

__all__ = [
    "TASKS", "BenchmarkTask", "TaskSpec", "averages", "find_tasks", "load_task", "score_task",
]  # fmt: skip
