"""Images with one long caption each, as published: Urban1K, DOCCI and ShareGPT4V."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from ...data.readers import iter_values
from ..tasks import RetrievalTask
from .registry import benchmark
from .task import BenchmarkTask, MissingDataError

__all__ = ["docci", "sharegpt4v", "urban1k"]


_METRICS = ("recall@1", "recall@5", "recall@10", "ndcg@10")
_SHAREGPT4V_TEST = 1000  # first rows, which Long-CLIP and its successors do not train on


@benchmark("urban1k-i2t", "hub: BeichenZhang/Urban1k", to_image=False)
@benchmark("urban1k-t2i", "hub: BeichenZhang/Urban1k", to_image=True)
def urban1k(root: Path, name: str, to_image: bool) -> BenchmarkTask:
    """Read `Urban1k/image/N.jpg` with the first line of `Urban1k/caption/N.txt`."""
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


@benchmark("docci-i2t", "DOCCI, split test (5 000)", to_image=False)
@benchmark("docci-t2i", "DOCCI, split test (5 000)", to_image=True)
def docci(root: Path, name: str, to_image: bool) -> BenchmarkTask:
    """Read the split "test" of `docci/docci_descriptions.jsonlines`, images in `docci/images/`."""
    path = root / "docci" / "docci_descriptions.jsonlines"
    if not path.is_file():
        raise MissingDataError(f"no {path}: fetch it from the DOCCI page of Google, and images/")
    pairs = []
    for where, row in iter_values(path):
        split, image, text = _fields(row, where, "split", "image_file", "description")
        if split == "test":
            pairs.append((f"docci/images/{image}", text.strip()))
    return _paired(root, name, pairs, to_image)


@benchmark("sharegpt4v-i2t", "hub: Lin-Chen/ShareGPT4V, first 1 000 rows", to_image=False)
@benchmark("sharegpt4v-t2i", "hub: Lin-Chen/ShareGPT4V, first 1 000 rows", to_image=True)
def sharegpt4v(root: Path, name: str, to_image: bool) -> BenchmarkTask:
    """Read the first 1 000 rows of ShareGPT4V's caption file; the other 1.2 million stay unread."""
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
    """Task of one caption per image; each pair is a family of its own."""
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
