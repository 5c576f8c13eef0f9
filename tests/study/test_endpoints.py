"""Endpoints of a table are means of its hits, and differences query by query add up to them."""

import numpy as np
import pytest

from unite_core.study.endpoints import (
    STUDY_ENDPOINTS,
    endpoint_rows,
    endpoint_tasks_of,
    query_differences,
)
from unite_core.study.rows import StudyTable
from unite_core.study.verdicts import PLANS, Cell, verdicts

SPLITS = ("concept", "development")
FEW = "text → video"


@pytest.fixture(scope="module")
def table():
    """Two arms in three blocks; clips have too few families in one split."""
    rng = np.random.default_rng(0)
    names = {task for endpoint in STUDY_ENDPOINTS.values() for task in endpoint.tasks}
    tasks, hits = [], {}
    runs = [{"run": f"{arm}-{block}", "arm": arm, "block": block, "processor": "cpu"}
            for block in range(3) for arm in ("mamcl", "info_nce")]  # fmt: skip
    for name in sorted(names):
        for split in SPLITS:
            families = [f"{split} {i % 8}" for i in range(24)] if name == FEW else [
                f"{split} {i % 12}" for i in range(12 + len(name))]  # fmt: skip
            kind = "instructed" if name in STUDY_ENDPOINTS["P2"].tasks else "plain"
            tasks.append({"name": name, "split": split, "kind": kind, "families": families})
            for run in runs:
                for pool, scores in (("single", ("cosine", "centred")),
                                     ("mixed", ("cosine", "probe"))):  # fmt: skip
                    for score in scores:
                        key = (run["run"], name, split, pool, score)
                        hits[key] = rng.random(len(families)) < 0.5
    return StudyTable(runs, hits, tasks)


def test_tasks_with_few_families_are_left_out_unless_splits_together_have_enough(table):
    plain = STUDY_ENDPOINTS["plain"].tasks
    assert list(endpoint_tasks_of(table, "plain", "concept")) == [t for t in plain if t != FEW]
    together = endpoint_tasks_of(table, "plain", "concept+development")
    assert list(together) == list(plain) and len(together[FEW]) == 48


def test_other_data_are_asked_with_their_tasks_of_the_endpoints_kind(table):
    def renamed(name):
        return f"other {name}"

    other = StudyTable(table.runs, table.hits, [t | {"name": renamed(t["name"])}
                                                for t in table.tasks])  # fmt: skip
    named = STUDY_ENDPOINTS["P2"].tasks
    assert sorted(endpoint_tasks_of(other, "P2", "concept")) == sorted(map(renamed, named))
    assert not endpoint_tasks_of(other, "still", "concept"), "no kind stands for it"


def test_an_endpoint_is_the_mean_of_its_tasks_in_its_pool(table):
    (row, *_) = endpoint_rows(table, ["P1a", "P3"], ["concept"])
    assert (row["arm"], row["block"]) == ("mamcl", 0)
    means = [table.hits["mamcl-0", task, "concept", "single", "cosine"].mean()
             for task in STUDY_ENDPOINTS["P1a"].tasks if task != FEW]  # fmt: skip
    assert row["concept/P1a/cosine"] == pytest.approx(np.mean(means))
    means = [table.hits["mamcl-0", task, "concept", "mixed", "probe"].mean()
             for task in STUDY_ENDPOINTS["P3"].tasks]  # fmt: skip
    assert row["concept/P3/probe"] == pytest.approx(np.mean(means))
    assert "concept/P1a/centred" in row and "concept/P3/centred" not in row


def test_an_endpoint_without_enough_families_is_no_number(table):
    small = StudyTable(table.runs, table.hits, [t | {"families": ["a"] * len(t["families"])}
                                                for t in table.tasks])  # fmt: skip
    assert np.isnan(endpoint_rows(small, ["P1a"], ["concept"])[0]["concept/P1a/cosine"])


@pytest.mark.parametrize("split", ["concept", "concept+development"])
def test_differences_of_queries_add_up_to_those_of_endpoints(table, split):
    rows = endpoint_rows(table, ["P1a", "P1b", "P2", "P3"], [split])
    cell = Cell("mamcl", "probe")
    found = verdicts(rows, PLANS["mask"], cell, split, query_differences(table))
    for result in (found[0], found[4], found[5]):
        differences, families = query_differences(table)(
            cell, Cell(result["contrast"].split()[-1]), result["endpoint"], split, (0, 1, 2)
        )
        means = np.mean([values.mean(1) for values in differences.values()], axis=0)
        np.testing.assert_allclose(means, result["differences"])
        assert {task: values.shape for task, values in differences.items()} == {
            task: (3, len(labels)) for task, labels in families.items()
        }
        assert np.isnan(result["wide_low"]), "three blocks are too few"
    assert found[3]["verdict"] == "not run"
