"""Vectors by content: those of the embedder, embedded once, and anew where anything changed."""

import numpy as np
import pytest

from tests.search.planted import D, Planted, axis, text
from unite_core.search import vector_store
from unite_core.search.blocks import model_key
from unite_core.search.vector_store import encode_items


def test_stored_vectors_are_those_of_the_embedder(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_store, "SHARD_ITEMS", 4)
    embedder = Planted(**{str(n): np.random.default_rng(n).random(D, np.float32) for n in range(9)})
    items = [text(str(n)) for n in (3, 1, 4, 1, 5, 8, 2, 6)]
    stored = encode_items(embedder, items, tmp_path, progress=False)
    assert [len(call) for call in embedder.calls] == [4, 3], "an item that comes twice counts once"
    rows = np.array([7, 0, 3, 3, 1, 6])
    expected = np.stack([embedder.vectors[items[row]["text"]] for row in rows])
    np.testing.assert_array_equal(stored.rows(rows), expected)
    assert not stored.bad


def test_changed_files_orders_and_weights_are_embedded_anew(tmp_path):
    picture = tmp_path / "p.png"
    picture.write_bytes(b"one")
    item = {"image": "p.png", "text": "p.png"}

    def calls(item, embedder) -> int:
        encode_items(embedder, [item], tmp_path / "store", tmp_path, progress=False)
        return len(embedder.calls)

    first = {"p.png": axis(0)}
    assert [calls(item, Planted(**first)) for _ in range(2)] == [1, 0]
    assert calls(dict(reversed(item.items())), Planted(**first)) == 1
    picture.write_bytes(b"three")
    assert [calls(item, Planted(**first)) for _ in range(2)] == [1, 0]
    assert calls(item, Planted(**{"p.png": axis(1)})) == 1
    assert len({model_key(Planted(p=axis(n))) for n in (0, 0, 1)}) == 2


def test_a_cut_shard_is_named(tmp_path):
    embedder = Planted(a=axis(0))
    encode_items(embedder, [text("a")], tmp_path, progress=False)
    (shard,) = tmp_path.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(ValueError, match=f"{shard.name}: no whole shard of vectors .* remove it"):
        encode_items(embedder, [text("a")], tmp_path, progress=False)
