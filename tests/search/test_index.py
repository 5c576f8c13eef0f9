"""The index finds what a plain search finds, in one modality and mixed, standardised and saved."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unite_core.data.modality import Modality
from unite_core.search.config import IndexConfig
from unite_core.search.exact import search
from unite_core.search.index import build_index, load_index
from unite_core.search.scorers import COSINE, CosineWithModality, Factorised, Standardised
from unite_core.search.shards import Shard, ShardFolder, shard_sums, write_shard

KINDS = [
    IndexConfig(),
    IndexConfig("hnsw", search_depth=400),
    IndexConfig("ivf", cells=4, probes=4),
]


class Fixed:
    """The same first factor for every query."""

    codes = (1, 2, 3, 4)

    def log_probabilities(self, query_vectors):
        return np.repeat(np.log([[0.1, 0.2, 0.3, 0.4]]), len(query_vectors), axis=0)


SCORERS = [COSINE, Standardised(), CosineWithModality(Fixed()), Factorised(Fixed(), 0.05)]


def units(rng, n, dim=16) -> np.ndarray:
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def world(n=400, seed=0, offset=0.0) -> tuple[list[Shard], np.ndarray, np.ndarray]:
    """Shards of 64 candidates, all their vectors, and their modalities."""
    rng = np.random.default_rng(seed)
    modality = rng.choice([1, 2, 4, 3], n, p=[0.4, 0.4, 0.15, 0.05]).astype(np.uint8)
    vectors = units(rng, n)
    vectors[modality == 2] += offset * units(rng, 1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    shards = [
        Shard([f"id{row}" for row in range(s, min(s + 64, n))], vectors[s : s + 64],
              modality[s : s + 64]) for s in range(0, n, 64)
    ]  # fmt: skip
    return shards, vectors, modality


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_mixed_and_single_pools_are_those_of_a_plain_search(config):
    shards, vectors, modality = world()
    index = build_index(shards, config)
    queries = units(np.random.default_rng(1), 20)
    scores, rows = search(queries, vectors, 10)
    found = index.search(queries, 10)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    np.testing.assert_array_equal(found.modality, modality[rows])
    assert index.names(found.rows[:1, :2]) == [[f"id{row}" for row in rows[0, :2]]]
    for asked, codes in ((["image"], [2]), (["text+image", Modality.VIDEO], [3, 4])):
        mine = np.flatnonzero(np.isin(modality, codes))
        scores, rows = search(queries, vectors[mine], 10)
        found = index.search(queries, 10, asked)
        np.testing.assert_array_equal(found.rows, mine[rows])
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)


def test_the_kinds_that_look_at_less_find_most():
    shards, vectors, _ = world(4000)
    queries = units(np.random.default_rng(1), 50)
    _, exact = search(queries, vectors, 10)
    for config in (IndexConfig("hnsw", search_depth=64), IndexConfig("ivf", cells=16, probes=8)):
        rows = build_index(shards, config).search(queries, 10).rows
        recall = np.mean([len(set(a) & set(b)) for a, b in zip(rows, exact, strict=True)]) / 10
        assert 0.8 < recall <= 1
    few = build_index(shards, IndexConfig("ivf", cells=16, probes=1)).search(queries, 10).rows
    assert np.mean(few == exact) < 0.9, "a single cell misses some, so probes are used"


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_standardised_scores_are_those_over_all_candidates(config):
    shards, vectors, modality = world(offset=2.0)
    index = build_index(shards, config)
    queries = units(np.random.default_rng(1), 8)
    scores = (queries @ vectors.T).astype(np.float64)
    for code in np.unique(modality):
        part = scores[:, modality == code]
        scores[:, modality == code] = (part - part.mean(1)[:, None]) / part.std(1)[:, None]
    found = index.search(queries, 12, scorer=Standardised())
    order = np.argsort(-scores, axis=1, kind="stable")[:, :12]
    np.testing.assert_array_equal(found.rows, order)
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, 1), atol=1e-4)
    plain = index.search(queries, 12)
    assert not np.array_equal(plain.rows, found.rows)
    alone, z = (index.search(queries, 9, ["video"], scorer=s) for s in (COSINE, Standardised()))
    np.testing.assert_array_equal(alone.rows, z.rows)


def test_a_modality_whose_scores_are_one_and_the_same_has_z_0():
    rng = np.random.default_rng(0)
    vectors = np.concatenate([units(rng, 30), units(rng, 1).repeat(5, 0), units(rng, 1)])
    modality = np.array([1] * 30 + [2] * 5 + [4], dtype=np.uint8)
    index = build_index([Shard([str(n) for n in range(36)], vectors, modality)])
    found = index.search(units(rng, 4), 36, scorer=Standardised())
    assert (np.abs(found.scores[found.modality != 1]) < 1e-6).all()
    assert np.isfinite(found.scores).all()


def test_moments_of_known_vectors():
    """A modality gap as an offset: the mixed pool by score has one modality, by z both."""
    rng = np.random.default_rng(3)
    base, gap = units(rng, 200), 3 * units(rng, 1)
    shift = base + gap
    vectors = np.concatenate([base, shift / np.linalg.norm(shift, axis=1, keepdims=True)])
    modality = np.repeat([1, 2], 200).astype(np.uint8)
    index = build_index([Shard([str(n) for n in range(400)], vectors.astype(np.float32), modality)])
    query = (gap / np.linalg.norm(gap)).astype(np.float32)
    assert set(index.search(query, 10).modality[0]) == {2}
    assert set(index.search(query, 10, scorer=Standardised()).modality[0]) == {1, 2}


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 3), st.sampled_from(SCORERS))
def test_any_k_and_exclusions(n, k, hidden, scorer):
    shards, vectors, _ = world(n, seed=n)
    vectors[: n // 2] = vectors[0]  # ties
    shards = [Shard(s.ids, vectors[64 * i : 64 * i + 64], s.modality) for i, s in enumerate(shards)]
    index = build_index(shards)
    queries = units(np.random.default_rng(k), 3)
    excluded = [list(range(q, min(q + hidden, n))) for q in range(3)]
    found = index.search(queries, k, excluded=excluded)
    scores, rows = search(queries, vectors, k, excluded)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.scores, scores)
    z = index.search(queries, k, scorer=scorer, excluded=excluded)
    left = (z.rows >= 0).sum(1)
    assert left.tolist() == [min(k, n - len(e)) for e in excluded]
    assert (np.diff(np.where(z.rows < 0, -1e30, z.scores), axis=1) <= 0).all()


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_saved_and_loaded_is_the_same(tmp_path, config):
    shards, _, _ = world()
    index = build_index(shards, config)
    index.save(tmp_path / "index")
    index.save(tmp_path / "index")  # over itself
    again = load_index(tmp_path / "index")
    assert (again.config, again.ids, again.counts) == (index.config, index.ids, index.counts)
    queries = units(np.random.default_rng(1), 5)
    for options in ({}, *({"scorer": scorer} for scorer in SCORERS), {"modalities": ["text"]}):
        for first, second in zip(index.search(queries, 7, **options),
                            again.search(queries, 7, **options), strict=True):  # fmt: skip
            np.testing.assert_array_equal(first, second)
    (tmp_path / "index" / "index.json").unlink()
    with pytest.raises(ValueError, match="no whole index"):
        load_index(tmp_path / "index")
    with pytest.raises(ValueError, match="holds other files"):
        index.save(tmp_path / "index")


def test_a_folder_of_shards_is_read_only_when_it_is_finished(tmp_path):
    shards, _, _ = world(130)
    for number, shard in enumerate(shards):
        write_shard(tmp_path / f"vectors-{number:06d}.safetensors", shard)
    with pytest.raises(ValueError, match="no finished corpus"):
        ShardFolder(tmp_path)
    (tmp_path / "report.json").write_text('{"inputs": {"model": "abc"}}')
    with pytest.raises(ValueError, match="does not list the shards with their checksums; remove"):
        ShardFolder(tmp_path)
    report = {"inputs": {"model": "abc"}, "files": shard_sums(tmp_path)}
    (tmp_path / "report.json").write_text(json.dumps(report))
    queries = units(np.random.default_rng(1), 5)
    first, second = build_index(ShardFolder(tmp_path)), build_index(shards)
    np.testing.assert_array_equal(first.search(queries, 5).rows, second.search(queries, 5).rows)
    assert first.ids == second.ids
    assert (first.model, second.model) == ("abc", "")


def test_what_makes_no_sense_is_refused():
    shards, vectors, _ = world(70)
    index = build_index(shards)
    with pytest.raises(ValueError, match="holds vectors of size 16"):
        index.search(np.ones((1, 8)), 3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        index.search(vectors[:1], 0)
    with pytest.raises(ValueError, match="has the modality image\\+video; the index has text"):
        index.search(vectors[:1], 3, ["image+video"])
    with pytest.raises(TypeError, match="a list of names"):
        index.search(vectors[:1], 3, "image")
    with pytest.raises(TypeError, match="a ShardFolder"):
        build_index(iter(shards))
    with pytest.raises(ValueError, match="nothing to search"):
        build_index([])
    with pytest.raises(ValueError, match="'tree'"):
        IndexConfig("tree")
    with pytest.raises(ValueError, match="at least 1"):
        IndexConfig("ivf", probes=0)
    bad = vectors.copy()
    bad[3, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        build_index([Shard([str(n) for n in range(70)], bad, np.ones(70, dtype=np.uint8))])
