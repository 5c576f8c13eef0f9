"""Baselines see what they say they see, and a task that they cannot do has a reason."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from unite_core.evaluation.baselines import (
    RandomProjection,
    TextOnly,
    Thumbnails,
    ahead_of,
    baseline_rows,
    format_baselines,
    run_baselines,
    says_something,
    shows_something,
    without_sentence,
)
from unite_core.evaluation.tasks import RetrievalTask, evaluate


@pytest.fixture
def root(tmp_path):
    noise = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = noise.integers(0, 256, (56, 56, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        nearly = np.clip(pixels.astype(int) + 20, 0, 255).astype(np.uint8)
        Image.fromarray(nearly).save(tmp_path / f"{name}2.png")
    frames = [Image.open(tmp_path / "b2.png"), Image.open(tmp_path / "a.png")]
    frames[0].save(tmp_path / "b.webp", save_all=True, append_images=frames[1:], lossless=True)
    return tmp_path


def task(candidates):
    queries = [{"text": f"<|IMAGE|>\nlike {n}", "image": f"{n}.png"} for n in "abc"]
    return RetrievalTask("t", "s", queries, candidates, [[0], [1], [2]], list("abc"))


def test_thumbnails_find_the_same_picture_whatever_is_said(root):
    stills = task([{"image": f"{name}2.png"} for name in "abc"])
    vectors = Thumbnails().embed(stills.queries, root)
    assert vectors.shape == (3, 3 * 28 * 28)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert evaluate(Thumbnails(), [stills], root).score("t", "s", "recall@1").value == 1


def test_a_clip_is_its_first_frame(root):
    clip, first, other = Thumbnails().embed(
        [{"video": "b.webp"}, {"image": "b2.png"}, {"image": "a.png"}], root
    )
    assert clip @ first > 0.99 > clip @ other


def test_tasks_with_a_side_of_words_alone_show_nothing():
    assert shows_something(task([{"image": f"{name}2.png"} for name in "abc"]))
    assert not shows_something(task([{"image": "a2.png"}, {"text": "b"}, {"image": "c2.png"}]))


def test_a_task_without_its_sentence_has_the_same_answers():
    whole = task([{"image": f"{name}2.png"} for name in "abc"])
    silent = without_sentence(whole)
    assert silent.queries == [{"image": f"{name}.png"} for name in "abc"]
    assert (silent.positives, silent.candidates) == (whole.positives, whole.candidates)
    assert "text" in whole.queries[0], "the task itself is left as it was"


# Words

NAMES = ("red hen", "red fox", "old grey owl", "grey cat")


def worded(n=4):
    """Queries of words whose answers are captions, each of a file of its own."""
    captions = [{"text": f"<|IMAGE|>\n{name}", "image": "a.png"} for name in NAMES]
    queries = [{"text": text} for text in ("Hen!", "a red fox", "the owl, old", "cat")]
    return RetrievalTask("words", "s", queries, captions, [[n] for n in range(4)], list("abcd"))


def test_tasks_with_a_side_without_words_say_nothing():
    assert says_something(worded())
    assert not says_something(task([{"image": f"{name}2.png"} for name in "abc"]))


def test_bm25_is_its_formula(root):
    found = run_baselines([worded()], root)["BM25"].result
    words = [name.split() for name in NAMES]
    frequency = Counter(word for each in words for word in set(each))
    mean = np.mean([len(each) for each in words])

    def score(query, document):
        idf = {w: np.log(1 + (4 - frequency[w] + 0.5) / (frequency[w] + 0.5)) for w in query}
        norm = 1.5 * (1 - 0.75 + 0.75 * len(document) / mean)
        return sum(idf[w] * document.count(w) / (document.count(w) + norm) for w in query)

    queries = (["hen"], ["a", "red", "fox"], ["the", "owl", "old"], ["cat"])
    for row, query in enumerate(queries):
        scores = [score(query, document) for document in words]
        rank = sorted(scores, reverse=True).index(scores[row]) + 1
        assert scores.count(scores[row]) == 1 and rank == 1
    assert found.score("words", "s", "recall@1").per_query == [1, 1, 1, 1]
    assert {s.pool for s in found.scores} == {"single"}
    silent = RetrievalTask("words", "s", [{"text": "zebra"}, {"text": "red"}],
                           worded().candidates, [[0], [1]], ["a", "b"])  # fmt: skip
    tied = run_baselines([silent], root)["BM25"].result.score("words", "s", "recall@1")
    assert tied.per_query == pytest.approx([1 / 4, 1 / 2]), "no word in common: a tie of all"


class Letters:
    """A text model that sees the first letter of the last word."""

    def embed(self, items, media_root=".", progress=True):
        assert all(set(item) == {"text"} for item in items)
        vectors = np.zeros((len(items), 128), np.float32)
        for row, item in zip(vectors, items, strict=True):
            row[ord(item["text"].strip("!").split()[-1][0].lower())] = 1
        return vectors


def test_a_text_model_is_shown_words_alone(root):
    vectors = TextOnly(Letters()).embed(worded().candidates)
    assert vectors[:, [ord(c) for c in "hfoc"]].diagonal().tolist() == [1, 1, 1, 1]
    found = run_baselines([worded()], root, Letters())["text only"].result
    assert found.score("words", "s", "recall@1").per_query == [1, 1, 1, 1]


def test_a_random_projection_takes_any_item_and_keeps_what_is_alike(root):
    items = [{"image": "a.png"}, {"image": "a2.png"}, {"text": "red fox"}, {"text": "Red, fox"},
             {"text": "<|IMAGE|>\nred fox", "image": "a2.png"}, {"video": "b.webp"},
             {"image": "b2.png"}]  # fmt: skip
    vectors = RandomProjection().embed(items, root)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.9 and cosines[2, 3] > 0.999 and cosines[5, 6] > 0.9
    assert 0.5 < cosines[4, 0] < 0.9 and 0.5 < cosines[4, 2] < 0.9
    assert abs(cosines[0, 2]) < 0.25
    other = RandomProjection(seed=1).embed(items, root)
    assert not np.allclose(vectors, other)
    assert np.array_equal(vectors, RandomProjection().embed(items, root))


def test_what_cannot_be_done_is_absent_with_its_reason(root):
    tasks = [task([{"image": f"{name}2.png"} for name in "abc"]), worded()]
    baselines = run_baselines(tasks, root)
    assert baselines["thumbnails"].not_applicable == {
        ("words", "s"): "a side has items without image or video"
    }
    assert baselines["BM25"].not_applicable == {("t", "s"): "a side has items without words"}
    assert baselines["text only"].result is None
    assert len(baselines["random projection"].result.families["s"]) == 2
    model = {"model": evaluate(Thumbnails(), tasks[:1], root)}
    rows = baseline_rows(model, baselines, tasks[:1])
    assert rows[0]["BM25"] is None and rows[0]["thumbnails"].value == 1
    text = format_baselines(model, baselines, tasks[:1], "recall@1")
    assert "– BM25: a side has items without words" in text
    assert "– text only: no text model was given" in text
    assert text.splitlines()[3].split()[-1] == "100.0"


def test_where_a_baseline_finds_more_than_the_model_is_listed(root):
    class Indifferent:
        def embed(self, items, media_root=".", progress=True):
            return np.ones((len(items), 1), np.float32)

    tasks = [task([{"image": f"{name}2.png"} for name in "abc"]), worded()]
    baselines = run_baselines(tasks, root)
    able = {"model": evaluate(Thumbnails(), tasks[:1], root)}
    assert ahead_of(able, baselines, tasks[:1], "recall@1") == []
    unable = {"model": evaluate(Indifferent(), tasks[:1], root)}
    (found,) = ahead_of(unable, baselines, tasks[:1], "recall@1")
    assert (found["task"], found["baseline"]) == ("t, s", "thumbnails")
    assert found["model"] == "model" and found["recall"].startswith("33.3")
    assert found["its recall"].startswith("100.0") and found["more"].startswith("+66.7")
    assert ahead_of({"able": able["model"]} | unable, baselines, tasks[:1], "recall@1") == []
