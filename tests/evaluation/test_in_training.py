"""Scores taken while training are those of `evaluate` and `gap.measure` on the same items."""

from pathlib import Path

import numpy as np
import pytest

from unite_core import gap
from unite_core.data.pairs import PairDataset
from unite_core.data.records import write_records
from unite_core.evaluation.in_training import TrainingScores
from unite_core.evaluation.own_pairs import pair_tasks
from unite_core.evaluation.tasks import RetrievalTask, evaluate, write_tasks

WORDS = [f"w{n}" for n in range(60)]


class Drawn:
    """Random vectors by content, apart by modality."""

    def embed(self, items, media_root=".", progress=True):
        rows = []
        for item in items:
            key, value = next((key, item[key]) for key in ("image", "text") if key in item)
            number = int(Path(value).stem.removeprefix("w"))
            noise = np.random.default_rng([number, key == "image"]).normal(size=6)
            shared = np.random.default_rng(number).normal(size=6)
            rows.append(shared + 0.7 * noise + (key == "image") * np.eye(6)[0])
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def records(tmp_path) -> Path:
    for word in WORDS:
        (tmp_path / f"{word}.png").write_bytes(b"x")
    forth = [{"query": {"text": w}, "candidate": {"image": f"{w}.png"}} for w in WORDS]
    back = [{"query": pair["candidate"], "candidate": pair["query"]} for pair in forth]
    write_records(tmp_path / "pairs.jsonl", forth + back)
    return tmp_path / "pairs.jsonl"


def test_pairs_become_a_task_for_each_direction(records):
    tasks = pair_tasks(PairDataset([records], records.parent))
    assert [task.name for task in tasks] == ["image to text", "text to image"]
    assert {task.split for task in tasks} == {"held out"}
    for task in tasks:
        assert len(task.queries) == len(task.candidates) == len(WORDS)
        assert task.positives == [[n] for n in range(len(WORDS))]


def test_equal_content_and_groups_are_all_right_and_a_query_is_not_its_own_answer(tmp_path):
    rows = [
        {"query": {"text": "a"}, "candidate": {"text": "b"}, "candidate_group": "g"},
        {"query": {"text": "c"}, "candidate": {"text": "d"}, "candidate_group": "g"},
        {"query": {"text": "a"}, "candidate": {"text": "e"}, "negative": {"text": "n"}},
        {"query": {"text": "b"}, "candidate": {"text": "d"}},
        {"query": {"text": "f"}, "candidate": {"text": "f"}},
    ]
    write_records(tmp_path / "rows.jsonl", rows)
    (task,) = pair_tasks(PairDataset([tmp_path / "rows.jsonl"]))
    candidates = [item["text"] for item in task.candidates]
    assert candidates == ["b", "d", "e", "n"]
    right = {
        query["text"]: {candidates[place] for place in found}
        for query, found in zip(task.queries, task.positives, strict=True)
    }
    assert right == {"a": {"b", "d", "e"}, "c": {"b", "d"}, "b": {"d"}}


def test_scores_are_means_of_those_of_evaluate(records):
    scores = TrainingScores(records, records.parent)
    found = scores(Drawn())
    whole = evaluate(Drawn(), scores.tasks, records.parent, progress=False)
    for name, value in found.items():
        if name.startswith("gap"):
            continue
        pool, _, metric = name.partition("_") if "recall" in name else ("mixed", "", name)
        wanted = [whole.score(task.name, "held out", metric, pool).value for task in scores.tasks]
        assert value == pytest.approx(np.mean(wanted)), name
    assert 0 < found["mixed_recall@10"] < found["single_recall@10"] <= 1


def test_the_gap_is_that_of_measure(records):
    found = TrainingScores(records, records.parent)(Drawn())["gap_squared/text-image"]
    texts = Drawn().embed([{"text": word} for word in WORDS])
    images = Drawn().embed([{"image": f"{word}.png"} for word in WORDS])
    table = gap.measure(texts.astype(float), images.astype(float), paired=False, k=3)
    assert found == pytest.approx(table["gap_squared"].value, abs=1e-5)


def test_a_file_of_tasks_is_taken_as_it_is(tmp_path):
    items = [{"text": word} for word in WORDS]
    tasks = [
        RetrievalTask(name, "test", items[:6], items[6:12], [[n] for n in range(6)], list("abcdef"))
        for name in ("first", "second")
    ]
    write_tasks(tmp_path / "tasks.json", tasks)
    assert TrainingScores(tmp_path / "tasks.json").tasks == tasks
