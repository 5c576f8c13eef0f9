"""Pairs that are hard for each other share a batch: the graph, the cut, the order of batches."""

# ruff: noqa: F811 - a fixture of another module is an argument
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.test_claim import (  # noqa: F401 - corpus is a fixture
    COLOURS,
    config_of,
    corpus,
    stopped,
)
from tests.train.test_mixing import table_of
from tests.train.test_parallel import run_processes
from tests.train.test_refresh import same, weights
from unite_core.data.pairs import PairDataset
from unite_core.data.records import write_records
from unite_core.train import clusters as clusters_module
from unite_core.train.batch_order import iter_batches
from unite_core.train.clusters import cluster_rows, negative_edges, pair_clusters
from unite_core.train.config import SamplingConfig
from unite_core.train.mixing import pair_weights, plan_pools
from unite_core.train.run import train
from unite_core.train.sampler import PairSampler


def planted(groups: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Groups of pairs in random order, all edges within them; and a few edges between."""
    draw = np.random.default_rng(seed)
    group = draw.permutation(np.repeat(np.arange(groups), size))
    inside = [
        (i, j) for g in range(groups) for i in np.flatnonzero(group == g)
        for j in np.flatnonzero(group == g) if i != j
    ]  # fmt: skip
    between = draw.integers(0, len(group), (len(group), 2))
    return group, np.array([*inside, *between[between[:, 0] != between[:, 1]]])


@pytest.mark.parametrize(("groups", "size"), [(2, 6), (12, 6), (30, 4)])
def test_groups_of_mutual_negatives_are_found(groups, size):
    group, edges = planted(groups, size)
    number = cluster_rows(edges, np.arange(len(group)), size)
    assert len(set(zip(group.tolist(), number.tolist(), strict=True))) == groups


@given(st.integers(1, 60), st.integers(2, 9), st.integers(0, 3), st.integers(0, 99))
@settings(max_examples=60)
def test_clusters_have_one_size_whatever_the_graph(pairs, size, degree, seed):
    draw = np.random.default_rng(seed)
    rows = np.sort(draw.choice(100, pairs, replace=False))
    edges = draw.integers(0, 100, (degree * 100, 2))
    edges = np.concatenate([edges, [[0, 1]]])
    number = cluster_rows(edges, rows, size)
    counts = np.bincount(number)
    assert counts[:-1].tolist() == [size] * (len(counts) - 1)
    assert counts.sum() == pairs and 1 <= counts[-1] <= size
    assert np.array_equal(number, cluster_rows(edges, rows, size)), "the same every time"


def test_an_edge_in_both_directions_is_worth_two():
    mutual = [(0, 1), (1, 0), (2, 3), (3, 2)]
    edges = np.array([*mutual, (0, 2), (1, 3), (0, 3)])
    number = cluster_rows(edges, np.arange(4), 2)
    assert number[0] == number[1] != number[2] == number[3]


@given(st.integers(8, 40), st.integers(2, 4), st.integers(1, 2), st.integers(0, 5))
@settings(max_examples=40)
def test_every_pair_comes_once_in_an_epoch_and_clusters_stay_together(pairs, size, units, seed):
    group, edges = planted(-(-pairs // size), size, seed)
    edges = edges[(edges < pairs).all(axis=1)]
    config = SamplingConfig(group_by="cluster", sub_batch=size)
    table = table_of(np.zeros(pairs, int))
    number = cluster_rows(edges, np.arange(pairs), size)
    pools = plan_pools(table, config, size * units, pair_weights(table, {}, config), number)
    epochs, broken = 6, 0
    batches = islice(iter_batches(pools, config, seed), epochs * pairs // (size * units))
    drawn = np.concatenate(list(batches))
    for epoch in range(len(drawn) // pairs):
        part = drawn[epoch * pairs : (epoch + 1) * pairs]
        assert sorted(part) == list(range(pairs))
    for unit in drawn.reshape(-1, size):
        broken += len(set(number[unit])) > 1
    assert broken <= epochs + 1, "those that begin in one epoch and end in the next, and no others"
    firsts = [tuple(drawn[e * pairs : e * pairs + size]) for e in range(epochs - 1)]
    assert pairs < 5 * size or len(set(firsts)) > 1, "each epoch has its own order"


def test_quotas_cluster_each_modality_by_itself(monkeypatch):
    group, edges = planted(12, 4)
    target = 1 + group % 3
    quotas = {"text": 0.5, "image": 0.5, "text+image": 0.0}
    config = SamplingConfig(group_by="cluster", sub_batch=4, quotas=quotas)
    table = table_of(np.zeros(48, int), target=target)
    weights = pair_weights(table, {}, config)
    monkeypatch.setattr(clusters_module, "negative_edges", lambda _: edges)
    number = pair_clusters(SimpleNamespace(table=table), config, weights)
    assert np.array_equal(number == -1, target == 3), "no share, no clusters"
    pools = plan_pools(table, config, 16, weights, number)
    for batch in islice(iter_batches(pools, config, 0), 6):
        units = [set(group[unit]) for unit in batch.reshape(-1, 4)]
        assert all(len(unit) == 1 for unit in units), "a cluster is a planted group"
        assert Counter(target[batch]) == {1: 8, 2: 8}


def test_edges_lead_to_the_pairs_whose_candidates_are_negatives(tmp_path):
    words = ["zero", "one", "two", "two", "four"]
    negatives = [["one", "elsewhere"], ["two"], ["two", "four"], ["no one"], ["zero"]]
    rows = [
        {"query": {"text": f"q{n}"}, "candidate": {"text": word},
         "negative": [{"text": other} for other in others]}
        for n, (word, others) in enumerate(zip(words, negatives, strict=True))
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="1 hard negatives repeat"):
        write_records(tmp_path / "rows.jsonl", rows)
        dataset = PairDataset([tmp_path / "rows.jsonl"])
    found = {tuple(edge) for edge in negative_edges(dataset).tolist()}
    assert found == {(0, 1), (1, 3), (2, 4), (4, 0)}, "1 takes the second of two, 2 drops its own"
    sampler = PairSampler(dataset, 4, 2, sampling=SamplingConfig(group_by="cluster", sub_batch=2))
    assert len(list(sampler)) == 2
    bare = [{name: row[name] for name in ("query", "candidate")} for row in rows]
    write_records(tmp_path / "bare.jsonl", bare)
    with pytest.raises(ValueError, match="write them with unite mine"):
        negative_edges(PairDataset([tmp_path / "bare.jsonl"]))


def test_what_clusters_cannot_do_is_refused():
    with pytest.raises(ValueError, match="needs sub_batch, the pairs of a cluster, above 1"):
        SamplingConfig(group_by="cluster")
    with pytest.raises(ValueError, match="mixing_exponent 1"):
        SamplingConfig(group_by="cluster", sub_batch=4, mixing_exponent=0.5)
    config = SamplingConfig(group_by="cluster", sub_batch=4)
    table = table_of(np.arange(8) % 2)
    with pytest.raises(ValueError, match="needs weights of 1, or of 0"):
        pair_clusters(table, config, pair_weights(table, {"s0": 2.0}, config))
    with pytest.raises(ValueError, match="has 3 pairs, fewer than sub_batch 4"):
        few = table_of(np.zeros(3, int))
        plan_pools(few, config, 4, pair_weights(few, {}, config), np.zeros(3, int))


def chain(folder: Path, pairs: int = 12) -> Path:
    """Records whose hard negatives are the candidates of those beside them."""
    rows = [
        {"query": {"text": f"q{n}"}, "candidate": {"text": f"c{n}"}, "source": f"s{n % 3}",
         "negative": [{"text": f"c{other}"} for other in (n - 1, n + 1) if 0 <= other < pairs]}
        for n in range(pairs)
    ]  # fmt: skip
    write_records(folder / "chain.jsonl", rows)
    return folder / "chain.jsonl"


CHAIN = SamplingConfig(group_by="cluster", sub_batch=3)


def counted_clusters(rank, world, records, file, calls=1):
    """Cluster numbers of a rank, and how often it cut them."""
    cut, cuts = clusters_module._cut, []
    clusters_module._cut = lambda *given: cuts.append(rank) or cut(*given)
    for _ in range(calls):
        sampler = PairSampler(PairDataset([records]), 6, 4, sampling=CHAIN, rank=rank,
                              world_size=world, cluster_file=file)  # fmt: skip
    return list(sampler), len(cuts)


def test_one_of_two_processes_cuts_once_and_a_later_start_not_at_all(tmp_path):
    records, file = chain(tmp_path), tmp_path / "clusters.npz"
    (first, cuts), (second, others) = run_processes(2, counted_clusters, records, file)
    assert (cuts, others) == (1, 0)
    whole = list(PairSampler(PairDataset([records]), 6, 4, sampling=CHAIN))
    assert [a + b for a, b in zip(first, second, strict=True)] == whole
    again = run_processes(2, counted_clusters, records, file)
    assert again == [(first, 0), (second, 0)]
    assert not list(tmp_path.glob("*.partial"))


def test_clusters_are_cut_anew_only_where_what_decides_them_changes(tmp_path, monkeypatch):
    cut, cuts = clusters_module._cut, []
    monkeypatch.setattr(clusters_module, "_cut", lambda *given: cuts.append(1) or cut(*given))
    file, dataset = tmp_path / "clusters.npz", PairDataset([chain(tmp_path)])
    count = len(dataset)

    def kept(config=CHAIN, dataset=dataset, weights=None) -> int:
        """How often a start cuts; what it gets is what a start without a file gets."""
        before = len(cuts)
        given = np.ones(len(dataset)) if weights is None else weights
        number = pair_clusters(dataset, config, given, file)
        assert np.array_equal(number, cut(dataset, config, given))
        return len(cuts) - before

    assert [kept(), kept(), kept(replace(CHAIN, negatives=0))] == [1, 0, 0]
    assert kept(replace(CHAIN, sub_batch=4)) == 1
    assert kept(replace(CHAIN, quotas={"text": 1.0})) == 1
    assert kept(weights=np.arange(count) % 4 > 0) == 1
    (tmp_path / "other").mkdir()
    assert kept(dataset=PairDataset([chain(tmp_path / "other", count + 1)])) == 1
    monkeypatch.setattr(clusters_module, "version", lambda _: "another METIS")
    assert [kept(), kept()] == [1, 0]


def test_a_killed_run_of_clusters_goes_on_to_the_same_bits_without_cutting(corpus, monkeypatch):
    write_records(corpus / "rows" / "a.jsonl", [
        {"query": {"text": colour}, "candidate": {"image": f"{colour}.bmp"},
         "negative": {"image": f"{COLOURS[n - 1]}.bmp"}} for n, colour in enumerate(COLOURS)
    ])  # fmt: skip
    (corpus / "rows" / "b.jsonl").unlink()
    fields = {"sampling": {"group_by": "cluster", "sub_batch": 2, "negatives": 0}}
    train(config_of(corpus, output=str(corpus / "whole"), **fields))
    config = stopped(corpus, monkeypatch, **fields)
    assert (corpus / "out" / "clusters.npz").is_file()
    with monkeypatch.context() as patch:
        patch.setattr(clusters_module, "_cut", None)
        train(config)
    assert same(weights(corpus / "whole"), weights(corpus / "out"))
    train(config_of(corpus, output=str(corpus / "plain")))
    assert not same(weights(corpus / "plain"), weights(corpus / "out")), "clusters matter"
