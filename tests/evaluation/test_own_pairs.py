"""Tasks from pairs: both ways, groups of queries and candidates, families for intervals."""

from unite_core.data.pairs import PairDataset
from unite_core.data.records import write_records
from unite_core.evaluation.own_pairs import pair_families, pair_tasks


def dataset(folder, *rows):
    """Pairs of texts: (query, candidate) with further fields."""
    records = [
        {"query": {"text": q}, "candidate": {"text": c}, **more} for q, c, more in rows
    ]  # fmt: skip
    write_records(folder / "pairs.jsonl", records)
    return PairDataset([folder / "pairs.jsonl"])


def right(task):
    return {
        query["text"]: {task.candidates[place]["text"] for place in found}
        for query, found in zip(task.queries, task.positives, strict=True)
    }


def test_queries_of_one_group_share_their_answers(tmp_path):
    pairs = dataset(
        tmp_path, ("a", "x", {"query_group": "g"}), ("A", "y", {"query_group": "g"}), ("b", "z", {})
    )
    (task,) = pair_tasks(pairs)
    assert right(task) == {"a": {"x", "y"}, "A": {"x", "y"}, "b": {"z"}}


def test_both_ways_adds_each_pair_backwards(tmp_path):
    (task,) = pair_tasks(dataset(tmp_path, ("a", "x", {}), ("b", "x", {})), both_ways=True)
    assert right(task) == {"a": {"x"}, "b": {"x"}, "x": {"a", "b"}}


def test_a_family_is_what_shares_an_item(tmp_path):
    rows = [("a", "x", {}), ("b", "x", {}), ("b", "y", {}), ("c", "z", {})]
    names = pair_families(dataset(tmp_path, *rows))
    assert len(set(names[:3])) == 1 and names[3] not in names[:3]
    (task,) = pair_tasks(dataset(tmp_path, *rows), both_ways=True, families=names)
    assert len(set(task.families)) == 2
    family = dict(zip((query["text"] for query in task.queries), task.families, strict=True))
    assert family["a"] == family["b"] == family["x"] == family["y"] != family["c"] == family["z"]
