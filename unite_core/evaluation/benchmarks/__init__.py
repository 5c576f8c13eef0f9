"""Public benchmarks: tasks that mteb lacks are read here, the others run through mteb.

`BENCHMARKS` is the registry, `load_task` reads a task from the files its authors publish, and
`score_task` ranks. Importing the package registers all tasks.
"""

from . import captions, covr, mmeb, mteb_names  # noqa: F401, in the order of the list of tasks
from .mmeb import mmeb_means
from .registry import BENCHMARKS, TaskSpec, benchmark, find_tasks, load_task, register_mteb
from .task import BenchmarkTask, score_task

__all__ = [
    "BENCHMARKS", "BenchmarkTask", "TaskSpec", "benchmark", "find_tasks", "load_task",
    "mmeb_means", "register_mteb", "score_task",
]  # fmt: skip
