"""Results and modality gap for the card of a trained model, written after training."""

# Shapes: Q queries.

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..gap.measures import Measure
from ..tables import markdown_table
from ..train.model_card import GAP, RESULTS, add_section
from .results import (
    FAMILIES_NOTE,
    EvaluationResult,
    comparison,
    format_families,
    paired_gain,
    percent,
)

__all__ = ["add_gap", "add_results"]


_GAP_MEASURES = ("gap", "rmg", "pair_excess", "cka", "neighbour_share")


def add_results(
    model: str | Path,
    results: Mapping[str, EvaluationResult],
    metric: str = "recall@10",
    pool: str = "single",
) -> Path:
    """Write results into a trained model's card; returns the file.

    Args
        model    folder of the model
        results  {name: result on the same tasks}; the last is the model's own, the first, if there
                 are several, what it is compared with
    Values have their 95 % intervals over families, gains are paired by query.
    """
    from huggingface_hub import EvalResult

    names = list(results)
    rows, entries = [], []
    for row in comparison(results, metric, pool):
        task = row["task"], row["split"]
        cells = [percent(row[name].value, row[name].low, row[name].high) for name in names]
        if len(names) > 1:
            gain = paired_gain(results[names[0]], results[names[-1]], *task, metric, pool)
            cells.append(percent(*gain, sign="+"))
        chance = f"{100 * row['chance']:.1f}"
        rows.append([*task, row["n"], format_families(row), row["candidates"], chance, *cells])
        entries.append(
            EvalResult(
                task_type="feature-extraction", dataset_type="unite-workbook",
                dataset_name=" / ".join(task), metric_type=metric, metric_name=f"{metric}, {pool}",
                metric_value=round(row[names[-1]].value, 4),
            )
        )  # fmt: skip
    head = ["task", "split", "queries", "families", "candidates", "chance", *names]
    head += ["paired gain"] if len(names) > 1 else []
    text = [
        f"{metric} in percent with 95 % intervals, {pool} pool; {FAMILIES_NOTE}.",
        markdown_table(rows, head, left=2),
    ]
    return add_section(model, RESULTS, "\n\n".join(text), entries)


def add_gap(model: str | Path, tables: Mapping[str, Mapping[str, Measure]]) -> Path:
    """Write the modality gap into a trained model's card; returns the file.

    `tables` {name, such as "text and image": table of `gap.measure`}.
    """
    rows = []
    for name, table in tables.items():
        for measure in filter(table.__contains__, _GAP_MEASURES):
            row = table[measure]
            ends = row.interval and "[{:.3g}, {:.3g}]".format(*row.interval)
            rows.append([name, measure, row.value, ends or "too few families", row.null, row.n])
    text = [
        "docs/gap.md of the workbook says how to read each measure; intervals are of 99 %.",
        markdown_table(rows, ["between", "measure", "value", "interval", "null", "n"], left=2),
    ]
    return add_section(model, GAP, "\n\n".join(text))
