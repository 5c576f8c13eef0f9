"""Filter records by cleaning rules, leaks, duplicates and alignment, in this order."""

# Shapes: N records.

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.modality import modality_of
from .alignment import Alignment, align
from .alignment_features import predict_words
from .config import RuleConfig
from .dedupe import DuplicateGroups, exact_duplicates, likeness
from .media_stats import MediaStats, distinct_media, measure_media
from .reasons import Reasons
from .shared_texts import mark_shared
from .text_rules import clean

__all__ = ["FilterResult", "directed_pair_type", "filter_records"]


Embed = Callable[[Sequence[Mapping]], np.ndarray]


class FilterResult(NamedTuple):
    """Reasons to remove each of N records, and the measurements they are based on."""

    reasons: Reasons
    media: MediaStats
    duplicates: DuplicateGroups  # near duplicates, or exact ones if the rules ask for these
    aligned: np.ndarray  # [n] rows with an alignment score
    alignment: Alignment | None  # of these rows
    labels: list[str] = []  # sources whose texts are labels, so the rule of shared texts is off

    def per_record(self, name: str) -> np.ndarray:
        """`alignment`'s "similarity" or "rank" of each record [N], NaN where it has none."""
        values = np.full(len(self.reasons), np.nan)
        if self.alignment is not None:
            values[self.aligned] = getattr(self.alignment, name)
        return values


def filter_records(
    rows: Sequence[Mapping],
    root: str | Path,
    tests: Sequence[Mapping] = (),
    config: RuleConfig | None = None,
    folder: str | Path | None = None,
    embed: Embed | None = None,
    workers: int = 0,
) -> FilterResult:
    """Apply the rules to records and collect the reasons to remove them.

    Args
        rows     validated records with media below `root`
        tests    evaluation pairs below the same root, which must not occur in training
        folder   cache of media facts, so that an interrupted call resumes and recipes share them
        embed    items -> vectors [n, D], for alignment = "embedder"
        workers  number of processes for decoding, 0 for none
    Later rules only see records without a reason so far: the first *good* record of a group of
    duplicates is kept, and alignment is not learned from broken or repeated pairs.

    >>> texts = ["a red circle", "Untitled", "a red circle"]
    >>> rows = [{"query": {"text": text}, "candidate": {"text": "a shape"}} for text in texts]
    >>> result = filter_records(rows, root=".")
    >>> [result.reasons.of(row) for row in range(3)]
    [[], ['boilerplate'], ['exact duplicate']]
    """
    config = config or RuleConfig()
    if config.alignment == "embedder" and embed is None:
        raise ValueError('alignment = "embedder" needs an embedder: give one, or use "words"')
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as cache:
        return _filtered(rows, tests, config, embed, (root, cache, workers))


def _filtered(rows, tests, config: RuleConfig, embed, at: tuple) -> FilterResult:
    """`at` is (media root, folder of the cache, workers)."""
    root, cache, workers = at
    reasons = Reasons(len(rows))
    media = measure_media(distinct_media(rows), *at)
    clean(reasons, rows, media, config.clean)
    most = config.clean.most_media
    labels = mark_shared(reasons, rows, most) if most else []
    exact, near = _mark_copies(reasons, rows, tests, config, at)
    if config.duplicates != "keep":
        repeats = _repeats(exact.rows, reasons.kept)
        reasons.mark("near duplicate", _repeats(near.rows, reasons.kept & ~repeats))
        reasons.mark("exact duplicate", repeats)
    aligned, alignment = _mark_misaligned(reasons, rows, at, config, embed)
    return FilterResult(reasons, media, near, aligned, alignment, labels)


def directed_pair_type(row: Mapping) -> str:
    """The modalities of query and candidate, in this order.

    >>> directed_pair_type({"query": {"text": "a cat"}, "candidate": {"image": "a.png"}})
    'text > image'
    """
    return " > ".join(modality_of(row[side]).label for side in ("query", "candidate"))


def _mark_copies(
    reasons, rows, tests, config: RuleConfig, at: tuple
) -> tuple[DuplicateGroups, DuplicateGroups]:
    """Mark leaks; returns groups of exact and near duplicates, both exact if near ones may stay."""
    root, cache, workers = at
    asks_leaks = bool(tests) and config.leaks != "keep"
    every = exact_duplicates(chain(rows, tests), root)
    exact = DuplicateGroups(*(part[: len(rows)] for part in every))
    if config.duplicates != "near" and not asks_leaks:
        return exact, exact
    like = likeness(chain(rows, tests), root, config.likeness, workers, cache)
    if asks_leaks:
        near, media = like.leaks(len(rows))
        reasons.mark("leak", np.isin(exact.rows, every.rows[len(rows) :]) | (near >= 0))
        reasons.mark("leak", (media >= 0) & (config.leaks == "media"))
    if config.duplicates != "near":
        return exact, exact
    return exact, DuplicateGroups(*(part[: len(rows)] for part in like.groups()))


def _repeats(groups: np.ndarray, good: np.ndarray) -> np.ndarray:
    """bool [N]: good rows with an earlier good row in the same group."""
    rows = np.flatnonzero(good)
    repeated = np.zeros(len(groups), bool)
    first = np.unique(groups[rows], return_index=True)[1]
    repeated[rows] = True
    repeated[rows[first]] = False
    return repeated


def _mark_misaligned(reasons, rows, at: tuple, config: RuleConfig, embed):
    left = np.flatnonzero(reasons.kept)
    if config.alignment == "keep" or not len(left):
        return left[:0], None
    chosen = [rows[row] for row in left.tolist()]
    contents = _item_numbers(chosen)
    if config.alignment == "embedder":
        picked = np.arange(len(left))
        query, candidate = (embed([row[side] for row in chosen]) for side in ("query", "candidate"))
    else:
        root, cache, workers = at
        groups = _media_groups(chosen)
        picked, query, candidate = predict_words(chosen, root, groups, cache, workers)
    types = _alignment_types([chosen[place] for place in picked.tolist()])
    if not types:
        return left[:0], None
    numbers = tuple(side[picked] for side in contents)
    alignment = align(query, candidate, types, config.align, numbers)
    aligned = left[picked]
    reasons.mark("misaligned", aligned[~alignment.kept])
    return aligned, alignment


def _alignment_types(rows: Sequence[Mapping]) -> list[str]:
    """Pair types, with the source if there are several, because noise differs between sources."""
    sources = {row.get("source") for row in rows}
    names = [directed_pair_type(row) for row in rows]
    if len(sources) < 2:
        return names
    return [f"{name}, {row.get('source', '')}" for name, row in zip(names, rows, strict=True)]


def _item_numbers(rows: Sequence[Mapping]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of queries and candidates [N], equal for equal items on either side."""
    numbers: dict[str, int] = {}
    sides = [
        [numbers.setdefault(repr(sorted(row[side].items())), len(numbers)) for row in rows]
        for side in ("query", "candidate")
    ]
    return np.array(sides[0]), np.array(sides[1])


def _media_groups(rows: Sequence[Mapping]) -> np.ndarray:
    """[N], equal for records with the same media."""
    numbers: dict[tuple, int] = {}
    return np.array(
        [numbers.setdefault(tuple(distinct_media([row])), len(numbers)) for row in rows]
    )
