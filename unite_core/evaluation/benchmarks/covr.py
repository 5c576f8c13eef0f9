"""WebVid-CoVR: composed video retrieval, from a reference video and an edit to the edited video.

Files as published: `WebVid-CoVR/webvid8m-covr_test.csv` with the columns pth1, pth2 and edit, and
clips in `WebVid/8M/train/<pth>.mp4`.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ...data.items import VIDEO_PLACEHOLDER
from ..tasks import RetrievalTask
from .registry import benchmark, frame_settings
from .task import BenchmarkTask, MissingDataError

__all__ = ["webvid_covr"]


_CLIPS = "WebVid/8M/train"
_COLUMNS = ("pth1", "pth2", "edit")


@benchmark("webvid-covr", "hub: lucas-ventura/WebVid-CoVR", frame_settings(16))
def webvid_covr(root: Path, name: str) -> BenchmarkTask:
    """Read the test triplets; the pool is all target videos, without each query's reference.

    The reference is given as a video, as UNITE is trained (see `docs/method.md`); CoVR's own models
    see its middle frame. Queries with the same reference are one family.
    """
    rows = _read(root / "WebVid-CoVR" / "webvid8m-covr_test.csv")
    targets = list(dict.fromkeys(target for _, target, _ in rows))
    place = {target: index for index, target in enumerate(targets)}
    clips = dict.fromkeys(path for row in rows for path in row[:2])
    missing = [clip for clip in clips if not (root / _clip(clip)).is_file()]
    if missing:
        raise MissingDataError(
            f"{name}: {len(missing)} of {len(clips)} videos are missing below {root}, the first is "
            f"{_clip(missing[0])}; a score without them would be of another task: fetch them"
        )
    task = RetrievalTask(
        name=name,
        split="test",
        queries=[
            {"text": f"{VIDEO_PLACEHOLDER}\n{edit}", "video": _clip(reference)}
            for reference, _, edit in rows
        ],
        candidates=[{"video": _clip(target)} for target in targets],
        positives=[[place[target]] for _, target, _ in rows],
        families=[reference for reference, _, _ in rows],
    )
    hidden = [[place[reference]] if reference in place else [] for reference, _, _ in rows]
    return BenchmarkTask(task, ("recall@1", "recall@5", "recall@10", "recall@50"), hidden=hidden)


def _clip(pth: str) -> str:
    return f"{_CLIPS}/{pth}.mp4"


def _read(path: Path) -> list[tuple[str, str, str]]:
    """(reference, target, edit) of each row."""
    if not path.is_file():
        raise MissingDataError(f"no {path}: fetch the hub's data set lucas-ventura/WebVid-CoVR")
    with path.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines)
        lacking = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if lacking:
            raise ValueError(f"{path}: no column {', '.join(lacking)}; is this WebVid-CoVR's test?")
        rows = [tuple(row[name] for name in _COLUMNS) for row in table]
    for number, (reference, target, edit) in enumerate(rows, 2):
        if not (reference and target and edit and edit.strip()) or reference == target:
            raise ValueError(
                f"{path}, line {number}: needs two different videos and an edit; fetch it again"
            )
    return [(reference, target, edit.strip()) for reference, target, edit in rows]
