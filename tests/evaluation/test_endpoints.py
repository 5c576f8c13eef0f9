"""Endpoints: which tasks they average is read off the task file, what they average off a result."""

import numpy as np
import pytest

from unite_core.evaluation.endpoints import (
    ENDPOINTS,
    Endpoint,
    endpoint_tasks,
    endpoint_values,
)
from unite_core.evaluation.families import macro
from unite_core.evaluation.tasks import RetrievalTask, evaluate

BOTH = Endpoint("both", ("many", "few"))


def task(name, families, split="concept"):
    queries = [{"text": f"{name} {n}"} for n in range(len(families))]
    candidates = [{"image": f"{n}.png"} for n in range(len(families))]
    return RetrievalTask(name, split, queries, candidates,
                         [[n] for n in range(len(families))], families)  # fmt: skip


@pytest.fixture
def tasks():
    many = [f"family {n}" for n in range(12)]
    return [task("many", many), task("few", many[:9]), task("few", many, split="style")]


class Noise:
    def embed(self, items, media_root=".", progress=True):
        return np.random.default_rng(0).standard_normal((len(items), 8)).astype(np.float32)


def test_tasks_with_few_effective_families_are_in_no_endpoint(tasks):
    kept = endpoint_tasks(BOTH, tasks, "concept")
    assert kept == {"many": tasks[0].families}


def test_the_value_is_the_plain_mean_of_the_tasks_scores(tasks):
    result = evaluate(Noise(), tasks[:1] + [task("few", tasks[0].families)])
    both = [*tasks[:1], task("few", tasks[0].families)]
    values = endpoint_values(BOTH, result, both, "concept")
    scores = [result.score(name, "concept").value for name in ("many", "few")]
    assert macro(values) == pytest.approx(np.mean(scores))
    mixed = endpoint_values(Endpoint("m", ("many",), "mixed", "recall@1"), result, both, "concept")
    assert mixed["many"] == result.score("many", "concept", "recall@1", "mixed").per_query


def test_what_cannot_be_averaged_is_said(tasks):
    with pytest.raises(ValueError, match="split 'style' has no task many"):
        endpoint_tasks(BOTH, tasks, "style")
    with pytest.raises(ValueError, match="no task has enough families"):
        endpoint_tasks(Endpoint("x", ("few",)), tasks, "concept")


def test_the_studies_endpoints_pair_bare_and_trained_words():
    plain, asked = ENDPOINTS["P1a"], ENDPOINTS["P1b"]
    assert [f"{name}, asked" for name in plain.tasks] == list(asked.tasks)
    assert ENDPOINTS["P2"].tasks == ENDPOINTS["P3"].tasks and len(ENDPOINTS["P2"].tasks) == 7
    assert [e.pool for e in ENDPOINTS.values()] == ["single"] * 3 + ["mixed"]
