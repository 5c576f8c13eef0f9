"""Images with one long caption each, in their makers' layouts: Urban1K, DOCCI, ShareGPT4V."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from ...data.readers import iter_values
from ..tasks import RetrievalTask
from .task import BenchmarkTask, MissingDataError

__all__ = ["docci", "sharegpt4v", "urban1k"]


_METRICS = ("recall@1", "recall@5", "recall@10", "ndcg@10")
_SHAREGPT4V_TEST = 1000  # Long-CLIP keeps the first rows out of its training, and so do its heirs


def urban1k(root: Path, name: str, to_image: bool) -> BenchmarkTask:
    """`Urban1k/image/N.jpg` with `Urban1k/caption/N.txt`, of which the first line counts."""
    captions = sorted((root / "Urban1k" / "caption").glob("*.txt"), key=_by_number)
    if not captions:
        raise MissingDataError(
            f"{root / 'Urban1k' / 'caption'} has no N.txt: unpack the hub's data set "
            "BeichenZhang/Urban1k there"
        )
    pairs = []
    for path in captions:
        text = path.read_text(encoding="utf-8").split("\n")[0].strip()
        pairs.append((f"Urban1k/image/{path.stem}.jpg", text))
    return _paired(root, name, pairs, to_image)


def docci(root: Path, name: str, to_image: bool) -> BenchmarkTask:
    """`docci/docci_descriptions.jsonlines`, its split "test", with `docci/images/`."""
    path = root / "docci" / "docci_descriptions.jsonlines"
    if not path.is_file():
        raise MissingDataError(f"no {path}: fetch it from the DOCCI page of Google, and images/")
    pairs = []
    for where, row in iter_values(path):
        split, image, text = _fields(row, where, "split", "image_file", "description")
        if split == "test":
            pairs.append((f"docci/images/{image}", text.strip()))
    return _paired(root, name, pairs, to_image)


def sharegpt4v(root: Path, name: str, to_image: bool) -> BenchmarkTask:
    """The first 1 000 rows of ShareGPT4V's caption file, read without the other 1.2 million."""
    folder = "sharegpt4v"
    path = root / folder / "share-captioner_coco_lcs_sam_1246k_1107.json"
    if not path.is_file():
        raise MissingDataError(f"no {path}: fetch it from the hub's data set Lin-Chen/ShareGPT4V")
    pairs = []
    for where, row in islice(iter_values(path), _SHAREGPT4V_TEST):
        image, turns = _fields(row, where, "image", "conversations")
        if len(turns) < 2 or "value" not in turns[1]:
            raise ValueError(f"{where}, field conversations: no answer with a value; fetch it anew")
        pairs.append((f"{folder}/{image}", turns[1]["value"].replace("\n", " ").strip()))
    return _paired(root, name, pairs, to_image)


def _paired(root: Path, name: str, pairs: list[tuple[str, str]], to_image: bool) -> BenchmarkTask:
    """Every image with its caption; each pair is a family of its own."""
    missing = [image for image, _ in pairs if not (root / image).is_file()]
    if missing:
        raise MissingDataError(
            f"{name}: {len(missing)} of {len(pairs)} images are missing below {root}, the first "
            f"is {missing[0]}; a score without them would be of another task: fetch them"
        )
    images, texts = [{"image": image} for image, _ in pairs], [{"text": text} for _, text in pairs]
    queries, candidates = (texts, images) if to_image else (images, texts)
    task = RetrievalTask(
        name=name,
        split="test",
        queries=queries,
        candidates=candidates,
        positives=[[row] for row in range(len(pairs))],
        families=[image for image, _ in pairs],
    )
    return BenchmarkTask(task, _METRICS)


def _by_number(path: Path) -> tuple:
    return (int(path.stem), "") if path.stem.isdigit() else (-1, path.stem)


def _fields(row, where: str, *names: str) -> list:
    lacking = [name for name in names if not isinstance(row, dict) or name not in row]
    if lacking:
        raise ValueError(f"{where}: no field {lacking[0]}; is this the file it is taken for?")
    return [row[name] for name in names]
