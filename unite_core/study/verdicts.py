"""The planned tests as data, and what their results are called: docs/study.md, "Tests" and "Words".

Differences are first arm minus second, in shares (.03 is 3 points), and each test states that its
difference is above 0, or above -margin.
"""

# Shapes: B blocks, Q queries of a task.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.endpoints import ENDPOINTS
from ..evaluation.families import MINIMUM_FAMILIES, joint_effective_families
from ..evaluation.significance import holm
from .statistics import (
    BlockDifferences,
    Kind,
    blind_deviation,
    block_differences,
    blocks_families_interval,
    detectable_difference,
    t_interval,
    t_test,
)

__all__ = [
    "CONFIRMED", "CONTRADICTED", "NOT_CONFIRMED", "NOT_RUN", "PLANS", "SUPPORTED", "UNDECIDED",
    "Cell", "Plan", "PlannedTest", "QueryDifferences", "blind_deviation_of", "choose_winner",
    "confirmation_of", "endpoint_column", "mask_conclusions", "verdicts",
]  # fmt: skip

SUPPORTED, CONTRADICTED = "supported", "contradicted"
UNDECIDED = "undecided at this power"
CONFIRMED, NOT_CONFIRMED, NOT_RUN = "confirmed", "not confirmed", "not run"
_ONE_BLOCK = "no test of one independent block"
_FEWEST_BLOCKS = 5  # of the interval for other families, too
WINNER = "winner"
_IN_ONE_INDEX = {name for name, endpoint in ENDPOINTS.items() if endpoint.pool == "mixed"}


@dataclass(frozen=True)
class Cell:
    """An arm with one of its search-time scores."""

    arm: str
    score: str = "cosine"


QueryDifferences = Callable[
    [Cell, Cell, str, str, tuple], tuple[Mapping[str, np.ndarray], Mapping[str, Sequence[str]]]
]
"""(first, second, endpoint, split, blocks) to {task: [B, Q] differences}, {task: [Q] families}."""


@dataclass(frozen=True)
class PlannedTest:
    """One test as it was written down before the first run."""

    name: str
    first: str
    """Arm; `winner`: the arm and score that `choose_winner` found."""
    second: str
    """Arm, always with its cosines."""
    endpoint: str
    kind: Kind = "two-sided"
    margin: float = 0.0

    @property
    def contrast(self) -> str:
        """`mamcl − info_nce`."""
        return f"{self.first} − {self.second}"


@dataclass(frozen=True)
class Plan:
    """The tests of a study that are corrected together, and those beside them."""

    study: str
    split: str
    """Primary split."""
    blocks: int
    tests: tuple[PlannedTest, ...]
    beside: tuple[PlannedTest, ...] = ()
    """Not corrected, in no conclusion."""
    level: float = 0.05


_WINS = PlannedTest("5 winner, one index", WINNER, "info_nce", "P3")
_KEEPS = PlannedTest("6 winner keeps stage 1", WINNER, "mamcl", "P1b", "non-inferior", 0.03)
PLANS = {
    "mask": Plan(
        "mask",
        "concept",
        blocks=6,
        tests=(
            PlannedTest("1 mask, bare queries", "mamcl", "info_nce", "P1a"),
            PlannedTest("2 mask, as trained", "mamcl", "info_nce", "P1b"),
            PlannedTest("3 mask, one index", "mamcl", "info_nce", "P3"),
            PlannedTest("4 mask or chance", "mamcl", "random_mask", "P1b"),
            _WINS,
            _KEEPS,
        ),
        beside=(
            PlannedTest("mask, instructed", "mamcl", "info_nce", "P2", "equivalent", 0.03),
        ),
    ),
    "confirmation": Plan("confirmation", "concept", blocks=2, tests=(_WINS, _KEEPS)),
    "data": Plan(
        "data",
        "concept+development",
        blocks=5,
        tests=(
            PlannedTest("1 motion or captions", "TV", "TV_frame", "still"),
            PlannedTest("2 clips or pictures", "TV", "TI", "still"),
            PlannedTest("3 curation at 30 % noise", "clean_30", "noise_30", "plain"),
        ),
    ),
}  # fmt: skip
"""The tests of docs/study.md by study."""


def endpoint_column(split: str, endpoint: str, score: str = "cosine") -> str:
    """Name of an endpoint's field in a row of the study's table.

    In a pool of one modality only centring changes the order of candidates, so there every other
    score's field is that of cosines.

    >>> endpoint_column("concept", "P3", "probe"), endpoint_column("concept", "P1b", "probe")
    ('concept/P3/probe', 'concept/P1b/cosine')
    """
    if endpoint not in _IN_ONE_INDEX and score != "centred":
        score = "cosine"
    return f"{split}/{endpoint}/{score}"


def verdicts(
    rows: Sequence[Mapping[str, Any]],
    plan: Plan,
    winner: Cell | None = None,
    split: str | None = None,
    queries: QueryDifferences | None = None,
) -> list[dict[str, Any]]:
    """Test a plan on the rows that are there: one result for each test, in the plan's order.

    Args
        rows     one for each run, as `block_differences` wants them, with the plan's endpoints
        winner   from `choose_winner`; None leaves its tests out, which then count as p = 1
        split    another split than the primary one
        queries  gives the differences query by query, for the interval over blocks and families
    Returns
        rows of test, contrast, endpoint, kind, margin, effect, low, high (95 % over independent
        blocks), deviation, differences, blocks, planned, p, p_holm (None beside the tests),
        p_against (of the opposite, where there is a margin), verdict, detectable (what a test at
        level / number of tests shows with a power of 80 %; from the margin where there is one) and,
        with `queries`, wide_low, wide_high, families, effective_families. The wide interval needs
        five blocks: of two or three it covers less than 93 % in simulations
        (docs/study_simulation.md).
    """
    split = split or plan.split
    tests = (*plan.tests, *plan.beside)
    found = [_result(rows, test, plan, winner, split, queries) for test in tests]
    planned = found[: len(plan.tests)]
    # what has not been run yet may still be anything
    adjusted = holm([1.0 if np.isnan(row["p"]) else row["p"] for row in planned])
    for row, value in zip(planned, adjusted, strict=True):
        row["p_holm"] = value
        row["verdict"] = _verdict(row, value, len(planned), plan.level)
    for row in found[len(planned) :]:
        row["p_holm"] = None
        row["verdict"] = _verdict(row, row["p"], 1, plan.level)
    return found


def choose_winner(
    rows: Sequence[Mapping[str, Any]],
    cells: Sequence[Cell],
    split: str = "development",
    margin: float = 0.03,
) -> Cell:
    """The arm and score with the highest mean P3 among those that keep MAMCL's P1b.

    Args
        cells   candidates; an oracle is none
        margin  how far the mean P1b may be below that of MAMCL with its cosines
    Means are over the blocks that all candidates have. ValueError if there is none, or if no
    candidate keeps P1b.
    """
    arms = {cell.arm for cell in cells} | {"mamcl"}
    of_arm = [{row["block"] for row in rows if row["arm"] == arm} for arm in arms]
    blocks = set.intersection(*of_arm)
    if not blocks:
        raise ValueError(f"no block has all of {', '.join(sorted(arms))}: run more of them")
    rows = [row for row in rows if row["block"] in blocks]

    def mean(cell: Cell, endpoint: str) -> float:
        column = endpoint_column(split, endpoint, cell.score)
        return float(np.mean([row[column] for row in rows if row["arm"] == cell.arm]))

    least = mean(Cell("mamcl"), "P1b") - margin
    kept = [cell for cell in cells if mean(cell, "P1b") >= least]
    if not kept:
        raise ValueError(f"no candidate keeps P1b on {split} above {least:.3f}: give MAMCL's, too")
    return max(kept, key=lambda cell: mean(cell, "P3"))


def blind_deviation_of(rows: Sequence[Mapping[str, Any]], plan: Plan) -> float:
    """`blind_deviation` over the tests whose arms are fixed: what the number of blocks rests on."""
    tests = [test for test in plan.tests if test.first != WINNER]
    return blind_deviation([_differences(rows, t, Cell(t.first), plan.split).values for t in tests])


def confirmation_of(results: Sequence[Mapping[str, Any]]) -> str:
    """What the runs at full length say of the winner: confirmed, not confirmed, or not run.

    Two blocks are too few for a *t*: the rule of docs/study.md is that each of them has the winner
    above InfoNCE in one index, and its P1b above MAMCL's less the margin.
    """
    if any(row["blocks"] < row["planned"] for row in results):
        return NOT_RUN
    held = all(value > -row["margin"] for row in results for value in row["differences"])
    return CONFIRMED if held else NOT_CONFIRMED


def mask_conclusions(
    results: Sequence[Mapping[str, Any]], confirmation: str = NOT_RUN
) -> list[dict[str, str]]:
    """The sentences of docs/study.md on the mask: rows of claim, verdict, because.

    "It was the prompt" compares two estimates, so it is asked only where there is a clear
    difference on P1a to explain; its last number has a 95 % interval over blocks. "Best of both" is
    supported only with `confirmation_of` the runs at full length.
    """
    of = {row["test"].split()[0]: row for row in results}
    bare, asked = of["1"], of["2"]
    if bare["verdict"] == SUPPORTED:
        prompt = SUPPORTED if asked["effect"] < bare["effect"] / 2 else CONTRADICTED
    else:
        prompt = UNDECIDED
    best = _both(of["5"], of["6"])
    best["because"] += f"; at full length {confirmation}"
    if best["verdict"] == SUPPORTED and confirmation != CONFIRMED:
        best["verdict"] = UNDECIDED
    rest = np.subtract(asked["differences"], np.divide(bare["differences"], 2))
    effects = (
        f"{100 * asked['effect']:+.1f} of {100 * bare['effect']:+.1f} points; less half of it "
        "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * np.array([rest.mean(), *t_interval(rest)])))
    )
    return [
        {"claim": "the mask keeps stage 1", **_both(of["2"], of["4"])},
        {"claim": "it was the prompt", "verdict": prompt, "because": effects},
        {"claim": "best of both", **best},
    ]


def _result(rows, test: PlannedTest, plan: Plan, winner, split: str, queries) -> dict[str, Any]:
    first = winner if test.first == WINNER else Cell(test.first)
    if first is None:
        found = BlockDifferences(np.empty(0), ())
    else:
        found = _differences(rows, test, first, split)
    values = found.values
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    low, high = t_interval(values)
    result = {
        "test": test.name, "contrast": test.contrast, "endpoint": test.endpoint, "split": split,
        "kind": test.kind, "margin": test.margin,
        "effect": float(values.mean()) if len(values) else float("nan"),
        "low": float(low), "high": float(high), "deviation": deviation,
        "differences": values.tolist(), "blocks": len(values), "planned": plan.blocks,
        "p": float(t_test(values, test.kind, test.margin)),
        "p_against": _against(values, test.kind, test.margin),
        "detectable": detectable_difference(
            len(values), deviation, plan.level / (len(plan.tests) if test in plan.tests else 1),
            two_sided=test.kind == "two-sided"),
    }  # fmt: skip
    if first is not None and test.first == WINNER:
        result["contrast"] = f"{first.arm} ({first.score}) − {test.second}"
    if queries and len(values):
        differences, families = queries(
            first, Cell(test.second), test.endpoint, split, found.blocks
        )
        result |= _over_families(differences, families, len(values))
    return result


def _over_families(differences, families, blocks: int) -> dict[str, Any]:
    families = {task: families[task] for task in differences}
    effective = joint_effective_families(families) if families else 0.0
    low = high = float("nan")
    if effective >= MINIMUM_FAMILIES and blocks >= _FEWEST_BLOCKS:
        _, low, high = map(float, blocks_families_interval(differences, families))
    return {
        "wide_low": low, "wide_high": high, "effective_families": effective,
        "families": len({label for labels in families.values() for label in labels}),
    }  # fmt: skip


def _differences(rows, test: PlannedTest, first: Cell, split: str) -> BlockDifferences:
    return block_differences(
        rows, first.arm, test.second, endpoint_column(split, test.endpoint, first.score),
        endpoint_column(split, test.endpoint),
    )  # fmt: skip


def _against(values: np.ndarray, kind: Kind, margin: float) -> float:
    """p-value of the opposite of what a test with a margin states: the mean lies beyond it."""
    if kind == "two-sided":
        return float("nan")
    below = t_test(-values - 2 * margin, "non-inferior", margin)  # -mean > margin
    if kind == "non-inferior":
        return float(below)
    above = t_test(values - 2 * margin, "non-inferior", margin)
    return float(np.minimum(2 * np.minimum(below, above), 1))


def _verdict(row: Mapping[str, Any], p: float, n_tests: int, level: float) -> str:
    """In words. What speaks against a test with a margin is held to level / number of tests."""
    if row["blocks"] < 2:
        return _ONE_BLOCK if row["blocks"] else NOT_RUN
    if np.isnan(row["effect"]):  # no task has families enough, or the corpus has none of them
        return NOT_RUN
    if row["kind"] == "two-sided":
        clear = SUPPORTED if row["effect"] > 0 else CONTRADICTED
        return clear if p < level else UNDECIDED
    if p < level:
        return SUPPORTED
    return CONTRADICTED if row["p_against"] * n_tests < level else UNDECIDED


def _both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, str]:
    pair = (first["verdict"], second["verdict"])
    if all(verdict == SUPPORTED for verdict in pair):
        verdict = SUPPORTED
    else:
        verdict = CONTRADICTED if CONTRADICTED in pair else UNDECIDED
    parts = [f"test {row['test'].split()[0]} {row['verdict']}" for row in (first, second)]
    return {"verdict": verdict, "because": "; ".join(parts)}
