"""Tables of the notebooks on the studies: what was run and shown, endpoints, search-time scores.

They hold with none, one or all of the planned blocks; what was not run yet is an empty cell. Shares
are given in percent and differences in points.
"""

# Shapes: Q queries.

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from ..evaluation.families import effective_families, joint_effective_families
from ..study.arms import STUDIES, Arm, Study
from ..study.endpoints import STUDY_ENDPOINTS, endpoint_tasks_of
from ..study.mixes import Mix
from ..study.rows import StudyTable, read_table
from ..study.statistics import block_differences, t_interval
from .points import points, range_of_points, share, share_with_interval
from .runs import from_root, project_root

__all__ = [
    "arm_means", "arm_table", "budget_table", "difference_table", "endpoint_caption",
    "endpoint_table", "gap_table", "mean_table", "metric_table", "open_study", "task_rows",
    "with_gap",
]  # fmt: skip


def open_study(name: str, table: str = "") -> StudyTable:
    """Read a study's table; print how much of the study it holds, and where its runs come from.

    Args
        name   of `STUDIES`
        table  path without suffix; empty: figures/study/NAME. Where that is not there the result
               has no runs, and what makes them is printed
    """
    path = from_root(table or f"figures/study/{name}")
    if not table and not path.with_suffix(".parquet").is_file():
        print(f"No run of study {name} is stored: `unite study {name} --size smoke` (minutes) or "
              f"`make study` (hours) makes a table, a parameter of this notebook.")  # fmt: skip
        return StudyTable([], {}, [])
    opened = read_table(path)
    study = STUDIES[name]
    planned = study.sizes["small"].blocks
    print(f"{os.path.relpath(path, project_root())}: {len(opened.runs)} of "
          f"{planned * len(study.arms)} runs, {len(_complete_blocks(study, opened))} of {planned} "
          "blocks complete")  # fmt: skip
    for source, count in sorted(Counter(map(_source_of, opened.runs)).items()):
        print(f"  {count} of {source}")
    if path.parent.name.endswith("-smoke"):
        print("These runs only prove that everything works: their numbers mean nothing.")
    return opened


def arm_table(study: Study, table: StudyTable) -> list[dict[str, Any]]:
    """Rows of arm, label, what the arm sets, how many of its runs are there."""
    planned = study.sizes["small"].blocks
    return [
        {"arm": arm.name, "called": arm.label, "sets": _settings_of(arm),
         "runs": f"{sum(run['arm'] == arm.name for run in table.runs)} of {planned}"}
        for arm in study.arms
    ]  # fmt: skip


def budget_table(table: StudyTable, study: Study) -> list[dict[str, Any]]:
    """What a run of each arm shows its model, in the mean over blocks; see `study.budget`."""
    rows = []
    for arm in study.arms:
        found = [run["budget"] for run in table.runs
                 if run["arm"] == arm.name and "budget" in run]  # fmt: skip
        names = found[0] if found else ()
        rows.append({"arm": arm.name} | {
            name.replace("_", " "): round(np.mean([each[name] for each in found]))
            for name in names
        })  # fmt: skip
    return [row for row in rows if len(row) > 1]


def endpoint_table(
    table: StudyTable, endpoints: Sequence[str], split: str
) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of endpoint, the tasks that count in this split, their queries and families."""
    rows = []
    for name in endpoints:
        tasks = endpoint_tasks_of(table, name, split)
        of = STUDY_ENDPOINTS[name]
        rows.append(
            {"endpoint": f"{name}: {of.name}", "pool": of.pool,
             "tasks": f"{len(tasks)} of {max(len(tasks), len(of.tasks))}",
             "queries": sum(map(len, tasks.values())),
             "families": len({label for labels in tasks.values() for label in labels}),
             "effective": joint_effective_families(tasks) if tasks else ""}
        )  # fmt: skip
    return rows


def endpoint_caption(table: StudyTable, endpoints: Sequence[str], splits: Sequence[str]) -> str:
    """What stands below a table or figure: queries, families and effective families by endpoint.

    Endpoints of the same queries are named together.
    """
    said = []
    for split in splits:
        named = defaultdict(list)
        for name, row in zip(endpoints, endpoint_table(table, endpoints, split), strict=True):
            effective = f" ({row['effective']:.0f} effective)" if row["effective"] else ""
            named[f"{row['queries']} queries, {row['families']} families{effective}"].append(name)
        said.append(f"On {split}: " + "; ".join(f"{', '.join(of)}: {n}" for n, of in named.items()))
    return ". ".join(said) + "."


def arm_means(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, float]:
    """{arm: mean over its blocks} of a field of `endpoint_rows`; arms without it are left out."""
    arms = dict.fromkeys(row["arm"] for row in rows if column in row)
    return {arm: float(np.mean(_values(rows, arm, column))) for arm in arms}


def mean_table(
    rows: Sequence[Mapping[str, Any]],
    study: Study,
    columns: Mapping[str, str],
    interval: bool = False,
) -> list[dict[str, Any]]:
    """Mean over blocks by arm, in percent, with its 95 % t interval over them if asked for.

    Args
        rows     of `endpoint_rows`
        columns  {field: title}
    """
    said = share_with_interval if interval else share
    return [
        {"arm": arm.label, "blocks": sum(row["arm"] == arm.name for row in rows)}
        | {title: said(_values(rows, arm.name, column)) for column, title in columns.items()}
        for arm in study.arms
    ]


def metric_table(
    table: StudyTable,
    study: Study,
    endpoint: str,
    split: str,
    metrics: Sequence[str],
    score: str = "cosine",
    pool: str = "",
) -> list[dict[str, Any]]:
    """Other metrics of an endpoint's tasks by arm: means over tasks, then blocks, in percent with a
    95 % t interval over blocks.

    Args
        metrics  names of `study.rows.metrics_of`
        pool     single or mixed; empty: the endpoint's
    """
    tasks = endpoint_tasks_of(table, endpoint, split)
    place = (split, pool or STUDY_ENDPOINTS[endpoint].pool, score)
    rows = []
    for arm in study.arms:
        runs = [
            [each for each in run["metrics"]
             if each["task"] in tasks and (each["split"], each["pool"], each["score"]) == place]
            for run in table.runs
            if run["arm"] == arm.name
        ]  # fmt: skip
        means = {
            metric: share_with_interval(
                [np.mean([each[metric] for each in found]) for found in runs if found]
            )
            for metric in metrics
        }
        rows.append({"arm": arm.label} | means)
    return rows


def gap_table(table: StudyTable, study: Study, measures: Sequence[str]) -> list[dict[str, Any]]:
    """The modality gap of each arm's plain pairs, a column for each task and measure.

    Means over blocks, the lowest and the highest block behind them. `measures` are names of
    `study.gaps.GAP_MEASURES`.
    """
    rows = []
    for arm in study.arms:
        values = defaultdict(list)
        for run in table.runs:
            for each in run["gap"] if run["arm"] == arm.name else ():
                if each["measure"] in measures:
                    values[f"{each['measure']}, {each['task']}"].append(each["value"])
        rows.append({"arm": arm.label} | {
            name: f"{np.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for name, v in values.items()
        })  # fmt: skip
    return rows


def with_gap(
    rows: Sequence[Mapping[str, Any]], table: StudyTable, task: str
) -> list[dict[str, Any]]:
    """Rows of `endpoint_rows` with the `gap` of that task's pairs; NaN if they are too few."""
    gaps = {
        (run["run"], each["task"], each["measure"]): each["value"]
        for run in table.runs
        for each in run["gap"]
    }
    return [{**row, "gap": gaps.get((row["run"], task, "gap"), np.nan)} for row in rows]


def difference_table(
    rows: Sequence[Mapping[str, Any]], study: Study, against: str, columns: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What each arm has more than `against`: means over blocks with their 95 % t intervals.

    Blocks whose two runs were made on different kinds of processor are counted apart: there one
    seed does not give equal runs. Not corrected for the number of cells: to look at, not to
    conclude from.
    """
    made_on = {(row["arm"], row["block"]): row["processor"] for row in rows}
    table = []
    for arm in study.arms:
        if arm.name == against:
            continue
        line: dict[str, Any] = {"arm": arm.label}
        for column, title in columns.items():
            found = block_differences(rows, arm.name, against, column)
            values = found.values
            across = sum(made_on[arm.name, b] != made_on[against, b] for b in found.blocks)
            line["blocks"] = f"{len(values)}, {across} across processors" if across else len(values)
            mean = values.mean() if len(values) else np.nan
            line[title] = " ".join(
                filter(None, (points(mean), range_of_points(*t_interval(values))))
            )
        table.append(line)
    return table


def task_rows(
    table: StudyTable, tasks: Sequence[str], split: str
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Recall@10 by task in its own pool: a row for each run, and {task: title with families}.

    `split` may join several, as in "concept+development". A task that the table lacks is NaN.
    """
    parts = split.split("+")
    known = {(task["name"], task["split"]) for task in table.tasks}
    known_of = ("run", "arm", "block", "processor")
    rows = [{name: run[name] for name in known_of} for run in table.runs]
    titles = {}
    for task in tasks:
        there = known.issuperset((task, part) for part in parts)
        for row in rows:
            hits = [table.hits[row["run"], task, part, "single", "cosine"] for part in parts
                    if there]  # fmt: skip
            row[task] = float(np.concatenate(hits).mean()) if there else float("nan")
        labels = [label for part in parts if there for label in table.families(task, part)]
        families = f"{effective_families(labels):.0f} effective families" if labels else "not run"
        titles[task] = f"{task}\n{families}"
    return rows, titles


def _source_of(run: Mapping[str, Any]) -> str:
    threads = f"{run['threads']} thread" + "s" * (run["threads"] > 1)
    return (
        f"commit {run['commit']}, {run['processor']}, {threads}, torch {run['version_torch']}, "
        f"{run['config']['stage']['max_steps']} steps"
    )


def _complete_blocks(study: Study, table: StudyTable) -> list[int]:
    of_arm = [{run["block"] for run in table.runs if run["arm"] == a.name} for a in study.arms]
    return sorted(set.intersection(*of_arm))


def _settings_of(arm: Arm) -> str:
    words = [f"{name} {value}" for name, value in arm.stage.items()]
    words += ["no stage 2"] * (not arm.trained)
    words += ["batches of one target modality"] * arm.one_modality
    if arm.mix:
        words += [f"{100 * share:.0f} % {kind}" for kind, share in arm.mix.shares.items()]
        plain = Mix(arm.mix.shares)
        for field in fields(Mix):
            value = getattr(arm.mix, field.name)
            if value != getattr(plain, field.name):
                words.append(field.name if value is True else f"{field.name} {value}")
    return ", ".join(words)


def _values(rows: Sequence[Mapping[str, Any]], arm: str, column: str) -> list[float]:
    return [row[column] for row in rows if row["arm"] == arm and column in row]
