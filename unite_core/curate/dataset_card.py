"""The data card of a mix: what it holds, what was removed and why, what training will see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from .filter import FilterResult, directed_pair_type
from .reasons import REASONS, Reasons

__all__ = ["alignment_rows", "card_text", "count_by"]


def count_by(rows: Sequence[Mapping], reasons: Reasons) -> dict[str, dict[str, int]]:
    """{pair type: {first reason against a record, "" for kept: records}}."""
    counts: dict[str, Counter] = {}
    for number, row in enumerate(rows):
        found = reasons.of(number)
        counts.setdefault(directed_pair_type(row), Counter())[found[0] if found else ""] += 1
    return {name: dict(found) for name, found in sorted(counts.items())}


def alignment_rows(result: FilterResult) -> list[dict]:
    """Per pair type what `align` found, similarities as histograms over common bins.

    Returns rows of `pair_type`, `pairs`, `threshold` (None where none is dropped by similarity),
    `mismatched_share`, `dropped`, and 40 bins: `edges`, `counts` and `null_counts`.
    """
    found = []
    for each in result.alignment.types if result.alignment else ():
        both = np.concatenate([each.similarity, each.null])
        edges = np.histogram_bin_edges(both, 40)
        found.append({
            "pair_type": each.pair_type,
            "pairs": each.pairs,
            "threshold": float(each.threshold) if np.isfinite(each.threshold) else None,
            "mismatched_share": each.mismatched_share,
            "dropped": each.dropped,
            "edges": edges.tolist(),
            "counts": np.histogram(each.similarity, edges)[0].tolist(),
            "null_counts": np.histogram(each.null, edges)[0].tolist(),
        })  # fmt: skip
    return found


def card_text(card: Mapping) -> str:
    """The card as Markdown; `card.json` holds all numbers behind it."""
    parts = [
        f"# {card['name']}",
        f"{card['after']['records']} records of {len(card['sources'])} sources; SHA-256 of the "
        f"records in their order `{card['records_sha256']}`.",
        *_sources(card["sources"]),
        *_removal(card),
        *_pair_types(card),
        *_training(card["after"]),
        *_alignment(card["alignment"]),
        *(f"![{name}]({name})" for name in card["figures"]),
        "## Limits",
        "Headers, words and languages were measured on samples (see `card.json`). Texts are "
        "duplicates by their letters, not by their meaning. What alignment cannot see (see its "
        "features or model) it cannot drop.",
    ]
    return "\n\n".join(parts) + "\n"


def _sources(sources: Mapping) -> list[str]:
    lines = [
        [name, c["rows"], c["records"], c["rejected"], c["left_out"], c["kept"]]
        for name, c in sources.items()
    ]
    head = ["source", "rows", "records", "rejected", "left out", "in the mix"]
    return ["## Sources", _table(head, lines), *_rejects(sources)]


def _removal(card: Mapping) -> list[str]:
    lines = [
        [row["reason"], row["hits"], row["first"], row["only"], f"{row['share']:.2%}"]
        + [row["meaning"]]
        for row in card["removed"]
    ]
    head = ["reason", "hits", "first", "only", "share", "meaning"]
    told = "Rules apply in this order, `first` adds up."
    compared = f"Records were compared with {card['tests']} evaluation pairs."
    return ["## Removed", f"{told} {compared}", _table(head, lines)]


def _pair_types(card: Mapping) -> list[str]:
    lines = [
        [p["query"], p["candidate"], p["records"], f"{p['share']:.1%}", _removed(card, p)]
        for p in card["after"]["pairs"]
    ]
    head = ["query", "candidate", "records", "share", "removed"]
    return ["## Pair types", _table(head, lines)]


def _training(after: Mapping) -> list[str]:
    masking = after["masking"]
    groups = [
        [g["target"], g["records"], f"{g['expected_size']:.1f}", f"{g['negatives']:.1f}"]
        + ["yes" if g["too_small"] else "no"]
        for g in masking["groups"]
    ]
    sets = [
        [s["source"], s["task"], s["records"], s["distinct"], f"{s['false_negatives']:.3g}"]
        for s in after["sources"]
    ]
    return [
        "## What training will see",
        f"In a random batch of {masking['batch_size']} pairs MAMCL leaves "
        f"{masking['surviving_share']:.1%} of the scores.",
        _table(["target", "records", "expected group", "negatives", "too small"], groups),
        "Equal candidates in a batch are false negatives unless the loss knows them by their ids.",
        _table(["source", "task", "records", "candidates", "false negatives per pair"], sets),
    ]


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
