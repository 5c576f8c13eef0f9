"""The gap in a study's row is that of the pairs of its tasks."""

import numpy as np
import pytest

from unite_core import gap
from unite_core.data.records import content_id
from unite_core.evaluation.tasks import RetrievalTask
from unite_core.study.gaps import GAP_MEASURES, gaps_of

N = 60


def task(name, split, families):
    """A task whose positives stand in the opposite order of its queries."""
    return RetrievalTask(
        name, split, [{"text": f"{split} {i}"} for i in range(N)],
        [{"image": f"{split}/{i}.png"} for i in range(N)],
        [[N - 1 - i] for i in range(N)], families,
    )  # fmt: skip


def vectors_of(*tasks):
    """Pairs around the two ends of a gap of .8."""
    rng = np.random.default_rng(0)
    drawn = gap.SyntheticGap({"x": (0.4,), "y": (-0.4,)}).draw(N, seed=0)
    vectors = {}
    for found in tasks:
        for i, item in enumerate(found.queries):
            vectors[content_id(item)] = drawn["x"][i]
        for i, item in enumerate(found.candidates):
            vectors[content_id(item)] = drawn["y"][N - 1 - i]
    return vectors, drawn, rng


def test_it_is_measured_between_queries_and_their_positives_of_the_split():
    families = [str(i // 2) for i in range(N)]
    concept = task("text → image", "concept", families)
    tasks = [concept, task("text → image", "style", families), task("other", "concept", families)]
    vectors, drawn, _ = vectors_of(*tasks)
    rows = gaps_of(tasks, vectors)
    assert [row["measure"] for row in rows] == list(GAP_MEASURES)
    assert {(row["task"], row["split"]) for row in rows} == {("text → image", "concept")}
    wanted = gap.measure(drawn["x"], drawn["y"], k=1, groups=families)
    for row in rows:
        assert row["value"] == pytest.approx(wanted[row["measure"]].value, abs=1e-6)
        assert row["null"] == pytest.approx(wanted[row["measure"]].null, abs=1e-6)
        assert row["low"] <= row["value"] <= row["high"]
    assert rows[0]["value"] == pytest.approx(0.8, abs=0.05)


def test_few_families_give_no_interval():
    few = task("text → image", "concept", [str(i % 4) for i in range(N)])
    vectors, *_ = vectors_of(few)
    with pytest.warns(UserWarning, match="families"):
        rows = gaps_of([few], vectors)
    assert len(rows) == len(GAP_MEASURES) and {row["low"] for row in rows} == {None}
