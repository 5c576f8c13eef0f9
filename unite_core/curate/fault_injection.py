"""Inject known faults into clean records, to measure what the rules find and what they harm.

Records are first reduced to distinct ones; each fault then affects records of its own. Media are
copied into a new folder and the given ones stay unchanged.
"""

# Shapes: N records.

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.media import load_image
from ..data.modality import Modality, modality_of
from ..data.videos import read_clip
from ..files import replacing
from .config import InjectionConfig
from .media_stats import media_of
from .reasons import Reasons
from .text_rules import words_of

__all__ = ["Fault", "InjectedData", "REASON_OF", "inject_faults", "measure_recovery"]


REASON_OF = {
    "unreadable": "unreadable",
    "static": "static",
    "leak": "leak",
    "near leak": "leak",
    "exact duplicate": "exact duplicate",
    "near duplicate": "near duplicate",
    "swapped caption": "misaligned",
}
"""Kinds of faults, and the reason of `REASONS` that the rules should give for each."""

_FILLERS = frozenset(
    ("a", "an", "the", "of", "on", "in", "at", "to", "and", "is", "with", "it", "for", "as", "by")
)
_MAX_OVERLAP = 0.25  # shared words of a swapped and the right caption, relative to the shorter
_PARTNERS = 200  # captions considered for a swap


class Fault(NamedTuple):
    """What was done to a row."""

    kind: str  # of REASON_OF
    row: int  # of the injected records
    of: int  # the row that it repeats, for leaks of the evaluation pairs; else -1


@dataclass(frozen=True)
class InjectedData:
    """Records below a media root of their own, and the faults among them."""

    rows: list[dict]
    tests: list[dict]  # evaluation pairs, below the same root
    faults: list[Fault]
    root: Path


def inject_faults(
    rows: Iterable[Mapping],
    tests: Iterable[Mapping],
    media_root: str | Path,
    root: str | Path,
    config: InjectionConfig | None = None,
) -> InjectedData:
    """Copy records and their media into `root` and inject faults; the seed decides where.

    Args
        rows, tests  training records and evaluation pairs below `media_root`, media as paths
        root         folder for the media, new or from an earlier call with the same arguments
    Returns
        the records in a new order, in which a copy follows the record that it repeats. A swapped
        caption shares at most a quarter of its words with the right one (relative to the shorter
        caption), so that it is clearly wrong.
    """
    config, root = config or InjectionConfig(), Path(root)
    rng = random.Random(f"plant {config.seed}")
    clean = list({repr((row["query"], row["candidate"])): dict(row) for row in rows}.values())
    rng.shuffle(clean)
    tests = [dict(test) for test in tests]
    for row in (*clean, *tests):
        for _, path in _media(row):
            _copy(Path(media_root, path), root / path)
    makers = _Makers(root, rng, config.seed)
    changed, added = {}, []  # row -> (kind, record); (record, kind, after row, of test)
    for kind, share, fits, make in makers.changes(config, clean):
        for row in _pick(clean, changed, round(share * len(clean)), fits):
            changed[row] = (kind, make(clean[row], row))
    touched = set(changed)
    for kind, share, make in makers.copies(config):
        for row in _pick(clean, touched, round(share * len(clean)), lambda _: True):
            touched.add(row)
            added.append((make(clean[row], len(added)), kind, row, -1))
    for number, test in enumerate(rng.sample(range(len(tests)), _leaks(config, clean, tests))):
        near = number % 2
        record = (makers.near if near else makers.exact)(tests[test], len(added))
        added.append((record, "near leak" if near else "leak", -1, test))
    return _arranged(clean, changed, added, tests, root, rng)


def measure_recovery(injected: InjectedData, reasons: Reasons) -> list[dict]:
    """Precision and recall of the rules for each kind of injected fault.

    Returns rows of `kind`, `reason`, number of faults `injected` and `found` (the record has the
    reason), `recall`, number of records `named` (with the reason), `not_planted` (of these without
    any injected fault: what the records had before, rightly named or not), and `precision`: of the
    named records with an injected fault the share whose fault should have this reason (1 if there
    are none). A faulty record with the reason of another fault counts as a false positive.
    """
    rows = []
    planted = np.zeros(len(reasons), bool)
    planted[[fault.row for fault in injected.faults]] = True
    for kind, reason in REASON_OF.items():
        has = reasons.has(reason)
        of_kind = {fault.row for fault in injected.faults if fault.kind == kind}
        right = {f.row for f in injected.faults if REASON_OF[f.kind] == reason}
        if of_kind:
            found, named = sum(bool(has[row]) for row in of_kind), int(has.sum())
            hits, known = sum(bool(has[row]) for row in right), int((has & planted).sum())
            rows.append({
                "kind": kind, "reason": reason, "injected": len(of_kind), "found": found,
                "recall": found / len(of_kind), "named": named, "not_planted": named - known,
                "precision": hits / known if known else 1.0,
            })  # fmt: skip
    return rows


class _Makers:
    """Makes each kind of fault; new media go to `injected/` below the root."""

    def __init__(self, root: Path, rng: random.Random, seed: int):
        self.root, self.rng, self.folder = root, rng, f"injected/{seed}"

    def changes(self, config: InjectionConfig, clean: Sequence[Mapping]):
        """Faults that change a record: (kind, share, whether it fits a record, maker)."""
        captions = [_caption(row) for row in clean if _is_captioned(row)]

        def swapped(row, number):
            return self.swapped(row, captions)

        def fits_swap(row):
            return _is_captioned(row) and len(captions) > _PARTNERS / 10

        yield "swapped caption", config.swapped, fits_swap, swapped
        yield "static", config.static, _has_clip, self.static
        yield "unreadable", config.unreadable, lambda row: any(_media(row)), self.unreadable

    def copies(self, config: InjectionConfig):
        yield "exact duplicate", config.exact_duplicates, self.exact
        yield "near duplicate", config.near_duplicates, self.near

    def exact(self, row: Mapping, number: int) -> dict:
        def again(kind, path):
            new = f"{self.folder}/exact{number}/{path}"
            _copy(self.root / path, self.root / new)
            return new

        return _with_media(row, again)

    def near(self, row: Mapping, number: int) -> dict:
        def again(kind, path):
            suffix = ".jpg" if kind == "image" else ".webp"
            new = f"{self.folder}/near{number}/{path}{suffix}"
            _compress(self.root, kind, path, self.root / new)
            return new

        return _with_texts(_with_media(row, again), _rewritten)

    def static(self, row: Mapping, number: int) -> dict:
        def still(kind, path):
            new = f"{self.folder}/static{number}/{path}.webp"
            if kind == "image":
                return path
            frames, seconds = read_clip(path, self.root, min_frames=8, max_frames=8)
            _save_clip(self.root / new, [frames[0]] * len(frames), seconds, lossless=True)
            return new

        return _with_media(row, still)

    def unreadable(self, row: Mapping, number: int) -> dict:
        def broken(kind, path):
            new = self.root / f"{self.folder}/broken{number}/{path}"
            content = (self.root / path).read_bytes()
            page = b"<html><body>404 not found</body></html>"
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(content[: len(content) // 2] if number % 2 else page)
            return new.relative_to(self.root).as_posix()

        return _with_media(row, broken)

    def swapped(self, row: Mapping, captions: Sequence[str]) -> dict:
        right = _content_words(_caption(row))
        others = self.rng.sample(captions, min(_PARTNERS, len(captions)))
        wrong = min(others, key=lambda text: max(_overlap(right, text), _MAX_OVERLAP))
        return _with_texts(row, lambda _: wrong)


def _arranged(clean, changed, added, tests, root: Path, rng: random.Random) -> InjectedData:
    """Records with copies at random places after what they repeat, and the faults' row numbers."""
    order = [(row, 0.0, None) for row in range(len(clean))]
    for number, (_, _, after, _) in enumerate(added):
        order.append((rng.uniform(after, len(clean)), 1.0, number))
    order.sort(key=lambda entry: entry[:2])
    place = {row: new for new, (row, _, number) in enumerate(order) if number is None}
    rows: list[dict] = []
    faults: list[Fault] = []
    for new, (row, _, number) in enumerate(order):
        if number is not None:
            record, kind, after, test = added[number]
            faults.append(Fault(kind, new, test if after < 0 else place[after]))
        else:
            kind, record = changed.get(row, ("", clean[row]))
            if kind:
                faults.append(Fault(kind, new, -1))
        rows.append(dict(record))
    return InjectedData(rows, tests, faults, root)


def _pick(clean, taken, count: int, fits) -> Iterator[int]:
    """The first `count` free rows that fit; rows are already in random order."""
    free = [row for row in range(len(clean)) if row not in taken and fits(clean[row])]
    yield from free[:count]


def _leaks(config: InjectionConfig, clean, tests) -> int:
    return min(round(config.leaks * len(clean)), len(tests))


def _media(row: Mapping) -> list[tuple[str, str]]:
    return [file for side in ("query", "candidate") for file in media_of(row[side])]


def _has_clip(row: Mapping) -> bool:
    return any(kind == "video" for kind, _ in _media(row))


def _is_captioned(row: Mapping) -> bool:
    """Whether a record pairs a text with an image or a video."""
    sides = {modality_of(row["query"]), modality_of(row["candidate"])}
    return Modality.TEXT in sides and bool(sides & {Modality.IMAGE, Modality.VIDEO})


def _caption(row: Mapping) -> str:
    return row["query"].get("text") or row["candidate"]["text"]


def _content_words(text: str) -> set[str]:
    return set(words_of(text)) - _FILLERS


def _overlap(words: set[str], text: str) -> float:
    others = _content_words(text)
    return len(words & others) / max(min(len(words), len(others)), 1)


def _rewritten(text: str) -> str:
    """The text with a capital, an exclamation mark and, if it is long, an additional word."""
    ending = " here!" if len(text) >= 60 and "<|" not in text else "!"
    return text[:1].upper() + text[1:].rstrip(".!") + ending


def _with_texts(row: Mapping, change) -> dict:
    sides = {}
    for side in ("query", "candidate"):
        text = row[side].get("text")
        sides[side] = dict(row[side]) | ({"text": change(text)} if text is not None else {})
    return dict(row) | sides


def _with_media(row: Mapping, change) -> dict:
    """The record with each image and video path replaced by `change(kind, path)`."""
    sides = {}
    for side in ("query", "candidate"):
        item = dict(row[side])
        for kind in ("image", "video"):
            value = item.get(kind)
            if isinstance(value, list | tuple):
                item[kind] = [change(kind, path) for path in value]
            elif value is not None:
                item[kind] = change(kind, value)
        sides[side] = item
    return dict(row) | sides


def _copy(source: Path, target: Path) -> None:
    if not target.is_file():
        with replacing(target, durable=False) as partial:
            shutil.copyfile(source, partial)


def _compress(root: Path, kind: str, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == "image":
        _shrunk(load_image(path, root)).save(target, quality=75)
    else:
        frames, seconds = read_clip(path, root, min_frames=8, max_frames=8)
        _save_clip(target, [_shrunk(frame) for frame in frames], seconds)


def _shrunk(image):
    return image.resize([max(1, round(0.85 * side)) for side in image.size])


def _save_clip(target: Path, frames: Sequence, seconds: Sequence[float], lossless=False) -> None:
    """Save frames as an animated WebP; a pixel's last bit alternates to keep equal frames apart."""
    target.parent.mkdir(parents=True, exist_ok=True)
    step = max(1, round(1000 * (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1)))
    frames = [frame.copy() for frame in frames]
    for number, frame in enumerate(frames):
        red, *rest = frame.getpixel((0, 0))
        frame.putpixel((0, 0), (red ^ (number % 2), *rest))
    frames[0].save(
        target,
        save_all=True,
        append_images=frames[1:],
        duration=step,
        quality=80,
        method=2,
        lossless=lossless,
    )
