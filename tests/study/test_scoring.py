"""Ranks of positives by every score, against what the definitions say; rows that keep them."""

import numpy as np
import pytest
from scipy.special import logsumexp

from unite_core.evaluation.tasks import RetrievalTask
from unite_core.search.factorised import factorised_scores
from unite_core.study.rows import metrics_of, read_table, row_of, rows_of, write_table
from unite_core.study.scoring import SCORES, fit_scores, mean_rank, rank_tasks

RNG = np.random.default_rng(0)
N = 24


def tasks():
    """Text to image and text to text of the same concepts."""
    queries = [{"text": f"find {n}"} for n in range(N)]
    sides = {"image": [{"image": f"{n}.png"} for n in range(N)],
             "text": [{"text": f"thing {n}"} for n in range(N)]}  # fmt: skip
    names = [f"c{n}" for n in range(N)]
    return [
        RetrievalTask(f"text → {kind}", "concept", queries, side, [[n] for n in range(N)],
                      [f"f{n % 12}" for n in range(N)], kind="plain", query_concepts=names,
                      candidate_concepts=names)
        for kind, side in sides.items()
    ]  # fmt: skip


@pytest.fixture(scope="module")
def scored():
    items = {}
    for task in tasks():
        items |= dict.fromkeys((*task.query_ids, *task.candidate_ids))
    vectors = {name: _unit(RNG.normal(size=8)) for name in items}
    records = []
    for n in range(60):
        target = {"image": f"train{n}.png"} if n % 2 else {"text": f"answer {n}"}
        records.append({"query": {"text": f"train {n}"}, "candidate": target})
    from unite_core.data.records import content_id

    for n, record in enumerate(records):
        shift = np.eye(8)[n % 2] * 2
        vectors[content_id(record["query"])] = _unit(RNG.normal(size=8) + shift)
        vectors[content_id(record["candidate"])] = _unit(RNG.normal(size=8))
    return vectors, fit_scores(records, vectors, 0.05)


def _unit(vector):
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def test_ranks_are_those_of_the_definitions(scored):
    vectors, fit = scored
    found = {(r.task, r.pool, r.score): r for r in rank_tasks(tasks(), vectors, list(SCORES), fit)}
    assert {score for _, _, score in found} == set(SCORES) - {"router"}
    first, second = tasks()
    queries = np.stack([vectors[name] for name in first.query_ids])
    pool = [*first.candidate_ids, *second.candidate_ids]
    candidates = np.stack([vectors[name] for name in pool])
    modality = np.array([2] * N + [1] * N)
    s = (queries @ candidates.T).astype(float)
    z = np.concatenate([(p - p.mean(1, keepdims=True)) / p.std(1, keepdims=True)
                        for p in (s[:, :N], s[:, N:])], axis=1)  # fmt: skip
    log_p = fit.probe.log_probabilities(queries)
    column = [list(fit.probe.codes).index(code) for code in modality]
    expected = {
        "cosine": s,
        "z-score": z,
        "bonus": s + 0.1 * log_p[:, column],
        "probe": factorised_scores(queries, candidates, modality, fit.probe, 0.05),
        "probe-tau": factorised_scores(queries, candidates, modality, fit.probe,
                                       fit.probe.temperature),
        "oracle": np.where(modality == 2, s, -np.inf),
    }  # fmt: skip
    for score, scores in expected.items():
        wanted = np.eye(N, 2 * N, dtype=bool)
        np.testing.assert_allclose(found["text → image", "mixed", score].rank,
                                   mean_rank(scores, wanted), err_msg=score)  # fmt: skip
        either = wanted | np.eye(N, 2 * N, N, dtype=bool)
        np.testing.assert_allclose(found["text → image", "mixed", score].counterpart_rank,
                                   mean_rank(scores, either), err_msg=score)  # fmt: skip
    alone = found["text → image", "single", "cosine"]
    np.testing.assert_allclose(alone.rank, found["text → image", "mixed", "oracle"].rank)
    assert (found["text → image", "mixed", "oracle"].target_share == 1).all()
    np.testing.assert_allclose(logsumexp(expected["probe"], axis=1), 0, atol=1e-9)


def test_a_tie_counts_half():
    scores = np.array([[1.0, 1.0, 1.0, 0.0], [2.0, 1.0, -np.inf, 0.0]])
    wanted = np.array([[True, False, False, False], [False, False, True, False]])
    assert mean_rank(scores, wanted).tolist() == [2.0, np.inf]


def test_rows_survive_the_table(scored, tmp_path):
    vectors, fit = scored
    ranks = list(rank_tasks(tasks(), vectors, ["cosine", "probe"], fit))
    identity = {"arm": "mamcl", "config": {"stage": {"seed": 3}, "data": ["a"]}, "threads": 1}
    rows = {run: row_of({"run": run, **identity}, ranks) for run in ("mamcl-1", "mamcl-0")}
    write_table(tmp_path / "mask", rows.values(), tasks())
    table = read_table(tmp_path / "mask")
    assert rows_of(table) == dict(sorted(rows.items()))
    for r in ranks:
        kept = table.hits["mamcl-1", r.task, r.split, r.pool, r.score]
        np.testing.assert_array_equal(kept, r.rank <= 10)
        metrics = metrics_of(r)
        assert metrics["recall@10"] == pytest.approx(kept.mean(), abs=1e-6)
        assert metrics["mrr"] == pytest.approx((1 / r.rank).mean(), abs=1e-6)
    assert table.families("text → image", "concept") == tasks()[0].families
    with pytest.raises(ValueError, match="no task 'other' of split 'concept'"):
        table.families("other", "concept")
    with pytest.raises(FileNotFoundError, match="`unite study data` makes it"):
        read_table(tmp_path / "data")


def test_a_task_with_several_positives_is_refused(scored):
    vectors, fit = scored
    task = tasks()[0]
    task.positives[0].append(1)
    with pytest.raises(ValueError, match="several positives to a query: a study needs one each"):
        list(rank_tasks([task], vectors))
