"""Imports point down, never in a circle, and heavy or drawing libraries stay where they belong."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from unite_core.notebook.runs import project_root

PACKAGE = project_root() / "unite_core"
LAYERS = (
    {"atomic", "config", "durable", "jsonfile", "jsonrows", "modality", "readers", "threads"},
    {"claim", "contest", "contrast", "correct", "fused", "gap", "gather", "gradcache"}
    | {"lora_product", "loss", "media", "packages", "pixels", "prompts", "records", "scenes"}
    | {"shapes", "shard"},
    {"batches", "by_hand", "checkpoint", "curate", "decoder", "embedder", "embedding", "emoji"}
    | {"index", "items", "media_reader", "mixed_pool", "objective", "pairs", "plan", "positions"}
    | {"processor", "ranking", "read_ahead", "retrieval", "sampling", "tiny", "umap_view"}
    | {"vector_files", "vision"},
    {"baselines", "benchmark_runs", "benchmark_tasks", "composition", "confusion", "encode"}
    | {"evaluate", "evaluate_benchmark", "export", "export_text", "inside", "mine", "mteb_adapter"}
    | {"mteb_tasks", "notebook_files", "pretrain", "pretrain_vision", "published", "scores"}
    | {"search", "significance", "st_module", "train"},
    {"curate.__main__", "emoji.__main__", "explore", "explore_search", "gap_study", "plots"}
    | {"plots_curation", "plots_evaluation", "plots_gap", "plots_inside", "plots_loss"}
    | {"plots_published", "plots_training", "runs", "workbook"},
)
LAYER = {module: number for number, modules in enumerate(LAYERS) for module in modules}
DRAWING = {"IPython", "ipywidgets", "matplotlib"}
DRAWERS = {
    "explore",
    "explore_search",
    "plots",
    "plots_curation",
    "plots_evaluation",
    "plots_gap",
    "plots_inside",
    "plots_loss",
    "plots_published",
    "plots_training",
    "runs",
}
LAZY = {
    "accelerate",
    "av",
    "datasets",
    "datasketch",
    "faiss",
    "ir_measures",
    "matplotlib",
    "mteb",
    "orjson",
    "papermill",
    "peft",
    "py3langid",
    "pyarrow",
    "sentence_transformers",
    "transformers",
    "triton",
    "umap",
    "zstandard",
}
# loaded by those who want just that
EAGER_ALLOWED = {
    "fused",
    "plots",
    "plots_curation",
    "plots_evaluation",
    "plots_gap",
    "plots_inside",
    "plots_loss",
    "plots_published",
    "plots_training",
    "pretrain",
    "st_module",
    "train",
}


def sources():
    """(module of LAYERS or "__init__", file) of every source file of the package.

    A folder is one module, but its command, `__main__`, stands above what it calls.
    """
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts) if parts[-1] == "__main__" else parts[0], file


def imported(file, top_level_only=False):
    """Absolute names of what a file imports, as lists of parts."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = ["unite_core", *file.relative_to(PACKAGE).parts[:-1]]
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            yield from (base + [alias.name] for alias in node.names)


def edges():
    """module -> the modules of the package that it imports."""
    graph = {}
    for module, file in sources():
        targets = {name[1] for name in imported(file) if name[0] == "unite_core" and len(name) > 1}
        graph.setdefault(module, set()).update(targets & set(LAYER) - {module})
    return graph


def test_every_module_has_a_layer():
    modules = {module for module, _ in sources()} - {"__init__"}
    assert modules <= set(LAYER), "add new modules to LAYERS"
    assert {"modality", "records", "embedder", "runs"} <= modules, "the walk finds the package"


def test_imports_never_point_up():
    upward = [
        f"{module} -> {target}"
        for module, targets in edges().items()
        if module != "__init__"
        for target in targets
        if LAYER[target] > LAYER[module]
    ]
    assert not upward
    assert "records" in edges()["evaluate"], "the walk finds imports"


def test_imports_never_go_in_a_circle():
    graph = {module: targets for module, targets in edges().items() if module != "__init__"}
    assert list(TopologicalSorter(graph).static_order())


def test_drawing_stays_in_the_top_layer():
    for module, file in sources():
        drawn = {name[0] for name in imported(file)} & DRAWING
        assert not drawn or module in DRAWERS, f"{module} imports {drawn}"


def test_heavy_libraries_are_imported_where_they_are_used():
    for module, file in sources():
        heavy = {name[0] for name in imported(file, top_level_only=True)} & LAZY
        assert not heavy or module in EAGER_ALLOWED, f"{module} imports {heavy} at the top"


def test_sources_keep_to_the_budget():
    for _, file in sources():
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        assert len(lines) <= 400, f"{file} has {len(lines)} lines: split it"
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{file}: {node.name} is too long"


@pytest.mark.slow
def test_the_package_imports_quickly_and_lightly():
    code = (
        "import sys, time; start = time.perf_counter(); import unite_core; "
        "print(time.perf_counter() - start, *sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *modules = done.stdout.split()
    assert float(seconds) < 0.3
    assert not {"torch", "transformers", "numpy", "matplotlib", *LAZY} & set(modules)
