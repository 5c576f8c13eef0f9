"""Published results of UNITE and its peers as data, each number with its source.

Each `published/*.json` holds one table: benchmark, metric, setting, tasks, and rows of values in
percent. A line's `kind` says where its number is from:

    authors     printed by UNITE's authors             digitised  read off their chart, +/- 0.5
    quoted      printed in a later paper of others     measured   a third party's own run
    run here    a run of your own, see `run_here`

No number was copied from an abstract or guessed; what could not be read is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...files import from_row, read_json

__all__ = ["KINDS", "Line", "RUN_HERE", "read_published", "read_run", "run_here", "table_of"]


FOLDER = Path(__file__).with_name("published")
RUN_HERE = "run here"
KINDS = ("authors", "digitised", "quoted", "measured", RUN_HERE)


@dataclass(frozen=True)
class Line:
    """One published number: a model on a task.

    task        named as in the benchmark registry; "mmeb all" and the like are means
    value       percent; for UVRB its own score times 100
    n           number of queries, in words; None if the source does not say
    setting     frames, checkpoint, post-processing: what makes two lines differ
    plus_minus  reading error of a digitised value in percent points; 0 for printed values
    """

    model: str
    benchmark: str
    task: str
    metric: str
    value: float
    kind: str
    source: str
    setting: str = ""
    n: str | None = None
    checkpoint: str = ""
    plus_minus: float = 0.0
    note: str = ""

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"{self.task}, kind: {self.kind!r} is none of {', '.join(KINDS)}")
        if not self.source:
            raise ValueError(f"{self.model} on {self.task}: no source; say where it is from")
        if not 0 <= self.value <= 100:
            raise ValueError(
                f"{self.model} on {self.task}: {self.value} is no percentage; give 0 to 100"
            )

    @property
    def is_quoted(self) -> bool:
        """Whether the number is from elsewhere, that is, not of a run of your own."""
        return self.kind != RUN_HERE


@dataclass(frozen=True)
class _Table:
    benchmark: str
    metric: str
    n: str | None
    setting: str
    tasks: list[str]
    rows: list[dict]


@dataclass(frozen=True)
class _Row:
    model: str
    values: list[float | None]
    kind: str
    source: str
    setting: str = ""
    checkpoint: str = ""
    plus_minus: float = 0.0
    note: str = ""


def read_published(folder: str | Path = FOLDER) -> list[Line]:
    """Read all tables of a folder; ValueError names the file, row and field that is wrong."""
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no table of published results (*.json)")
    return [line for path in paths for line in _lines(path)]


def run_here(
    model: str, values: Mapping[str, float], source: str, setting: str, n: str | None = None
) -> list[Line]:
    """Lines of your own results, to be drawn beside the published ones.

    Args
        model    name in figures; it should not be that of a published model
        values   {task: percent}, tasks named as in the tables, such as "urban1k-t2i"
        source   folder or command of the run
        setting  frames, pixels and prompt, as the comparison depends on them
    ValueError for a task without any published line.
    """
    known = {line.task: line for line in read_published()}
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(
            f"no published line has task {', '.join(unknown)}; there are {', '.join(known)}"
        )
    return [
        Line(model, known[task].benchmark, task, known[task].metric, value, RUN_HERE, source,
             setting, n)
        for task, value in values.items()
    ]  # fmt: skip


def read_run(folder: str | Path, model: str) -> list[Line]:
    """Lines of a finished `unite evaluate`, from its `results.json`.

    Args
        folder  its output folder
        model   name in figures
    Tasks and metrics without published numbers are left out, and so are means of MMEB over fewer
    tasks than published ones. ValueError if nothing is left.
    """
    path = Path(folder) / "results.json"
    run = read_json(path)
    rows = {row["task"]: row for row in run["tasks"]}
    lines = []
    for task, known in {line.task: line for line in read_published()}.items():
        name, _, depth = task.partition(" recall@")
        metric = f"recall@{depth}" if depth else known.metric
        for score in rows.get(name, {}).get("scores", ()):
            if score["metric"] == metric:
                values, setting = {task: 100 * score["value"]}, _setting_of(rows[name])
                lines += run_here(model, values, str(path), setting, str(score["n"]))
    for task, (value, there, whole) in run.get("averages", {}).items():
        if there == whole:
            mean = f"mean of {whole} tasks"
            lines += run_here(model, {task: 100 * value}, str(path), mean)
    if not lines:
        raise ValueError(f"{path}: none of its tasks and metrics was published by anybody")
    return lines


def table_of(lines: Iterable[Line], tasks: Sequence[str], models: Sequence[str] = ()) -> list[dict]:
    """Arrange lines as rows of model, kind, source and values {task: Line}.

    Args
        tasks   at least one must have a line; tasks without a number are absent from `values`
        models  only these, in this order; default: all that have one of the tasks
    A model has one row per kind and source, and more if these have several settings for a
    benchmark, so that numbers of two runs are never mixed.
    """
    rows: list[dict] = []
    for line in lines:
        if line.task in tasks and (not models or line.model in models):
            row = next((row for row in rows if _belongs(line, row)), None)
            if row is None:
                row = {"model": line.model, "kind": line.kind, "source": line.source, "values": {}}
                rows.append(row)
            row["values"][line.task] = line
    if not rows:
        raise ValueError(f"no line has any of the tasks {', '.join(tasks)}")
    order = {model: place for place, model in enumerate(models)}
    return sorted(rows, key=lambda row: order.get(row["model"], 0))


def _belongs(line: Line, row: Mapping) -> bool:
    same = all(getattr(line, name) == row[name] for name in ("model", "kind", "source"))
    others = [other for other in row["values"].values() if other.benchmark == line.benchmark]
    return same and all(
        other.setting == line.setting and other.task != line.task for other in others
    )


def _setting_of(row: Mapping) -> str:
    """The settings that a comparison depends on, from the EmbedConfig that a run recorded."""
    names = ("positions", "max_frames", "video_pixels", "video_max_pixels", "image_max_pixels")
    config = row.get("config", {})
    return ", ".join(f"{name} {config[name]}" for name in names if name in config) or "not recorded"


def _lines(path: Path) -> list[Line]:
    table = from_row(_Table, read_json(path), str(path))
    lines = []
    for number, raw in enumerate(table.rows, 1):
        where = f"{path}, row {number}"
        row = from_row(_Row, raw, where)
        if len(row.values) != len(table.tasks):
            raise ValueError(f"{where}: {len(row.values)} values for {len(table.tasks)} tasks")
        for task, value in zip(table.tasks, row.values, strict=True):
            if value is not None:
                lines.append(_line(table, row, task, value, where))
    return lines


def _line(table: _Table, row: _Row, task: str, value: float, where: str) -> Line:
    setting = "; ".join(part for part in (row.setting, table.setting) if part)
    try:
        return Line(row.model, table.benchmark, task, table.metric, value, row.kind, row.source,
                    setting, table.n, row.checkpoint, row.plus_minus, row.note)  # fmt: skip
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
