"""Runs of notebooks: checked parameters, results by name, finished runs not repeated.

From outside a notebook use `run_notebook`, `sweep` or the commands `unite run` and `unite sweep`,
inside it `open_run`. A run's folder holds the executed notebook, `results.json`, `figures/` and
`run.json` (parameters, hash, versions, times). Relative paths, in parameters too, are relative to
`project_root`. The environment variable `UNITE_RUNS` moves all runs away from `runs/`.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import math
import os
import random
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from ..files import read_json, replacing, write_json
from .figures import save_figure, show_figure, words_of
from .files import (
    NotebookError,
    ParameterError,
    check_parameters,
    code_of,
    literal,
    parameter_names,
    write_text,
)
from .live import bars_on_white, is_live

__all__ = [
    "NotebookError", "ParameterError", "Run", "from_root", "open_run",
    "project_root", "run_notebook", "runs_root", "seed_everything", "sweep",
]  # fmt: skip


_UNBORN = "Kernel died before replying"  # jupyter_client's words
VERSIONS = ("unite-workbook", "torch", "transformers", "peft", "numpy")


def project_root() -> Path:
    """The folder that relative paths, `runs/`, `data/` and `figures/` belong to.

    In a checkout that is its root. An installed package has no notebooks beside it: then it is the
    current working directory, which for code in a notebook is the notebook's folder.
    """
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def from_root(path: str | Path) -> Path:
    """Resolve a path of a parameter: relative to `project_root` unless absolute."""
    return project_root() / path


def runs_root() -> Path:
    """The folder of all runs: `UNITE_RUNS` if set, else `runs`."""
    return from_root(os.environ.get("UNITE_RUNS") or "runs")


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch (all devices)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(seed)


@dataclass(frozen=True)
class Run:
    """A run of a notebook, which saves results, figures and texts into its folder."""

    name: str
    folder: Path
    started: float = field(default_factory=time.monotonic)

    def save(self, results: Mapping[str, float]) -> None:
        """Write `results.json` (flat, finite numbers) and print it, rounded to 3 digits.

        What the run took so far goes into `cost.json`.
        """
        for name, value in results.items():
            if isinstance(value, str | Mapping) or not math.isfinite(float(value)):
                raise ValueError(f"result {name!r} is {value!r}: results are finite numbers")
        flat = {name: float(value) for name, value in results.items()}
        write_json(self.folder / "cost.json", _cost_since(self.started))
        write_json(self.folder / "results.json", flat)
        width = max(map(len, flat), default=0)
        print("\n".join(f"{name:<{width}}  {value:.3f}" for name, value in flat.items()))

    def text(self, name: str, text: str) -> None:
        """Write a text file into the folder, atomically."""
        write_text(self.folder / name, text)

    def figure(self, slug: str, figure, alt: str = "") -> None:
        """Save a figure, or that of axes, as SVG and PNG, and show it in the notebook.

        `alt` says in words what is to be seen, for those who cannot see it; without it the titles
        are read.
        """
        if not re.fullmatch(r"[a-z0-9_]+", slug):
            raise ValueError(f"slug {slug!r}: use small letters, digits and _")
        figure = getattr(figure, "figure", figure)
        alt = " ".join(alt.split()) or words_of(figure)
        save_figure(self.folder / "figures" / f"{self.name}_{slug}", figure, alt)
        show_figure(figure, alt)


def open_run(name: str, namespace: Mapping) -> Run:
    """Open the run that a notebook is part of; `namespace` is its `globals()`.

    The folder is the parameter `output` (set by `run_notebook`), else `runs/interactive/<name>`;
    what a run with other parameters left there is moved aside.
    """
    output = namespace.get("output")
    folder = from_root(output) if output else runs_root() / "interactive" / name
    if not output:
        notebook = project_root() / "notebooks" / f"{name}.ipynb"
        names = parameter_names(notebook) if notebook.is_file() else []
        _prepare_folder(folder, _describe(name, [], {key: namespace.get(key) for key in names}))
    folder.mkdir(parents=True, exist_ok=True)
    if is_live():
        bars_on_white()
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    print(f"{name} in {os.path.relpath(folder, project_root())} ({versions})")
    return Run(name, folder)


def run_notebook(path, parameters: Mapping, out, force=False, progress=True) -> dict[str, float]:
    """Execute a notebook with checked parameters and return its `results.json`.

    The kernel works in the notebook's folder. A finished run with the same parameters, code,
    package and inputs is not repeated unless `force`. The same run, if unfinished, is resumed in
    its folder (with its checkpoints); anything else there is moved aside to `OUT.1`, `OUT.2`, ...
    A notebook that fails is kept as `<name>.failed.ipynb` and raises a NotebookError.
    """
    path, out = Path(path).resolve(), from_root(out).resolve()
    parameters = check_parameters(path, parameters)
    about = _describe(path.stem, code_of(path), parameters)
    if not force and _is_finished(out, about):
        print(f"{out} is finished with these parameters: not repeated")
    else:
        _prepare_folder(out, about)
        (out / "results.json").unlink(missing_ok=True)
        _execute(path, parameters | {"output": str(out)}, out, progress)
        if not (out / "results.json").is_file():
            raise NotebookError(f"{path} ended without run.save(results)")
        write_json(out / "run.json", about | {"finished": _now()})
    return read_json(out / "results.json")


def sweep(path, grid: Mapping[str, list], out, force=False, progress=True) -> list[dict]:
    """Run a notebook at every point of a grid of parameters {name: values}.

    Returns rows of parameters and results, also written to `sweep.csv`. Each point has its own
    folder below `out`; finished points are not repeated.
    """
    out, rows = from_root(out).resolve(), []
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        rows.append(point | run_notebook(path, point, out / _slug(point), force, progress))
        _write_csv(out / "sweep.csv", rows)
    return rows


def _execute(path: Path, parameters: dict, out: Path, progress: bool) -> None:
    import papermill

    partial, failed = (out / f"{path.stem}.{state}.ipynb" for state in ("partial", "failed"))
    failed.unlink(missing_ok=True)
    streams = {"stdout_file": sys.stdout, "stderr_file": sys.stderr} if progress else {}

    def execute() -> None:
        papermill.execute_notebook(
            literal(path), literal(partial), parameters,
            cwd=str(path.parent), progress_bar=progress, extra_arguments=["--log-level=40"],
            **streams,
        )  # fmt: skip

    try:
        try:
            execute()
        except RuntimeError as error:
            if _UNBORN not in str(error):
                raise
            execute()  # no cell ran: kernels that start side by side may take the same port
    except papermill.PapermillExecutionError as error:
        partial.replace(failed)
        raise NotebookError(
            f"{path.name} stopped in cell {error.cell_index + 1}: {error.ename}: {error.evalue}\n"
            f"(the notebook up to there is {failed})"
        ) from error
    except Exception as error:  # nbclient, jupyter_client and zmq share no class
        kept = f"the notebook up to there is {failed}" if partial.is_file() else "no cell ran"
        if partial.is_file():
            partial.replace(failed)
        raise NotebookError(
            f"{path.name}: its kernel did not start or died ({type(error).__name__}: {error}); "
            f"often the machine ran out of memory, or the kernel is not installed ({kept})"
        ) from error
    partial.replace(out / path.name)


def _cost_since(started: float) -> dict[str, float]:
    """Minutes since then, this process's largest memory so far in MiB, and the machine's cores."""
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    mib = largest / (2**20 if sys.platform == "darwin" else 2**10)
    minutes = (time.monotonic() - started) / 60
    return {"minutes": minutes, "mib": mib, "cpus": os.cpu_count()}


def _describe(name: str, code: list[str], parameters: Mapping) -> dict:
    """What identifies a run: parameters, code, package, and the inputs that it names."""
    sources = sorted(Path(__file__).parents[1].rglob("*.py"))
    package = _hash([(file.name, file.read_text(encoding="utf-8")) for file in sources])
    inputs = {key: _input_hash(value) for key, value in parameters.items()}
    return {
        "notebook": name,
        "parameters": dict(parameters),
        "hash": _hash([parameters, code, package, inputs]),
        "package": package,
        "versions": _versions() | {"python": sys.version.split()[0]},
        "started": _now(),
        "finished": None,
    }


def _input_hash(value) -> str | None:
    """Hash of the corpus or earlier run whose folder a parameter names; None if it names none."""
    if isinstance(value, str) and value:
        for name in ("run.json", "manifest.json"):
            if (from_root(value) / name).is_file():
                return _hash((from_root(value) / name).read_text(encoding="utf-8"))
    return None


def _is_finished(folder: Path, about: Mapping) -> bool:
    state = _state(folder)
    same = bool(state.get("finished")) and state["hash"] == about["hash"]
    return same and (folder / "results.json").is_file()


def _prepare_folder(folder: Path, about: Mapping) -> None:
    """Keep the folder of the same, unfinished run; move another run there aside.

    NotebookError where the folder holds something that is no run: it is the user's.
    """
    state = _state(folder)
    resumes = state.get("hash") == about["hash"] and not state.get("finished")
    if not resumes and folder.is_dir() and any(folder.iterdir()):
        if not state:
            raise NotebookError(
                f"{folder} holds files and is no folder of a run: give a new or an empty folder"
            )
        names = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(1))
        aside = next(path for path in names if not path.exists())
        folder.rename(aside)
        print(f"{folder}: what was there is now {aside.name}")
    write_json(folder / "run.json", about)


def _state(folder: Path) -> dict:
    file = folder / "run.json"
    return read_json(file) if file.is_file() else {}


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in VERSIONS}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _hash(value) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _slug(point: Mapping) -> str:
    words = "_".join(f"{name}-{value}" for name, value in point.items())
    return re.sub(r"[^A-Za-z0-9._-]+", "-", words)[:80] + "_" + _hash(dict(point))[:8]


def _write_csv(path: Path, rows: list[dict]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
