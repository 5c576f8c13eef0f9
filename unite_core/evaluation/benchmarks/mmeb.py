"""MMEB: 36 tasks as ranking among candidates given per query, scored by precision@1.

Layout of the hub's TIGER-Lab/MMEB-eval: `<task>/test-*.parquet` with the columns qry_text,
qry_img_path, tgt_text and tgt_img_path, the last two lists whose first entry is the answer, and
images below `images/`. Instructions are part of the texts, as VLM2Vec wrote them.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...data.items import IMAGE_PLACEHOLDER
from ...data.records import content_id
from ..tasks import RetrievalTask
from .task import BenchmarkTask, MissingDataError

__all__ = ["FOLDER", "IN_DISTRIBUTION", "META_TASKS", "mmeb"]


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
"""The 36 tasks by what they are; the means of these groups are what papers print."""
IN_DISTRIBUTION = {
    "ImageNet-1K", "N24News", "HatefulMemes", "VOC2007", "SUN397", "OK-VQA", "A-OKVQA", "DocVQA",
    "InfographicsVQA", "ChartQA", "Visual7W", "VisDial", "CIRR", "VisualNews_t2i",
    "VisualNews_i2t", "MSCOCO_t2i", "MSCOCO_i2t", "NIGHTS", "WebQA", "MSCOCO",
}  # fmt: skip
"""Tasks whose training sets are in MMEB-train."""

_COLUMNS = ("qry_text", "qry_img_path", "tgt_text", "tgt_img_path")
_MARK = re.compile(r"<\|image_\d+\|>\s*")


def mmeb(root: Path, name: str, subset: str) -> BenchmarkTask:
    """One MMEB task; candidates shared by queries are one item, and are embedded once.

    Queries about one image are one family. Raises MissingDataError without the subset's files.
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


def _read(folder: Path) -> list[tuple]:
    """Rows of all parquet files of a subset, in the order of their names."""
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
    """Text and image of a row; the mark of the image's place becomes ours, a lone mark goes."""
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
