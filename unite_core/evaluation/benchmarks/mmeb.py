"""MMEB: 36 tasks that rank candidates given per query, scored by precision@1.

Files of the hub's TIGER-Lab/MMEB-eval: `<task>/test-*.parquet` with the columns qry_text,
qry_img_path, tgt_text and tgt_img_path, and images in `images/`. The last two are lists whose first
entry is the positive. Instructions are part of the texts, as VLM2Vec wrote them.
"""

# Shapes: Q queries.

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...data.items import IMAGE_PLACEHOLDER
from ...data.records import content_id
from ..tasks import RetrievalTask
from .registry import benchmark
from .task import BenchmarkTask, MissingDataError

__all__ = ["FOLDER", "IN_DISTRIBUTION", "META_TASKS", "mmeb_means", "mmeb_task"]


FOLDER = "MMEB-eval"
META_TASKS = {
    "classification": (
        "ImageNet-1K", "N24News", "HatefulMemes", "VOC2007", "SUN397",
        "Place365", "ImageNet-A", "ImageNet-R", "ObjectNet", "Country211",
    ),
    "vqa": (
        "OK-VQA", "A-OKVQA", "DocVQA", "InfographicsVQA", "ChartQA", "Visual7W",
        "ScienceQA", "VizWiz", "GQA", "TextVQA",
    ),
    "retrieval": (
        "VisDial", "CIRR", "VisualNews_t2i", "VisualNews_i2t", "MSCOCO_t2i", "MSCOCO_i2t",
        "NIGHTS", "WebQA", "FashionIQ", "Wiki-SS-NQ", "OVEN", "EDIS",
    ),
    "grounding": ("MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"),
}  # fmt: skip
"""The 36 tasks by kind; papers print the means of these groups."""
IN_DISTRIBUTION = {
    "ImageNet-1K", "N24News", "HatefulMemes", "VOC2007", "SUN397", "OK-VQA", "A-OKVQA", "DocVQA",
    "InfographicsVQA", "ChartQA", "Visual7W", "VisDial", "CIRR", "VisualNews_t2i",
    "VisualNews_i2t", "MSCOCO_t2i", "MSCOCO_i2t", "NIGHTS", "WebQA", "MSCOCO",
}  # fmt: skip
"""Tasks whose training sets are in MMEB-train."""
_SUBSETS = [subset for group in META_TASKS.values() for subset in group]

_COLUMNS = ("qry_text", "qry_img_path", "tgt_text", "tgt_img_path")
_MARK = re.compile(r"<\|image_\d+\|>\s*")


def mmeb_task(root: Path, name: str, subset: str) -> BenchmarkTask:
    """Read one MMEB task; a candidate of several queries is one item and is embedded once.

    Queries about the same image are one family. MissingDataError if the subset's files are missing.
    """
    rows = _read(root / FOLDER / subset)
    images = f"{FOLDER}/images"
    place: dict[str, int] = {}
    candidates, queries, pools, families = [], [], [], []
    for number, (text, image, texts, paths) in enumerate(rows, 1):
        where = f"{subset}, row {number}"
        queries.append(_item(text, image, images, where))
        families.append(image or f"row {number}")
        if not len(texts) == len(paths) > 0:
            raise ValueError(f"{where}: {len(texts)} tgt_text, {len(paths)} tgt_img_path; refetch")
        pool = []
        for pair in zip(texts, paths, strict=True):
            item = _item(*pair, images, where)
            identity = content_id(item)
            if identity not in place:
                place[identity] = len(candidates)
                candidates.append(item)
            pool.append(place[identity])
        pools.append(pool)
    _check_files(root, queries + candidates, name)
    positives = [[pool[0]] for pool in pools]
    task = RetrievalTask(name, "test", queries, candidates, positives, families)
    return BenchmarkTask(task, ("precision@1",), pools=[sorted(set(pool)) for pool in pools])


for _subset in _SUBSETS:
    benchmark(f"mmeb/{_subset}", "hub: TIGER-Lab/MMEB-eval", subset=_subset)(mmeb_task)


def mmeb_means(values: Mapping[str, float]) -> dict[str, tuple[float, int, int]]:
    """MMEB's published means, from values by task name: {group: (mean, tasks run, tasks in it)}.

    Groups are the four kinds of task, in and out of distribution, and all; groups without any task
    in `values` are left out. Only a mean over all of a group compares with a published one.
    """
    groups = dict(META_TASKS) | {
        "in distribution": [s for s in _SUBSETS if s in IN_DISTRIBUTION],
        "out of distribution": [s for s in _SUBSETS if s not in IN_DISTRIBUTION],
        "all": _SUBSETS,
    }
    means = {}
    for group, subsets in groups.items():
        present = [values[f"mmeb/{s}"] for s in subsets if f"mmeb/{s}" in values]
        if present:
            means[f"mmeb {group}"] = (float(np.mean(present)), len(present), len(subsets))
    return means


def _read(folder: Path) -> list[tuple]:
    """[Q] rows of all parquet files of a subset, in the order of the file names."""
    files = sorted(folder.glob("test*.parquet"))
    if not files:
        raise MissingDataError(
            f"{folder} has no test-*.parquet: fetch the hub's data set TIGER-Lab/MMEB-eval there "
            f"and unpack its images.zip into {folder.parent / 'images'}"
        )
    try:
        import pyarrow.parquet
    except ImportError:
        raise ImportError(
            "MMEB comes in parquet files: install the extra, pip install 'unite-workbook[evaluate]'"
        ) from None
    rows = []
    for path in files:
        table = pyarrow.parquet.read_table(path)
        lacking = [name for name in _COLUMNS if name not in table.column_names]
        if lacking:
            raise ValueError(f"{path}: no column {', '.join(lacking)}; is this MMEB-eval?")
        rows += zip(*(table.column(name).to_pylist() for name in _COLUMNS), strict=True)
    return rows


def _item(text: str | None, image: str | None, folder: str, where: str) -> dict:
    """Item of a row's text and image, with our image placeholder in place of MMEB's."""
    text, marked = _MARK.subn("", text or "")
    text = text.strip()
    if not text and not image:
        raise ValueError(f"{where}: neither text nor image; fetch the file again")
    if not image:
        if marked:
            raise ValueError(f"{where}: a place for an image, but none named; fetch the file again")
        return {"text": text}
    item = {"image": f"{folder}/{image}"}
    return {"text": f"{IMAGE_PLACEHOLDER}\n{text}"} | item if text else item


def _check_files(root: Path, items: list[dict], name: str) -> None:
    paths = dict.fromkeys(item["image"] for item in items if "image" in item)
    missing = [path for path in paths if not (root / path).is_file()]
    if missing:
        raise MissingDataError(
            f"{name}: {len(missing)} of {len(paths)} images are missing below {root}, the first is "
            f"{missing[0]}; unpack images.zip of TIGER-Lab/MMEB-eval"
        )
