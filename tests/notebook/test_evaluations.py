"""Models are embedded and scored once, whatever notebook asks for it."""

import numpy as np
import pytest

from unite_core import notebook
from unite_core.evaluation.tasks import RetrievalTask
from unite_core.model.embedder import UniteEmbedder


class Embedder:
    """Texts by their length; counts how often it is asked."""

    calls = 0

    def embed(self, items, media_root=".", progress=True):
        Embedder.calls += 1
        angles = np.array([len(item["text"]) for item in items])
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def task(split="style"):
    return RetrievalTask(
        "text → text", split, [{"text": "a" * n} for n in range(1, 13)],
        [{"text": "b" * n} for n in range(1, 13)], [[n] for n in range(12)],
        [f"family {n}" for n in range(12)],
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _embedder(monkeypatch):
    monkeypatch.setattr(UniteEmbedder, "load", lambda model: Embedder())
    Embedder.calls = 0


def test_the_second_notebook_reads_what_the_first_saved(tmp_path):
    models = {"base": "x", "stage 1": "y"}
    first, vectors = notebook.evaluate_models(models, [task()], ".", tmp_path, seed=3)
    assert Embedder.calls == 2 and first["stage 1"].seed == 3
    assert first["base"].score("text → text", "style", "recall@1").value == 1
    again, same = notebook.evaluate_models(models, [task()], ".", tmp_path)
    assert Embedder.calls == 2 and again == first
    assert (
        same["base"].keys() == vectors["base"].keys() == {*task().query_ids, *task().candidate_ids}
    )
    assert all((same["base"][key] == row).all() for key, row in vectors["base"].items())
    more = notebook.evaluate_models(models | {"stage 2": "z"}, [task()], ".", tmp_path)[0]
    assert Embedder.calls == 3 and list(more) == ["base", "stage 1", "stage 2"]


def test_what_an_earlier_run_lacks_is_made_here(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    notebook.evaluate_models({"base": "x"}, [task()], ".", first)
    models = {"base": "x", "stage 1": "y"}
    notebook.evaluate_models(models, [task()], ".", second, earlier=str(first))
    assert Embedder.calls == 2
    assert [file.name for file in sorted(second.rglob("*.json"))] == ["stage_1.json"]


def test_an_evaluation_of_other_tasks_is_refused(tmp_path):
    notebook.evaluate_models({"base": "x"}, [task()], ".", tmp_path)
    with pytest.raises(ValueError, match="base.json is of other tasks than those of data/emoji"):
        notebook.evaluate_models({"base": "x"}, [task("concept")], "data/emoji", tmp_path)
