"""The registry: every task's name, where its data come from, and what an embedder sees of it.

Frames are the authors' (eval/task_config.py: 48, 32 and 16, PAPER §1). They published no pixel
limit for evaluation, so that of their inference demo stands in, 360 x 420 a frame. 48 such frames
are 4 608 tokens, and 6 336 with `video_pixels="released"`, hence the length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from .captions import docci, sharegpt4v, urban1k
from .covr import webvid_covr
from .mmeb import IN_DISTRIBUTION, META_TASKS, mmeb
from .task import BenchmarkTask

__all__ = ["TASKS", "TaskSpec", "averages", "find_tasks", "load_task"]


@dataclass(frozen=True)
class TaskSpec:
    """One task that can be asked for by name.

    read      own reader (root, name) -> BenchmarkTask; None where mteb has the task
    mteb      mteb's name of the task; "" where it is read here
    settings  fields of EmbedConfig that differ from the checkpoint's
    metrics   of an mteb task, the main one first; own tasks say theirs
    source    where the data are from; for mteb tasks, in what it differs from the paper's
    """

    name: str
    read: Callable[[Path, str], BenchmarkTask] | None = None
    mteb: str = ""
    settings: Mapping[str, int | str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("recall@1", "recall@5", "recall@10", "ndcg@10")
    source: str = ""


def _frames(count: int) -> dict[str, int]:
    """Exactly so many frames, fewer only of shorter clips."""
    return {
        "min_frames": count,
        "max_frames": count,
        "video_max_pixels": 360 * 420,
        "max_length": 8192,
    }


def _captions() -> list[TaskSpec]:
    readers = {
        "urban1k": (urban1k, "hub: BeichenZhang/Urban1k"),
        "docci": (docci, "DOCCI, split test (5 000)"),
        "sharegpt4v": (sharegpt4v, "hub: Lin-Chen/ShareGPT4V, first 1 000 rows"),
    }
    directions = {"t2i": True, "i2t": False}
    return [
        TaskSpec(f"{name}-{way}", partial(read, to_image=to_image), source=source)
        for name, (read, source) in readers.items()
        for way, to_image in directions.items()
    ]


def _mmeb() -> list[TaskSpec]:
    return [
        TaskSpec(f"mmeb/{subset}", partial(mmeb, subset=subset), source="hub: TIGER-Lab/MMEB-eval")
        for group in META_TASKS.values()
        for subset in group
    ]


def _of_mteb() -> list[TaskSpec]:
    hits = ("hit@1", "hit@5", "hit@10", "ndcg@10")  # an image has five captions
    plain = TaskSpec("").metrics
    rows = [
        ("flickr30k-t2i", "Flickr30kT2IRetrieval", 0, plain, "5 000 captions, 1 000 images"),
        ("flickr30k-i2t", "Flickr30kI2TRetrieval", 0, hits, "5 000 captions, 1 000 images"),
        ("mscoco-t2i", "MSCOCOT2IRetrieval", 0, plain, "24 809 captions, 5 000 images"),
        ("mscoco-i2t", "MSCOCOI2TRetrieval", 0, hits, "24 809 captions, 5 000 images"),
        ("msrvtt-t2v", "MSRVTTT2V", 48, plain, "879 clips, not the 1 000 of 1K-A"),
        ("msrvtt-v2t", "MSRVTTV2T", 48, plain, "879 clips, not the 1 000 of 1K-A"),
        ("msvd-t2v", "MSVDT2VRetrieval", 48, plain, "660 clips, their first captions only"),
        ("msvd-v2t", "MSVDV2TRetrieval", 48, plain, "660 clips, their first captions only"),
        ("didemo-t2v", "DiDeMoT2VRetrieval.v2", 48, plain, "993 clips"),
        ("didemo-v2t", "DiDeMoV2TRetrieval.v2", 48, plain, "993 clips"),
        ("carebench-t2v", "CaReBenchT2VRetrieval", 32, plain, "general captions only"),
        ("carebench-v2t", "CaReBenchV2TRetrieval", 32, plain, "general captions only"),
    ]
    return [
        TaskSpec(name, None, task, _frames(frames) if frames else {}, metrics, source)
        for name, task, frames, metrics, source in rows
    ]


_COVR = TaskSpec(
    "webvid-covr", webvid_covr, "", _frames(16), source="hub: lucas-ventura/WebVid-CoVR"
)
TASKS: dict[str, TaskSpec] = {
    spec.name: spec for spec in [*_captions(), _COVR, *_mmeb(), *_of_mteb()]
}
"""Every task by its name."""


def find_tasks(names: Sequence[str]) -> list[TaskSpec]:
    """Specs by name, or by the first part of it: "mmeb" is all 36, "urban1k" both directions.

    `mteb:NAME` is any retrieval task of mteb, with the checkpoint's own settings. ValueError lists
    what there is.
    """
    found: dict[str, TaskSpec] = {}
    for name in names:
        if name.startswith("mteb:"):
            some = [TaskSpec(name, mteb=name.removeprefix("mteb:"))]
        else:
            some = [TASKS[name]] if name in TASKS else _group(name)
        if not some:
            firsts = dict.fromkeys(key.split("/")[0] for key in TASKS)
            raise ValueError(
                f"no task {name!r}: there are {', '.join(firsts)} (mmeb/NAME for one of its 36), "
                "and mteb:NAME for any retrieval task of mteb"
            )
        found |= {spec.name: spec for spec in some}
    return list(found.values())


def _group(name: str) -> list[TaskSpec]:
    return [spec for key, spec in TASKS.items() if key.startswith((f"{name}-", f"{name}/"))]


def load_task(spec: TaskSpec, root: str | Path) -> BenchmarkTask:
    """Read a task that is not mteb's; paths of its items are relative to `root`.

    Raises MissingDataError with the path that is missing and where to get it.
    """
    if spec.read is None:
        raise ValueError(f"{spec.name} is mteb's {spec.mteb}: run it through mteb_adapter")
    return spec.read(Path(root), spec.name)


def averages(values: Mapping[str, float]) -> dict[str, tuple[float, int, int]]:
    """MMEB's printed means from values by task name: {group: (mean, tasks there, tasks of it)}.

    Groups are the four meta-tasks, in and out of distribution, and all; a group none of whose
    tasks was run is left out. Only a mean over all of its tasks compares with a published one.
    """
    everything = [subset for group in META_TASKS.values() for subset in group]
    groups = dict(META_TASKS) | {
        "in distribution": [subset for subset in everything if subset in IN_DISTRIBUTION],
        "out of distribution": [s for s in everything if s not in IN_DISTRIBUTION],
        "all": everything,
    }
    means = {}
    for group, subsets in groups.items():
        there = [values[f"mmeb/{s}"] for s in subsets if f"mmeb/{s}" in values]
        if there:
            means[f"mmeb {group}"] = (float(np.mean(there)), len(there), len(subsets))
    return means
