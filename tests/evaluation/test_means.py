"""Means over tasks: plain, asked and instructed apart, intervals over families drawn jointly."""

import numpy as np
import pytest

from unite_core.evaluation.families import joint_effective_families, joint_family_bootstrap
from unite_core.evaluation.means import format_means, mean_gains, mean_rows
from unite_core.evaluation.tasks import RetrievalTask, evaluate

MANY = [f"family {n:02d}" for n in range(24)]


def task(name, kind, families=MANY, split="concept"):
    queries = [{"text": f"{name} {n}"} for n in range(len(families))]
    candidates = [{"image": f"{n}.png"} for n in range(24)]
    positives = [[n] for n in range(len(families))]
    return RetrievalTask(name, split, queries, candidates, positives, families, kind=kind)


TASKS = [
    task("a", "plain"), task("b", "plain"), task("c", "plain", MANY[:5]),
    task("d", "asked"), task("e", "instructed", MANY[:6]), task("a", "plain", split="style"),
]  # fmt: skip


def result(seed):
    class Noise:
        def embed(self, items, media_root=".", progress=True):
            rng = np.random.default_rng(seed)
            return rng.standard_normal((len(items), 8)).astype(np.float32)

    return evaluate(Noise(), TASKS)


def test_kinds_and_splits_are_apart_and_tasks_of_few_families_left_out():
    first = result(0)
    rows = mean_rows({"model": first}, TASKS)
    assert [(row["split"], row["kind"], row["tasks"]) for row in rows] == [
        ("concept", "plain", 2), ("concept", "asked", 1), ("concept", "instructed", 1),
        ("style", "plain", 1),
    ]  # fmt: skip
    assert [row["left_out"] for row in rows] == [["c"], [], [], []]
    scores = [first.score(name, "concept").value for name in ("a", "b")]
    plain = rows[0]["model"]
    assert plain.value == pytest.approx(np.mean(scores)) and plain.low < plain.value < plain.high
    families = {"a": MANY, "b": MANY}
    values = {name: first.score(name, "concept").per_query for name in families}
    assert (plain.value, plain.low, plain.high) == joint_family_bootstrap(values, families)
    assert rows[0]["families"] == 24
    assert rows[0]["effective_families"] == pytest.approx(joint_effective_families(families))


def test_a_mean_of_few_families_has_no_interval():
    row = mean_rows({"model": result(0)}, TASKS)[2]
    assert (row["model"].low, row["model"].high) == (None, None)
    assert row["model"].value == result(0).score("e", "concept").value


def test_gains_are_paired():
    first, second = result(0), result(1)
    row = mean_gains(first, second, TASKS)[0]
    means = [mean_rows({"m": each}, TASKS)[0]["m"].value for each in (first, second)]
    assert row["gain"] == pytest.approx(means[1] - means[0])
    assert row["low"] < row["gain"] < row["high"]
    same = mean_gains(first, first, TASKS)
    assert [(r["gain"], r["low"]) for r in same] == [(0, 0), (0, 0), (0, None), (0, 0)]
    with pytest.raises(ValueError, match="same task file"):
        mean_gains(first, evaluate(None, TASKS[:1], vectors=Vectors()), TASKS)


class Vectors(dict):
    """A vector for whatever is asked."""

    def __contains__(self, key):
        return True

    def __missing__(self, key):
        return np.ones(4, np.float32)


def test_the_table_prints_what_is_left_out():
    text = format_means({"base": result(0), "stage": result(1)}, TASKS, "mrr", "mixed")
    lines = text.splitlines()
    assert lines[0].startswith("mrr, mixed pool, mean over tasks in percent")
    assert lines[1].split() == ["split", "kind", "tasks", "families", "base", "stage"]
    assert lines[3].startswith("concept  plain") and "24 (24.0)" in lines[3]
    assert "[" in lines[3] and "[" not in lines[5]
    assert lines[-1].endswith("too few: concept: c")
