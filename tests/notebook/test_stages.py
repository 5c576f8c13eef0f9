"""What notebooks share: corpora are found or refused with a remedy, tables say what scores say."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from unite_core import notebook
from unite_core.corpora.shapes import ShapesConfig, build
from unite_core.evaluation.tasks import RetrievalTask, evaluate, write_tasks
from unite_core.files import write_json
from unite_core.model.processor import Processor
from unite_core.model.router import ModalityRouter
from unite_core.tiny import TINY_STAGE_1, TINY_STAGE_2, write_texts
from unite_core.tiny.model import EMBED_CONFIG, TINY, new_model, train_tokenizer
from unite_core.train.config import STAGE_1, STAGE_2


def task(name="text → image", split="style", **changes):
    values = {
        "queries": [{"text": f"word {i}"} for i in range(12)],
        "candidates": [{"image": f"{i}.png"} for i in range(40)],
        "positives": [[i] for i in range(12)],
        "families": [f"family {i}" for i in range(12)],
    }
    return RetrievalTask(name, split, **(values | changes))


def vectors_of(task, right):
    """Unit vectors with which the first `right` queries find their answer first, others last."""
    axes = np.eye(len(task.candidates), dtype=np.float32)
    vectors = dict(zip(task.candidate_ids, axes, strict=True))
    for row, identity in enumerate(task.query_ids):
        vectors[identity] = axes[row] if row < right else -axes[row]
    return vectors


@pytest.fixture
def corpus(tmp_path):
    build(tmp_path, ShapesConfig(records=4, queries=6))
    return tmp_path


def test_a_finished_corpus_is_taken_as_it_is(corpus):
    before = (corpus / "manifest.json").stat().st_mtime_ns
    assert notebook.open_corpus("shapes", str(corpus)) == corpus
    assert notebook.open_corpus("emoji", str(corpus)) == corpus
    assert (corpus / "manifest.json").stat().st_mtime_ns == before


def test_missing_shapes_are_generated_and_missing_emoji_refused(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr("unite_core.corpora.shapes.build", lambda root, config: built.append(root))
    notebook.open_corpus("shapes", str(tmp_path / "none"))
    assert len(built) == 1
    with pytest.raises(FileNotFoundError, match="run `unite corpus emoji --root .*about 230 MB"):
        notebook.open_corpus("emoji", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="'flowers' is no corpus; known: shapes, emoji"):
        notebook.open_corpus("flowers")


def test_shipped_stages_stand_in_for_those_of_make_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("unite_core.notebook.stages.from_root", lambda name: tmp_path / name)
    assert notebook.model_source("runs/main/stage2") == "tiny-stage2"
    said = capsys.readouterr().out
    assert said.startswith("runs/main/stage2 is missing (make run trains it): tiny-stage2, which")
    (tmp_path / "runs" / "main" / "stage2").mkdir(parents=True)
    assert notebook.model_source("runs/main/stage2") == tmp_path / "runs" / "main" / "stage2"
    assert capsys.readouterr().out == ""


def test_first_factors_are_the_probe_and_the_models_own_head(tmp_path):
    (tmp_path / "model").mkdir()
    assert notebook.first_factors(tmp_path / "model", "a probe") == {"probe": "a probe"}
    ModalityRouter(8, (1, 2)).save(tmp_path / "model")
    assert set(notebook.first_factors(tmp_path / "model", "a probe")) == {"probe"}
    ModalityRouter(8, (1, 2), temperature=0.03).save(tmp_path / "model")
    found = notebook.first_factors(tmp_path / "model", "a probe")
    assert list(found) == ["probe", "head"] and found["head"].temperature == 0.03


def test_tasks_come_by_split_and_a_missing_split_is_named(tmp_path):
    write_tasks(tmp_path / "tasks.json", [task(split="style"), task(split="concept")])
    assert [t.split for t in notebook.tasks_of(tmp_path, "concept")] == ["concept"]
    with pytest.raises(ValueError, match="no task of split development, only of concept, style"):
        notebook.tasks_of(tmp_path, "style", "development")


def test_shapes_have_development_tasks_for_the_notebooks(corpus):
    names = [each.name for each in notebook.tasks_of(corpus, "development")]
    assert {"text → image", "text → video", "image → text"} <= set(names)


def test_an_instruction_has_a_mixture_on_a_side():
    fused = [{"text": "<|IMAGE|>\nin red", "image": f"{i}.png"} for i in range(12)]
    assert notebook.kind_of(task(queries=fused)) == "instructed"
    assert notebook.kind_of(task()) == "plain"
    assert notebook.kind_of(task(queries=fused, kind="asked")) == "asked"


def test_models_are_the_shipped_one_a_folder_or_a_name(tmp_path):
    assert notebook.model_source("") == TINY
    assert notebook.model_source(str(tmp_path)) == tmp_path
    assert notebook.model_source("friedrichor/Unite-Base-Qwen2-VL-2B").startswith("friedrichor")


def test_only_a_finished_run_has_a_trained_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="run that notebook into it first"):
        notebook.trained_model(str(tmp_path))
    (tmp_path / "train" / "model").mkdir(parents=True)
    assert notebook.trained_model(str(tmp_path)) == tmp_path / "train" / "model"


def test_stages_are_shipped_runs_or_folders_in_the_order_of_training(tmp_path):
    for run in ("first", "info"):
        (tmp_path / run / "train" / "model").mkdir(parents=True)
    write_json(tmp_path / "first" / "run.json", {})
    models = notebook.stage_models(
        str(tmp_path / "first"), "tiny-stage2", f"InfoNCE: {tmp_path}/info"
    )
    assert list(models) == ["base", "stage 1", "stage 2", "InfoNCE"]
    assert models["base"] == TINY and models["stage 2"] == "tiny-stage2"
    assert models["stage 1"] == tmp_path / "first" / "train" / "model"
    write_json(tmp_path / "unfinished" / "run.json", {})
    with pytest.raises(FileNotFoundError, match="run that notebook into it first"):
        notebook.model_source(str(tmp_path / "unfinished"))
    with pytest.raises(FileNotFoundError, match="runs/none/stage1 is missing: make run trains it"):
        notebook.model_source("runs/none/stage1")


def test_a_stage_trains_on_the_corpus_file_of_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr("unite_core.train.run.train", lambda config: config)
    config = notebook.train_stage(replace(STAGE_2, max_steps=400), "base", tmp_path, "out")
    assert config.data == (str(tmp_path / "stage2.jsonl"),)
    assert (config.model, config.output, config.media_root) == ("base", "out", str(tmp_path))
    assert config.logging_steps == 10


def test_gains_agree_with_the_scores():
    asked = task()
    few, many = (evaluate(None, [asked], vectors=vectors_of(asked, n)) for n in (1, 11))
    (row,) = notebook.gains({"few": few, "many": many}, "few", "many", [asked])
    assert row["gain"] == pytest.approx(row["many"] - row["few"])
    assert row["low"] <= row["gain"] <= row["high"]
    assert (row["n"], row["apart"]) == (12, True)
    (back,) = notebook.gains({"few": few, "many": many}, "many", "few", [asked])
    assert not back["apart"] and back["gain"] == pytest.approx(-row["gain"])


def test_a_hit_and_a_miss_are_what_they_are_called():
    asked = task()
    queries, retrieved, hits = notebook.hit_and_miss(asked, vectors_of(asked, 3), k=4)
    assert queries == [asked.queries[0], asked.queries[3]]
    assert retrieved[0][0] == asked.candidates[0] and hits[0] == [True, False, False, False]
    assert asked.candidates[3] not in retrieved[1] and not any(hits[1])
    assert len(notebook.hit_and_miss(asked, vectors_of(asked, 12))[0]) == 1


def test_texts_are_written_greedily_whatever_else_is_in_the_batch(tmp_path):
    tokenizer = train_tokenizer(["a red circle", "what is it?"], tmp_path, vocab_size=300)
    model = new_model(tokenizer).eval()
    processor = Processor(tokenizer, replace(EMBED_CONFIG, prompt="raw"))
    items = [{"text": "what"}, {"image": Image.new("RGB", (56, 56), "red")}, {"text": "a red one"}]
    together = write_texts(model, processor, items, tmp_path, tokens=5)
    alone = [write_texts(model, processor, [i], tmp_path, tokens=5)[0] for i in items]
    assert together == alone and len(set(together)) > 1


def test_differences_are_all_and_only_what_differs():
    rows = {
        row["field"]: (row["first"], row["second"])
        for row in notebook.differences(STAGE_1, STAGE_2)
    }
    assert rows["loss"] == ("info_nce", "mamcl") and rows["symmetric"] == (True, False)
    assert replace(STAGE_1, **{name: second for name, (_, second) in rows.items()}) == STAGE_2
    assert notebook.differences(STAGE_1, STAGE_1) == []


def test_a_table_has_its_rows_and_rounded_numbers():
    table = notebook.markdown_table([{"a": 0.12345, "b": True}, {"a": 2, "b": "x"}], ["A", "B"])
    assert table.splitlines() == ["| A | B |", "| --- | --- |", "| 0.123 | yes |", "| 2 | x |"]


def test_a_corpus_says_how_often_its_tasks_come_up(tmp_path):
    write_json(tmp_path / "manifest.json", {"weights": {"stage1": {"video-text": 3.0}}})
    assert notebook.stage_weights(TINY_STAGE_1, tmp_path) == {"video-text": 3.0}
    assert notebook.stage_weights(TINY_STAGE_2, tmp_path) == {}
    write_json(tmp_path / "manifest.json", {})
    assert notebook.stage_weights(TINY_STAGE_1, tmp_path) == {}
    assert notebook.stage_weights(TINY_STAGE_1, tmp_path / "own records") == {}
