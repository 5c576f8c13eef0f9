"""The batch door: wrong parameters are refused, results come back, finished runs stay finished."""

import base64
import csv
import io
import json
import os
import random
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from unite_core.notebook import runs, storing
from unite_core.notebook.files import (
    NotebookError,
    ParameterError,
    check_parameters,
    clean_notebook,
    parameter_names,
    parse_parameters,
)
from unite_core.notebook.runs import open_run, project_root, run_notebook, seed_everything, sweep

PARAMETERS = """\
steps: int = 3  # how many
rate: float = 0.5  # how fast
name: str = "a"
flag: bool = False
sizes: list[int] = [1, 2]
start: str = ""  # folder of an earlier run
output: str = ""  # folder of this run"""
OPEN = 'from unite_core import notebook\nrun = notebook.open_run("demo", globals())'
BODY = """\
from pathlib import Path
count = run.folder / "count"
count.write_text(count.read_text() + "x" if count.exists() else "x")
if name == "fail":
    raise RuntimeError("no more")"""
SAVE = 'run.save({"steps": steps, "rate": rate, "at_home": Path("home").exists()})'


@pytest.fixture
def notebook(tmp_path):
    (tmp_path / "home").touch()  # only there if the kernel works in the notebook's folder
    return write_notebook(tmp_path / "demo {x}.ipynb")


def write_notebook(path, parameters=PARAMETERS, cells=(OPEN, BODY, SAVE)):
    head = [new_markdown_cell("# Does it run?")]
    head += [new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = head + [new_code_cell(cell) for cell in cells]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def run_quietly(*arguments, **more):
    return run_notebook(*arguments, progress=False, **more)


@pytest.mark.slow
def test_results_come_back_and_a_finished_run_is_not_repeated(notebook, tmp_path, capsys):
    out = tmp_path / "runs" / "one"
    results = run_quietly(notebook, {"steps": 7, "rate": 2}, out)
    assert results == {"steps": 7.0, "rate": 2.0, "at_home": 1.0}
    files = {file.name for file in out.iterdir()}
    assert files == {"demo {x}.ipynb", "results.json", "cost.json", "run.json", "count"}
    state = json.loads((out / "run.json").read_text())
    assert state["parameters"]["steps"] == 7
    assert state["parameters"]["name"] == "a", "defaults are recorded too"
    assert state["finished"] and "torch" in state["versions"]

    assert run_quietly(notebook, {"steps": 7, "rate": 2}, out) == results
    assert "not repeated" in capsys.readouterr().out
    assert (out / "count").read_text() == "x"

    run_quietly(notebook, {"steps": 8, "rate": 2}, out)  # another run: the first is set aside
    assert (out / "count").read_text() == "x"
    assert json.loads((tmp_path / "runs" / "one.1" / "results.json").read_text()) == results


@pytest.mark.slow
def test_a_failed_run_is_kept_and_continued(notebook, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(NotebookError, match=r"stopped in cell 5: RuntimeError: no more"):
        run_quietly(notebook, {"name": "fail"}, out)
    assert (out / "demo {x}.failed.ipynb").is_file()
    assert not (out / "demo {x}.ipynb").exists()
    assert not (out / "results.json").exists()
    with pytest.raises(NotebookError):
        run_quietly(notebook, {"name": "fail"}, out)
    assert (out / "count").read_text() == "xx", "the same unfinished run goes on in its folder"


@pytest.mark.slow
def test_command_line_runs_with_typed_parameters(notebook, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "unite_core", "run", str(notebook), str(out)]
    given = ["-p", "steps", "5", "-p", "rate", "1", "-p", "name", "7", "-p", "sizes", "[3]"]
    done = subprocess.run([*command, *given], capture_output=True, text=True, check=True)
    assert "Executing" in done.stderr, "progress is visible"
    assert "steps    5.000" in done.stdout, "what the notebook prints is visible"
    assert json.loads((out / "run.json").read_text())["parameters"]["name"] == "7"
    refused = subprocess.run([*command, "-p", "stepz", "5"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "parameter stepz does not exist; it takes; steps: int = 3 how many" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_sweep_has_one_run_and_one_row_per_point(notebook, tmp_path):
    rows = sweep(notebook, {"steps": [1, 2], "name": ["a/b"]}, tmp_path / "out", progress=False)
    assert [row["steps"] for row in rows] == [1.0, 2.0]
    with (tmp_path / "out" / "sweep.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == ["a/b", "a/b"]
    assert len(list((tmp_path / "out").glob("steps-*_name-a-b_*/results.json"))) == 2


@pytest.mark.slow
def test_a_notebook_without_results_is_an_error(tmp_path):
    notebook = write_notebook(tmp_path / "demo.ipynb", cells=("pass",))
    with pytest.raises(NotebookError, match="ended without run.save"):
        run_quietly(notebook, {}, tmp_path / "out")
    assert not json.loads((tmp_path / "out" / "run.json").read_text())["finished"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stepz": 1}, "parameter stepz does not exist; it takes\n  steps: int = 3  how many"),
        ({"steps": 1.5}, "parameter steps = 1.5 is not int"),
        ({"steps": True}, "parameter steps = True is not int"),
        ({"rate": "1"}, "parameter rate = '1' is not float"),
        ({"name": 3}, "parameter name = 3 is not str"),
        ({"flag": 1}, "parameter flag = 1 is not bool"),
        ({"sizes": 3}, "parameter sizes = 3 is not list"),
        ({"output": "x"}, "parameter output is the run's folder"),
    ],
)
def test_parameters_are_checked_before_anything_runs(notebook, tmp_path, given, message):
    with pytest.raises(ParameterError) as refusal:
        run_notebook(notebook, given, tmp_path / "out")
    assert message in str(refusal.value) and str(notebook) in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_parameters_are_completed_and_read(notebook, tmp_path):
    assert check_parameters(notebook, {"rate": 1, "sizes": []}) == {
        "steps": 3, "rate": 1, "name": "a", "flag": False, "sizes": [], "start": "",
    }  # fmt: skip
    words = {"steps": "4", "rate": "1e-4", "name": "5", "flag": "True", "sizes": "[5]"}
    assert parse_parameters(notebook, words) == {
        "steps": 4, "rate": 1e-4, "name": "5", "flag": True, "sizes": [5],
    }  # fmt: skip
    names = ["steps", "rate", "name", "flag", "sizes", "start", "output"]
    assert parameter_names(notebook) == names
    optional = write_notebook(
        tmp_path / "optional.ipynb", 'limit: Optional[int] = None\noutput: str = ""'
    )
    assert check_parameters(optional, {"limit": 3}) == {"limit": 3}
    with pytest.raises(ParameterError, match="limit = 'x' is not Optional"):
        check_parameters(optional, {"limit": "x"})
    without = write_notebook(tmp_path / "without.ipynb", "steps: int = 3")
    with pytest.raises(ParameterError, match="needs the line output: str"):
        check_parameters(without, {})
    with pytest.raises(NotebookError, match="no such notebook"):
        check_parameters(tmp_path / "absent.ipynb", {})


def test_the_same_run_depends_on_parameters_code_and_inputs(tmp_path):
    def identity(code=("x = 1",), **parameters):
        return runs._describe("demo", list(code), parameters)["hash"]

    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "manifest.json").write_text("{}")
    first = identity(start=str(earlier), steps=1)
    assert identity(steps=1, start=str(earlier)) == first
    assert identity(start=str(earlier), steps=2) != first
    assert identity(code=["x = 2"], start=str(earlier), steps=1) != first
    (earlier / "manifest.json").write_text('{"n": 1}')
    assert identity(start=str(earlier), steps=1) != first


def test_interactive_runs_have_their_own_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNITE_RUNS", str(tmp_path))
    run = open_run("demo", {"steps": 3})
    assert run.folder == tmp_path / "interactive" / "demo"
    (run.folder / "checkpoint").touch()
    assert (open_run("demo", {"steps": 3}).folder / "checkpoint").is_file()
    assert open_run("demo", {"output": str(tmp_path / "x")}).folder == tmp_path / "x"
    assert "torch" in capsys.readouterr().out


def test_results_are_flat_finite_numbers(tmp_path, capsys):
    run = runs.Run("demo", tmp_path)
    run.save({"recall@1": np.float32(0.25), "n": 12})
    assert json.loads((tmp_path / "results.json").read_text()) == {"recall@1": 0.25, "n": 12.0}
    assert capsys.readouterr().out == "recall@1  0.250\nn         12.000\n"
    for bad in (float("nan"), float("inf"), "0.5", {"a": 1}):
        with pytest.raises(ValueError, match="result 'loss' is .* finite numbers"):
            run.save({"loss": bad})
    run.text("table.txt", "a\nb\n\n")
    assert (tmp_path / "table.txt").read_text() == "a\nb\n"


def test_figures_are_byte_equal_for_equal_input(tmp_path):
    contents = []
    for _ in range(2):
        figure, ax = plt.subplots()
        ax.plot([0, 1], [1, 0], label="a")
        ax.legend()
        run = runs.Run("demo", tmp_path)
        run.figure("line", ax)
        plt.close(figure)
        files = sorted((tmp_path / "figures").iterdir())
        assert [file.name for file in files] == ["demo_line.png", "demo_line.svg"]
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    assert b"<dc:date>" not in contents[0][1]
    with pytest.raises(ValueError, match="small letters"):
        run.figure("../line", ax)


def test_cleaned_notebooks_keep_what_readers_need_and_nothing_else(tmp_path):
    path = tmp_path / "demo.ipynb"
    drawn = io.BytesIO()
    shades = np.linspace(0, 255, 90 * 90 * 3).reshape(90, 90, 3).astype(np.uint8)
    Image.fromarray(shades).save(drawn, "PNG")
    picture = base64.b64encode(drawn.getvalue()).decode()
    outputs = [
        new_output("stream", name="stdout", text="<object at 0x7fabc>\n"),
        new_output("stream", name="stderr", text="warning"),
        new_output("execute_result", {"text/plain": "<f at 0x12>"}, execution_count=31),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}}),
        new_output("display_data", {"image/png": picture}, metadata={"needs_background": "light"}),
    ]
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("a = 1", metadata={"tags": ["parameters"], "papermill": {"duration": 1}}),
        new_code_cell("a = 2", metadata={"tags": ["injected-parameters"]}),
        new_code_cell("a", outputs=outputs, execution_count=31),
    ]
    about = {
        "papermill": {"duration": 3},
        "widgets": {"state": {}},
        "kernelspec": {"name": "x", "display_name": "X"},
    }
    nbformat.write(new_notebook(cells=cells, metadata=about), path)
    clean_notebook(path)
    text = path.read_text()
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for dropped in ("papermill", "widget", "0x", "injected", "stderr", ": 31", "light"):
        assert dropped not in text
    assert [cell.get("execution_count") for cell in notebook.cells] == [None, 1, 2]
    assert notebook.cells[1].metadata == {"tags": ["parameters"]}
    kinds = [output.output_type for output in notebook.cells[2].outputs]
    assert kinds == ["stream", "execute_result", "display_data"]
    assert len(notebook.cells[2].outputs[2].data["image/png"]) <= len(picture)
    clean_notebook(path)
    assert path.read_text() == text


def test_seeds_reach_all_generators():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    seed_everything(3)
    first = draw()
    assert draw() != first
    seed_everything(3)
    assert draw() == first


def test_project_root_holds_the_workbook():
    assert (project_root() / "unite_core" / "notebook" / "runs.py").is_file()
    assert os.fspath(runs.from_root("data")) == os.fspath(project_root() / "data")


def test_an_installed_package_works_in_the_current_folder(tmp_path):
    ignored = shutil.ignore_patterns("*.safetensors", "__pycache__")
    site, here = tmp_path / "site-packages", tmp_path / "here"
    shutil.copytree(project_root() / "unite_core", site / "unite_core", ignore=ignored)
    here.mkdir()
    code = (
        "from unite_core import notebook;"
        "print(notebook.__file__); print(notebook.project_root(), notebook.from_root('data'));"
        "print(notebook.open_run('demo', {}).folder)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "UNITE_RUNS"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True,
        env=environment | {"PYTHONPATH": str(site)},
    )  # fmt: skip
    file, roots, *_, folder = done.stdout.splitlines()
    assert file.startswith(str(site)), "the copy is what was imported"
    assert roots == f"{here} {here / 'data'}"
    assert folder == str(here / "runs" / "interactive" / "demo")


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["killed", "missing"])
def test_a_kernel_that_dies_or_does_not_start_is_a_notebook_error(tmp_path, broken):
    notebook = write_notebook(
        tmp_path / "demo.ipynb", cells=("import os, signal", "os.kill(os.getpid(), signal.SIGKILL)")
    )
    if broken == "missing":
        content = json.loads(notebook.read_text())
        content["metadata"]["kernelspec"]["name"] = "no-such-kernel"
        notebook.write_text(json.dumps(content))
    with pytest.raises(NotebookError, match="kernel did not start or died"):
        run_quietly(notebook, {}, tmp_path / "out")
    assert (tmp_path / "out" / "demo.failed.ipynb").is_file()
    assert not json.loads((tmp_path / "out" / "run.json").read_text())["finished"]


def test_a_folder_of_the_user_s_is_left_alone(notebook, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(NotebookError, match="is no folder of a run"):
        run_quietly(notebook, {}, folder)
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]
    with pytest.raises(FileNotFoundError, match="no figures of a run"):
        storing.publish_run(folder)


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_kernel_that_dies_before_its_first_reply_is_started_again_once(
    notebook, tmp_path, monkeypatch, deaths
):
    starts = []

    def execute(path, out, parameters, **how):
        starts.append(path)
        if len(starts) <= deaths:
            raise RuntimeError("Kernel died before replying to kernel_info")
        shutil.copyfile(notebook, tmp_path / "out" / "demo {x}.partial.ipynb")
        (tmp_path / "out" / "results.json").write_text("{}")

    monkeypatch.setattr("papermill.execute_notebook", execute)
    if deaths == 1:
        assert run_quietly(notebook, {}, tmp_path / "out") == {}
    else:
        with pytest.raises(NotebookError, match="did not start"):
            run_quietly(notebook, {}, tmp_path / "out")
    assert len(starts) == 2
