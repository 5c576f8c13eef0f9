"""Registry of public benchmarks: each task's name, data source and embedding settings.

A new benchmark is one decorated reader, in this package or in any module that is imported first:

    @benchmark("my-task", source="hub: me/my-task")
    def my_task(root: Path, name: str) -> BenchmarkTask: ...

and a task that mteb has is one call of `register_mteb`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ...registry import Registry
from .task import BenchmarkTask

__all__ = [
    "BENCHMARKS", "TaskSpec", "benchmark", "find_tasks", "frame_settings", "load_task",
    "register_mteb",
]  # fmt: skip


Reader = Callable[..., BenchmarkTask]


@dataclass(frozen=True)
class TaskSpec:
    """A benchmark task that can be evaluated by name.

    read      reader (root, name) -> BenchmarkTask; None for a task of mteb
    mteb      name of the task in mteb; "" for one with a reader
    settings  fields of EmbedConfig that replace the checkpoint's
    metrics   of an mteb task, the main one first; a `BenchmarkTask` has its own
    source    where the data are from; for mteb tasks, how they differ from the paper's
    """

    name: str
    read: Callable[[Path, str], BenchmarkTask] | None = None
    mteb: str = ""
    settings: Mapping[str, int | str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("recall@1", "recall@5", "recall@10", "ndcg@10")
    source: str = ""


BENCHMARKS: Registry[TaskSpec] = Registry("benchmark")


def benchmark(
    name: str, source: str = "", settings: Mapping[str, int | str] | None = None, **arguments
) -> Callable[[Reader], Reader]:
    """Register a reader of a benchmark task; a decorator that may be repeated.

    Args
        name       of the task; "family-x" and "family/x" are also found as "family"
        source     where the data are from
        settings   fields of EmbedConfig that replace the checkpoint's
        arguments  passed to the reader after (root, name)
    """

    def register(read: Reader) -> Reader:
        bound = partial(read, **arguments) if arguments else read
        BENCHMARKS.register(name)(TaskSpec(name, bound, settings=settings or {}, source=source))
        return read

    return register


def register_mteb(name: str, mteb: str, **fields) -> None:
    """Register a retrieval task of mteb under a name of ours; `fields` are those of TaskSpec."""
    BENCHMARKS.register(name)(TaskSpec(name, mteb=mteb, **fields))


def frame_settings(count: int) -> dict[str, int]:
    """EmbedConfig fields for exactly `count` frames per video, fewer only if it has fewer.

    The authors published frame counts but no pixel limit of their evaluation; the limit here is
    that of their inference demo, 360 x 420 a frame. 48 such frames are 4 608 tokens, and 6 336 with
    `video_pixels="released"`, hence `max_length`.
    """
    return {
        "min_frames": count,
        "max_frames": count,
        "video_max_pixels": 360 * 420,
        "max_length": 8192,
    }


def find_tasks(names: Sequence[str]) -> list[TaskSpec]:
    """Find tasks by name or by the first part of it: "mmeb" is all 36, "urban1k" both directions.

    `mteb:NAME` is any retrieval task of mteb, with the checkpoint's own settings. ValueError lists
    the known names.
    """
    found: dict[str, TaskSpec] = {}
    for name in names:
        if name.startswith("mteb:"):
            specs = [TaskSpec(name, mteb=name.removeprefix("mteb:"))]
        elif name in BENCHMARKS:
            specs = [BENCHMARKS[name]]
        else:
            family = (f"{name}-", f"{name}/")
            specs = [BENCHMARKS[key] for key in BENCHMARKS if key.startswith(family)]
        if not specs:
            firsts = dict.fromkeys(key.split("/")[0] for key in BENCHMARKS)
            raise ValueError(
                f"no task {name!r}: there are {', '.join(firsts)} (mmeb/NAME for one of its 36), "
                "and mteb:NAME for any retrieval task of mteb"
            )
        found |= {spec.name: spec for spec in specs}
    return list(found.values())


def load_task(spec: TaskSpec, root: str | Path) -> BenchmarkTask:
    """Read a task that is not mteb's; paths of its items are relative to `root`.

    MissingDataError names the path that is missing and where to get it.
    """
    if spec.read is None:
        raise ValueError(f"{spec.name} is mteb's {spec.mteb}: run it through run_mteb_task")
    return spec.read(Path(root), spec.name)
