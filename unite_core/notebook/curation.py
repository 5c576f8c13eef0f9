"""What a look at curation starts from: records of a corpus or a recipe; and where rules erred."""

# Shapes: N records.

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..curate.config import RuleConfig
from ..curate.fault_injection import REASON_OF, InjectedData
from ..curate.reasons import Reasons
from ..curate.recipe import Source, read_recipe
from ..curate.rows import load_source, load_tests
from ..data.packed import PackedRows
from ..data.records import read_records

__all__ = ["CurationInput", "from_corpus", "from_recipe", "mistakes", "outcomes", "sample"]


_STAGES = ("stage1.jsonl", "stage2.jsonl")


class CurationInput(NamedTuple):
    """Training records and evaluation pairs below one media root, and the rules for them."""

    rows: list[dict]
    tests: list[dict]
    root: Path
    rules: RuleConfig
    model: str = ""  # for alignment by an embedder


def from_corpus(root: str | Path) -> CurationInput:
    """The training records of both stages of a corpus, and the pairs of all its tasks."""
    root = Path(root)
    rows = [row for name in _STAGES for row in read_records(root / name)]
    tests = load_tests(Source("tasks", "tasks.json"), root)
    return CurationInput(_positives(rows), list(tests), root, RuleConfig())


def from_recipe(path: str | Path) -> CurationInput:
    """The records, evaluation pairs, rules and model that a recipe names; rejects are left out."""
    recipe, base = read_recipe(path), Path(path).parent
    rows = PackedRows(sort_keys=True)
    for source in recipe.sources:
        load_source(source, base, rows, recipe.max_bad_share, lambda _: None)
    tests = [test for source in recipe.tests for test in load_tests(source, base)]
    return CurationInput(
        _positives(rows), tests, base / recipe.media_root, recipe.rules, recipe.model
    )


def sample(given: CurationInput, records: int, seed: int) -> CurationInput:
    """At most `records` of the records and half as many of the evaluation pairs, drawn at random.

    They keep their order. Duplicates of one another are drawn together less often than one of
    them: rates of duplicates and leaks are lower in a sample than in the whole.
    """
    if records < 1:
        raise ValueError(f"records {records}: draw at least 1")
    rng = random.Random(f"curation {seed}")

    def some(rows: list[dict], most: int) -> list[dict]:
        return [rows[n] for n in sorted(rng.sample(range(len(rows)), min(most, len(rows))))]

    return given._replace(rows=some(given.rows, records), tests=some(given.tests, records // 2))


def mistakes(planted: InjectedData, reasons: Reasons) -> dict[str, np.ndarray]:
    """Where rules erred: row numbers, ascending.

    Returns `missed` (a fault was planted, and its rule does not name the row) and `false alarms`
    (a rule names the row that was not to: no fault was planted, or one with another reason).
    A fault that the records had before is a false alarm here, rightly named or not.
    """
    wanted = {fault.row: REASON_OF[fault.kind] for fault in planted.faults}
    named = {row: set(reasons.of(row)) for row in np.flatnonzero(~reasons.kept).tolist()}
    missed = [row for row, reason in wanted.items() if reason not in named.get(row, ())]
    alarms = [row for row, found in named.items() if found - {wanted.get(row)}]
    return {"missed": np.array(sorted(missed), int), "false alarms": np.array(alarms, int)}


def outcomes(planted: InjectedData, reasons: Reasons) -> dict[str, int]:
    """Records by what they are and what became of them, whatever the reason.

    Returns `faults`, `faults kept`, `sound` (no fault was planted) and `sound dropped`.
    """
    faulty = np.zeros(len(reasons), bool)
    faulty[[fault.row for fault in planted.faults]] = True
    return {
        "faults": int(faulty.sum()),
        "faults kept": int((faulty & reasons.kept).sum()),
        "sound": int((~faulty).sum()),
        "sound dropped": int((~faulty & ~reasons.kept).sum()),
    }


def _positives(rows: Iterable[Mapping]) -> list[dict]:
    """Records without their hard negatives, which mining adds to a mix and not the other way."""
    return [{key: value for key, value in row.items() if key != "negative"} for row in rows]
