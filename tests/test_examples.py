"""The examples in docstrings run and say what they print."""

import doctest
import importlib
from pathlib import Path

import pytest

import unite_core

PACKAGE = Path(unite_core.__file__).parent
MODULES = sorted(
    ".".join(("unite_core", *file.relative_to(PACKAGE).with_suffix("").parts))
    for file in PACKAGE.rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)
# what people meet first has an example
FIRST = {
    "unite_core.gap.table", "unite_core.loss.contrastive", "unite_core.model.embedder",
    "unite_core.search.index", "unite_core.evaluation.metrics", "unite_core.data.items",
}  # fmt: skip


def test_what_people_meet_first_has_an_example():
    assert set(MODULES) >= FIRST


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed
