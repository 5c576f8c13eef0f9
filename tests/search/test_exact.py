"""Exact search against a stable sort of all scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unite_core.search.exact import DeviceIndex, ranked, search, search_past_ties


def unit(rows, dim, seed):
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def full_ranking(queries, candidates):
    return np.argsort(-(queries @ candidates.T), axis=1, kind="stable")


def lattice(rows, dim, seed):
    """Small integers: inner products are exact in float32 and ties are common."""
    return np.random.default_rng(seed).integers(-1, 2, (rows, dim)).astype(np.float32)


def test_search_equals_a_stable_sort_of_all_scores():
    queries, candidates = unit(30, 16, 0), unit(200, 16, 1)
    scores, indices = search(queries, candidates, 10)
    assert (indices == full_ranking(queries, candidates)[:, :10]).all()
    np.testing.assert_allclose(
        scores, np.take_along_axis(queries @ candidates.T, indices, 1), rtol=1e-5, atol=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 60),
    k=st.integers(1, 70),
    dim=st.integers(1, 4),
)
def test_ties_go_to_the_lower_index_also_at_the_last_rank(seed, n, k, dim):
    queries, candidates = lattice(5, dim, seed), lattice(n, dim, seed + 1)
    _, indices = search(queries, candidates, k)
    wanted = np.full((5, k), -1)
    wanted[:, : min(k, n)] = full_ranking(queries, candidates)[:, :k]
    assert (indices == wanted).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 30))
def test_excluded_candidates_are_skipped_and_the_rest_keep_their_order(seed, k):
    queries, candidates = lattice(4, 3, seed), lattice(25, 3, seed + 1)
    generator = np.random.default_rng(seed)
    excluded = [generator.choice(25, size, replace=False) for size in (0, 1, 7, 25)]
    scores, indices = search(queries, candidates, k, excluded)
    for row, ranking in enumerate(full_ranking(queries, candidates)):
        wanted = [index for index in ranking if index not in excluded[row]][:k]
        assert indices[row].tolist() == wanted + [-1] * (k - len(wanted))
        assert np.isneginf(scores[row, len(wanted) :]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: search(np.ones((2, 3)), np.ones((4, 5)), 1), "embed both with one model"),
        (lambda: search(np.ones(3), np.ones((4, 3)), 1), r"query_vectors must be.*not \[3\]"),
        (lambda: search(np.ones((2, 3)), np.ones((0, 3)), 1), "candidate_vectors must be"),
        (lambda: search(np.full((2, 3), np.nan), np.ones((4, 3)), 1), "row 0 is not finite"),
        (lambda: search(np.ones((2, 3)), np.ones((4, 3)), 0), "k must be at least 1, not 0"),
        (lambda: search(np.ones((2, 3)), np.ones((4, 3)), 1, [[0]]), "1 rows for 2 queries"),
    ],
)
def test_bad_vectors_are_refused_with_their_shapes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), k=st.integers(1, 20),
       block=st.tuples(st.integers(1, 17), st.integers(1, 4)))  # fmt: skip
def test_a_device_searches_in_blocks_what_faiss_finds(seed, n, k, block):
    queries, candidates = lattice(5, 3, seed), lattice(n, 3, seed + 1)
    index = DeviceIndex(candidates, "cpu", block)
    found = ranked(*search_past_ties(index, queries, k), k)
    for ours, theirs in zip(found, search(queries, candidates, k), strict=True):
        assert ours.dtype == theirs.dtype and (ours == theirs).all()
