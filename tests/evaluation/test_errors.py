"""Errors by family, counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from unite_core.evaluation.errors import family_errors
from unite_core.evaluation.tasks import RetrievalTask, evaluate
from unite_core.notebook.tables import error_table

TASK = RetrievalTask(
    "t", "concept",
    queries=[{"text": f"<|IMAGE|>\nlike {n}", "image": f"images/{n}.png"} for n in range(6)],
    candidates=[{"image": f"found/{n}.png"} for n in range(30)],
    positives=[[n] for n in range(6)], families=["cat", "cat", "cat", "dog", "dog", "owl"],
)  # fmt: skip


def ranked(ranks):
    """A result whose query n has its answer at rank ranks[n]."""
    vectors = {identity: np.zeros(6) for identity in TASK.query_ids + TASK.candidate_ids}
    for n, rank in enumerate(ranks):
        vectors[TASK.query_ids[n]][n] = 1
        vectors[TASK.candidate_ids[n]][n] = 0.5
        for other in range(6, 6 + rank - 1):
            vectors[TASK.candidate_ids[other]][n] = 0.9
    return evaluate(None, [TASK], vectors={k: v.astype(np.float32) for k, v in vectors.items()})


def test_families_with_most_misses_come_first_with_their_worst_queries():
    before, after = ranked([1, 1, 20, 1, 20, 1]), ranked([12, 15, 1, 1, 13, 1])
    rows = family_errors([TASK], before, after)
    assert [row["family"] for row in rows] == ["cat", "dog", "owl"]
    cat, dog, owl = rows
    assert (cat["n"], cat["missed"]) == (3, 2)
    assert cat["before"] == pytest.approx(2 / 3) and cat["after"] == pytest.approx(1 / 3)
    assert cat["worst"] == ["1.png, like 1", "0.png, like 0"]
    assert (dog["before"], dog["after"], dog["worst"]) == (0.5, 0.5, ["4.png, like 4"])
    assert (owl["missed"], owl["worst"]) == (0, [])
    assert family_errors([TASK], before, after, worst=1)[0]["worst"] == ["1.png, like 1"]
    with pytest.raises(ValueError, match="different tasks"):
        family_errors([TASK], before, replace(after, tasks_hash="other"))


def test_the_table_shows_the_first_rows():
    rows = family_errors([TASK], ranked([1] * 6), ranked([12, 15, 1, 1, 13, 1]))
    lines = error_table(rows, most=2).splitlines()
    assert len(lines) == 4
    assert (
        lines[2] == "| cat | t, concept | 3 | 100 % | 33 % | 2.0 | 1.png, like 1; 0.png, like 0 |"
    )
