"""Visual tokens that runs share: the same vectors and batches, refused where they do not belong."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unite_core.data.pairs import PairDataset
from unite_core.data.records import write_records
from unite_core.model import (
    UniteEmbedder,
    VisionStore,
    build_vision_store,
    embed_stored,
    vision_store,
)
from unite_core.tiny import TINY_STAGE_1
from unite_core.train.collator import PairCollator
from unite_core.train.config import TrainConfig
from unite_core.train.trainer import UniteTrainer

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"


@pytest.fixture(scope="module")
def embedder():
    return UniteEmbedder.load(CHECKPOINT, max_frames=4)


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for name, side in (("a", 56), ("b", 112), ("c", 84), ("f0", 56), ("f1", 56)):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return tmp_path


ITEMS = [
    {"text": "no media"},
    {"image": "a.png"},
    {"text": "<|IMAGE|>\nchanged", "image": "b.png"},
    {"video": ["f0.png", "f1.png"]},
    {"text": "<|IMAGE|><|IMAGE|>\ntwo", "image": ["a.png", "b.png"]},
]


def test_vectors_are_those_of_embed(embedder, root):
    store = build_vision_store(embedder, ITEMS, root, root / "store", progress=False)
    assert len(store.names) == 3  # a, b and the clip, each once
    found = embed_stored(embedder, ITEMS, store, root)
    np.testing.assert_allclose(found, embedder.embed(ITEMS, root, progress=False), atol=1e-6)
    for file in root.glob("*.png"):
        file.unlink()  # nothing is read again
    np.testing.assert_array_equal(embed_stored(embedder, ITEMS, store, root), found)


def test_other_media_are_read(embedder, root):
    store = build_vision_store(embedder, ITEMS[:2], root, root / "store", progress=False)
    items = [{"image": "c.png"}, *ITEMS]
    wanted = embedder.embed(items, root, progress=False)
    np.testing.assert_allclose(embed_stored(embedder, items, store, root), wanted, atol=1e-6)
    with pytest.raises(ValueError, match="lacks 1 media, such as 'image.nc.png': remove it"):
        build_vision_store(embedder, items[:2], root, root / "store", progress=False)


def test_tokens_of_another_tower_or_size_are_refused(embedder, root):
    store = build_vision_store(embedder, ITEMS, root, root / "store", progress=False)
    with pytest.raises(ValueError, match="visual tokens of another limits"):
        store.check(embedder.configured(fps=2.0))
    other = UniteEmbedder.load(CHECKPOINT, max_frames=4)
    with torch.no_grad():
        next(other.base.visual.parameters()).mul_(1.001)
    with pytest.raises(ValueError, match="visual tokens of another tower"):
        store.check(other)
    with pytest.raises(ValueError, match="holds no visual tokens: make it"):
        VisionStore(root)


def test_a_killed_build_leaves_no_store(embedder, root, monkeypatch):
    monkeypatch.setattr(vision_store, "write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_vision_store(embedder, ITEMS, root, root / "store", progress=False)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="holds no visual tokens"):
        VisionStore(root / "store")
    assert build_vision_store(embedder, ITEMS, root, root / "store", progress=False).names


def _records(root):
    rows = [
        {"query": {"text": f"thing {i}"}, "candidate": {"image": f"{'abc'[i % 3]}.png"}}
        for i in range(6)
    ]
    rows += [{"query": {"image": "a.png"}, "candidate": {"text": "the first"}}]
    write_records(root / "pairs.jsonl", rows)
    return rows


def test_batches_are_those_without_a_store(embedder, root):
    rows = _records(root)
    items = [row[side] for row in rows for side in ("query", "candidate")]
    store = build_vision_store(embedder, items[:4], root, root / "store", progress=False)
    pairs = list(PairDataset([str(root / "pairs.jsonl")], str(root)))
    without, shared = (
        PairCollator(embedder.processor, root, 4, 10, embedder.encode_vision, store=given)(pairs)
        for given in (None, store)
    )
    assert torch.equal(without["order"], shared["order"])
    for one, other in zip(without["groups"], shared["groups"], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-5)


def test_a_run_trains_from_the_store(embedder, root):
    rows = _records(root)
    items = [row[side] for row in rows for side in ("query", "candidate")]
    folder = root / "store"
    build_vision_store(embedder, items, root, folder, progress=False)
    stage = replace(TINY_STAGE_1, batch_size=4, max_steps=2, lora_rank=2)
    config = TrainConfig(str(CHECKPOINT), (str(root / "pairs.jsonl"),), str(root / "run"), stage,
                         str(root), cache_vision=True, vision_store=str(folder),
                         embed={"max_frames": 4})  # fmt: skip
    for file in root.glob("*.png"):
        file.write_bytes(b"not read")
    trainer = UniteTrainer.from_config(config)
    trainer.train()
    assert not trainer.skipped.rows
    assert all(np.isfinite(row["loss"]) for row in trainer.state.log_history if "loss" in row)
    index = json.loads((folder / "index.json").read_text())
    index["origin"]["tower"] = "another"
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="of another tower"):
        UniteTrainer.from_config(config)
    with pytest.raises(ValueError, match="vision_store needs cache_vision"):
        replace(config, cache_vision=False)
