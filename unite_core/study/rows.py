"""The table of a study: one row for each run, and beside it the hits of every query.

`NAME.parquet` has a row for each run: arm, block, seeds, where it comes from, its configuration,
the metrics of every task, the gap. `NAME_hits.parquet` says for each run, task, pool and score
which queries had their positive among the first ten, a bit each. `NAME_tasks.parquet` has the
tasks' families and kinds, so that intervals over families need nothing but these three files.
"""

# Shapes: Q queries.

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.tasks import RetrievalTask
from ..files import replacing
from .scoring import Ranks

__all__ = [
    "StudyTable",
    "described",
    "metrics_of",
    "read_table",
    "row_of",
    "rows_of",
    "write_table",
]


_PLACE = ("task", "split", "pool", "score")
K = 10  # of the hits that are kept for every query


@dataclass(frozen=True)
class StudyTable:
    """A study's rows, as `read_table` gives them."""

    runs: list[dict[str, Any]]
    """One for each run; `metrics` is a list of task, split, pool, score and their values."""
    hits: dict[tuple[str, str, str, str, str], np.ndarray]
    """{(run, task, split, pool, score): [Q] whether the positive is among the first ten}."""
    tasks: list[dict[str, Any]]
    """Name, split, kind, families [Q] and number of candidates of each task."""

    def families(self, task: str, split: str) -> list[str]:
        """[Q] family of each query of a task."""
        for row in self.tasks:
            if (row["name"], row["split"]) == (task, split):
                return row["families"]
        raise ValueError(f"the table has no task {task!r} of split {split!r}")


def metrics_of(ranks: Ranks) -> dict[str, Any]:
    """Means over a task's queries: recall@1, 10 and 100, MRR, nDCG@10, shares, counterparts."""
    rank = ranks.rank
    gain = np.where(rank <= K, 1 / np.log2(rank + 1), 0)
    values = {f"recall@{k}": (rank <= k).mean() for k in (1, K, 100)}
    values |= {"mrr": (1 / rank).mean(), f"ndcg@{K}": gain.mean()}
    values |= {
        f"target_share@{K}": ranks.target_share.mean(),
        f"counterpart_recall@{K}": (ranks.counterpart_rank <= K).mean(),
    }
    place = {name: getattr(ranks, name) for name in _PLACE}
    return place | {name: float(np.float32(value)) for name, value in values.items()}


def row_of(identity: Mapping[str, Any], ranks: Sequence[Ranks]) -> dict[str, Any]:
    """A run's row with its hits, as `write_table` takes it and as it lies in the run's folder."""
    hits = [np.packbits(r.rank <= K).tobytes().hex() for r in ranks]
    return {**identity, "metrics": list(map(metrics_of, ranks)), "hits": hits}


def write_table(path: str | Path, rows: Iterable[Mapping[str, Any]],
                tasks: Sequence[RetrievalTask]) -> None:  # fmt: skip
    """Write the three files of a table from `row_of` of its runs, in the order of their names.

    Args: path without suffix, such as figures/study/mask.
    """
    path, rows = Path(path), sorted(rows, key=lambda row: row["run"])
    runs, hits = [], []
    for row in rows:
        runs.append({name: value for name, value in row.items() if name != "hits"})
        for metrics, packed in zip(row["metrics"], row["hits"], strict=True):
            place = {name: metrics[name] for name in _PLACE}
            hits.append({"run": row["run"], **place, "hits": bytes.fromhex(packed)})
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path.with_name(f"{path.name}_tasks.parquet"), described(tasks))
    _write(path.with_name(f"{path.name}_hits.parquet"), hits)
    _write(path.with_suffix(".parquet"), runs)


def read_table(path: str | Path) -> StudyTable:
    """Read a table; `path` as in `write_table`. FileNotFoundError says what makes one."""
    import pyarrow.parquet as parquet

    path = Path(path)
    files = [path.with_name(f"{path.name}{part}.parquet") for part in ("", "_hits", "_tasks")]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: `unite study {path.name}` makes it")
    runs, found, tasks = (parquet.read_table(file).to_pylist() for file in files)
    queries = {(task["name"], task["split"]): len(task["families"]) for task in tasks}
    hits = {}
    for row in found:
        count = queries[row["task"], row["split"]]
        bits = np.unpackbits(np.frombuffer(row["hits"], np.uint8), count=count).astype(bool)
        hits[row["run"], row["task"], row["split"], row["pool"], row["score"]] = bits
    for run in runs:
        run["config"] = json.loads(run["config"])
    return StudyTable(runs, hits, tasks)


def rows_of(table: StudyTable) -> dict[str, dict[str, Any]]:
    """The rows of a table by run, as `row_of` made them."""
    rows = {}
    for run in table.runs:
        places = [
            (run["run"], *(metrics[name] for name in _PLACE)) for metrics in run["metrics"]
        ]  # fmt: skip
        hits = [np.packbits(table.hits[place]).tobytes().hex() for place in places]
        rows[run["run"]] = {**run, "hits": hits}
    return rows


def described(tasks: Iterable[RetrievalTask]) -> list[dict[str, Any]]:
    """What a table keeps of its tasks, as `StudyTable.tasks`."""
    return [
        {"name": task.name, "split": task.split, "kind": task.kind, "families": task.families,
         "candidates": len(set(task.candidate_ids))}
        for task in tasks
    ]  # fmt: skip


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    for row in rows:  # a column of text: configurations need not have the same fields
        if "config" in row:
            row["config"] = json.dumps(row["config"])
    table = arrow.Table.from_pylist(rows)
    if "metrics" in table.column_names:  # written as float32, which they are
        kind = table.schema.field("metrics").type.value_type
        narrow = arrow.struct([
            field.with_type(arrow.float32()) if field.type == arrow.float64() else field
            for field in kind
        ])  # fmt: skip
        place = table.column_names.index("metrics")
        table = table.set_column(place, "metrics", table["metrics"].cast(arrow.list_(narrow)))
    with replacing(path) as partial:
        parquet.write_table(table, partial, compression="zstd", compression_level=19)
