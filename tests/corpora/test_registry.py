"""Corpora are found by name; a new one is one decorated function."""

import subprocess
import sys

import pytest

from unite_core import notebook
from unite_core.corpora import CORPORA
from unite_core.corpora.registry import CorpusEntry
from unite_core.files import read_json, write_json


@pytest.fixture
def flowers(monkeypatch):
    monkeypatch.setattr(CORPORA, "_things", dict(CORPORA._things))

    @CORPORA.register("flowers")
    def build_flowers(root, seed=0):
        write_json(f"{root}/manifest.json", {"seed": seed})


def test_the_corpora_are_known_and_only_shapes_need_no_download():
    assert [*CORPORA] == ["shapes", "emoji", "icons"]
    assert CORPORA["shapes"].on_the_fly and not CORPORA["emoji"].on_the_fly
    assert "unite corpus emoji --root x` (a download of about" in CORPORA["emoji"].missing("x")
    with pytest.raises(ValueError, match="'shape' is no corpus .did you mean 'shapes'"):
        CORPORA["shape"]


def test_a_corpus_of_another_package_is_built_for_notebooks(flowers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(CORPORA["flowers"], CorpusEntry)
    root = notebook.open_corpus("flowers", str(tmp_path / "flowers"))
    assert read_json(root / "manifest.json") == {"seed": 0}


def test_options_reach_the_builders(tmp_path):
    CORPORA["shapes"].build(tmp_path, seed=3, records=4, queries=2, image_size=28)
    settings = read_json(tmp_path / "manifest.json")["settings"]
    assert (settings["seed"], settings["records"]) == (3, 4)
    with pytest.raises(ValueError, match="petals"):
        CORPORA["shapes"].build(tmp_path, petals=5)
    with pytest.raises(ValueError, match="numbered 1 to 4"):
        CORPORA["emoji"].build(tmp_path, clips=[5])


def test_names_are_known_without_heavy_imports():
    code = "import sys; from unite_core.corpora import CORPORA; print(*CORPORA, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "PIL", "pydantic"} & set(done.stdout.split())
