"""A model for own data: settings by model, both stages, results, search, card and export."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from unite_core import gap
from unite_core.data.records import write_records
from unite_core.evaluation.tasks import RetrievalTask
from unite_core.notebook import own_model
from unite_core.train.config import STAGE_1, STAGE_2, TINY_STAGE_1, TINY_STAGE_2

WORDS = ("red", "green", "blue", "old", "new", "big", "small", "wet", "dry", "hot", "cold", "far")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "train.jsonl"
    pairs = [
        {"query": {"text": f"a {w} thing"}, "candidate": {"text": f"it is {w}"}} for w in WORDS
    ]
    asked = [pair | {"instruction": "Find what is said of it."} for pair in pairs[:6]]
    write_records(path, pairs + asked)
    return path


@pytest.fixture(scope="module")
def task():
    queries = [{"text": f"one {word} thing"} for word in WORDS]
    candidates = [{"text": f"this is {word}"} for word in WORDS]
    places = [[n] for n in range(len(WORDS))]
    return RetrievalTask("text to text", "held out", queries, candidates, places, list(WORDS))


@pytest.fixture(scope="module")
def trained(records, tmp_path_factory):
    small = own_model.stages_for
    folder = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch:
        stages = tuple(replace(stage, batch_size=4) for stage in small("tiny"))
        patch.setattr(own_model, "stages_for", lambda model: stages)
        return own_model.train_stages("tiny", records, ".", folder, 2)


def test_a_model_is_trained_with_settings_that_work_for_it():
    assert own_model.stages_for("tiny-stage1") == (TINY_STAGE_1, TINY_STAGE_2)
    assert own_model.stages_for("owner/name") == (STAGE_1, STAGE_2)


def test_stage_2_follows_with_the_instructions_and_starts_from_stage_1(trained):
    assert list(trained) == ["stage 1", "stage 2"]
    runs = {name: json.loads((model.parent / "train.json").read_text())
            for name, model in trained.items()}  # fmt: skip
    assert runs["stage 1"]["model"] == "tiny"
    assert runs["stage 2"]["model"] == str(trained["stage 1"])
    lines = {name: len(Path(run["data"][0]).read_text().splitlines()) for name, run in runs.items()}
    assert lines == {"stage 1": 12, "stage 2": 6}


def test_without_instructions_there_is_one_stage(records, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(own_model, "train_stage", lambda stage, *rest: called.append(stage) or "m")
    plain = tmp_path / "plain.jsonl"
    plain.write_text("\n".join(records.read_text().splitlines()[:12]) + "\n")
    assert own_model.train_stages("tiny", plain, ".", tmp_path, 7, 3) == {"stage 1": "m"}
    assert (called[0].max_steps, called[0].seed) == (7, 3)


def test_before_and_after_are_measured_searched_and_handed_over(trained, task, tmp_path):
    results, vectors = {}, {}
    for name, model in {"before": "tiny", "stage 2": trained["stage 2"]}.items():
        results[name], vectors[name] = own_model.measure_model(model, [task], ".")
    assert len(vectors["before"]) == 24
    (row,) = own_model.comparison_rows(results)
    assert row["task"] == "text to text" and row["queries"] == 12 and "[" in row["gain"]
    assert list(own_model.comparison_rows({"before": results["before"]})[0])[-1] == "before"

    index, embedder, known = own_model.searchable(
        trained["stage 2"], [*task.candidates, task.candidates[0]], ".", tmp_path / "vectors"
    )
    assert sum(index.counts.values()) == len(known) == 12
    query = embedder.embed([task.candidates[5]], progress=False)
    assert known[index.names(index.search(query, 1).rows)[0][0]] == task.candidates[5]

    known = gap.SyntheticGap({"text": (0.5, 0), "image": (-0.5, 0)}, ((16, 1.0),), 0.5)
    table = gap.measure(*known.draw(60, 0).values())
    (tmp_path / "export").mkdir()  # an export that is there is kept
    folder = own_model.hand_over(
        trained["stage 2"], results, {"stage 2": table}, tmp_path / "export"
    )
    card = (trained["stage 2"] / "README.md").read_text()
    assert folder == tmp_path / "export" and row["gain"] in card
    assert f"| stage 2 | gap | {table['gap'].value:.3g} |" in card
