"""Tables of the studies' tests: verdicts, blocks, the winner, power.

Like those of `study` they hold with none, one or all of the planned blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..study.arms import Study
from ..study.statistics import blocks_needed, detectable_difference, power
from ..study.verdicts import Cell, Plan, blind_deviation_of, choose_winner
from .points import points, range_of_points, share, size

__all__ = [
    "block_table", "blocks_said", "deviation_said", "find_winner", "power_table", "test_table",
    "winner_candidates",
]  # fmt: skip


_REPORTED_ONLY = {"bonus", "probe-tau", "oracle"}  # docs/study.md, "Changes" and "Scores"


def winner_candidates(study: Study) -> list[Cell]:
    """Arms and scores among which the winner is chosen; those that are only reported are none."""
    scores = [score for score in study.scores if score not in _REPORTED_ONLY]
    return [
        Cell(arm.name, score)
        for arm in study.arms
        if arm.trained
        for score in scores
        if score != "router" or "router_weight" in arm.stage
    ]


def find_winner(
    rows: Sequence[Mapping[str, Any]], study: Study
) -> tuple[Cell | None, str]:  # fmt: skip
    """The winner by the written rule, or None, with a sentence that says which or why none."""
    try:
        winner = choose_winner(rows, winner_candidates(study))
    except ValueError as reason:
        return None, f"no winner yet: {reason}"
    blocks = {row["block"] for row in rows if row["arm"] == winner.arm}
    return winner, f"{winner.arm} with {winner.score}, of {len(blocks)} blocks"


def blocks_said(results: Sequence[Mapping[str, Any]]) -> str:
    """How far the tests of `verdicts` can be read: "1 of 6 blocks: no test of one block"."""
    blocks, planned = results[0]["blocks"], results[0]["planned"]
    if blocks < 2:
        said = "no test of one block" if blocks else "nothing to test yet"
    else:
        said = "all that were planned" if blocks >= planned else "verdicts are not final"
    return f"{blocks} of {planned} blocks: {said}"


def deviation_said(rows: Sequence[Mapping[str, Any]], plan: Plan) -> str:
    """The blind deviation of the first two blocks, and how many blocks the written rule asks for.

    Args: rows, of `endpoint_rows` with the endpoints of the plan's primary split.
    """
    first_two = [row for row in rows if row["block"] < 2]
    try:
        spread = blind_deviation_of(first_two, plan)
    except ValueError as reason:
        return f"not known yet: {reason}"
    needed = blocks_needed(spread, plan.blocks) if np.isfinite(spread) else plan.blocks
    return f"{size(spread)} points in the first two blocks, so {needed} blocks"


def test_table(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Results of `verdicts` as rows to print: effect and intervals in points, p, verdict.

    "claim" is what the difference has to be, in points. "other families, too" is the interval over
    blocks and families, if the results have it.
    """
    return [
        {"test": row["test"], "difference": row["contrast"], "on": row["endpoint"],
         "claim": _claim(row), "blocks": f"{row['blocks']} of {row['planned']}",
         "families": _families(row),
         "effect": points(row["effect"]), "95 % interval": range_of_points(row["low"], row["high"]),
         "other families, too": range_of_points(row.get("wide_low"), row.get("wide_high")),
         "p": _p(row["p"]), "p (Holm)": _p(row["p_holm"]) if np.isfinite(row["p"]) else "",
         "verdict": row["verdict"]}
        for row in results
    ]  # fmt: skip


def block_table(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Results of `verdicts` with few blocks, in points: each block's difference, no interval."""
    return [
        {"test": row["test"], "difference": row["contrast"], "on": row["endpoint"],
         "families": _families(row), "by block": ", ".join(map(points, row["differences"])),
         "mean": points(row["effect"])}
        for row in results
    ]  # fmt: skip


def power_table(
    results: Sequence[Mapping[str, Any]], n_tests: int, difference: float = 0.03
) -> list[dict[str, Any]]:
    """What the first `n_tests` results could have shown, by the spread of their blocks.

    Rows of test, standard deviation of a block's difference, what is found with a power of 80 % at
    5 % and at 5 % / n_tests with the blocks that are there and with all planned ones, and the
    power for a true `difference` with these; empty below two blocks.
    """
    rows = []
    for row in results[:n_tests]:
        spread, planned = row["deviation"], row["planned"]
        two_sided = row["kind"] == "two-sided"
        level = 0.05 / n_tests
        known = np.isfinite(spread) and spread > 0
        shown = {
            f"found at {100 * alpha:.2g} %, {words}": size(
                detectable_difference(n, spread, alpha, two_sided=two_sided)
            )
            for n, words in ((row["blocks"], "so far"), (planned, "all blocks"))
            for alpha in (0.05, level)
        }
        chance = power(difference, planned, spread, level, two_sided) if known else np.nan
        rows.append(
            {"test": row["test"], "SD of a block": size(spread)}
            | shown
            | {f"power for {100 * difference:.3g} points": share([chance])}
        )
    return rows


def _claim(row: Mapping[str, Any]) -> str:
    margin = f"{100 * row['margin']:g}"
    return {"two-sided": "above 0", "non-inferior": f"above -{margin}",
            "equivalent": f"within ±{margin}"}[row["kind"]]  # fmt: skip


def _p(value: float | None) -> str:
    if value is None or np.isnan(value):
        return ""
    return "< .001" if value < 0.001 else f"{value:.3f}"


def _families(row: Mapping[str, Any]) -> str:
    if not row.get("families"):
        return ""
    return f"{row['families']} ({row['effective_families']:.0f} effective)"
