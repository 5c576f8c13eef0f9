"""Stored notebooks take outputs of runs of their own code with their defaults, and no others."""

import copy
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from unite_core.notebook import storing
from unite_core.notebook.files import NotebookError

VERSIONS = {"python": "3.11.9", "torch": "2.9", "transformers": "4.57", "numpy": "2.3"}
COST = {"minutes": 12.34, "mib": 1234.5, "cpus": 2}


@pytest.fixture
def workbook(tmp_path, monkeypatch):
    """A workbook with one notebook that is not executed, and a finished run of it."""
    monkeypatch.setattr(storing, "project_root", lambda: tmp_path)
    monkeypatch.setattr(storing, "from_root", lambda name: tmp_path / name)
    parameters = 'steps: int = 3  # how many\noutput: str = ""  # folder'
    cells = [
        new_markdown_cell("# Does it learn?", id="title"),
        new_code_cell(parameters, id="given", metadata={"tags": ["parameters"]}),
        new_code_cell("steps", id="look"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    executed = copy.deepcopy(notebook)
    executed.cells[0].source = "# Did it learn?"
    executed.cells.insert(
        2, new_code_cell("steps = 3", id="in", metadata={"tags": ["injected-parameters"]})
    )
    executed.cells[3].outputs = [
        new_output("execute_result", {"text/plain": "3"}, execution_count=7)
    ]
    path, run = tmp_path / "notebooks" / "04_demo.ipynb", tmp_path / "runs" / "main" / "demo"
    for file in (path, run / "figures" / "04_demo_line.svg"):
        file.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    nbformat.write(executed, run / path.name)
    (run / "figures" / "04_demo_line.svg").write_text("<svg/>")
    state = {"notebook": "04_demo", "parameters": {"steps": 3}, "versions": VERSIONS}
    (run / "run.json").write_text(json.dumps(state | {"finished": "today"}))
    (run / "cost.json").write_text(json.dumps(COST))
    (run / "results.json").write_text(json.dumps({"loss": 0.123456, "steps": 3.0}))
    return path, run


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_outputs_go_to_the_cell_of_their_name_and_the_text_says_what_the_run_took(workbook):
    path, run = workbook
    storing.store_notebooks([], run.parent)
    title, given, look = nbformat.read(path, as_version=4).cells
    assert look.outputs[0].data == {"text/plain": "3"} and look.execution_count == 2
    assert not given.outputs
    first, measured = title.source.split("\n\n")
    assert first == "# Does it learn?", "texts are the notebook's own"
    assert measured.startswith("*Measured: 12.3 minutes and 1,234 MiB of memory on 2 CPU cores")
    assert "torch 2.9" in measured and "numpy" not in measured
    before = path.read_bytes()
    storing.store_notebooks([path], run)
    assert path.read_bytes() == before


def test_outputs_of_other_code_or_parameters_are_refused_with_the_remedy(workbook):
    path, run = workbook
    before = path.read_bytes()
    change(run / "run.json", parameters={"steps": 4})
    with pytest.raises(NotebookError, match=r"04_demo.ipynb: .* another steps .*make run"):
        storing.store_notebooks([], run.parent)
    change(run / "run.json", parameters={"steps": 3})
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].source = "steps + 1"
    nbformat.write(notebook, path)
    changed = path.read_bytes()
    with pytest.raises(NotebookError, match=r"04_demo.ipynb: code cell look .*run it again"):
        storing.store_notebooks([], run.parent)
    assert path.read_bytes() == changed != before
    del notebook.cells[2]
    nbformat.write(notebook, path)
    with pytest.raises(NotebookError, match="code cell look"):
        storing.store_notebooks([path], run.parent)


def test_a_notebook_that_is_named_needs_a_finished_run(workbook):
    path, run = workbook
    change(run / "run.json", finished=None)
    storing.store_notebooks([], run.parent)
    with pytest.raises(NotebookError, match=r"no finished run of 04_demo.ipynb: make run"):
        storing.store_notebooks([path], run.parent)


def test_results_of_runs_are_published_beside_those_of_others(workbook, tmp_path):
    _, run = workbook
    file = tmp_path / storing.NUMBERS
    file.parent.mkdir()
    file.write_text('{"05_other": {"loss": 2.0}, "04_demo": {"old": 1.0}}')
    for name in ("fit.txt", "fit.md"):
        (run / name).write_text("| a |\n")
    tables = "<!-- 04_demo: {0} -->\n\n{1}\n\n<!-- end -->\n"
    text = "{}<!-- 04_demo: loss -->\n"
    files = ("fit.txt", "fit.md", "none.md")
    (tmp_path / "README.md").write_text(
        text.format(0.42) + "".join(tables.format(name, "old") for name in files)
    )
    storing.publish_run(run.parent)
    now = ("```\n| a |\n```", "| a |", "old")
    assert (tmp_path / "README.md").read_text() == text.format(0.12) + "".join(
        tables.format(*each) for each in zip(files, now, strict=True)
    )
    assert storing.read_numbers() == {
        "04_demo": {"loss": 0.1235, "steps": 3.0},
        "05_other": {"loss": 2.0},
    }
    assert (tmp_path / "figures" / "04_demo_line.svg").is_file()


@pytest.mark.parametrize(
    ("stated", "right"),
    [("66.2 %", True), ("66 %", True), (".662", True), ("0.662", True), ("66.3", False),
     ("+66.2", True), (".66", True), ("67", False), ("6.62", False)],
)  # fmt: skip
def test_a_stated_number_is_that_of_the_run_in_its_own_digits(stated, right):
    numbers = {"06_scores": {"text → image": 0.66187}}
    text = f"Of all {stated}<!-- 06_scores: text → image --> are found, 12 are not."
    assert (storing.wrong_numbers(text, numbers) == []) == right
    (missing,) = storing.wrong_numbers(text.replace("→", "to"), numbers)
    assert "which is None" in missing


@pytest.mark.parametrize(
    ("stated", "now"),
    [("66.2", "54.3"), ("0.66", "0.54"), (".7", ".5"), ("+66 %", "+54 %"), ("1", "1")],
)
def test_numbers_are_stated_anew_in_their_form(stated, now):
    numbers = {"06_scores": {"text → image": 0.5432}, "09_modality_gap": {"n": 249.0}}
    text = f"Of 12 {stated}<!-- 06_scores: text → image --> are found; no 3<!-- 06_scores: x -->."
    new = storing.restated(text, numbers)
    if stated != "1":
        assert new == text.replace(stated, now, 1)
    assert storing.restated(new, numbers) == new, "once is enough"
    (missing,) = storing.wrong_numbers(new, numbers)
    assert missing.startswith("3 is not 06_scores: x")
