"""Mixes are equal in size and nested, and gains are those of paired queries."""

import numpy as np
import pytest

from unite_core.evaluation.data_mixes import (
    MIXES,
    compare,
    describe,
    draw_mix,
    effects,
    parse_mixes,
    undirected_pair_type,
)
from unite_core.evaluation.metrics import bootstrap_interval
from unite_core.evaluation.results import EvaluationResult, Score
from unite_core.evaluation.tasks import RetrievalTask

RECORDS = [
    *({"query": {"text": f"word {n}"}, "candidate": {"text": f"means {n}"}} for n in range(20)),
    *({"query": {"text": f"a b {n}"}, "candidate": {"image": f"{n}.png"}} for n in range(15)),
    *({"query": {"image": f"{n}.png"}, "candidate": {"text": f"a b {n}"}} for n in range(15)),
    *({"query": {"video": f"{n}.mp4"}, "candidate": {"text": f"clip {n}"}} for n in range(10)),
]
TASK = RetrievalTask(
    "t", "development", queries=[{"text": f"{n}"} for n in range(40)],
    candidates=[{"image": f"{n}.png"} for n in range(40)], positives=[[n] for n in range(40)],
    families=[f"family {n // 2}" for n in range(40)],
)  # fmt: skip


def result(values, seed=0, tasks_hash="same") -> EvaluationResult:
    families = {"development": {"t": TASK.families}}
    score = Score("t", "development", "single", "recall@10", float(np.mean(values)), 0, 1, 0.1,
                  len(values), 40, 20, 20.0, list(values))  # fmt: skip
    return EvaluationResult([score], families, tasks_hash, {}, seed)


def test_pair_types_have_no_direction():
    assert {undirected_pair_type(record) for record in RECORDS} == {
        "text-text",
        "text-image",
        "text-video",
    }


def test_mixes_are_read_and_their_mistakes_named():
    assert list(parse_mixes(MIXES).values())[-1] == ("text-text", "text-image", "text-video")
    assert parse_mixes(" a,b+c ") == {"a": ("a",), "b + c": ("b", "c")}
    for wrong in ("a", "", "a, b + b", "a, + b"):
        with pytest.raises(ValueError, match="give"):
            parse_mixes(wrong)


@pytest.mark.parametrize("seed", range(3))
def test_mixes_have_equal_size_and_shares_and_are_nested(seed):
    mixes = {name: draw_mix(RECORDS, types, 10, seed) for name, types in parse_mixes(MIXES).items()}
    for name, records in mixes.items():
        assert len(records) == len({str(record) for record in records}) == 10
        counts = [sum(undirected_pair_type(record) == kind for record in records)
                  for kind in name.split(" + ")]  # fmt: skip
        assert sum(counts) == 10 and max(counts) - min(counts) <= 1
    for name, records in mixes.items():
        for record in records:
            assert record in mixes[undirected_pair_type(record)], (
                f"{name} draws from the single types"
            )
    assert draw_mix(RECORDS, ["text-text"], 10, seed) == mixes["text-text"]
    assert draw_mix(RECORDS, ["text-text"], 10, seed + 1) != mixes["text-text"]


def test_too_few_pairs_are_named():
    with pytest.raises(ValueError, match="12 pairs of text-video .* 10 text-video"):
        draw_mix(RECORDS, ["text-image", "text-video"], 24)
    with pytest.raises(ValueError, match="5 pairs of image-image are asked for"):
        draw_mix(RECORDS, ["image-image"], 5)


def test_descriptions_count_what_is_there():
    records = RECORDS[18:22]  # two of text-text, two of text-image
    (row,) = describe({"both": records})
    assert (row["mix"], row["pairs"], row["items"]) == ("both", 4, 8)
    assert row["words"] == (2 * 4 + 3 * 2) / 6
    assert row["targets"] == "50% text, 50% image"


def test_seeds_are_averaged_by_query_before_they_are_compared():
    rng = np.random.default_rng(0)
    base, *seeds = (rng.integers(0, 2, 40).astype(float) for _ in range(4))
    results = [result(values) for values in seeds]
    difference = np.mean(seeds, axis=0) - base
    gain, low, high = compare([result(base)], results, TASK)
    assert gain == pytest.approx(difference.mean())
    expected = bootstrap_interval(difference, TASK.families, seed=0)
    assert (low, high) == pytest.approx(expected)
    (row,) = effects({"mix": results}, [result(base)], [TASK])
    means = [values.mean() for values in seeds]
    assert (row["lowest"], row["highest"]) == pytest.approx((min(means), max(means)))
    assert row["value"] == pytest.approx(np.mean(means)) and row["n"] == 40
    assert (row["gain"], row["low"], row["high"]) == (gain, low, high)
    with pytest.raises(ValueError, match="different tasks"):
        compare([result(base)], [results[0], result(base, tasks_hash="other")], TASK)
