"""The input is complete and drawn by the seed; mistakes and outcomes count what was injected."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from unite_core.corpora.shapes import ShapesConfig, build
from unite_core.curate.fault_injection import Fault
from unite_core.curate.filter import FilterResult
from unite_core.curate.reasons import Reasons
from unite_core.notebook import curation as study


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes")
    build(root, ShapesConfig(records=12, queries=2))
    return root


@pytest.fixture
def injected():
    faults = [Fault("static", 1, -1), Fault("leak", 2, 0), Fault("swapped caption", 4, -1)]
    return SimpleNamespace(faults=faults, rows=[{}] * 6)


@pytest.fixture
def reasons():
    reasons = Reasons(6)
    reasons.mark("static", np.array([1, 5]))
    reasons.mark("near duplicate", np.array([4]))
    return reasons


def test_a_corpus_gives_both_stages_and_all_right_answers(root):
    given = study.from_corpus(root)
    tasks = json.loads((root / "tasks.json").read_text())
    assert len(given.rows) == 24 and given.root == root
    assert len(given.tests) == sum(len(right) for t in tasks for right in t["positives"])


def test_a_recipe_gives_its_records_without_hard_negatives_and_its_rules(tmp_path):
    text = {"text": "a"}
    row = {"query": text, "candidate": {"text": "b"}, "negative": {"text": "c"}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    source = {"name": "mine", "path": "rows.jsonl"}
    recipe = {"name": "m", "output": "out", "sources": [source], "tests": [source]}
    recipe["rules"] = {"duplicates": "exact"}
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    given = study.from_recipe(path)
    assert given.rows == [{"query": text, "candidate": {"text": "b"}, "source": "mine"}]
    assert len(given.tests) == 1 and given.rules.duplicates == "exact"
    recipe |= {"rules": {"alignment": "embedder"}, "model": "some/model"}
    path.write_text(json.dumps(recipe))
    assert study.from_recipe(path).model == "some/model"


def test_the_seed_draws_and_order_stays(root):
    given = study.from_corpus(root)
    first, again, other = (study.sample(given, 8, seed) for seed in (0, 0, 1))
    assert first == again and first.rows != other.rows
    assert (len(first.rows), len(first.tests)) == (8, 4)
    places = [given.rows.index(row) for row in first.rows]
    assert places == sorted(places)
    assert study.sample(given, 10_000, 0) == given
    with pytest.raises(ValueError, match="at least 1"):
        study.sample(given, 0, 0)


def test_mistakes_are_missed_faults_and_other_reasons(injected, reasons):
    wrong = study.mistakes(injected, reasons)
    assert wrong["missed"].tolist() == [2, 4]
    assert wrong["false alarms"].tolist() == [4]
    assert study.not_planted(injected, reasons).tolist() == [5], "found, not known to be wrong"


def test_outcomes_count_every_record_once(injected, reasons):
    assert study.outcomes(injected, reasons) == {
        "faults": 3, "faults kept": 1, "sound": 3, "sound dropped": 1,
    }  # fmt: skip


def test_similarities_are_unknown_without_alignment(reasons):
    alignment = SimpleNamespace(similarity=np.array([0.5, 0.25]))
    result = FilterResult(reasons, None, None, np.array([0, 3]), alignment)
    found = result.per_record("similarity")
    assert found[[0, 3]].tolist() == [0.5, 0.25] and np.isnan(found).sum() == 4
    assert np.isnan(result._replace(alignment=None).per_record("similarity")).all()
