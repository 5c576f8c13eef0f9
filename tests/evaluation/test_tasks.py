"""Tasks and their files, and the scores of fake embedders whose ranking is known."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from unite_core.data.modality import Modality
from unite_core.data.records import content_id
from unite_core.evaluation import pools
from unite_core.evaluation.metrics import METRICS
from unite_core.evaluation.tasks import (
    RetrievalTask,
    embed_tasks,
    evaluate,
    read_tasks,
    write_tasks,
)
from unite_core.model.config import EmbedConfig
from unite_core.search.factorised import factorised_scores


def texts(prefix, n):
    return [{"text": f"{prefix} {i}"} for i in range(n)]


def images(n):
    return [{"image": f"stills/{i}.png"} for i in range(n)]


def task(name="text → image", queries=None, candidates=None, **changes):
    queries, candidates = queries or texts("word", 12), candidates or images(30)
    values = {
        "name": name,
        "split": "concept",
        "queries": queries,
        "candidates": candidates,
        "positives": [[i] for i in range(len(queries))],
        "families": [f"family {i}" for i in range(len(queries))],
    }
    return RetrievalTask(**{**values, **changes})


def number(item):
    """The number in an item's text or path: equal numbers belong together."""
    return int("".join(c for c in str(next(iter(item.values()))) if c.isdigit()))


class FakeEmbedder:
    """Items of one number point the same way; `noise` blurs it, `modal` adds a modality axis."""

    config = EmbedConfig(max_frames=8)

    def __init__(self, noise=0.0, modal=0.0):
        self.noise, self.modal, self.seen = noise, modal, []

    def embed(self, items, media_root=".", progress=True):
        self.seen += [content_id(item) for item in items]
        self.called_with = (media_root, progress)
        vectors = self.noise * np.random.default_rng(0).standard_normal((len(items), 64))
        for row, item in zip(vectors, items, strict=True):
            row[number(item)] += 1
            row[60 + ("image" in item)] += self.modal
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def tasks():
    return [
        task(),
        task("image → text", images(12), texts("word", 20)),
        task("image → text", images(12), texts("word", 20), split="style"),
    ]


def test_a_perfect_embedder_reaches_one_in_single_pools(tasks):
    result = evaluate(FakeEmbedder(), tasks)
    for checked in tasks:
        score = result.score(checked.name, checked.split, "recall@1")
        assert (score.value, score.low, score.high, score.n) == (1, 1, 1, 12)
        assert score.chance == pytest.approx(1 / len(checked.candidates))
        assert result.score(checked.name, checked.split, "ndcg@10").value == pytest.approx(1)


def test_single_pool_values_equal_brute_force(tasks):
    embedder = FakeEmbedder(noise=0.3)
    vectors = embed_tasks(embedder, tasks)
    result = evaluate(embedder, tasks, vectors=vectors)
    first = tasks[0]
    queries = np.stack([vectors[identity] for identity in first.query_ids])
    scores = queries @ np.stack([vectors[identity] for identity in first.candidate_ids]).T
    rank = (scores > np.diag(scores)[:, None]).sum(1)
    for k in (1, 5, 10):
        score = result.score(first.name, "concept", f"recall@{k}")
        assert score.per_query == (rank < k).astype(float).tolist()
        assert score.low <= score.value <= score.high
        assert score.value == np.mean(score.per_query)
    assert 0 < result.score(first.name, "concept", "recall@1").value < 1


def test_content_under_two_instructions_is_refused():
    asked = [query | {"instruction": "Find the picture."} for query in texts("word", 12)]
    given = [task(), task("asked", queries=asked)]
    with pytest.raises(ValueError, match="'asked'.*comes with another instruction elsewhere"):
        evaluate(FakeEmbedder(), given, progress=False)
    alone = evaluate(FakeEmbedder(), given[1:], progress=False)
    assert alone.score("asked", "concept", "recall@10").value == 1


def test_every_item_is_embedded_once_with_the_given_root(tasks):
    embedder = FakeEmbedder()
    result = evaluate(embedder, tasks, media_root="corpus", progress=False)
    distinct = {i for checked in tasks for i in checked.query_ids + checked.candidate_ids}
    assert sorted(embedder.seen) == sorted(distinct)
    assert embedder.called_with == ("corpus", False)
    assert result.embedder["max_frames"] == 8
    assert evaluate(None, tasks, vectors=embed_tasks(embedder, tasks)).scores == result.scores


def test_the_mixed_pool_holds_all_modalities_of_the_split_and_never_the_query(tasks):
    result = evaluate(FakeEmbedder(), tasks)
    mixed = result.score("text → image", "concept", "recall@1", "mixed")
    # 30 stills and 20 words; every query is one of the words, so it can find 49
    assert mixed.candidates == 50
    assert mixed.chance == pytest.approx(1 / 49)
    assert mixed.value == 1, "the query itself outranked its answer"
    other_split = result.score("image → text", "style", "recall@1", "mixed")
    assert (other_split.candidates, other_split.chance) == (20, pytest.approx(1 / 20))


def test_only_the_mixed_pool_sees_a_modality_gap(tasks):
    result = evaluate(FakeEmbedder(modal=2.0), tasks)
    single = result.score("text → image", "concept", "recall@1")
    mixed = result.score("text → image", "concept", "recall@1", "mixed")
    share = result.score("text → image", "concept", "target_share@10", "mixed")
    assert (single.value, mixed.value, share.value) == (1, 0, 0)
    assert share.chance == pytest.approx(30 / 49)
    assert share.per_query == [0.0] * 12
    with pytest.raises(ValueError, match="no target_share@10"):
        result.score("text → image", "concept", "target_share@10", "single")


def test_equal_content_counts_once_and_is_right_wherever_it_stands():
    candidates = [*images(12), *images(12)]
    doubled = task(candidates=candidates, positives=[[12 + i] for i in range(12)])
    score = evaluate(FakeEmbedder(), [doubled]).score(doubled.name, "concept", "recall@1")
    assert (score.candidates, score.value) == (12, 1)


def test_a_collapsed_model_scores_exactly_at_chance(tasks):
    class Collapsed:
        def embed(self, items, media_root=".", progress=True):
            return np.ones((len(items), 4), dtype=np.float32)

    result = evaluate(Collapsed(), about_things(), pools=("single", "mixed", "target"))
    assert len({score.metric for score in result.scores}) == 10
    for score in result.scores:
        assert score.value == pytest.approx(score.chance), score


def test_a_tie_is_a_tie_in_every_pool():
    """Candidates of equal vectors share what their rank earns, wherever their ids stand."""

    class Pairs(FakeEmbedder):
        def embed(self, items, media_root=".", progress=True):
            vectors = np.zeros((len(items), 64), np.float32)
            for row, item in zip(vectors, items, strict=True):
                row[number(item) // 2] = 1
            return vectors

    result = evaluate(Pairs(), [task(), task("other", texts("more", 12), images(30))])
    for pool in ("single", "mixed"):
        score = result.score("text → image", "concept", "recall@1", pool)
        assert score.per_query == [0.5] * 12
        assert result.score("text → image", "concept", "recall@5", pool).value == 1


# Counterparts, scorers, pools


def about_things():
    """Twelve things as words, pictures and clips, and a pool of other words."""
    words, clips = texts("word", 12), [{"video": f"{n}.webm"} for n in range(12)]
    about = {"query_concepts": [str(n) for n in range(12)]}
    plain = {"kind": "plain", **about}
    return [
        task(**plain, candidate_concepts=[str(n) for n in range(30)]),
        task("text → video", words, clips, **plain, candidate_concepts=about["query_concepts"]),
        task("image → text", images(12), words, **plain,
             candidate_concepts=about["query_concepts"]),
        task("asked", [{"text": f"find {n}"} for n in range(12)], clips, kind="asked", **about,
             candidate_concepts=about["query_concepts"]),
    ]  # fmt: skip


def test_any_counterpart_of_the_concept_is_right_for_a_plain_query():
    result = evaluate(FakeEmbedder(modal=0.9), about_things())
    names = ("text → image", "concept")
    # pictures lie apart from words and clips: the clip of the thing comes first, not its picture
    assert result.score(*names, "recall@1", "mixed").value == 0
    assert result.score(*names, "counterpart_hit@10", "mixed").value == 1
    # counterparts are picture and clip, of 30 pictures, 12 clips, 12 words less the query
    hit = result.score(*names, "counterpart_hit@10", "mixed")
    assert hit.chance == pytest.approx(1 - (43 * 42) / (53 * 52))
    recall = result.score(*names, "counterpart_recall@10", "mixed")
    assert recall.chance == pytest.approx(10 / 53)
    for other in ("single", "target"):
        with pytest.raises(ValueError, match="no counterpart_hit@10"):
            result.score(*names, "counterpart_hit@10", other)
    with pytest.raises(ValueError, match="no counterpart_hit@10"):
        result.score("asked", "concept", "counterpart_hit@10", "mixed")


def test_graded_ndcg_of_counterparts_by_hand():
    """Clip first, picture second: gains 1/2 and 1 of the ideal order 1 and 1/2."""

    class ClipFirst(FakeEmbedder):
        def embed(self, items, media_root=".", progress=True):
            vectors = np.zeros((len(items), 64))
            for row, item in zip(vectors, items, strict=True):
                row[number(item)] = 1
                row[63] = {"text": 0, "video": 0.1, "image": 0.5}[next(iter(item))]
            return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    result = evaluate(ClipFirst(), about_things())
    score = result.score("text → image", "concept", "counterpart_ndcg@10", "mixed")
    second = 1 / np.log2(3)
    assert score.per_query == pytest.approx([(0.5 + second) / (1 + 0.5 * second)] * 12)
    clips = result.score("text → video", "concept", "counterpart_ndcg@10", "mixed")
    assert clips.value == pytest.approx(1)


def test_scorers_rank_the_pools_and_never_see_the_query_as_an_answer():
    seen = []

    def only_texts(queries, candidates, modality, *, hidden):
        seen.append((queries.shape[1], len(candidates) == len(modality), len(hidden)))
        scores = queries @ candidates.T
        return np.where(modality == int(Modality.TEXT), scores, -np.inf)

    embedder, tasks = FakeEmbedder(noise=0.2), about_things()
    result = evaluate(embedder, tasks, scorers={"texts": only_texts})
    assert {score.pool for score in result.scores} == {
        "single", "mixed", "single, texts", "mixed, texts",
    }  # fmt: skip
    plain = evaluate(embedder, tasks)
    assert [s for s in result.scores if "texts" not in s.pool] == plain.scores
    assert result.score("text → image", "concept", "recall@10", "mixed, texts").value == 0
    assert result.score("image → text", "concept", "target_share@10", "mixed, texts").value == 1
    assert all(agree and dims == 64 for dims, agree, _ in seen)

    def broken(queries, candidates, modality, *, hidden):
        return np.full((len(queries), len(candidates)), np.nan)

    with pytest.raises(ValueError, match="no number"):
        evaluate(embedder, tasks, scorers={"broken": broken})


def test_a_factorised_score_is_a_scorer_and_keeps_the_order_of_single_pools():
    tasks, embedder = about_things(), FakeEmbedder(noise=0.3, modal=0.5)
    codes = [int(m) for m in (Modality.TEXT, Modality.IMAGE, Modality.VIDEO)]

    class Even:
        def __init__(self):
            self.codes = codes

        def log_probabilities(self, query_vectors):
            return np.full((len(query_vectors), 3), np.log(1 / 3))

    scorer = partial(factorised_scores, first=Even(), temperature=0.1)
    result = evaluate(embedder, tasks, scorers={"even": scorer})
    for score in result.scores:
        if score.pool == "single":
            other = result.score(score.task, score.split, score.metric, "single, even")
            assert other.per_query == pytest.approx(score.per_query)
    asked = ("asked", "concept", "target_share@10")
    even, plain = (result.score(*asked, pool).value for pool in ("mixed, even", "mixed"))
    assert even != plain


def test_the_target_pool_is_the_mixed_one_with_the_modality_known():
    tasks = about_things()
    result = evaluate(FakeEmbedder(modal=2.0), tasks, pools=("mixed", "target"))
    score = result.score("text → image", "concept", "recall@1", "target")
    assert (score.value, score.candidates) == (1, 30)
    assert score.chance == pytest.approx(1 / 30)
    assert result.score("text → image", "concept", "recall@1", "mixed").value == 0
    text = result.score("image → text", "concept", "mrr", "target")
    assert (text.candidates, text.value) == (12, pytest.approx(1))
    with pytest.raises(ValueError, match="'all': write one of single, mixed, target"):
        evaluate(FakeEmbedder(), tasks, pools=("all",))


def test_blocks_of_queries_change_nothing(monkeypatch):
    tasks, embedder = about_things(), FakeEmbedder(noise=0.3)
    whole = evaluate(embedder, tasks).scores
    monkeypatch.setattr(pools, "_SCORES_IN_MEMORY", 100)
    assert [s.per_query for s in evaluate(embedder, tasks).scores] == [s.per_query for s in whole]


def test_old_tasks_without_kind_and_concepts_are_scored_as_before(tasks):
    result = evaluate(FakeEmbedder(), tasks)
    assert tasks[0].kind == "" and tasks[0].query_concepts is None
    assert {s.metric for s in result.scores} == {*METRICS, "target_share@10"}


# Files


def test_tasks_come_back_from_their_file(tasks, tmp_path):
    path = tmp_path / "corpus" / "tasks.json"
    write_tasks(path, tasks)
    assert read_tasks(path) == tasks
    assert [file.name for file in path.parent.iterdir()] == ["tasks.json"]


def test_tasks_with_media_in_memory_are_not_written(tmp_path):
    picture = {"image": Image.new("RGB", (4, 4))}
    odd = task(candidates=[*images(12), picture])
    with pytest.raises(ValueError, match=r"candidates row 13: media in memory.*save them"):
        write_tasks(tmp_path / "tasks.json", [odd])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": []}, r"task 'a' \(split 'b'\), queries: a list that is not empty"),
        ({"queries": [{"text": " "}, {"text": "x"}]}, "queries row 1.*blank text"),
        ({"candidates": [{"image": "a.png"}, {"sound": "x"}]}, "candidates row 2.*sound"),
        ({"positives": [[0]]}, "1 positives for 2 queries; give one for each"),
        ({"positives": [[0], []]}, "positives row 2: no answers; give"),
        ({"positives": [[0], 1]}, "positives row 2: no answers; give"),
        ({"positives": [[0], [2]]}, "row 2: 2 is no candidate; use integers from 0 to 1"),
        ({"positives": [[0], [-1]]}, "row 2: -1 is no candidate"),
        ({"positives": [[0], [True]]}, "row 2: True is no candidate"),
        ({"candidates": [{"text": "x"}, {"text": "p"}]}, "row 1: candidate 0 is the query itself"),
        ({"families": ["f", "f"]}, "only 'f', so no interval.*add queries"),
        ({"families": ["f", 3]}, "families row 2: 3 is no string"),
        ({"kind": "bare"}, "kind: 'bare'; write plain, asked or instructed"),
        ({"query_concepts": ["a", "b"]}, "query_concepts and candidate_concepts, or neither"),
        ({"query_concepts": ["a"], "candidate_concepts": ["a", "b"]}, "a list of 2 labels"),
        ({"query_concepts": ["a", "b"], "candidate_concepts": ["a", 1]}, "row 2: 1 is no string"),
        ({"split": ""}, "split: '' is no text"),
        ({"pool": "x"}, "unknown field pool; rename or remove it"),
        ({"families": None, "name": None}, "name: None is no text"),
    ],
)
def test_a_bad_task_is_refused_with_file_task_row_and_remedy(change, message, tmp_path):
    row = {
        "name": "a",
        "split": "b",
        "queries": [{"text": "x"}, {"text": "y"}],
        "candidates": [{"image": "p.png"}, {"image": "q.png"}],
        "positives": [[0], [1]],
        "families": ["f", "g"],
    }
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([row]))
    assert read_tasks(path)[0].name == "a"
    path.write_text(json.dumps([row, row | change]))
    with pytest.raises(ValueError, match=message) as caught:
        read_tasks(path)
    assert str(caught.value).startswith(f"{path}, task 2: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("{}", "is a JSON list of tasks"),
        ("[]", "no tasks"),
        ("[1]", "task 1: int instead of an object"),
        ('[{"name": "a"}]', "task 1: no field split; add it"),
    ],
)
def test_a_bad_task_file_is_refused(text, message, tmp_path):
    (tmp_path / "tasks.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_tasks(tmp_path / "tasks.json")


def test_two_tasks_of_one_name_and_split_are_refused(tasks, tmp_path):
    for refused in (
        lambda: evaluate(FakeEmbedder(), [*tasks, tasks[0]]),
        lambda: write_tasks(tmp_path / "tasks.json", [*tasks, tasks[0]]),
    ):
        with pytest.raises(ValueError, match=r"'text → image' \(split 'concept'\) is given twice"):
            refused()


def test_vectors_that_lack_an_item_are_refused(tasks):
    vectors = embed_tasks(FakeEmbedder(), tasks[:1])
    with pytest.raises(ValueError, match=r"lack 8 of the tasks' items.*embed_tasks"):
        evaluate(None, tasks, vectors=vectors)


def test_the_hash_follows_the_contents_of_the_tasks(tasks):
    base = evaluate(FakeEmbedder(), tasks).tasks_hash
    moved = [dataclasses.replace(tasks[0], description="other words"), *tasks[1:]]
    assert evaluate(FakeEmbedder(), moved).tasks_hash == base
    changed = [dataclasses.replace(tasks[0], candidates=images(31)), *tasks[1:]]
    assert evaluate(FakeEmbedder(), changed).tasks_hash != base
