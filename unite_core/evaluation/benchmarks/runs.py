"""Run public benchmarks task by task, keep the results as files, and compare models.

A task is not run again while weights, settings and data stay the same, and vectors are kept in
shards, so a killed run loses at most the shard it was working on.
"""

# Shapes: D embedding size.

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ...files import from_row, read_json, write_json
from ...model.prompts import build_prompt
from ...registry import Registry
from ...search.blocks import model_key
from ...search.vector_store import encode_items
from ...tables import text_table
from ..results import (
    FAMILIES_NOTE,
    EvaluationResult,
    Score,
    format_families,
    percent,
    result_from,
)
from ..significance import compare_models, holm
from .mmeb import mmeb_means
from .mteb_model import MtebEncoder
from .mteb_tasks import local_task, run_mteb_task
from .registry import TaskSpec, load_task
from .task import score_task

__all__ = [
    "SETTINGS", "BenchmarkRun", "compare_runs", "format_comparison", "format_runs", "read_runs",
    "run_benchmarks", "task_table", "write_summary",
]  # fmt: skip


SETTINGS = ("paper", "checkpoint")


@dataclass(frozen=True)
class BenchmarkRun:
    """Result of one model on one task, with everything needed to repeat it."""

    task: str
    source: str  # where the data are from
    model: str
    model_key: str  # of weights and configuration
    config: dict  # the EmbedConfig that was used: prompt, frames, pixels, tokens
    instruct: bool  # whether mteb's instructions were put before texts
    versions: dict[str, str]
    result: EvaluationResult
    prompts: dict[str, str]  # the full prompt of the first item of each side
    seconds: float
    mteb: dict = field(default_factory=dict)  # mteb's own scores, for its tasks
    empty: int = 0  # rows of mteb's data with neither text nor media, embedded as zero

    @property
    def main_score(self) -> Score:
        """Score of the main metric; of an mteb task with several subsets, of the first one."""
        return self.result.scores[0]


def run_benchmarks(
    embedder,
    specs: Sequence[TaskSpec],
    data_root: str | Path,
    output: str | Path,
    settings: str = "paper",
    embed: Mapping | None = None,
    model: str = "",
    instruct: bool = False,
    progress: bool = True,
) -> tuple[list[BenchmarkRun], dict[str, Exception]]:
    """Run tasks one after the other; returns the runs, earlier ones included, and the failures.

    Args
        embedder  a UniteEmbedder
        settings  "paper": the registry's frames, pixels and lengths; "checkpoint": its own
        embed     fields of EmbedConfig that override both, such as {"video_pixels": "released"}
        model     its name in results
        instruct  use mteb's instructions in mteb tasks (MMEB has its own in its data)
    A task that fails (missing data, an unreadable media file, too many tokens) does not stop the
    others.
    """
    if settings not in SETTINGS:
        raise ValueError(f"settings must be one of {', '.join(SETTINGS)}; not {settings!r}")
    runs, failed = [], {}
    for spec in specs:
        chosen = (dict(spec.settings) if settings == "paper" else {}) | dict(embed or {})
        ready = embedder.configured(**chosen)
        run_task = _run_mteb if spec.mteb else _run_own
        try:
            runs.append(
                run_task(ready, spec, Path(data_root), Path(output), model, instruct, progress)
            )
        except (OSError, ValueError, ImportError) as error:
            failed[spec.name] = error
    return runs, failed


def read_runs(output: str | Path) -> list[BenchmarkRun]:
    """Read the finished tasks of an output folder, by name; ValueError if there are none."""
    paths = sorted(Path(output, "tasks").glob("*.json"))
    if not paths:
        raise ValueError(f"{Path(output, 'tasks')} holds no finished task: run some into {output}")
    return [_read(path) for path in paths]


def compare_runs(first: Sequence[BenchmarkRun], second: Sequence[BenchmarkRun]) -> list[dict]:
    """Compare two models on the tasks that both finished, by each task's main metric.

    Returns the rows of `compare_models` with `metric`, and p adjusted over all of these rows.
    ValueError if the data of a task differ.
    """
    others = {run.task: run for run in second}
    rows = []
    for run in first:
        if run.task in others:
            metric = run.main_score.metric
            found = compare_models(run.result, others[run.task].result, metric)
            rows += [row | {"metric": metric} for row in found]
    if not rows:
        raise ValueError("the two models share no finished task: run both on the same ones")
    adjusted = holm([row["p"] for row in rows])
    return [row | {"p_holm": p} for row, p in zip(rows, adjusted, strict=True)]


def format_runs(runs: Sequence[BenchmarkRun]) -> str:
    """Print every task's main score in percent with its interval, then the means of MMEB."""
    rows = [("task", "n", "families", "pool", "chance", "metric", "value [95 %]", "frames")]
    for run in runs:
        for score in (s for s in run.result.scores if s.metric == run.main_score.metric):
            name = run.task if score.split == "test" else f"{run.task} {score.split}"
            value = percent(score.value, score.low, score.high)
            frames = f"{run.config['min_frames']}-{run.config['max_frames']}"
            chance, families = f"{100 * score.chance:.1f}", format_families(vars(score))
            sizes = (score.n, families, score.candidates)
            rows.append((name, *sizes, chance, score.metric, value, frames))
    means = mmeb_means({run.task: run.main_score.value for run in runs})
    lines = [
        f"{name}: {100 * mean:.1f}" + ("" if done == of else f" (only {done} of {of} tasks)")
        for name, (mean, done, of) in means.items()
    ]
    return "\n".join([text_table(rows), FAMILIES_NOTE, *lines])


def format_comparison(rows: Sequence[Mapping], first: str, second: str) -> str:
    """Print the rows of `compare_runs`: gains in percent points, p adjusted over all tasks."""
    lines = [("task", "n", "families", "metric", "first", "second", "gain [95 %]", "p", "p (Holm)")]
    for row in rows:
        gain = percent(row["gain"], row["low"], row["high"], sign="+")
        values = (f"{100 * row[name]:.1f}" for name in ("first", "second"))
        p = (f"{row[name]:.3g}" for name in ("p", "p_holm"))
        families = format_families(row)
        lines.append((row["task"], row["n"], families, row["metric"], *values, gain, *p))
    return f"first: {first}\nsecond: {second}\n{text_table(lines)}\n{FAMILIES_NOTE}"


def task_table(registry: Registry[TaskSpec]) -> str:
    """Print the tasks of a registry: name, mteb's name or "read here", and source."""
    specs = [registry[name] for name in registry]
    rows = [(spec.name, spec.mteb or "read here", spec.source) for spec in specs]
    return text_table([("task", "by", "data"), *rows])


def write_summary(output: str | Path, runs: Sequence[BenchmarkRun], table: str) -> None:
    """Write results.json (without values per query) and table.txt to the output folder."""
    rows = [
        {"task": run.task, "source": run.source, "model": run.model, "model_key": run.model_key,
         "tasks_hash": run.result.tasks_hash, "config": run.config, "instruct": run.instruct,
         "prompts": run.prompts, "versions": run.versions, "seconds": run.seconds,
         "empty": run.empty, "scores": run.result.rows()}
        for run in runs
    ]  # fmt: skip
    means = mmeb_means({run.task: run.main_score.value for run in runs})
    write_json(Path(output, "results.json"), {"tasks": rows, "averages": means}, indent=1)
    Path(output, "table.txt").write_text(table + "\n", encoding="utf-8")


def _run_own(embedder, spec, root, output, model, instruct, progress) -> BenchmarkRun:
    benchmark = load_task(spec, root)
    key, digest, path = model_key(embedder), benchmark.digest, _path(output, spec)
    if (done := _finished(path, key)) and done.result.tasks_hash == digest:
        return done
    start, task = time.monotonic(), benchmark.task
    sides = zip(task.query_ids + task.candidate_ids, task.queries + task.candidates, strict=True)
    vectors = _vectors(embedder, dict(sides), spec.name, root, output, progress)
    families = {task.split: {task.name: task.families}}
    scores = score_task(benchmark, vectors)
    config, template = asdict(embedder.config), embedder.config.prompt
    result = EvaluationResult(scores, families, digest, config, 0)
    firsts = {"query": task.queries[0], "document": task.candidates[0]}
    prompts = {side: build_prompt(item, template) for side, item in firsts.items()}
    run = BenchmarkRun(
        spec.name, spec.source, model, key, config, False, _versions(), result, prompts,
        time.monotonic() - start,
    )  # fmt: skip
    return _saved(path, run)


def _run_mteb(embedder, spec, root, output, model, instruct, progress) -> BenchmarkRun:
    task = local_task(spec.mteb, root)
    data = task.metadata.dataset
    source = f"mteb {spec.mteb}: {data['path']} at {data['revision']}; {spec.source}"
    key, path = model_key(embedder), _path(output, spec)
    if (done := _finished(path, key)) and (done.source, done.instruct) == (source, instruct):
        return done
    start, encoder = time.monotonic(), MtebEncoder(embedder, instruct=instruct)
    result, theirs = run_mteb_task(encoder, task, spec.metrics, progress)
    config = asdict(embedder.config)
    run = BenchmarkRun(
        spec.name, source, model, key, config, instruct, _versions("mteb", "datasets"),
        replace(result, embedder=config), {entry.side: entry.prompt for entry in encoder.log},
        time.monotonic() - start, theirs, sum(entry.empty for entry in encoder.log),
    )  # fmt: skip
    return _saved(path, run)


def _vectors(embedder, items, name, root, output, progress) -> dict[str, np.ndarray]:
    """Embed a task's items: {content id: [D]}; ValueError if any cannot be read."""
    stored = encode_items(
        embedder, list(items.values()), output / "vectors", root, progress,
        lambda number: f"{name}, item {number + 1}",
    )  # fmt: skip
    if stored.bad:
        number, error = next(iter(stored.bad.items()))
        raise ValueError(
            f"{len(stored.bad)} of {len(items)} items cannot be read, so the score would be of "
            f"another task; item {number + 1}: {error}"
        )
    return dict(zip(items, stored.rows(np.arange(len(items))), strict=True))


def _path(output: Path, spec: TaskSpec) -> Path:
    return output / "tasks" / f"{spec.name.replace('/', '.').replace(':', '.')}.json"


def _finished(path: Path, key: str) -> BenchmarkRun | None:
    """Read a run if it has the same weights and settings."""
    run = _read(path) if path.is_file() else None
    return run if run and run.model_key == key else None


def _read(path: Path) -> BenchmarkRun:
    run = from_row(BenchmarkRun, read_json(path), str(path))
    return replace(run, result=result_from(run.result, f"{path}, result"))


def _saved(path: Path, run: BenchmarkRun) -> BenchmarkRun:
    write_json(path, asdict(run))
    return run


def _versions(*more: str) -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", *more)}
