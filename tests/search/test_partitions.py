"""Estimated log partitions: exact sums, intervals that hold, and real indexes that miss some."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from unite_core.search.config import IndexConfig
from unite_core.search.index import build_index
from unite_core.search.partitions import estimate_log_partition
from unite_core.search.scorers import Factorised
from unite_core.search.shards import Shard


def units(rng, n, dim) -> np.ndarray:
    vectors = rng.standard_normal((n, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def uniform(rng, n, dim) -> tuple[np.ndarray, np.ndarray]:
    """Queries that resemble no candidate more than chance would have it."""
    return units(rng, 20, dim), units(rng, n, dim)


def clustered(rng, n, dim) -> tuple[np.ndarray, np.ndarray]:
    """As of a trained model: candidates in clusters of a narrow cone, queries close to some."""
    centres = units(rng, n // 100, dim) + units(rng, 1, dim)
    pool = centres[rng.integers(len(centres), size=n)] + 0.5 * units(rng, n, dim)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    queries = pool[:20] + 0.4 * units(rng, 20, dim)
    return queries / np.linalg.norm(queries, axis=1, keepdims=True), pool


def estimate(scores, depth, draws, temperature, rng):
    """From the `depth` best of all scores [Q, n] and a sample with replacement."""
    places, counts = np.unique(rng.integers(scores.shape[1], size=draws), return_counts=True)
    best = np.argsort(-scores, axis=1)[:, :depth]
    weights = np.array([np.where(np.isin(places, found), 0, counts) for found in best])
    rest = np.full(len(scores), scores.shape[1] - depth)
    found = np.take_along_axis(scores, best, 1)
    return estimate_log_partition(found, scores[:, places], weights, rest, temperature)


@pytest.mark.parametrize("world", [uniform, clustered])
@pytest.mark.parametrize("temperature", [0.03, 0.1, 1.0])
@pytest.mark.parametrize(("depth", "draws"), [(64, 500), (8, 100), (1, 20)])
def test_the_interval_holds_as_often_as_it_says(world, temperature, depth, draws):
    """For a search that missed nothing, over draws of the sample; and it beats the plain bound."""
    rng = np.random.default_rng(0)
    queries, pool = world(rng, 2000, 32)
    scores = queries @ pool.T
    truth = logsumexp(scores / temperature, axis=1)
    held, errors, spread = [], [], []
    for _ in range(100):
        found = estimate(scores, depth, draws, temperature, rng)
        held.append((found.low <= truth + 1e-9) & (truth <= found.high + 1e-9))
        errors.append(np.exp(found.value - truth) - 1)
        spread.append(found.standard_error)
        assert (found.low <= found.value + 1e-9).all() and (found.value <= found.high + 1e-9).all()
        best = np.sort(scores, axis=1)[:, -depth:] / temperature
        bound = np.logaddexp(logsumexp(best, axis=1), np.log(2000 - depth) + best[:, 0])
        assert (found.high <= bound + 1e-9).all()
    assert np.mean(held, axis=0).min() >= 0.95, "for every query by itself"
    if draws >= 500:  # enough for a mean of 100 draws to be normal
        error = np.mean(errors, axis=0) / (np.std(errors, axis=0) / 10 + 1e-12)
        assert np.abs(error).max() < 4.5, "no bias"
        wanted, given = (np.sqrt(np.mean(np.square(part))) for part in (errors, spread))
        assert given == pytest.approx(wanted, rel=0.2)


@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), depth=st.integers(1, 40))
def test_whatever_was_found_the_lower_end_holds_when_it_is_what_was_seen(seed, n, depth):
    """Also of a search that missed the best: what was summed is a part of the whole."""
    rng = np.random.default_rng(seed)
    scores, depth = rng.uniform(-1, 1, (3, n)), min(depth, n)
    found = rng.permuted(np.tile(np.arange(n), (3, 1)), axis=1)[:, :depth]
    places, counts = np.unique(rng.integers(n, size=5), return_counts=True)
    weights = np.array([np.where(np.isin(places, row), 0, counts) for row in found])
    value = estimate_log_partition(
        np.take_along_axis(scores, found, 1), scores[:, places], weights, np.full(3, n - depth), 0.1
    )
    seen = [
        logsumexp(row[np.union1d(at, places)] / 0.1) for row, at in zip(scores, found, strict=True)
    ]
    assert (value.low >= seen - np.float64(1e-9)).all()
    assert np.isfinite(np.stack([value.value, value.low, value.high])).all()
    if depth == n:
        truth = logsumexp(scores / 0.1, axis=1)
        for part in value[:3]:
            np.testing.assert_allclose(part, truth)
        assert (value.standard_error == 0).all()


def test_padding_cold_scores_and_empty_samples_are_no_trouble():
    found = np.array([[1.0, -np.inf], [-np.inf, -np.inf]])
    value = estimate_log_partition(
        found, np.zeros((2, 1)), np.zeros((2, 1)), np.array([5, 0]), 1e-3
    )
    assert value.low[0] == 1000 and value.high[0] == pytest.approx(np.log(6) + 1000)
    assert np.isneginf(value.value[1]) and np.isneginf(value.high[1])


SMALL = {"partition_depth": 64, "partition_sample": 500}


@pytest.mark.parametrize(
    "config",
    [
        IndexConfig("hnsw", search_depth=400, **SMALL),
        IndexConfig("ivf", cells=8, probes=8, **SMALL),
    ],
    ids=lambda config: config.kind,
)
def test_indexes_that_look_at_less_estimate_what_a_flat_one_sums(config, tmp_path):
    rng = np.random.default_rng(1)
    queries, pool = clustered(rng, 3000, 16)
    modality = np.repeat([1, 2, 4], [2000, 700, 300]).astype(np.uint8)
    shards = [Shard([str(n) for n in range(3000)], pool.astype(np.float32), modality)]
    excluded = [[row, 2000 + row, 2999] for row in range(20)]
    flat, index = build_index(shards), build_index(shards, config)
    truth = flat.log_partitions(queries, 0.05, excluded=excluded)
    found = index.log_partitions(queries, 0.05, excluded=excluded)
    for code in (1, 2, 4):
        exact, value = truth[code], found[code]
        assert (exact.low == exact.high).all() and (exact.standard_error == 0).all()
        scores = np.where(modality == code, queries @ pool.T / 0.05, -np.inf)
        for row, hidden in enumerate(excluded):
            scores[row, hidden] = -np.inf
        np.testing.assert_allclose(exact.value, logsumexp(scores, axis=1), atol=1e-4)
        assert (value.low <= exact.value + 1e-4).all() and (exact.value <= value.high + 1e-4).all()
        np.testing.assert_allclose(value.value, exact.value, atol=0.05)
        is_exact = code == 4  # of at most partition_sample candidates
        assert ((value.standard_error == 0).all()) == is_exact
    first = flat_first(queries)
    wanted = flat.search(queries, 10, scorer=Factorised(first, 0.05), excluded=excluded)
    got = index.search(queries, 10, scorer=Factorised(first, 0.05), excluded=excluded)
    shared = [len(set(a) & set(b)) for a, b in zip(wanted.rows, got.rows, strict=True)]
    assert np.mean(shared) > 9
    index.save(tmp_path / "index")


def flat_first(queries):
    from unite_core.search.factorised import GivenFactor

    return GivenFactor([1, 2, 4], np.log(np.tile([0.2, 0.5, 0.3], (len(queries), 1))))


def test_a_sample_does_not_depend_on_when_it_is_drawn():
    rng = np.random.default_rng(1)
    queries, pool = clustered(rng, 1500, 16)
    shards = [
        Shard([str(n) for n in range(1500)], pool.astype(np.float32), np.ones(1500, np.uint8))
    ]
    config = IndexConfig("ivf", cells=4, **SMALL)
    first, second = (build_index(shards, config) for _ in range(2))
    whole = first.log_partitions(queries, 0.05)[1]
    second.search(queries, 3)
    for row, query in enumerate(queries):
        alone = second.log_partitions(query[None], 0.05)[1]
        for part, of_all in zip(alone, whole, strict=True):
            np.testing.assert_allclose(part[0], of_all[row], atol=1e-5)
