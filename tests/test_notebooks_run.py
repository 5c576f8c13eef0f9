"""Notebooks that train, or read the emoji corpus, run with quick parameters, each once.

They run in their order, each on what the ones before left, as in `make run`. The others are run by
nbval as they are stored (`make test`).
"""

import re

import pytest

from unite_core.notebook.files import parameter_names
from unite_core.notebook.runs import project_root, run_notebook

FOLDER = project_root() / "notebooks"
SMALL = {
    "00_tour": {"count": 4},
    "01_what_is_in_the_data": {"records": 600, "batch_size": 64},
    "02_inside": {"items": 6, "repeats": 1},
    "03_loss_by_hand": {},
    "04_stage_1": {"start": ""},
    "05_stage_2": {},
    "06_scores": {},
    "07_one_index": {"records": 150},
    "08_is_it_real": {},
    "09_modality_gap": {"items": 60},
    "10_embedding_map": {"items": 60, "around": "a red circle"},
    "11_search": {"split": "development", "count": 4, "words": "a red circle"},
    "12_your_data": {
        "source": "data/shapes/stage1.jsonl", "media_root": "data/shapes", "limit": 300,
        "steps": 2, "words": "a red circle",
    },
    "15_make_unite_tiny": {"steps": 2, "batch_size": 4, "emoji_root": "none"},
}  # fmt: skip


def checked_by_nbval():
    """Names that the Makefile gives to nbval."""
    text = (project_root() / "Makefile").read_text(encoding="utf-8")
    executed = re.search(r"^EXECUTED := (.*)", text, re.MULTILINE)[1].split()
    return {path.stem for path in FOLDER.glob("*.ipynb") if path.stem[:2] not in executed}


def test_every_notebook_is_run_once():
    names = {path.stem for path in FOLDER.glob("*.ipynb")}
    assert names - set(SMALL) == checked_by_nbval()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def quick(name, runs):
    """Parameters on the generated corpus, with the runs before where there are any."""
    earlier = {
        "start": ("04_stage_1", ""), "evaluation_run": ("06_scores", ""),
        "stage_1": ("04_stage_1", "tiny-stage1"), "stage_2": ("05_stage_2", "tiny-stage2"),
    }  # fmt: skip
    given = {
        key: str(runs / folder) if (runs / folder).is_dir() else other
        for key, (folder, other) in earlier.items()
    }
    given |= {"corpus": "shapes", "steps": 4} | SMALL[name]
    known = parameter_names(FOLDER / f"{name}.ipynb")
    return {key: value for key, value in given.items() if key in known}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SMALL if (FOLDER / f"{name}.ipynb").is_file()])
def test_it_runs_on_a_small_corpus(name, runs):
    run_notebook(FOLDER / f"{name}.ipynb", quick(name, runs), runs / name, progress=False)
