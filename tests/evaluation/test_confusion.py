"""Retrieved against asked modality, with vectors whose ranking is known."""

from dataclasses import replace

import numpy as np
import pytest

from unite_core.evaluation.confusion import modality_confusion
from unite_core.evaluation.tasks import RetrievalTask, evaluate


def task(name, queries, candidates, split="style"):
    n = len(queries)
    families = [f"f{i}" for i in range(n)]
    return RetrievalTask(name, split, queries, candidates, [[i] for i in range(n)], families)


TEXTS = [{"text": f"a {i}"} for i in range(6)]
IMAGES = [{"image": f"{i}.png"} for i in range(8)]
CLIPS = [{"video": f"{i}.mp4"} for i in range(4)]
TO_IMAGE = task("text → image", TEXTS, IMAGES)
TO_CLIP = task("text → video", TEXTS[:4], CLIPS)
TO_TEXT = task("image → text", IMAGES[:5], TEXTS)
ALL = [TO_IMAGE, TO_CLIP, TO_TEXT]


def vectors_by(rule, tasks=ALL, seed=0):
    """`rule(item)` gives the axis that dominates an item's random vector."""
    rng = np.random.default_rng(seed)
    found = {}
    for entry in tasks:
        items = zip(
            entry.query_ids + entry.candidate_ids, entry.queries + entry.candidates, strict=True
        )
        for identity, item in items:
            vector = 0.01 * rng.standard_normal(8)
            vector[rule(item)] += 1
            found[identity] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return found


def kind(item):
    return ("text", "image", "video").index(next(iter(item)))


def test_a_model_that_sees_only_modality_retrieves_the_query_s_own():
    confusion = modality_confusion(ALL, vectors_by(kind), k=3)
    assert confusion.kinds == [("text", "image"), ("text", "video"), ("image", "text")]
    assert confusion.columns == ["text", "image", "video"]
    assert confusion.n == [6, 4, 5]
    np.testing.assert_allclose(confusion.share, [[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(confusion.query_share, 1)
    np.testing.assert_allclose(confusion.target_share, 0)


def test_chance_is_what_a_query_can_find():
    """18 candidates; a text is one of them and never finds itself, an image likewise."""
    confusion = modality_confusion(ALL, vectors_by(lambda item: 0), k=3)
    np.testing.assert_allclose(confusion.chance[0], np.array([5, 8, 4]) / 17)
    np.testing.assert_allclose(confusion.chance[2], np.array([6, 7, 4]) / 17)
    np.testing.assert_allclose(confusion.share.sum(1), 1)


def test_random_vectors_are_at_chance():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(60):
        random = {key: rng.standard_normal(16).astype(np.float32) for key in vectors_by(kind)}
        confusion = modality_confusion(ALL, random, k=5)
        shares.append(confusion.share)
    np.testing.assert_allclose(np.mean(shares, 0), confusion.chance, atol=0.03)


def test_target_share_is_the_target_share_of_the_evaluation():
    vectors = vectors_by(lambda item: 3 + int("".join(filter(str.isdigit, str(item)))) % 4)
    found = evaluate(None, ALL, vectors=vectors)
    confusion = modality_confusion(ALL, vectors)
    for entry, share in zip(ALL, confusion.target_share, strict=True):
        expected = found.score(entry.name, "style", "target_share@10", "mixed").value
        assert share == pytest.approx(expected)
        assert 0 < share < 1


def test_fused_and_mixed_answers_have_names_of_their_own():
    fused = [{"text": "<|IMAGE|>\nmoving", "image": f"{i}.png"} for i in range(4)]
    composed = task("image + moving → video", fused, CLIPS)
    either = RetrievalTask(
        "either", "style", TEXTS[:2], [IMAGES[0], CLIPS[0], IMAGES[1]], [[0, 1], [2]], ["a", "b"]
    )
    tasks = [TO_IMAGE, composed, either]
    confusion = modality_confusion(tasks, vectors_by(lambda item: 0, tasks), k=2)
    assert ("text+image", "video") in confusion.kinds
    both = confusion.kinds.index(("text", "image or video"))
    assert confusion.n[both] == 1 and confusion.target_share[both] == 1
    assert confusion.kinds[-1] == ("text+image", "video"), "fused queries come last"


def test_two_splits_or_too_many_results_are_refused():
    vectors = vectors_by(kind)
    with pytest.raises(ValueError, match="those of one split"):
        modality_confusion([TO_IMAGE, task("other", TEXTS, IMAGES, "concept")], vectors)
    with pytest.raises(ValueError, match="lower k"):
        modality_confusion(ALL, vectors, k=18)


def test_asked_queries_are_counted_alone():
    plain = replace(ALL[0], kind="plain")
    asked = replace(plain, name="asked", kind="asked",
                    queries=[{"text": f"find {n}"} for n in range(len(plain.queries))])  # fmt: skip
    both = [plain, asked, *ALL[1:]]
    vectors = vectors_by(kind, both)
    assert sum(modality_confusion(both, vectors).n) == sum(len(t.queries) for t in ALL)
    assert modality_confusion(both, vectors, kinds=("asked",)).n == [len(asked.queries)]
    with pytest.raises(ValueError, match="no task is of kind instructed"):
        modality_confusion(both, vectors, kinds=("instructed",))
