"""The factorised score is the softmax split in two; its factors, temperature and ranking."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from unite_core.search.exact import search
from unite_core.search.factorised import (
    GivenFactor,
    factorised_scores,
    fit_temperature,
    group_log_partitions,
    known_modality,
    log_probabilities_among,
)
from unite_core.search.pool import rank
from unite_core.search.scorers import (
    COSINE,
    CosineWithModality,
    Factorised,
    Standardised,
    centre,
    fit_centring,
)

CODES = [1, 2, 3, 4]


def units(rng, n, dim=8) -> np.ndarray:
    vectors = rng.standard_normal((n, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def world(seed, n=60, queries=7):
    """Queries, a pool, its modalities, and what each query must not find."""
    rng = np.random.default_rng(seed)
    hidden = [rng.choice(n, rng.integers(0, 4), replace=False).tolist() for _ in range(queries)]
    return units(rng, queries), units(rng, n), rng.choice(CODES, n), hidden


def first_factor(seed, queries=7, sharpness=2.0) -> GivenFactor:
    logits = sharpness * np.random.default_rng(seed).standard_normal((queries, len(CODES)))
    return GivenFactor(CODES, log_softmax(logits, axis=1))


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.01, 3), hide=st.booleans())
def test_with_the_pools_own_first_factor_the_score_is_the_plain_softmax(seed, temperature, hide):
    """log p(c|q) = log p(m|q) + log p(c|q,m), to 1e-12 in float64."""
    queries, pool, modality, hidden = world(seed)
    hidden = hidden if hide else None
    scores = queries @ pool.T / temperature
    for row, found in enumerate(hidden or ()):
        scores[row, found] = -np.inf
    codes, partitions = group_log_partitions(queries, pool, modality, temperature, hidden)
    own = GivenFactor(codes, log_softmax(partitions, axis=1))
    found = factorised_scores(queries, pool, modality, own, temperature, hidden)
    wanted = log_softmax(scores, axis=1)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(np.isneginf(found), ~finite)
    np.testing.assert_allclose(found[finite], wanted[finite], rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.01, 3))
def test_each_factor_is_a_distribution_and_the_first_is_the_one_given(seed, temperature):
    queries, pool, modality, hidden = world(seed)
    first = first_factor(seed)
    scores = factorised_scores(queries, pool, modality, first, temperature, hidden)
    log_p = log_probabilities_among(first, queries, np.unique(modality).tolist())
    for column, code in enumerate(np.unique(modality)):
        left = logsumexp(scores[:, modality == code], axis=1)
        np.testing.assert_allclose(left, log_p[:, column], atol=1e-11)
    np.testing.assert_allclose(np.exp(scores).sum(1), 1, atol=1e-11)


@given(seed=st.integers(0, 10_000), block=st.integers(1, 500))
def test_blocks_of_any_size_give_equal_partitions(seed, block):
    queries, pool, modality, hidden = world(seed)
    codes, whole = group_log_partitions(queries, pool, modality, 0.05, hidden)
    again, parts = group_log_partitions(queries, pool, modality, 0.05, hidden, block)
    np.testing.assert_array_equal(codes, again)
    np.testing.assert_allclose(parts, whole, rtol=1e-13, atol=1e-13)
    for column, code in enumerate(codes):
        scores = queries @ pool[modality == code].T / 0.05
        places = np.flatnonzero(modality == code)
        for row, found in enumerate(hidden):
            scores[row, np.isin(places, found)] = -np.inf
        np.testing.assert_allclose(whole[:, column], logsumexp(scores, axis=1), rtol=1e-12)


def test_partitions_of_cold_scores_do_not_overflow_and_an_empty_group_is_minus_infinity():
    queries, pool = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    _, values = group_log_partitions(queries, pool, [1, 2], 1e-4, [[1]])
    np.testing.assert_array_equal(values, [[1e4, -np.inf]])
    first = GivenFactor([1, 2], np.log([[0.5, 0.5]]))
    scores = factorised_scores(queries, pool, [1, 2], first, 1e-4, [[1]])
    np.testing.assert_allclose(scores, [[np.log(0.5), -np.inf]])


@given(seed=st.integers(0, 10_000), k=st.integers(1, 70))
def test_a_known_modality_is_the_same_as_a_filter(seed, k):
    queries, pool, modality, hidden = world(seed)
    target = np.random.default_rng(seed).choice(np.unique(modality), len(queries))
    scorer = Factorised(known_modality(target, CODES), 0.05)
    scores, found = rank(queries, pool, modality, k, hidden, scorer)
    for row, code in enumerate(target):
        places = np.flatnonzero(modality == code)
        left = [[n for n, place in enumerate(places) if place in hidden[row]]]
        cosines, inside = search(queries[[row]], pool[places], k, left)
        wanted = np.where(inside < 0, -1, places[inside])[0]
        np.testing.assert_array_equal(found[row], wanted)
        shift = scores[row, 0] - cosines[0, 0] / 0.05 if wanted[0] >= 0 else 0
        np.testing.assert_allclose(scores[row], cosines[0] / 0.05 + shift, atol=1e-4)


@given(seed=st.integers(0, 10_000), ties=st.booleans())
def test_no_scorer_changes_the_order_inside_a_modality(seed, ties):
    queries, pool, modality, hidden = world(seed)
    if ties:  # small integers: equal inner products are common, and exact
        pool = np.random.default_rng(seed).integers(-1, 2, pool.shape).astype(float)
        queries = np.random.default_rng(seed + 1).integers(-1, 2, queries.shape).astype(float)
    first = first_factor(seed)
    n = len(pool)
    _, plain = rank(queries, pool, modality, n, hidden)
    for scorer in (Factorised(first, 0.05), CosineWithModality(first, 0.1), Standardised()):
        _, mixed = rank(queries, pool, modality, n, hidden, scorer)
        for row in range(len(queries)):
            for code in CODES:
                orders = (
                    [place for place in found[row] if place >= 0 and modality[place] == code]
                    for found in (plain, mixed)
                )
                one, other = orders
                assert one == other, "and nothing is lost"


@given(seed=st.integers(0, 10_000), k=st.integers(1, 70))
def test_rank_finds_the_best_of_all_scores_with_ties_by_index(seed, k):
    queries, pool, modality, hidden = world(seed)
    pool, queries = pool.astype(np.float32), queries.astype(np.float32)
    first = first_factor(seed)
    scores, found = rank(queries, pool, modality, k, hidden, Factorised(first, 0.1))
    wanted = factorised_scores(queries, pool, modality, first, 0.1, hidden)
    order = np.argsort(-wanted, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(wanted, order, 1)
    shown = found[:, : order.shape[1]]
    np.testing.assert_array_equal(shown < 0, np.isneginf(best))
    np.testing.assert_allclose(scores[:, : order.shape[1]], best, atol=1e-4)
    assert (found[:, order.shape[1] :] == -1).all()
    _, plain = rank(queries, pool, modality, k, hidden, COSINE)
    np.testing.assert_array_equal(plain, search(queries, pool, k, hidden)[1])


def test_the_other_scores_by_their_definitions():
    queries, pool, modality, _ = world(3)
    cosines, first = queries @ pool.T, first_factor(3)
    column = np.searchsorted(CODES, modality)
    z = cosines.copy()
    for code in CODES:
        part = cosines[:, modality == code]
        z[:, modality == code] = (part - part.mean(1)[:, None]) / part.std(1)[:, None]
    bonus = cosines + 0.3 * first.values[:, column]
    for scorer, wanted in ((Standardised(), z), (CosineWithModality(first, 0.3), bonus)):
        scores, found = rank(queries, pool, modality, 60, scorer=scorer)
        np.testing.assert_allclose(scores, np.take_along_axis(wanted, found, 1), atol=1e-4)
    asked = np.array([1, 2, 3, 4, 1, 2, 3])
    training = np.random.default_rng(0).standard_normal((80, 8))
    centring = fit_centring(training, np.repeat(CODES, 20))
    moved = centre(centring, pool, modality)
    for code in CODES:
        mean = training[np.repeat(CODES, 20) == code].mean(0)
        shifted = pool[modality == code] - mean
        wanted = shifted / np.linalg.norm(shifted, axis=1, keepdims=True)
        np.testing.assert_allclose(moved[modality == code], wanted)
    assert centre(centring, queries, asked).shape == queries.shape


@pytest.mark.parametrize("limits", [(1e-3, 10.0), (0.2, 10.0)])
@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_is_the_one_of_largest_likelihood(seed, limits):
    rng = np.random.default_rng(seed)
    pool, modality = units(rng, 80), rng.choice([1, 2], 80)
    positives = rng.choice(80, 40, replace=False)
    queries = pool[positives] + 0.5 * units(rng, 40)
    hidden = [[n] for n in rng.permutation(80)[:40]]
    hidden = [
        [] if found[0] == own else found for found, own in zip(hidden, positives, strict=True)
    ]
    fitted = fit_temperature(queries, pool, modality, positives, hidden, limits)
    assert limits[0] <= fitted <= limits[1]

    def likelihood(temperature):
        total = 0.0
        for query, own, found in zip(queries, positives, hidden, strict=True):
            rivals = np.setdiff1d(np.flatnonzero(modality == modality[own]), found)
            scores = pool @ query / temperature
            total += scores[own] - logsumexp(scores[rivals])
        return total / 40

    for other in np.geomspace(*limits, 25):
        assert likelihood(other) <= likelihood(fitted) + 1e-3


def test_a_planted_temperature_is_found_again():
    rng = np.random.default_rng(0)
    queries, pool = units(rng, 4000), units(rng, 50)
    chances = np.exp(log_softmax(queries @ pool.T / 0.2, axis=1))
    positives = [rng.choice(50, p=row) for row in chances]
    assert fit_temperature(queries, pool, np.ones(50, int), positives) == pytest.approx(
        0.2, rel=0.1
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q, p, m: group_log_partitions(q, p, m, 0.0), "temperature must be greater than 0"),
        (lambda q, p, m: group_log_partitions(q, p, m[1:], 1.0), "one code for each of the 60"),
        (lambda q, p, m: group_log_partitions(q[:, 1:], p, m, 1.0), "embed both with one model"),
        (lambda q, p, m: group_log_partitions(q, p, m, 1.0, [[]]), "1 rows for 7 queries"),
        (lambda q, p, m: rank(q, p, m, 1, scorer=Factorised(first_factor(0, 3), 1.0)),
         "given for 3 queries, not for 7"),
        (lambda q, p, m: rank(q, p, m, 1, scorer=Factorised(GivenFactor([1, 2], np.zeros((7, 2))),
                                                            1.0)),
         r"no probability for text\+image, video"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(call, message):
    queries, pool, modality, _ = world(0)
    with pytest.raises(ValueError, match=message):
        call(queries, pool, modality)
