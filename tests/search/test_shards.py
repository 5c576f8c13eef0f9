"""Shards: number formats keep the vectors, equal contents are equal bytes."""

import numpy as np
import pytest

from unite_core.search.shards import FORMATS, Shard, read_shard, write_shard


@pytest.mark.parametrize("name", FORMATS)
def test_number_formats_keep_the_vectors(tmp_path, name):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 256), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7] = 0
    ids = [str(n) for n in range(50)]
    shard = Shard(ids, vectors, np.full(50, 2, dtype=np.uint8), {"x": "why"}, {"note": 1})
    for file in ("a", "b"):
        write_shard(tmp_path / f"{file}.safetensors", shard, name)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = read_shard(tmp_path / "a.safetensors")
    assert (again.ids, again.bad, again.noted) == (ids, {"x": "why"}, {"note": 1})
    size = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}[name]
    assert (tmp_path / "a.safetensors").stat().st_size < 50 * 256 * size + 2000
    worst = {"float32": 0, "float16": 1e-4, "bfloat16": 2e-3, "int8": 3e-3}[name]
    assert np.abs(again.vectors - vectors).max() <= worst
    assert again.vectors.dtype == np.float32 and not again.vectors[7].any()


def test_shards_that_do_not_add_up_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="2 ids, 1 vectors"):
        write_shard(path, Shard(["a", "b"], np.zeros((1, 4)), np.zeros(1)))
    with pytest.raises(ValueError, match="'float8' is none of"):
        write_shard(path, Shard(["a"], np.zeros((1, 4)), np.zeros(1)), "float8")
    assert not path.exists()
