"""Public benchmarks on one model: `python -m unite_core.evaluate_benchmark MODEL --tasks ...`.

    python -m unite_core.evaluate_benchmark friedrichor/Unite-Instruct-Qwen2-VL-2B \\
        --tasks urban1k webvid-covr mmeb --data-root data/benchmarks --output runs/unite-2b
    python -m unite_core.evaluate_benchmark --compare runs/unite-2b runs/unite-7b

Each task is a file of its own in the output folder and is not run again while weights, settings
and task stay the same, so a killed command goes on with the next task; within a task it goes on
from the last shard of vectors. `results.json` and `table.txt` hold the tasks that were asked for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ...files import from_row
from ...model.config import EmbedConfig
from . import BENCHMARKS, find_tasks
from .runs import (
    SETTINGS,
    compare_runs,
    format_comparison,
    format_runs,
    read_runs,
    run_benchmarks,
    task_table,
    write_summary,
)

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 1 if a task failed."""
    options = _options(arguments)
    if options.list:
        print(task_table(BENCHMARKS))
        return 0
    if options.compare:
        runs = [read_runs(folder) for folder in options.compare]
        print(format_comparison(compare_runs(*runs), *(run[0].model for run in runs)))
        return 0
    from ...model.embedder import UniteEmbedder

    specs, embed = find_tasks(options.tasks), dict(options.set)
    from_row(EmbedConfig, embed, "--set")
    runs, failed = run_benchmarks(
        UniteEmbedder.load(options.model), specs, options.data_root, options.output,
        options.settings, embed, options.model, options.instruct,
    )  # fmt: skip
    if runs:
        table = format_runs(runs)
        write_summary(options.output, runs, table)
        print(table)
    for name, error in failed.items():
        print(f"{name} failed: {error}", file=sys.stderr)
    return int(bool(failed))


def _assignment(text: str) -> tuple[str, object]:
    """`max_frames=8` as a pair; what is no JSON is a word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write field=value, such as max_frames=8")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m unite_core.evaluate_benchmark", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("model", nargs="?", help="model folder or hub id")
    parser.add_argument(
        "--tasks", nargs="+", help="names, groups of names, or mteb:NAME; see --list"
    )
    parser.add_argument("--data-root", default="data/benchmarks", help="where the data sets lie")
    parser.add_argument("--output", help="folder of results; finished tasks in it are kept")
    parser.add_argument(
        "--settings", choices=SETTINGS, default="paper",
        help="frames, pixels and lengths of the paper or of the checkpoint",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", type=_assignment, default=[], metavar="FIELD=VALUE",
        help="fields of EmbedConfig, such as video_pixels=released",
    )  # fmt: skip
    parser.add_argument("--instruct", action="store_true", help="mteb's instructions before texts")
    parser.add_argument(
        "--compare", nargs=2, metavar="OUTPUT", help="test two models against each other"
    )
    parser.add_argument("--list", action="store_true", help="print the tasks")
    options = parser.parse_args(arguments)
    if not (
        options.list or options.compare or (options.model and options.tasks and options.output)
    ):
        parser.error("give a model, --tasks and --output; or --compare; or --list")
    return options


if __name__ == "__main__":
    sys.exit(main())
