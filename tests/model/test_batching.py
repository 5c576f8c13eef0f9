"""Each media file is read and encoded once, within a limit of memory, and vectors stay the same."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unite_core import UniteEmbedder
from unite_core.data.media import MediaError
from unite_core.model.batching import _batches, plan_batches
from unite_core.model.preprocessing import MediaReader, MediaSource, reads_here

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
PICTURES = {"a": (56, 56), "b": (84, 56), "c": (140, 112)}


@pytest.fixture(scope="module")
def embedder() -> UniteEmbedder:
    return UniteEmbedder.load(FOLDER)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for name, size in PICTURES.items():
        pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def items() -> list[dict]:
    """Every picture in four items of different lengths, one twice in one item, a clip, texts."""
    words = ["", " with a hat", " on a very long road through the whole of the country"]
    found = [{"image": f"{name}.png"} for name in PICTURES]
    found += [{"image": f"{name}.png", "text": f"<|IMAGE|> one{more}"}
              for name in PICTURES for more in words]  # fmt: skip
    found += [{"image": ["a.png", "a.png"]}, {"video": [["b.png"] * 4]}, {"text": "only words"}]
    return found


def reads(monkeypatch) -> list:
    """What `MediaReader.read` is asked for, from now on."""
    asked, read = [], MediaReader.read

    def counted(self, source, media_root="."):
        asked.append(source.key)
        return read(self, source, media_root)

    monkeypatch.setattr(MediaReader, "read", counted)
    return asked


def one_by_one(embedder, root) -> np.ndarray:
    return np.concatenate([embedder.embed([item], root, progress=False) for item in items()])


def test_each_media_file_is_read_once_and_each_prompt_tokenized_once(embedder, root, monkeypatch):
    expected = one_by_one(embedder, root)
    asked, prompts, tokenize = reads(monkeypatch), [], embedder.processor._tokenize
    monkeypatch.setattr(
        embedder.processor, "_tokenize", lambda texts: prompts.extend(texts) or tokenize(texts)
    )
    vectors = embedder.embed(items(), root, batch_size=2, progress=False)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert sorted(map(str, asked)) == sorted({str(key) for key in asked})
    assert len(asked) == len(PICTURES) + 1, "the clip's frames are a video of their own"
    assert len(prompts) == len(items())


def test_over_the_limit_media_are_read_again_and_vectors_stay(embedder, root, monkeypatch):
    names = [f"item {n}" for n in range(len(items()))]
    plan = plan_batches(embedder.processor, items(), names, root, 60, kept_bytes=0)
    asked = reads(monkeypatch)
    vectors = np.empty((len(items()), embedder.dim), np.float32)
    media = reads_here(embedder.processor.reader, plan.reads, root)
    for rows, some in embedder.embed_plan(plan, media):
        vectors[rows] = some
    assert len(asked) > len(PICTURES) + 1
    np.testing.assert_allclose(vectors, one_by_one(embedder, root), atol=1e-6)


def test_towers_that_give_more_than_tokens_get_pixels(embedder, root, monkeypatch):
    expected = one_by_one(embedder, root)
    for module in ("unite_core.model.embedder", "unite_core.model.inference"):
        monkeypatch.setattr(f"{module}.takes_visual_tokens", lambda model: False)
    asked = reads(monkeypatch)
    np.testing.assert_allclose(embedder.embed(items(), root, 3, False), expected, atol=1e-5)
    assert len(asked) == len(PICTURES) + 1


def test_one_object_in_memory_is_read_once_and_equal_ones_twice(embedder, root, monkeypatch):
    with Image.open(root / "c.png") as picture:
        picture.load()
    asked = reads(monkeypatch)
    pair = [picture, {"image": picture, "text": "<|IMAGE|> a"}]
    vectors = embedder.embed([*pair, {"image": picture.copy()}], progress=False)
    assert len(asked) == 2
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_a_path_is_not_taken_for_a_video_or_for_its_own_list(embedder):
    keys = {
        MediaSource("image", "a").key,
        MediaSource("video", "a").key,
        MediaSource("video", ["a"]).key,
    }
    assert len(keys) == 3 and MediaSource("image", "a").key == MediaSource("image", Path("a")).key


def test_bad_items_are_named_and_the_others_embedded(embedder, root, tmp_path):
    (tmp_path / "cut.png").write_bytes((root / "c.png").read_bytes()[:200])
    (tmp_path / "a.png").write_bytes((root / "a.png").read_bytes())
    things = [{"image": "cut.png"}, {"image": "a.png"}, {}, {"image": "none.png"}, {"text": "x"},
              {"image": "cut.png", "text": "<|IMAGE|> again"}]  # fmt: skip
    names = [f"row {n}" for n in range(len(things))]
    plan = embedder.plan(things, names, tmp_path)
    assert sorted(plan.bad) == [2, 3], "headers tell of these"
    media = reads_here(embedder.processor.reader, plan.reads, tmp_path)
    good = [row for rows, _ in embedder.embed_plan(plan, media, names) for row in rows]
    assert sorted(good) == [1, 4] and sorted(plan.bad) == [0, 2, 3, 5]
    for row, error in plan.bad.items():
        assert str(error).startswith(f"row {row}: ")
        assert isinstance(error, MediaError) == (row != 2)


def threads_used(monkeypatch) -> set[int]:
    """The threads that media are read in, from now on."""
    used, read = set(), MediaReader.read

    def noted(self, source, media_root="."):
        used.add(threading.get_ident())
        return read(self, source, media_root)

    monkeypatch.setattr(MediaReader, "read", noted)
    return used


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_batches_side_by_side_give_the_same_vectors(embedder, root, monkeypatch, count):
    expected, before = one_by_one(embedder, root), torch.get_num_threads()
    monkeypatch.setattr(
        "unite_core.model.inference._PATCHES_AT_ONCE", {"cpu": 1}
    )  # one image or video per portion
    used = threads_used(monkeypatch)
    torch.set_num_threads(count)
    try:
        once, again = (embedder.embed(items(), root, 2, False) for _ in range(2))
        assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(once, expected, atol=1e-6)
    np.testing.assert_array_equal(once, again)
    assert (used == {threading.get_ident()}) == (count == 1)


def test_a_gpu_computes_one_batch_while_the_host_reads_the_next(embedder, root, monkeypatch):
    """On a pretended GPU: the first batch is not done before the second's media are being read."""
    expected = one_by_one(embedder, root)
    monkeypatch.setattr("unite_core.model.inference._TOGETHER", ())
    monkeypatch.setattr("unite_core.model.inference._PATCHES_AT_ONCE", {"cpu": 1})
    read, forward = MediaReader.read, embedder.forward
    reads, ahead, computing, most = [], threading.Event(), [], []

    def noted_read(self, source, media_root="."):
        reads.append(source)
        if len(reads) > 1:
            ahead.set()
        return read(self, source, media_root)

    def noted_forward(**batch):
        assert ahead.wait(60), "nothing is read while the device computes"
        computing.append(1)
        most.append(len(computing))
        try:
            return forward(**batch)
        finally:
            computing.pop()

    monkeypatch.setattr(MediaReader, "read", noted_read)
    monkeypatch.setattr(embedder, "forward", noted_forward)
    np.testing.assert_allclose(embedder.embed(items(), root, 1, False), expected, atol=1e-6)
    assert set(most) == {1} and len(most) == len(items())


def test_an_error_of_the_model_ends_all_and_leaves_it_as_it_was(embedder, root, monkeypatch):
    before, forward = torch.get_num_threads(), embedder.forward
    calls = []

    def failing(**batch):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no memory left")
        return forward(**batch)

    monkeypatch.setattr(embedder, "forward", failing)
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="no memory left"):
            embedder.train().embed(items(), root, 1, False)
        assert embedder.training and torch.get_num_threads() == 2
        assert len(calls) < len(items()), "later batches are dropped"
    finally:
        torch.set_num_threads(before)
        embedder.eval()


@settings(deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=4),
                max_size=8), st.integers(0, 12))  # fmt: skip
def test_a_schedule_reads_what_it_lacks_and_keeps_within_its_limit(groups, limit):
    rows = iter(range(1000))
    numbered = [[(next(rows), keys) for keys in group] for group in groups]
    media = {row: {(k,): MediaSource("image", str(k)) for k in keys}
             for group in numbered for row, keys in group}  # fmt: skip
    sizes = {(k,): k % 4 + 1 for k in range(10)}
    plan = list(_batches([[row for row, _ in group] for group in numbered], media, sizes, limit))
    held, later = set(), [set() for _ in plan]
    for number, group in enumerate(numbered):
        for before in later[:number]:
            before.update(k for _, keys in group for k in keys)
    reads_of_each = 0
    for batch, group, coming in zip(plan, numbered, later, strict=True):
        fresh = {int(source.media) for source in batch.fresh}
        assert len(fresh) == len(batch.fresh) and not fresh & held
        held |= fresh
        assert {k for _, keys in group for k in keys} <= held
        held -= {key[0] for key in batch.done}
        assert held <= coming and sum(sizes[(k,)] for k in held) <= limit
        reads_of_each += len(fresh)
    if limit == 12 and len({k for keys in media.values() for k in keys}) <= 3:
        assert reads_of_each == len({k for keys in media.values() for k in keys})
