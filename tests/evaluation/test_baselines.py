"""Baselines see pixels only, and queries without words keep their answers."""

import numpy as np
import pytest
from PIL import Image

from unite_core.evaluation.baselines import Thumbnails, shows_something, without_sentence
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
