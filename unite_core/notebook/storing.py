"""Outputs of finished runs go into `notebooks/`, their figures and results into `figures/`."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..files import read_json, write_json
from .files import NotebookError, check_parameters, cleaned, write_text
from .runs import from_root, project_root, run_notebook, runs_root

__all__ = [
    "NUMBERS",
    "STATING",
    "publish_run",
    "read_numbers",
    "restated",
    "store_notebooks",
    "take_outputs",
    "with_tables",
    "wrong_numbers",
]


NUMBERS = "figures/results.json"
"""Results of the published runs, {notebook: {name: number}}: what texts may state."""
STATING = ("README.md", "docs/results.md", "docs/gap.md", "docs/index.md")
"""Texts that state numbers of runs, see `wrong_numbers`."""
_MEASURED = "*Measured: "
_STATED = re.compile(r"([-+]?\d*\.?\d+)(?:\s?%)?<!-- (\d\d_\w+): (.+?) -->")

_TABLE = re.compile(r"(<!-- (\d\d_\w+): (\w+\.(?:txt|md)) -->\n).*?<!-- end -->", re.DOTALL)


def store_notebooks(paths: Iterable[Path], source: Path | None = None) -> None:
    """Store notebooks (default: all) with the outputs of a run with their defaults.

    Args
        source  folder of runs, such as runs/main, whose outputs are taken; without it, notebooks
                are executed here. Notebooks that have no run there are left out if none is named
    """
    stored = sorted((project_root() / "notebooks").glob("*.ipynb"))
    if source is not None:
        runs = _runs_below(source)
        for path in list(paths) or [path for path in stored if path.stem in runs]:
            if path.stem not in runs:
                raise NotebookError(f"{source} has no finished run of {path.name}: make run")
            take_outputs(path, runs[path.stem])
            print(f"{path.name}: outputs of {os.path.relpath(runs[path.stem])}")
        return
    for path in list(paths) or stored:
        print(f"{path.name}: executing with its defaults")
        out = runs_root() / "stored" / path.stem
        run_notebook(path, {}, out, force=True)  # what a default names, a table, may have changed
        take_outputs(path, out)


def take_outputs(path: Path, run: Path) -> None:
    """Copy a finished run's outputs into its notebook, cell by cell, and what the run took.

    Texts of the notebook may have changed since, code may not: then, and where the run had other
    parameters than the defaults, NotebookError says what to do.
    """
    import nbformat

    state = read_json(run / "run.json")
    defaults = check_parameters(path, {})
    other = [name for name in defaults if state["parameters"].get(name) != defaults[name]]
    if other:
        raise NotebookError(
            f"{path.name}: the run in {run} has another {', '.join(other)} than the notebook's "
            f"defaults: run it again without (make run)"
        )
    notebook = nbformat.read(path, as_version=4)
    executed = {
        cell.id: cell for cell in nbformat.read(run / path.name, as_version=4).cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])
    }  # fmt: skip
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    for name in [*cells, *executed]:
        if name not in cells or executed.get(name, {}).get("source") != cells[name].source:
            raise NotebookError(
                f"{path.name}: code cell {name} is not as it was in the run in {run}: run it "
                "again (make run), then store it"
            )
    for name, cell in cells.items():
        cell.outputs = executed[name].outputs
    cost = read_json(run / "cost.json") if (run / "cost.json").is_file() else None
    notebook.cells[0].source = _with_cost(notebook.cells[0].source, state["versions"], cost)
    write_text(path, nbformat.writes(cleaned(notebook)))


def publish_run(folder: Path) -> None:
    """Copy the figures of a run, or of all runs in a folder, to `figures/`, and their results.

    Results go into `NUMBERS`, beside those of notebooks that have no run there; numbers and tables
    of the runs go into the texts that state them.
    """
    figures = sorted([*folder.glob("figures/*.*"), *folder.glob("*/figures/*.*")])
    if not figures:
        raise FileNotFoundError(f"{folder}: no figures of a run there; give the folder of a run")
    for figure in figures:
        shutil.copyfile(figure, project_root() / "figures" / figure.name)
        print(f"figures/{figure.name}")
    numbers, runs = read_numbers(), _runs_below(folder)
    for name, run in runs.items():
        numbers[name] = {
            key: float(f"{value:.4g}") for key, value in read_json(run / "results.json").items()
        }
    write_json(from_root(NUMBERS), dict(sorted(numbers.items())), indent=1)
    print(NUMBERS)
    for text in filter(Path.is_file, map(from_root, STATING)):
        old = text.read_text(encoding="utf-8")
        new = with_tables(restated(old, numbers), runs)
        if new != old:
            write_text(text, new)
            print(f"{os.path.relpath(text, project_root())}: as the runs say")


def read_numbers() -> dict[str, dict[str, float]]:
    """{notebook: {name: number}} of the published runs; empty if there are none."""
    file = from_root(NUMBERS)
    return read_json(file) if file.is_file() else {}


def wrong_numbers(text: str, numbers: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Numbers of a text that are not those of the runs; an empty list if all are.

    A number of a run is followed by a comment that names it, which pages do not show:
    `66.2<!-- 06_scores: recall@10 stage 2, text → image -->`. It may be in percent, and is compared
    in the digits that it is written with.
    """
    found = []
    for stated, notebook, name in _STATED.findall(text):
        value = numbers.get(notebook, {}).get(name)
        digits = len(stated.partition(".")[2])
        known = value is not None and {f"{each:.{digits}f}" for each in (value, 100 * value)}
        if not known or stated.lstrip("+") not in known | {each[1:] for each in known}:
            found.append(f"{stated} is not {notebook}: {name}, which is {value}")
    return found


def restated(text: str, numbers: Mapping[str, Mapping[str, float]]) -> str:
    """A text with its numbers of runs as they are now, in the same digits and form.

    Whether a number is in percent is read off the one that stands there. Numbers that the runs do
    not have stay, for `wrong_numbers` to find.
    """

    def now(match: re.Match) -> str:
        stated, notebook, name = match.groups()
        value = numbers.get(notebook, {}).get(name)
        if value is None:
            return match[0]
        old = abs(float(stated)) or 1.0
        form = min((value, 100 * value), key=lambda each: abs(math.log((abs(each) or 1e-9) / old)))
        new = f"{form:{'+' * stated.startswith('+')}.{len(stated.partition('.')[2])}f}"
        new = new.replace("0.", ".", 1) if stated.lstrip("+-").startswith(".") else new
        return match[0].replace(stated, new, 1)

    return _STATED.sub(now, text)


def with_tables(text: str, runs: Mapping[str, Path]) -> str:
    """A text with tables of runs as they are in the runs' folders.

    A table stands between `<!-- 06_scores: means.txt -->` and `<!-- end -->`; of a .txt file it is
    set as code. Tables of runs that are not there stay.
    """

    def now(match: re.Match) -> str:
        opening, notebook, name = match.groups()
        file = runs.get(notebook, Path()) / name
        if notebook not in runs or not file.is_file():
            return match[0]
        table = file.read_text(encoding="utf-8").rstrip("\n")
        table = f"```\n{table}\n```" if file.suffix == ".txt" else table
        return f"{opening}\n{table}\n\n<!-- end -->"

    return _TABLE.sub(now, text)


def _runs_below(folder: Path) -> dict[str, Path]:
    """{notebook: folder} of the finished runs in a folder, or of the one that it is."""
    files = [folder / "run.json", *sorted(folder.glob("*/run.json"))]
    states = {file.parent: read_json(file) for file in files if file.is_file()}
    return {state["notebook"]: run for run, state in states.items() if state.get("finished")}


def _with_cost(text: str, versions: dict[str, str], cost: dict[str, float] | None) -> str:
    """A notebook's first text, ending in what the stored run took and with which versions."""
    text = re.sub(r"\n+" + re.escape(_MEASURED) + r".*", "", text, flags=re.DOTALL)
    if cost is None:
        return text
    named = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "transformers"))
    minutes = f"{cost['minutes']:.1f} minutes" if cost["minutes"] >= 1 else "less than a minute"
    return (
        f"{text}\n\n{_MEASURED}{minutes} and {cost['mib']:,.0f} MiB of memory on "
        f"{cost['cpus']:.0f} CPU cores, with {named}.*"
    )
