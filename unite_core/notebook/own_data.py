"""Anybody's pairs in a notebook: opened, described, cleaned, split, and what training changed."""

# Shapes: N records, Q queries, D embedding size.

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..corpora.line_drawings import line_drawings
from ..curate.dedupe import with_groups
from ..curate.filter import FilterResult, filter_records
from ..curate.own_data import OwnData, find_data, own_pairs
from ..curate.profile import profile
from ..curate.reasons import REASONS
from ..curate.split import SplitConfig, split_pairs
from ..curate.validate import Reject, Report
from ..data.items import files_of
from ..data.modality import modality_of
from ..data.pairs import PairDataset
from ..data.readers import HUB
from ..data.records import content_id, read_records, write_records
from ..data.shown import item_name
from ..evaluation.own_pairs import pair_tasks
from ..evaluation.results import EvaluationResult
from ..evaluation.tasks import RetrievalTask
from .runs import from_root, project_root

__all__ = [
    "Change", "Collection", "HeldOut", "change_sheet", "changes", "clean", "drop_examples",
    "hold_out", "instructed_rows", "linked_sheet", "open_collection", "overview_rows",
    "paired_sides", "reason_rows", "reject_rows", "shared_items", "sheet_of",
]  # fmt: skip


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LANGUAGES = 3


class Collection(NamedTuple):
    """What a source holds: N records, the group of each, and the rows that are none."""

    data: OwnData
    records: list[dict]
    labels: list[str]  # [N] "" without groups
    rejects: list[Reject]

    @property
    def root(self) -> Path:
        """Folder that media paths are relative to."""
        return self.data.media_root

    def words(self) -> str:
        """What was found and which columns were taken, in a line."""
        return self.data.words().replace(f"{project_root()}{os.sep}", "")


class HeldOut(NamedTuple):
    """Records for training in a file, and tasks of those that share nothing with them."""

    train: Path
    test: Path
    tasks: list[RetrievalTask]
    groups: np.ndarray  # [N] int64, equal for linked records, of both sides


class Change(NamedTuple):
    """A query whose right answer moved between two models; ranks from 1, the best."""

    query: Mapping
    right: Mapping
    before: float
    after: float


def open_collection(
    source: str, folder: str | Path, columns: Mapping[str, str] | None = None,
    media_root: str = "", split: str = "train", limit: int = 20_000,
) -> Collection:  # fmt: skip
    """Open a folder, CSV, JSON Lines, Parquet, or a data set of `datasets` or the hub as pairs.

    Args
        source      path below the project's root or absolute, hub:OWNER/NAME, or OWNER/NAME where
                    no such folder exists; "": the collection of `corpora.line_drawings`
        folder      where media that stand in a data set of `datasets` or the hub are written
        columns     {"text", "image", "video" or "group": column}; those without are guessed
        media_root  folder that media paths are relative to; "": that of the source
        split       of a hub or saved data set
        limit       pairs taken at most
    Raises RecordError where columns do not fit, ValueError for a source without pairs.
    """
    named = {name: column for name, column in (columns or {}).items() if column}
    path, root = _resolve(source), from_root(media_root) if media_root else None
    saved = any(Path(path, name).is_file() for name in ("state.json", "dataset_dict.json"))
    if root is None and (saved or str(path).startswith(HUB)):
        root = Path(folder)  # a data set's own folder stays as it is
    data = find_data(path, **named, media_root=root, split=split)
    records: list[dict] = []
    rejects = []
    for result in islice(own_pairs(data, Report()), limit):
        if isinstance(result, Reject):
            rejects.append(result)
        else:
            records.append({"source": data.source.name} | result)
    if not records:
        why = f": {rejects[0].message}" if rejects else ""
        raise ValueError(f"{path}: no pair of a query and a candidate{why}")
    labels = [record.get("group") or "" for record in records]
    return Collection(data, records, labels, rejects)


def _resolve(source: str) -> str | Path:
    if not source:
        return line_drawings(from_root("data/line_drawings"), project_root() / "data" / "packages")
    if source.startswith(HUB) or from_root(source).exists():
        return source if source.startswith(HUB) else from_root(source)
    return f"{HUB}{source}" if _HUB_ID.fullmatch(source) else from_root(source)


def overview_rows(found: Collection) -> list[dict]:
    """What a collection holds, as rows of part, what and value."""
    about = profile(found.records, found.root)
    rows = [
        _row(f"{pair['query']} → {pair['candidate']}", "pairs", pair["records"])
        for pair in about["pairs"]
    ]
    for text in about["texts"]:
        part = f"{text['side']} texts of {text['query']} → {text['candidate']}"
        low, middle, high = (text["characters"]["quantiles"][place] for place in (1, 3, 5))
        rows.append(
            _row(part, "characters, 5 %, half, 95 %", f"{low:.0f}, {middle:.0f}, {high:.0f}")
        )
        if text["languages"]:
            shares = list(text["languages"].items())[:_LANGUAGES]
            named = ", ".join(f"{name} {share:.0%}" for name, share in shares)
            what = f"languages of the {text['language_known']:.0%} long enough to tell"
            rows.append(_row(part, what, named))
    for media in about["media"]:
        part = f"{media['side']} {media['kind']}s"
        rows.append(_row(part, "files, unreadable", f"{media['files']}, {media['unreadable']}"))
        if "width" in media:
            sides = [media[side]["quantiles"] for side in ("width", "height")]
            sizes = [f"{wide:.0f} × {high:.0f}" for wide, high in zip(*sides, strict=True)]
            rows.append(_row(part, "pixels, least, half, most", ", ".join(sizes[::3])))
    for side in ("queries", "candidates"):
        repeated = about["duplicates"][side]
        rows.append(_row(side, "repeat an earlier one by name", f"{repeated:.1%}"))
    return rows


def _row(part: str, what: str, value) -> dict:
    return {"part": part, "what": what, "value": value}


def reject_rows(rejects: Sequence[Reject]) -> list[dict]:
    """Rows of cause, count and the first message of rows that are no pairs."""
    causes = dict.fromkeys(reject.cause for reject in rejects)
    of = {cause: [each for each in rejects if each.cause == cause] for cause in causes}
    return [
        {"cause": cause, "rows": len(each), "first": each[0].message} for cause, each in of.items()
    ]


def clean(found: Collection, folder: str | Path) -> FilterResult:
    """Apply the rules of curation; `folder` keeps what was measured of media, to go on from."""
    return filter_records(found.records, found.root, folder=folder)


def reason_rows(result: FilterResult) -> list[dict]:
    """Rows of reason, pairs with it, pairs with no other, and meaning."""
    return [
        {"reason": row["reason"], "pairs": row["hits"], "alone": row["only"],
         "meaning": row["meaning"]}
        for row in result.reasons.report()
    ]  # fmt: skip


def drop_examples(
    records: Sequence[Mapping], result: FilterResult, most: int = 3
) -> tuple[list[Mapping], list[str]]:
    """Dropped records beside what explains it, as (items, captions) of a contact sheet.

    Items come in twos, at most `most` such for each reason: the dropped record, then, for a
    duplicate, the earlier one that stays, else the meaning of the reason.
    """
    items: list[Mapping] = []
    captions: list[str] = []
    for found in result.reasons.report(most):
        for row in found["examples"]:
            other = _kept_like(result, row)
            said = {"text": REASONS[found["reason"]]}
            items += [
                _shown_side(records[row]),
                _shown_side(records[other]) if other >= 0 else said,
            ]
            stays = f"{_words(records[other])}\nstays" if other >= 0 else ""
            captions += [f"{_words(records[row])}\n{found['reason']}", stays]
    return items, captions


def sheet_of(records: Sequence[Mapping], count: int = 18) -> tuple[list[Mapping], list[str]]:
    """Records from all over a collection, as (items, captions) of a contact sheet."""
    places = np.linspace(0, len(records) - 1, count).round().astype(int)
    chosen = [records[place] for place in dict.fromkeys(places.tolist())]
    return [_shown_side(record) for record in chosen], [_words(record) for record in chosen]


def _kept_like(result: FilterResult, row: int) -> int:
    """The row that stays of a duplicate's group, -1 for a record that is none."""
    if not {"exact duplicate", "near duplicate"} & set(result.reasons.of(row)):
        return -1
    same = np.flatnonzero(
        (result.duplicates.rows == result.duplicates.rows[row]) & result.reasons.kept
    )
    return int(same[0]) if len(same) else -1


def _shown_side(record: Mapping) -> Mapping:
    """The side with media, so that there is something to see."""
    sides = (record["candidate"], record["query"])
    return next((item for item in sides if any(files_of(item))), sides[0])


def _words(record: Mapping) -> str:
    texts = [record[side]["text"] for side in ("query", "candidate") if record[side].get("text")]
    return " | ".join(texts) or item_name(record["query"])


def hold_out(
    records: Sequence[Mapping], root: str | Path, folder: str | Path, share: float, seed: int = 0,
    labels: Sequence[str] | None = None,
) -> HeldOut:  # fmt: skip
    """Split records so that nothing of the tests is trained on, and write both sides.

    Args
        folder  gets `train.jsonl` and `test.jsonl`
        share   of the records that are for tests, at most
        labels  [N] the user's groups, which stay whole
    Duplicate items get groups, so that one text on many pictures is no false negative. Tasks go
    both ways; their families are what is linked.
    """
    split = split_pairs(records, root, SplitConfig(test=share, seed=seed), labels)
    rows = list(with_groups(records, split.duplicates))
    paths = [Path(folder, name) for name in ("train.jsonl", "test.jsonl")]
    for path, side in zip(paths, (~split.test, split.test), strict=True):
        write_records(path, [rows[row] for row in np.flatnonzero(side).tolist()])
    families = [str(group) for group in split.groups[split.test].tolist()]
    tasks = pair_tasks(PairDataset([paths[1]], root), both_ways=True, families=families)
    return HeldOut(*paths, tasks, split.groups)


def linked_sheet(
    records: Sequence[Mapping], groups: np.ndarray, most: int = 9
) -> tuple[list[Mapping], list[str]]:
    """The first two of linked records, as (items, captions) of a contact sheet of at most 2 `most`.

    `groups` [N] as in `HeldOut`; the largest groups come first.
    """
    sizes = np.bincount(groups)
    largest = np.argsort(-sizes, kind="stable")[:most]
    chosen = [np.flatnonzero(groups == group)[:2] for group in largest if sizes[group] > 1]
    rows = [records[row] for pair in chosen for row in pair.tolist()]
    return [_shown_side(record) for record in rows], [_words(record) for record in rows]


def shared_items(held_out: HeldOut) -> set[str]:
    """Content ids of texts and media that are on both sides of a split: none, if it is sound."""
    train, test = (
        {content_id(row[side]) for row in read_records(path) for side in ("query", "candidate")}
        for path in (held_out.train, held_out.test)
    )
    return train & test


def instructed_rows(records: Sequence[Mapping]) -> np.ndarray:
    """bool [N]: records that stage 2 is for, with an instruction or a query of text and media."""
    return np.array([
        "instruction" in record or "instruction" in record["query"]
        or "+" in modality_of(record["query"]).label
        for record in records
    ], bool)  # fmt: skip


def changes(
    before: EvaluationResult, after: EvaluationResult, task: RetrievalTask, pool: str = "single"
) -> list[Change]:
    """What happened to each query's right answer, from the most gained to the most lost.

    A change is the difference of reciprocal ranks, so from 2 to 1 is more than from 200 to 100.
    """
    old, new = (
        np.array(result.score(task.name, task.split, "mrr", pool).per_query)
        for result in (before, after)
    )
    order = np.argsort(old - new, kind="stable")
    return [
        Change(
            task.queries[row], task.candidates[task.positives[row][0]], 1 / old[row], 1 / new[row]
        )
        for row in order.tolist()
    ]


def change_sheet(moved: Sequence[Change]) -> tuple[list[Mapping], list[str]]:
    """Changes as (items, captions) of a contact sheet: the side with media, words and ranks."""
    items, captions = [], []
    for change in moved:
        record = {"query": change.query, "candidate": change.right}
        items.append(_shown_side(record))
        captions.append(f"{_words(record)}\n{change.before:.0f} → {change.after:.0f}")
    return items, captions


def paired_sides(
    task: RetrievalTask, vectors: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and first right answers [Q, D] of a task, for measures of the gap.

    `vectors` {content id: [D]} as `embed_tasks` gives.
    """
    right = [task.candidate_ids[found[0]] for found in task.positives]
    return tuple(np.stack([vectors[name] for name in side]) for side in (task.query_ids, right))
