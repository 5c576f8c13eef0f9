"""Data card of a mix: contents, what was removed and why, what training will see; its summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ..tables import markdown_table
from .alignment_features import MIN_PAIRS
from .config import RuleConfig
from .filter import FilterResult, directed_pair_type
from .reasons import REASONS, Reasons
from .validate import cause_of

__all__ = [
    "alignment_rows", "card_summary", "card_text", "count_by", "no_alignment", "unreadable_causes",
]  # fmt: skip

_LISTED = 4  # sources, reasons or pair types in a line of the summary


def count_by(rows: Sequence[Mapping], reasons: Reasons) -> dict[str, dict[str, int]]:
    """{pair type: {first reason of a record, "" if kept: number of records}}."""
    counts: dict[str, Counter] = {}
    for number, row in enumerate(rows):
        found = reasons.of(number)
        counts.setdefault(directed_pair_type(row), Counter())[found[0] if found else ""] += 1
    return {name: dict(found) for name, found in sorted(counts.items())}


def unreadable_causes(causes: Sequence[str]) -> dict[str, int]:
    """{cause: files} of the media that cannot be read, from `MediaStats.cause`."""
    return dict(Counter(cause_of(cause) for cause in causes if cause).most_common())


def alignment_rows(result: FilterResult) -> list[dict]:
    """Alignment of each pair type, with similarities as histograms over common bins.

    Returns rows of `pair_type`, `pairs`, `threshold` (None if none is dropped by similarity),
    `mismatched_share`, `dropped`, and of 40 bins `edges`, `counts` and `null_counts` (mismatched
    pairs).
    """
    found = []
    for report in result.alignment.types if result.alignment else ():
        both = np.concatenate([report.similarity, report.null])
        edges = np.histogram_bin_edges(both, 40)
        found.append({
            "pair_type": report.pair_type,
            "pairs": report.pairs,
            "threshold": float(report.threshold) if np.isfinite(report.threshold) else None,
            "mismatched_share": report.mismatched_share,
            "dropped": report.dropped,
            "note": report.note,
            "edges": edges.tolist(),
            "counts": np.histogram(report.similarity, edges)[0].tolist(),
            "null_counts": np.histogram(report.null, edges)[0].tolist(),
        })  # fmt: skip
    return found


def card_text(card: Mapping) -> str:
    """The card as Markdown; `card.json` holds all its numbers."""
    parts = [
        f"# {card['name']}",
        f"{card['after']['records']} records of {len(card['sources'])} sources; SHA-256 of the "
        f"records in their order `{card['records_sha256']}`.",
        *_sources(card["sources"]),
        *_repairs(card),
        *_removal(card),
        *_texts(card),
        *_pair_types(card),
        *_training(card["after"]),
        *_alignment(card),
        *(f"![{name}]({name})" for name in card["figures"]),
        "## Limits",
        "Headers, words and languages were measured on samples (see `card.json`). Texts are "
        "duplicates by their letters, not by their meaning. What alignment cannot see (see its "
        "features or model) it cannot drop.",
    ]
    return "\n\n".join(parts) + "\n"


def card_summary(card: Mapping) -> str:
    """The card in at most nine lines: what stayed, what was removed and why, training's batches."""
    after, masking = card["after"], card["after"]["masking"]
    rejected = {name: c["rejected"] for name, c in card["sources"].items() if c["rejected"]}
    removed = {row["reason"]: row["first"] for row in card["removed"] if row["first"]}
    pairs = {f"{p['query']} > {p['candidate']}": p["records"] for p in after["pairs"]}
    small = [group["target"] for group in masking["groups"] if group["too_small"]]
    dropped = sum(row["dropped"] for row in card["alignment"])
    lines = [
        f"{card['name']}: {after['records']} records of "
        f"{sum(c['rows'] for c in card['sources'].values())} rows",
        f"rows that are no records: {_listed(rejected)} (rejects.jsonl)" if rejected else "",
        f"removed: {_listed(removed)}" if removed else "removed: none",
        f"files that cannot be read: {_listed(card['unreadable'])}" if card["unreadable"] else "",
        f"repaired: {_listed(card['repaired'])}" if card["repaired"] else "",
        f"pair types: {_listed(pairs)}",
        f"alignment: {dropped} dropped" if card["alignment"]
        else f"alignment: {card['no_alignment']}",
        f"in a random batch of {masking['batch_size']} pairs MAMCL leaves "
        f"{masking['surviving_share']:.1%} of the scores",
        f"too few of one target for MAMCL in such a batch: {', '.join(small)}" if small else "",
    ]  # fmt: skip
    return "\n".join(filter(None, lines))


def _listed(counts: Mapping[str, int]) -> str:
    """The largest counts in words: "12 blank text, 3 leak, 2 in 3 others"."""
    ranked = sorted(counts.items(), key=lambda entry: -entry[1])
    whole = len(ranked) <= _LISTED + 1  # a single other is as short by its name
    shown = [f"{count} {name}" for name, count in (ranked if whole else ranked[:_LISTED])]
    rest = [] if whole else [count for _, count in ranked[_LISTED:]]
    return ", ".join(shown + ([f"{sum(rest)} in {len(rest)} others"] if rest else []))


def _sources(sources: Mapping) -> list[str]:
    lines = [
        [name, c["rows"], c["records"], c["rejected"], c["left_out"], c["kept"]]
        for name, c in sources.items()
    ]
    head = ["source", "rows", "records", "rejected", "left out", "in the mix"]
    return ["## Sources", markdown_table(lines, head), *_rejects(sources)]


def _repairs(card: Mapping) -> list[str]:
    """What was put right, and how media are shown."""
    lines = [[what, count] for what, count in card["repaired"].items()]
    if card["black_pages"]:
        lines.append(["pictures drawn on nothing that white would hide: shown on black",
                      card["black_pages"]])  # fmt: skip
    parts = ["Transparent pictures are shown on white."]
    return ["## Repaired", *parts, *([markdown_table(lines, ["what", "count"])] if lines else [])]


def _texts(card: Mapping) -> list[str]:
    """Languages, keyword lists, and the texts that stand with many pictures."""
    lines = [
        [f"{t['query']} > {t['candidate']}", t["side"], _shares(t["scripts"]),
         _shares(t["languages"]), f"{t['language_known']:.0%}",
         "–" if t["language_probability"] is None else f"{t['language_probability']:.2f}",
         f"{t['keyword_share']:.1%}"]
        for t in card["after"]["texts"]
    ]  # fmt: skip
    head = ["pair type", "side", "scripts", "languages", "judged", "sure", "keyword lists"]
    parts = [
        "## Texts",
        "A language is guessed of texts with four words and 20 letters or more, and counts if it "
        "is at least 80 % probable; `judged` is their share, `sure` the mean probability.",
        markdown_table(lines, head),
    ]
    if card["repeated_texts"]:
        rows = [[t["text"], t["records"], t["media"], t["kept"]] for t in card["repeated_texts"]]
        parts += [
            "Texts that stand with most pictures or clips; running numbers do not count. Training "
            "treats the kept ones of a text as one item, so they are no negatives of each other.",
            markdown_table(rows, ["text", "records", "media", "kept"]),
        ]
    if card["labels"]:
        parts.append(
            "More than half of the records of " + ", ".join(card["labels"]) + " have such a text: "
            "these are taken for labels, and none was dropped for it."
        )
    if card["frames"]:
        rows = [[f["frame"], f["texts"]] for f in card["frames"]]
        parts += [
            "Beginnings and ends that many different texts share; a template if the rest says "
            "nothing about the picture.",
            markdown_table(rows, ["frame", "texts"]),
        ]
    return parts


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:3]) or "–"


def _removal(card: Mapping) -> list[str]:
    lines = [
        [row["reason"], row["hits"], row["first"], row["only"], f"{row['share']:.2%}"]
        + [row["meaning"]]
        for row in card["removed"]
    ]
    head = ["reason", "hits", "first", "only", "share", "meaning"]
    order = "Rules apply in this order; the counts of `first` add up to all removed records."
    compared = f"Records were compared with {card['tests']} evaluation pairs."
    causes = [[cause, count] for cause, count in card["unreadable"].items()]
    return [
        "## Removed", f"{order} {compared}", markdown_table(lines, head),
        *([markdown_table(causes, ["why files cannot be read", "files"])] if causes else []),
    ]  # fmt: skip


def _pair_types(card: Mapping) -> list[str]:
    lines = [
        [p["query"], p["candidate"], p["records"], f"{p['share']:.1%}", _removed(card, p)]
        for p in card["after"]["pairs"]
    ]
    head = ["query", "candidate", "records", "share", "removed"]
    return ["## Pair types", markdown_table(lines, head)]


def _training(after: Mapping) -> list[str]:
    masking = after["masking"]
    groups = [
        [g["target"], g["records"], f"{g['expected_size']:.1f}", f"{g['negatives']:.1f}"]
        + ["yes" if g["too_small"] else "no"]
        for g in masking["groups"]
    ]
    sets = [
        [s["source"], s["task"], s["records"], s["distinct"], f"{s['shared_share']:.1%}",
         f"{s['false_negatives']:.3g}"]
        for s in after["sources"]
    ]  # fmt: skip
    return [
        "## What training will see",
        f"In a random batch of {masking['batch_size']} pairs MAMCL leaves "
        f"{masking['surviving_share']:.1%} of the scores.",
        markdown_table(groups, ["target", "records", "expected group", "negatives", "too small"]),
        "Pairs in a batch that share a query or a candidate are false negatives of each other "
        "unless the loss knows them by their groups, which the mix holds.",
        markdown_table(
            sets,
            [
                "source",
                "task",
                "records",
                "candidates",
                "with shared items",
                "false negatives per pair",
            ],
        ),  # fmt: skip
    ]


def _rejects(sources: Mapping) -> list[str]:
    lines = [
        [name, cause, count]
        for name, counts in sources.items()
        for cause, count in counts["causes"].items()
    ]
    return ["Rows that are no records (`rejects.jsonl`):",
            markdown_table(lines, ["source", "cause", "rows"])] if lines else []  # fmt: skip


def _removed(card: Mapping, pair: Mapping) -> int:
    counts = card["removed_by_pair_type"][f"{pair['query']} > {pair['candidate']}"]
    return sum(count for reason, count in counts.items() if reason in REASONS)


def _alignment(card: Mapping) -> list[str]:
    types = card["alignment"]
    if not types:
        return ["## Alignment", card["no_alignment"]]
    lines = [
        [t["pair_type"], t["pairs"], "none" if t["threshold"] is None else f"{t['threshold']:.3f}",
         f"{t['mismatched_share']:.1%}", t["dropped"], t["note"]]
        for t in types
    ]  # fmt: skip
    head = ["pair type", "pairs scored", "threshold", "mismatched at most", "dropped"]
    return ["## Alignment", markdown_table(lines, [*head, "why none is dropped"])]


def no_alignment(rules: RuleConfig) -> str:
    """Why no pair has an alignment score."""
    if rules.alignment == "keep":
        return "Not asked for: the recipe's rules keep all pairs."
    return (
        f"No pair type has {MIN_PAIRS} pairs of a text with a picture or clip, so there is nothing "
        "to learn words from; nothing is dropped."
    )
