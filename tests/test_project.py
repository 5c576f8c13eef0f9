"""What is declared agrees with itself: packages, pins, conda's front door, commands."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from unite_core.notebook.files import parameter_names
from unite_core.notebook.runs import project_root
from unite_core.study import STUDIES, runs_of

ROOT = project_root()
CARD = {
    "torch", "transformers", "peft", "jupyterlab", "ipywidgets", "matplotlib", "umap-learn",
    "papermill", "nbval",
}  # fmt: skip
TARGETS = {
    "controls",
    "study",
    "run",
    "test",
    "test-browser",
    "lab",
    "app",
    "notebooks",
    "figures",
    "bench",
    "book",
    "gpu-check",
    "lint",
    "clean",
}


def canonical(requirement):
    """`"Umap_Learn>=0.5"` to `"umap-learn"`."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower()


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonical(line): line.split("==")[1] for line in lines}


def direct(project):
    """Every requirement of the package and of all its extras, but itself."""
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [line for group in groups for line in group if canonical(line) != project["name"]]


def test_every_direct_dependency_is_pinned_at_or_above_its_floor(project, pins):
    for requirement in direct(project):
        pinned = pins[canonical(requirement)]
        floor = re.search(r">=([0-9.]+)", requirement)
        assert floor, f"{requirement} states no lowest version"
        assert numbers(pinned) >= numbers(floor[1]), requirement


def numbers(version):
    return [int(part) for part in re.findall(r"\d+", version)]


def test_constraints_are_names_and_exact_versions():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)
    names = [canonical(line) for line in lines]
    assert len(set(names)) == len(names) > 100
    assert not {"pip", "setuptools", "unite-workbook"} & set(names)


def test_the_design_card_s_packages_are_there(project, pins):
    everything = {canonical(requirement) for requirement in direct(project)}
    assert set(pins) >= CARD
    assert everything >= CARD
    extras = project["optional-dependencies"]
    groups = re.findall(r"\[(.+)\]", extras["all"][0])[0].split(",")
    assert set(groups) == set(extras) - {"all", "node", "quantize"}


def test_conda_installs_the_same(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert environment["name"] == project["name"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[all]"]}
    python = next(line.split("=")[1] for line in conda if line.startswith("python="))
    assert numbers(python) == numbers(project["requires-python"])


def test_no_file_names_a_registry():
    hosts = re.compile(r"(pypi|npmjs|pythonhosted|anaconda|download\.pytorch)\.(org|com)")
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    texts = [f for f in files if f.endswith((".py", ".md", ".toml", ".txt", ".yml", ".ipynb"))]
    texts += ["Makefile", "Snakefile", ".ci/run"]
    assert len(texts) > 20
    for name in texts:
        found = hosts.search((ROOT / name).read_text(encoding="utf-8"))
        assert not found, f"{name} names {found}"


def test_make_has_its_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) == TARGETS
    assert set(re.search(r"^\.PHONY:(.*)", makefile, re.MULTILINE)[1].split()) == TARGETS
    for target in TARGETS:
        command = ["make", "--dry-run", target]
        planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert planned.stdout.strip()


def test_continuous_integration_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")


@pytest.fixture
def workbook(tmp_path):
    """A workbook of stand-in notebooks with the real Snakefile, and the command that runs it."""
    (tmp_path / "Snakefile").write_text((ROOT / "Snakefile").read_text(encoding="utf-8"))
    (tmp_path / "data" / "shapes").mkdir(parents=True)
    (tmp_path / "data" / "shapes" / "manifest.json").write_text("{}")
    for notebook in (ROOT / "notebooks").glob("[01]*.ipynb"):
        write_stand_in(tmp_path / "notebooks" / notebook.name)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--rerun-incomplete"]
    environment = os.environ | {"UNITE_RUNS": str(tmp_path / "runs")}
    return tmp_path, [*command, "--config", "corpus=shapes"], {"cwd": tmp_path, "env": environment}


def write_stand_in(path):
    """With its notebook's parameters; counts how often it was started, and waits in stage 1."""
    parameters = nbformat.read(ROOT / "notebooks" / path.name, as_version=4).cells[1].source
    body = f"""
import time
from pathlib import Path
from unite_core import notebook
run = notebook.open_run("{path.stem}", globals())
checkpoint = run.folder / "checkpoint"
checkpoint.write_text(checkpoint.read_text() + "x" if checkpoint.exists() else "x")
while "{path.stem}" == "04_stage_1" and not Path("go").exists():
    time.sleep(0.1)
run.save({{"starts": len(checkpoint.read_text())}})"""
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[*cells, new_code_cell(body)], metadata={"kernelspec": kernel})
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)


@pytest.mark.slow
def test_a_killed_workbook_goes_on_where_it_was(workbook):
    folder, command, where = workbook
    runs = folder / "runs" / "shapes"
    killed = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, **where)
    try:
        wait_for(runs / "stage1" / "checkpoint")
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    assert not (runs / "stage1" / "results.json").exists()
    (folder / "notebooks" / "go").touch()
    subprocess.run([*command, "--unlock"], check=True, capture_output=True, **where)
    done = subprocess.run(command, capture_output=True, text=True, **where)
    assert done.returncode == 0, done.stderr
    assert json.loads((runs / "stage1" / "results.json").read_text()) == {"starts": 2}
    for stage in ("stage2", "evaluation", "gap", "tour", "inside", "loss_by_hand", "search"):
        assert json.loads((runs / stage / "results.json").read_text())["starts"] <= 2
    finished = (runs / "stage1" / "run.json").read_text()
    again = subprocess.run(command, check=True, capture_output=True, text=True, **where)
    assert "Nothing to be done" in again.stdout + again.stderr
    assert (runs / "stage1" / "run.json").read_text() == finished


def wait_for(file, seconds=60):
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, f"{file} did not appear"
        time.sleep(0.1)


@pytest.mark.slow
def test_two_runs_of_a_study_are_made_side_by_side_with_all_that_they_go_on_from(workbook):
    folder, command, where = workbook
    made = folder / "runs" / "study" / "mask-smoke"
    rows = {arm: made / "runs" / f"{arm}-0" / "row.json" for arm in ("mamcl", "info_nce")}
    target = [*command, "size=smoke", "--", *map(str, rows.values())]
    done = subprocess.run(target, capture_output=True, text=True, **where)
    assert done.returncode == 0, done.stderr
    for arm, path in rows.items():
        row = json.loads(path.read_text())
        assert row["arm"] == arm and row["threads"] == 1
    assert {path.name for path in (made / "stage1").iterdir()} == {"0", "0.done"}
    assert (made / "stage1" / "0" / "model" / "config.json").is_file()


@pytest.mark.slow
def test_a_study_can_be_sent_to_slurm(workbook):
    _, command, where = workbook
    command = [word for word in command if word not in ("--cores", "2")]
    options = ["--executor", "slurm", "--jobs", "50", "--dry-run"]
    plan = [*command[:3], *options, *command[3:], "size=smoke", "--", "study"]
    done = subprocess.run(plan, capture_output=True, text=True, **where)
    assert done.returncode == 0, done.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    runs = [
        len(list(runs_of(study, study.sizes["smoke"])))
        for study in map(STUDIES.__getitem__, STUDIES)
    ]
    assert int(counts["study_run"]) == sum(runs) and len(runs) == 3


@pytest.mark.slow
def test_the_workbook_passes_parameters_that_its_notebooks_have(workbook):
    _, command, where = workbook
    commands = []
    for target in ("all", "controls", "study"):
        plan = [*command, "--dry-run", "--printshellcmds", "--", target]
        planned = subprocess.run(plan, capture_output=True, text=True, check=True, **where).stdout
        commands += re.findall(r"unite_core run (notebooks/\S+) (.*)", planned)
    stored = {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("[01]*.ipynb")}
    assert {notebook for notebook, _ in commands} == stored
    for notebook, given in commands:
        assert set(re.findall(r"-p (\w+)", given)) <= set(parameter_names(ROOT / notebook))


@pytest.mark.slow
def test_no_value_of_a_configuration_reaches_the_shell_as_a_command(workbook):
    folder, command, where = workbook
    where["env"]["UNITE_RUNS"] = str(folder / "runs of mine $(touch caught)")
    (folder / "notebooks" / "go").touch()
    target = where["env"]["UNITE_RUNS"] + "/shapes/tour/results.json"
    done = subprocess.run([*command, "--", target], capture_output=True, text=True, **where)
    assert done.returncode == 0, done.stderr
    assert json.loads(Path(target).read_text()) == {"starts": 1}
    refused = subprocess.run(
        [*command, "seed=0; touch caught", "--dry-run"], capture_output=True, text=True, **where
    )
    assert refused.returncode != 0 and "invalid literal for int" in refused.stdout + refused.stderr
    assert not list(folder.rglob("caught"))
