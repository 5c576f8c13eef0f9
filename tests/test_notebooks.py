"""The anatomy of the stored notebooks, and that they and the texts state the runs' numbers."""

import ast
import re
from statistics import median

import nbformat
import pytest

from unite_core.notebook.files import clean_notebook, parameter_names, read_parameters
from unite_core.notebook.runs import project_root
from unite_core.notebook.storing import STATING, read_numbers, wrong_numbers

NOTEBOOKS = sorted((project_root() / "notebooks").glob("*.ipynb"))
ABSOLUTE = re.compile(r"(?<![\w.:/])/(work|home|root|tmp|usr|Users|content|mnt)/")
pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="no notebook is stored yet")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def code_lines(cell):
    return [line for line in cell.source.splitlines() if line.strip()]


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def test_the_name_says_number_and_subject(path):
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)


def test_it_opens_with_a_question(notebook):
    title, *rest = prose_cells(notebook)[0].source.splitlines()
    assert notebook.cells[0].cell_type == "markdown"
    assert title.startswith("# ") and title.endswith("?"), title
    assert len(" ".join(rest).split()) >= 15, "an answer in a paragraph follows the question"


def test_parameters_are_the_second_cell_and_all_of_them_can_be_set(path, notebook):
    (cell,) = tagged(notebook, "parameters")
    assert cell is notebook.cells[1]
    known = read_parameters(path)
    assert list(known) == parameter_names(path), "papermill cannot read some line: keep it plain"
    assert known["output"]["default"] == '""' and "seed" in known
    for name, parameter in known.items():
        ast.literal_eval(parameter["default"])
        assert parameter["inferred_type_name"] != "None", f"{name} has no type"
        assert parameter["help"], f"{name} has no help"
    assert not tagged(notebook, "injected-parameters")


def test_the_run_is_opened_third_and_saved_last(path, notebook):
    third = notebook.cells[2].source
    assert f'open_run("{path.stem}", globals())' in third and "seed_everything(seed)" in third
    assert "run.save(" in code_cells(notebook)[-1].source


def test_cells_are_short(notebook):
    lengths = [len(code_lines(cell)) for cell in code_cells(notebook)]
    assert max(lengths) <= 25
    assert median(lengths) <= 9
    assert 20 <= len(notebook.cells) <= 35
    assert sum(len(cell.source.split()) for cell in prose_cells(notebook)) <= 1300


def test_few_names_are_imported_from_us(notebook):
    names = [
        name.name
        for cell in code_cells(notebook)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unite_core")
        for name in node.names
    ]
    assert len(names) <= 8, names


def test_prose_is_markdown_and_exercises_have_solutions(notebook):
    for cell in code_cells(notebook):
        hidden = {"hide-input", "hide-cell"} & set(cell.metadata.get("tags", []))
        assert hidden or not re.search(r"Markdown\(\s*f[\"']", cell.source), cell.source
    texts = [cell.source for cell in prose_cells(notebook)]
    assert any("## Exercises" in text for text in texts)
    assert tagged(notebook, "hide-cell") or any("<details>" in text for text in texts)


def test_something_is_claimed_and_checked(notebook):
    assert any(re.search(r"^\s*assert ", cell.source, re.M) for cell in code_cells(notebook))


def test_no_definition_is_long(notebook):
    for cell in code_cells(notebook):
        source = "\n".join(line for line in cell.source.splitlines() if line[:1] not in "%!")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert node.end_lineno - node.lineno < 12, f"move {node.name} to unite_core"


def test_no_machine_shows(notebook):
    for cell in notebook.cells:
        shown = cell.source + "".join(
            str(o) for o in cell.get("outputs", ()) if "png" not in str(o)
        )
        assert not ABSOLUTE.search(shown), cell.source
    assert not re.search(r"\bpip install\b", str(notebook.cells))


def test_stored_outputs_are_whole_clean_and_small(path, notebook, tmp_path):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs, "stored notebooks show their results: make run notebooks"
    assert not [output for output in outputs if output.output_type == "error"]
    assert path.stat().st_size <= 600_000
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    clean_notebook(copy)
    assert copy.read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), "make notebooks"


def test_stored_numbers_are_those_of_the_published_runs(path, notebook):
    """The last cell prints the results, which `unite notebooks publish` writes to figures/."""
    published = read_numbers().get(path.stem)
    if published is None:
        pytest.skip("no run of it is published")
    text = "".join(output.get("text", "") for output in code_cells(notebook)[-1].outputs)
    printed = dict(re.findall(r"^(.*?) +(-?[\d.]+)$", text, re.MULTILINE))
    assert published.keys() <= printed.keys(), "store and publish the same run"
    for name, value in published.items():
        assert float(printed[name]) == pytest.approx(value, rel=1e-3, abs=6e-4), name


@pytest.mark.skipif(not read_numbers(), reason="no run is published")
@pytest.mark.parametrize("text", STATING)
def test_texts_state_the_numbers_of_the_published_runs(text):
    assert not wrong_numbers((project_root() / text).read_text(encoding="utf-8"), read_numbers())
