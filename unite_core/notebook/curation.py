"""Input of the curation notebook, from a corpus or a recipe, and the errors of the rules."""

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
from ..curate.repair import Repair
from ..curate.rows import load_source, load_tests
from ..data.packed import PackedRows
from ..data.records import read_records

__all__ = [
    "CurationInput",
    "from_corpus",
    "from_recipe",
    "mistakes",
    "not_planted",
    "outcomes",
    "sample",
]


_STAGES = ("stage1.jsonl", "stage2.jsonl")


class CurationInput(NamedTuple):
    """Training records and evaluation pairs below one media root, and the rules for them."""

    rows: list[dict]
    tests: list[dict]
    root: Path
    rules: RuleConfig
    model: str = ""  # for alignment by an embedder


def from_corpus(root: str | Path) -> CurationInput:
    """Training records of both stages of a corpus, and evaluation pairs of all its tasks."""
    root = Path(root)
    rows = [row for name in _STAGES for row in read_records(root / name)]
    tests = load_tests(Source("tasks", "tasks.json"), root)
    return CurationInput(_positives(rows), list(tests), root, RuleConfig())


def from_recipe(path: str | Path) -> CurationInput:
    """Records, evaluation pairs, rules and model of a recipe, without rejects."""
    recipe, base = read_recipe(path), Path(path).parent
    root = base / recipe.media_root
    rows, repair = PackedRows(sort_keys=True), Repair(recipe.rules.clean, root)
    for source in recipe.sources:
        load_source(source, base, rows, recipe.max_bad_share, lambda _: None, root, repair)
    tests = [test for source in recipe.tests for test in load_tests(source, base, root)]
    return CurationInput(_positives(rows), tests, root, recipe.rules, recipe.model)


def sample(given: CurationInput, records: int, seed: int) -> CurationInput:
    """Draw at most `records` records and half as many evaluation pairs, in their order.

    Rates of duplicates and leaks are lower in a sample, because both copies are rarely drawn.
    """
    if records < 1:
        raise ValueError(f"records {records}: draw at least 1")
    rng = random.Random(f"curation {seed}")

    def draw(rows: list[dict], limit: int) -> list[dict]:
        return [rows[n] for n in sorted(rng.sample(range(len(rows)), min(limit, len(rows))))]

    return given._replace(rows=draw(given.rows, records), tests=draw(given.tests, records // 2))


def mistakes(injected: InjectedData, reasons: Reasons) -> dict[str, np.ndarray]:
    """Row numbers, ascending, of the errors of the rules.

    Returns `missed` (an injected fault without its reason) and `false alarms` (an injected fault
    with another reason). A reason of a record without an injected fault is neither: whether the
    record was sound before is not known, see `not_planted`.
    """
    wanted = {fault.row: REASON_OF[fault.kind] for fault in injected.faults}
    missed = [row for row, reason in wanted.items() if reason not in reasons.of(row)]
    alarms = [row for row, reason in wanted.items() if set(reasons.of(row)) - {reason}]
    return {"missed": np.array(sorted(missed), int), "false alarms": np.array(sorted(alarms), int)}


def not_planted(injected: InjectedData, reasons: Reasons) -> np.ndarray:
    """Row numbers, ascending, of records with a reason and no injected fault.

    They are found dirt or errors of the rules: only looking tells.
    """
    named = ~reasons.kept
    named[[fault.row for fault in injected.faults]] = False
    return np.flatnonzero(named)


def outcomes(injected: InjectedData, reasons: Reasons) -> dict[str, int]:
    """Count records with and without an injected fault, kept or dropped for any reason.

    Returns `faults`, `faults kept`, `sound` (no injected fault, whatever the record had before)
    and `sound dropped`.
    """
    faulty = np.zeros(len(reasons), bool)
    faulty[[fault.row for fault in injected.faults]] = True
    return {
        "faults": int(faulty.sum()),
        "faults kept": int((faulty & reasons.kept).sum()),
        "sound": int((~faulty).sum()),
        "sound dropped": int((~faulty & ~reasons.kept).sum()),
    }


def _positives(rows: Iterable[Mapping]) -> list[dict]:
    """Records without hard negatives, which are mined after curation."""
    return [{key: value for key, value in row.items() if key != "negative"} for row in rows]
