"""Results: saved and loaded whole, compared only on the same tasks, printed as a table."""

import dataclasses
import json

import numpy as np
import pytest

from unite_core.evaluation.metrics import paired_interval
from unite_core.evaluation.results import (
    EvaluationResult,
    Score,
    comparison,
    format_table,
    load_results,
    paired_gain,
    save_results,
)

FAMILIES = [f"family {i % 10}" for i in range(40)]


def result(shift=0.0, tasks_hash="a" * 64):
    generator = np.random.default_rng(0)
    scores = []
    for task, split in (("text → image", "style"), ("image → text", "concept")):
        values = np.clip(generator.random(40) / 2 + shift, 0, 1)
        for pool in ("single", "mixed"):
            value = float(values.mean())
            names = (task, split, pool, "recall@10")
            scores.append(
                Score(
                    *names,
                    value,
                    value - 0.1,
                    value + 0.1,
                    0.05,
                    40,
                    200,
                    10,
                    10.0,
                    values.tolist(),
                )
            )
    families = {"style": {"text → image": FAMILIES}, "concept": {"image → text": FAMILIES}}
    return EvaluationResult(scores, families, tasks_hash, {"prompt": "unite"}, 0)


def test_results_come_back_equal_from_one_file(tmp_path):
    path = tmp_path / "run" / "scores.json"
    save_results(path, result())
    assert load_results(path) == result()
    assert [file.name for file in path.parent.iterdir()] == ["scores.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "scores.json"
    save_results(path, result())
    broken = dataclasses.replace(result(), embedder={"fps": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        save_results(path, broken)
    assert load_results(path) == result()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda saved: saved.pop("seed"), "no field seed; add it"),
        (lambda saved: saved.update(model="x"), "unknown field model"),
        (lambda saved: saved["scores"][1].pop("value"), "score 2: no field value"),
    ],
)
def test_a_damaged_file_is_refused_by_field(spoil, message, tmp_path):
    path = tmp_path / "scores.json"
    save_results(path, result())
    saved = json.loads(path.read_text())
    spoil(saved)
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=message):
        load_results(path)


def test_comparison_has_one_row_per_task_and_one_column_per_model():
    models = {"base": result(), "stage 1": result(0.2)}
    rows = comparison(models)
    assert [(row["task"], row["split"]) for row in rows] == [
        ("text → image", "style"),
        ("image → text", "concept"),
    ]
    for row in rows:
        assert row["chance"] == 0.05
        assert row["stage 1"].value == pytest.approx(row["base"].value + 0.2)
        assert row["base"].pool == "single"


def test_the_table_prints_percent_chance_and_intervals_in_columns():
    table = format_table({"base": result(), "stage 1": result(0.2)}, pool="mixed")
    title, head, rule, *body, note = table.splitlines()
    assert " 10 (10.0) ! " in body[0] and "! below 15 effective" in note
    assert title.startswith("recall@10, mixed pool, in percent")
    assert head.split() == [
        "task", "split", "n", "families", "pool", "chance", "base", "stage", "1",
    ]  # fmt: skip
    first = result().scores[1]
    shown = f"{100 * first.value:.1f} [{100 * first.low:.1f}, {100 * first.high:.1f}]"
    assert body[0].startswith("text → image")
    assert shown in body[0]
    assert " 5.0 " in body[0]
    assert len({len(line) for line in (head, rule, *body)}) == 1


def test_rows_are_flat_and_the_values_per_query_stay_with_the_score():
    rows = result().rows()
    assert len(rows) == 4
    assert all("per_query" not in row for row in rows)
    assert rows[0]["value"] == result().score("text → image", "style").value


def test_paired_gain_is_the_paired_interval_of_the_values_per_query():
    first, second = result(), result(0.2)
    gain = paired_gain(first, second, "text → image", "style")
    before, after = (result.score("text → image", "style").per_query for result in (first, second))
    assert gain == paired_interval(before, after, FAMILIES)
    assert gain[0] == pytest.approx(0.2)
    assert gain[1] > 0


def test_results_on_other_tasks_or_of_unknown_names_are_refused():
    other = result(tasks_hash="b" * 64)
    with pytest.raises(ValueError, match=r"late result is of other tasks.*same task file"):
        comparison({"base": result(), "late": other})
    with pytest.raises(ValueError, match="of other tasks"):
        paired_gain(result(), other, "text → image", "style")
    with pytest.raises(ValueError, match=r"no recall@2 in the single pool; there are recall@10"):
        comparison({"base": result()}, "recall@2")
    with pytest.raises(ValueError, match=r"no recall@10 of text → video.*tasks are image → text"):
        result().score("text → video", "style")
