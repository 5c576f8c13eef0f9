"""The data card of a mix: what it holds, what was removed and why, what training will see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from .judge import pair_type
from .verdicts import REASONS, Verdicts

__all__ = ["card_text", "count_by"]


def count_by(rows: Sequence[Mapping], verdicts: Verdicts) -> dict[str, dict[str, int]]:
    """{pair type: {first reason against a record, "" for kept: records}}."""
    counts: dict[str, Counter] = {}
    for number, row in enumerate(rows):
        reasons = verdicts.of(number)
        counts.setdefault(pair_type(row), Counter())[reasons[0] if reasons else ""] += 1
    return {name: dict(found) for name, found in sorted(counts.items())}


def card_text(card: Mapping) -> str:
    """The card as Markdown; `card.json` holds all numbers behind it."""
    after, masking = card["after"], card["after"]["masking"]
    parts = [
        f"# {card['name']}",
        f"{after['records']} records of {len(card['sources'])} sources; SHA-256 of the records in "
        f"their order `{card['records_sha256']}`.",
        "## Sources",
        _table(
            ["source", "rows", "records", "rejected", "left out", "in the mix"],
            [
                [name, c["rows"], c["records"], c["rejected"], c["left_out"], c["kept"]]
                for name, c in card["sources"].items()
            ],
        ),
        *_rejects(card["sources"]),
        "## Removed",
        f"Rules apply in this order; `first` adds up. {card['tests']} evaluation pairs were "
        "compared with.",
        _table(
            ["reason", "hits", "first", "only", "share", "meaning"],
            [
                [r["reason"], r["hits"], r["first"], r["only"], f"{r['share']:.2%}", r["meaning"]]
                for r in card["removed"]
            ],
        ),
        "## Pair types",
        _table(
            ["query", "candidate", "records", "share", "removed"],
            [
                [p["query"], p["candidate"], p["records"], f"{p['share']:.1%}", _removed(card, p)]
                for p in after["pairs"]
            ],
        ),
        "## What training will see",
        f"In a random batch of {masking['batch_size']} pairs MAMCL leaves "
        f"{masking['surviving_share']:.1%} of the scores.",
        _table(
            ["target", "records", "expected group", "negatives", "too small"],
            [
                [g["target"], g["records"], f"{g['expected_size']:.1f}", f"{g['negatives']:.1f}",
                 "yes" if g["too_small"] else "no"]
                for g in masking["groups"]
            ],
        ),  # fmt: skip
        "Equal candidates in a batch are false negatives unless the loss knows them by their ids.",
        _table(
            ["source", "task", "records", "different candidates", "false negatives per pair"],
            [
                [s["source"], s["task"], s["records"], s["distinct"], f"{s['false_negatives']:.3g}"]
                for s in after["sources"]
            ],
        ),
        *_alignment(card["alignment"]),
        *(f"![{name}]({name})" for name in card["figures"]),
        "## Limits",
        "Headers, words and languages were measured on samples (see `card.json`). Texts are "
        "duplicates by their letters, not by their meaning. What alignment cannot see (see its "
        "features or model) it cannot drop.",
    ]
    return "\n\n".join(parts) + "\n"


def _rejects(sources: Mapping) -> list[str]:
    lines = [
        [name, cause, count]
        for name, counts in sources.items()
        for cause, count in counts["causes"].items()
    ]
    return ["Rows that are no records (`rejects.jsonl`):",
            _table(["source", "cause", "rows"], lines)] if lines else []  # fmt: skip


def _removed(card: Mapping, pair: Mapping) -> int:
    counts = card["removed_by_pair_type"][f"{pair['query']} > {pair['candidate']}"]
    return sum(count for reason, count in counts.items() if reason in REASONS)


def _alignment(types: Sequence[Mapping]) -> list[str]:
    if not types:
        return []
    lines = [
        [t["pair_type"], t["pairs"], "none" if t["threshold"] is None else f"{t['threshold']:.3f}",
         f"{t['mismatched_share']:.1%}", t["dropped"]]
        for t in types
    ]  # fmt: skip
    head = ["pair type", "pairs judged", "threshold", "mismatched at most", "dropped"]
    return ["## Alignment", _table(head, lines)]


def _table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
