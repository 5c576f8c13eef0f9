"""Packages import downwards only, loss and gap stand alone, heavy libraries load where used."""

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import unite_core

PACKAGE = Path(unite_core.__file__).parent
# Lowest first. A package may import those of the lines above its own, and what it adds below.
LAYERS = (
    {"files", "distributed", "registry", "tables", "versions"},
    {"settings"},
    {"loss", "gap", "data"},
    {"model"},
    {"train", "search", "corpora", "curate", "export"},
    {"evaluation", "tiny"},
    {"study"},
    {"plots"},
    {"notebook"},
    {"cli"},
    {"__main__"},
)
STANDS_ALONE = {"loss", "gap"}  # import nothing of ours, so that they can be used for themselves
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}
DRAWING = {"IPython", "ipywidgets", "matplotlib"}  # in plots and notebook only
LAZY = {
    "accelerate", "av", "datasets", "datasketch", "faiss", "ir_measures", "matplotlib", "mteb",
    "jscatter", "orjson", "pandas", "papermill", "peft", "py3langid", "pyarrow", "pymetis",
    "sentence_transformers", "sklearn", "transformers", "triton", "umap", "zstandard",
}  # fmt: skip
# modules that are loaded only by those who want just that
EAGER_ALLOWED = {
    "export.st_module", "loss.triton_kernels", "plots", "tiny.pretrain", "train.callbacks",
    "train.for_sentence_transformers", "train.run", "train.trainer",
}  # fmt: skip


def sources():
    """(dotted name below unite_core, file) of every module but the package's own face."""
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        if name != "__init__":
            yield name.removesuffix(".__init__"), file


def imported(file, top_level_only=False):
    """Absolute dotted names of what a file imports; types that are only checked do not count."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = ["unite_core", *file.relative_to(PACKAGE).parts[:-1]]
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            yield from (".".join([*base, alias.name]) for alias in node.names)


def ours(file):
    """Packages of ours that a file imports."""
    names = (name.split(".") for name in imported(file))
    return {parts[1] for parts in names if parts[0] == "unite_core" and parts[1] in LAYER}


def test_every_package_has_a_layer():
    found = {name.split(".")[0] for name, _ in sources()}
    assert found == set(LAYER), "LAYERS lists the packages in the order of their imports"


def test_imports_never_point_up_nor_between_packages_of_a_layer():
    wrong = [
        f"{name} -> {target}"
        for name, file in sources()
        for target in ours(file) - {name.split(".")[0]}
        if LAYER[target] >= LAYER[name.split(".")[0]] > 0
    ]
    assert not wrong
    assert "data" in ours(PACKAGE / "model" / "processor.py"), "the walk finds imports"


def test_loss_and_gap_stand_alone():
    for name, file in sources():
        package = name.split(".")[0]
        if package in STANDS_ALONE:
            assert ours(file) <= {package}, f"{name} imports {ours(file)}"
            third = {found.split(".")[0] for found in imported(file)} & {"torch", "numpy", "scipy"}
            assert third <= ({"torch"} if package == "loss" else {"numpy", "scipy"}) | {"numpy"}


def test_modules_never_import_in_a_circle():
    names = {name for name, _ in sources()}
    graph = {}
    for name, file in sources():
        found = set()
        for target in imported(file, top_level_only=True):
            target = target.removeprefix("unite_core.")
            found |= {target, target.rpartition(".")[0]} & names - {name}
        # a face is made of its modules; what a module needs of its own face does not exist
        graph[name] = {target for target in found if not name.startswith(f"{target}.")}
    assert list(TopologicalSorter(graph).static_order())


def test_drawing_stays_in_plots_and_notebooks():
    for name, file in sources():
        drawn = {found.split(".")[0] for found in imported(file)} & DRAWING
        assert not drawn or name.split(".")[0] in ("plots", "notebook"), f"{name} imports {drawn}"


def test_heavy_libraries_are_imported_where_they_are_used():
    for name, file in sources():
        heavy = {found.split(".")[0] for found in imported(file, top_level_only=True)} & LAZY
        allowed = name in EAGER_ALLOWED or name.split(".")[0] in EAGER_ALLOWED
        assert not heavy or allowed, f"{name} imports {heavy} at the top"


def test_no_module_imports_a_private_name_of_another():
    for name, file in sources():
        for found in imported(file):
            last = found.rpartition(".")[2]
            private = found.startswith("unite_core") and last.startswith("_")
            assert not private or last.endswith("__"), f"{name} imports {found}"


@pytest.mark.parametrize("package", sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py")))
def test_a_package_has_a_face(package):
    face = importlib.import_module(f"unite_core.{package}")
    file = PACKAGE / package / "__init__.py"
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 40 or package == "cli"
    assert face.__doc__ and face.__all__
    for name in face.__all__:
        found = getattr(face, name)
        # a function that hides the module of its name would depend on what was imported first
        is_module = (PACKAGE / package / f"{name}.py").exists()
        assert not is_module or isinstance(found, ModuleType), f"{package}.{name} is a module, too"


def test_sources_keep_to_the_budget():
    for name, file in sources():
        text = file.read_text(encoding="utf-8")
        assert len([line for line in text.splitlines() if line.strip()]) <= 330, f"split {name}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{name}: {node.name} is too long"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "seconds"),
    [("import unite_core", 0.3), ("import sys; sys.argv = ['unite', '--help']; "
      "import runpy, contextlib; c = contextlib.suppress(SystemExit); c.__enter__(); "
      "runpy.run_module('unite_core', run_name='__main__')", 0.3)],
    ids=["package", "help"],
)  # fmt: skip
def test_the_package_and_its_help_load_quickly_and_lightly(code, seconds):
    timed = (
        "import atexit, sys, time; start = time.process_time(); "
        "atexit.register(lambda: print('\\n', time.process_time() - start, *sorted(sys.modules))); "
    )
    done = subprocess.run(
        [sys.executable, "-c", timed + code], capture_output=True, text=True, check=True
    )
    spent, *modules = done.stdout.splitlines()[-1].split()
    assert float(spent) < seconds
    assert not {"torch", "transformers", "numpy", "pydantic", *LAZY} & set(modules)
