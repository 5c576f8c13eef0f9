"""Verbs of notebooks: execute one, sweep a grid, store, clean and publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


_PARAMETER = {"nargs": 2, "multiple": True, "metavar": "NAME VALUE"}


_FORCE = {"is_flag": True, "help": "Repeat a finished run."}


def run() -> click.Command:
    def execute(notebook: Path, folder: Path, parameters, force: bool) -> None:
        from ..notebook.files import parse_parameters
        from ..notebook.runs import run_notebook

        values = parse_parameters(notebook, dict(parameters))
        run_notebook(notebook, values, folder.resolve(), force)

    return click.Command(
        None,
        help="Execute a notebook into a folder; a run that was cut short goes on.",
        epilog="Example: unite run notebooks/00_tour.ipynb runs/tour -p corpus shapes",
        params=[
            click.Argument(["notebook"], type=_FILE),
            click.Argument(["folder"], type=_FOLDER),
            click.Option(["-p", "parameters"], help="A parameter of the notebook.", **_PARAMETER),
            click.Option(["--force"], **_FORCE),
        ],
        callback=execute,
    )


def sweep() -> click.Command:
    def execute(notebook: Path, folder: Path, parameters, force: bool) -> None:
        from ..notebook.files import parse_parameters
        from ..notebook.runs import sweep

        grid: dict[str, list[Any]] = {}
        for name, value in parameters:
            grid.setdefault(name, []).append(parse_parameters(notebook, {name: value})[name])
        rows = sweep(notebook, grid, folder.resolve(), force)
        click.echo(f"{folder / 'sweep.csv'}: {len(rows)} runs")

    return click.Command(
        None,
        help="Execute a notebook for every combination of the given values, into one table.",
        epilog="Example: unite sweep notebooks/04_stage_1.ipynb runs/lr -p steps 50 -p steps 100",
        params=[
            click.Argument(["notebook"], type=_FILE),
            click.Argument(["folder"], type=_FOLDER),
            click.Option(["-p", "parameters"], required=True,
                         help="A value of a parameter; repeat for further ones.", **_PARAMETER),
            click.Option(["--force"], **_FORCE),
        ],
        callback=execute,
    )  # fmt: skip


def notebooks() -> click.Command:
    def store(paths, source: Path | None) -> None:
        from ..notebook.storing import store_notebooks

        store_notebooks(paths, source)

    def clean(paths) -> None:
        from ..notebook.files import clean_notebook

        for path in paths:
            clean_notebook(path)

    def publish(folder: Path) -> None:
        from ..notebook.storing import publish_run

        publish_run(folder)

    def listed(required: bool) -> list[click.Parameter]:
        return [click.Argument(["paths"], nargs=-1, type=_FILE, required=required)]

    source = click.Option(
        ["--from", "source"], type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Take them from the finished runs in this folder, such as runs/main; without it "
        "the notebooks are executed.",
    )  # fmt: skip
    group = click.Group(None, help="Store, clean or publish the workbook's notebooks.")
    group.add_command(click.Command(
        "store", help="Store notebooks with the outputs of runs with their defaults; default: all.",
        params=[*listed(False), source], callback=store,
    ))  # fmt: skip
    group.add_command(click.Command(
        "clean", help="Remove what does not belong into a stored notebook, in place.",
        params=listed(True), callback=clean,
    ))  # fmt: skip
    group.add_command(click.Command(
        "publish", help="Copy figures and results of one run, or of all in a folder, to figures/.",
        params=[click.Argument(["folder"], type=click.Path(exists=True, path_type=Path))],
        callback=publish,
    ))  # fmt: skip
    return group
