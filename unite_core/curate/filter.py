"""All rules one after another: cleaning, leaks, duplicates, alignment, each on what is left."""

# Shapes: N records.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.modality import modality_of
from .alignment import AlignConfig, Alignment, align
from .alignment_features import predict_words
from .dedupe import DuplicateGroups, DuplicateThresholds, exact_duplicates, leaks, near_duplicates
from .media_stats import MediaStats, distinct_media, measure_media
from .reasons import Reasons
from .text_rules import CleanConfig, clean

__all__ = ["FilterResult", "RuleConfig", "directed_pair_type", "filter_records"]


Embed = Callable[[Sequence[Mapping]], np.ndarray]


@dataclass(frozen=True)
class RuleConfig:
    """Which rules are applied and how."""

    clean: CleanConfig = field(default_factory=CleanConfig)
    duplicates: str = "near"  # "near", "exact" or "keep"
    likeness: DuplicateThresholds = DuplicateThresholds(
        text=0.9
    )  # near; captions differ by a word and in meaning
    leaks: str = "pairs"  # "pairs" (both sides alike), "media" (any medium alike) or "keep"
    alignment: str = "words"  # "words" (no model), "embedder" or "keep"
    align: AlignConfig = field(default_factory=AlignConfig)

    def __post_init__(self):
        for name, allowed in (
            ("duplicates", ("near", "exact", "keep")),
            ("leaks", ("pairs", "media", "keep")),
            ("alignment", ("words", "embedder", "keep")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}; not {getattr(self, name)!r}"
                )
        for name, kind in (
            ("clean", CleanConfig),
            ("align", AlignConfig),
            ("likeness", DuplicateThresholds),
        ):
            value = getattr(self, name)
            if isinstance(value, Mapping):  # from a recipe
                object.__setattr__(self, name, _from_mapping(kind, value, name))


class FilterResult(NamedTuple):
    """Reasons on N records and what they rest on."""

    reasons: Reasons
    media: MediaStats
    duplicates: (
        DuplicateGroups  # of the records and their items: near ones, or exact ones where asked for
    )
    aligned: np.ndarray  # [n] the rows that alignment was judged on
    alignment: Alignment | None  # of these rows

    def of_all(self, name: str) -> np.ndarray:
        """[N] "similarity" or "rank" of `alignment` for each record, NaN where it judged none."""
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
    """Apply the rules to records and say of each why it should go, if it should.

    Args
        rows     validated records with media below `root`
        tests    evaluation pairs below the same root, that training must not repeat
        folder   keeps what was decoded, so that an interrupted call goes on
        embed    items -> vectors [n, D], for alignment = "embedder"
        workers  processes for decoding
    A later rule sees only the records without a reason so far: the first *good* record of a group
    of duplicates stays, and alignment is not learned from broken or repeated pairs.
    """
    config = config or RuleConfig()
    if config.alignment == "embedder" and embed is None:
        raise ValueError('alignment = "embedder" needs an embedder: give one, or use "words"')
    reasons = Reasons(len(rows))
    facts = measure_media(distinct_media(rows), root, folder, workers)
    clean(reasons, rows, facts, config.clean)
    groups = _groups(rows, tests, root, config, workers)
    _mark_leaks(reasons, rows, root, tests, config, groups, workers)
    exact, near = (
        DuplicateGroups(*(part[: len(rows)] for part in groups[name])) for name in ("exact", "near")
    )
    if config.duplicates != "keep":
        repeats = _repeats(exact.rows, reasons.kept)
        reasons.mark("near duplicate", _repeats(near.rows, reasons.kept & ~repeats))
        reasons.mark("exact duplicate", repeats)
    aligned, alignment = _mark_misaligned(reasons, rows, root, config, embed)
    return FilterResult(reasons, facts, near, aligned, alignment)


def directed_pair_type(row: Mapping) -> str:
    """Such as `"text > image"`: the modalities of query and candidate."""
    return " > ".join(modality_of(row[side]).label for side in ("query", "candidate"))


def _groups(rows, tests, root, config: RuleConfig, workers) -> dict[str, DuplicateGroups]:
    """Exact and near twins of rows and tests; both exact where near ones are not asked for."""
    exact = exact_duplicates(chain(rows, tests), root)
    if config.duplicates != "near" and config.leaks == "keep":
        return {"exact": exact, "near": exact}
    near = near_duplicates(chain(rows, tests), root, config.likeness, workers)
    return {"exact": exact, "near": near if config.duplicates == "near" else exact, "alike": near}


def _mark_leaks(reasons, rows, root, tests, config: RuleConfig, groups, workers) -> None:
    if config.leaks == "keep" or not tests:
        return
    for each in (groups["exact"].rows, groups["alike"].rows):
        reasons.mark("leak", np.isin(each[: len(rows)], each[len(rows) :]))
    if config.leaks == "media":
        found = leaks(rows, tests, root, config.likeness, workers)
        reasons.mark("leak", found.media >= 0)


def _repeats(groups: np.ndarray, good: np.ndarray) -> np.ndarray:
    """bool [N]: good rows that an earlier good row shares a group with."""
    rows = np.flatnonzero(good)
    repeated = np.zeros(len(groups), bool)
    first = np.unique(groups[rows], return_index=True)[1]
    repeated[rows] = True
    repeated[rows[first]] = False
    return repeated


def _mark_misaligned(reasons, rows, root, config: RuleConfig, embed):
    left = np.flatnonzero(reasons.kept)
    if config.alignment == "keep" or not len(left):
        return left[:0], None
    chosen = [rows[row] for row in left.tolist()]
    contents = _item_numbers(chosen)
    if config.alignment == "embedder":
        picked = np.arange(len(left))
        query, candidate = (embed([row[side] for row in chosen]) for side in ("query", "candidate"))
    else:
        picked, query, candidate = predict_words(chosen, root, _media_groups(chosen))
    types = _alignment_types([chosen[place] for place in picked.tolist()])
    if not types:
        return left[:0], None
    numbers = tuple(side[picked] for side in contents)
    alignment = align(query, candidate, types, config.align, numbers)
    aligned = left[picked]
    reasons.mark("misaligned", aligned[~alignment.kept])
    return aligned, alignment


def _alignment_types(rows: Sequence[Mapping]) -> list[str]:
    """Pair types, with the source where there are several: noise differs between them, too."""
    sources = {row.get("source") for row in rows}
    names = [directed_pair_type(row) for row in rows]
    if len(sources) < 2:
        return names
    return [f"{name}, {row.get('source', '')}" for name, row in zip(names, rows, strict=True)]


def _item_numbers(rows: Sequence[Mapping]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the items by name: equal for equal items, whichever side they are on."""
    numbers: dict[str, int] = {}
    sides = [
        [numbers.setdefault(repr(sorted(row[side].items())), len(numbers)) for row in rows]
        for side in ("query", "candidate")
    ]
    return np.array(sides[0]), np.array(sides[1])


def _media_groups(rows: Sequence[Mapping]) -> np.ndarray:
    """[N], equal for records of the same media."""
    numbers: dict[tuple, int] = {}
    return np.array(
        [numbers.setdefault(tuple(distinct_media([row])), len(numbers)) for row in rows]
    )


def _from_mapping(kind, value: Mapping, where: str):
    try:
        return kind(**value)
    except TypeError as error:
        raise ValueError(f"{where}: {error}; rename or remove the field") from None
