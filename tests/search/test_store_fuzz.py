"""Damaged files of stores and indexes: a clear error, or the same results; never anything else.

UNITE_FUZZ is the number of damaged files of each kind; the normal run takes a short share.
"""

import json
import os
import random
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from tests.search.planted import D, Planted, text
from unite_core.search.config import EncodeConfig, MineConfig
from unite_core.search.encode import encode_corpus
from unite_core.search.hard_negatives import mine
from unite_core.search.index import build_index, load_index
from unite_core.search.scorers import Standardised
from unite_core.search.shards import ShardFolder
from unite_core.search.vector_store import encode_items

CASES = int(os.environ.get("UNITE_FUZZ", 150))
NAMES = [f"{n}.png" for n in range(5)]
_JSON = [b"null", b"[]", b"{}", b"3", b'"x"', b"[" * 100_000, b'{"inputs": {}}', b"\xff", b"NaN"]


def damaged(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """A file with some bytes flipped, cut out, repeated or from elsewhere, or another file."""
    start, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    kind = draw.randrange(7)
    if kind == 0:
        return data[:start]
    if kind == 1:
        return data[:start] + data[end:]
    if kind == 2:
        return data[:end] + data[start:]
    if kind == 3:
        return draw.choice(others)
    if kind == 4:
        return draw.choice(_JSON)
    if kind == 5 and b'"' in data:  # another number or word in a text
        return data.replace(*draw.choice([(b"1", b"-7"), (b'"', b"'"), (b"text", b"smell"),
                                          (b"[", b"{"), (b"0", b"1e999")]), 1)  # fmt: skip
    flipped = bytearray(data)
    for _ in range(draw.choice([1, 1, 8])):
        flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return Planted(**{name: np.random.default_rng(n).random(D, np.float32)
                      for n, name in enumerate([*NAMES, "a", "b", "c"])})  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory, planted):
    """Folders with a finished corpus, an index, a store and mined records; how each is used."""
    root = tmp_path_factory.mktemp("world")
    for n, name in enumerate(NAMES):
        Image.new("RGB", (4, 4), (n, 0, 0)).save(root / name)
    rows = [{"image": name} for name in NAMES] + [{"text": word} for word in "abc"]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"query": {"image": name}, "candidate": {"text": word}}
             for name, word in zip(NAMES, "abcab", strict=True)]  # fmt: skip
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    corpus = EncodeConfig("m", str(root / "corpus"), str(root / "rows.jsonl"), str(root),
                          shard_items=3)  # fmt: skip
    mining = MineConfig("m", (str(root / "pairs.jsonl"),), str(root / "mined" / "out.jsonl"),
                        str(root), str(root / "store"), ratio=None)  # fmt: skip
    queries = np.random.default_rng(0).random((3, D), np.float32)

    def vectors():
        index = build_index(ShardFolder(corpus.output))
        return index.names(index.search(queries, 4).rows)

    def encoded():
        encode_corpus(corpus, planted, progress=False)
        return vectors()

    def indexed():
        index = load_index(root / "index")
        return index.names(index.search(queries, 4, scorer=Standardised()).rows)

    def stored():
        items = [text(word) for word in "abc"]
        found = encode_items(planted, items, root / "store", progress=False)
        return found.rows(np.arange(3)).tolist()

    def mined():
        return mine(mining, planted, progress=False).name

    encode_corpus(corpus, planted, progress=False)
    build_index(ShardFolder(corpus.output)).save(root / "index")
    mined(), stored()
    return root, {
        "corpus": (vectors, encoded),
        "index": (indexed,),
        "store": (stored,),
        "mined": (mined,),
    }


@pytest.mark.filterwarnings("ignore:.*begun with other versions")
@pytest.mark.parametrize("kind", ["corpus", "index", "store", "mined"])
def test_a_damaged_store_gives_a_clear_error_or_the_same(world, kind):
    root, uses = world
    folder = root / kind
    whole = root.parent / f"{root.name}-{kind}"
    shutil.copytree(folder, whole, dirs_exist_ok=True)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    contents = [path.read_bytes() for path in files]
    right = [use() for use in uses[kind]]
    draw, errors = random.Random(kind), 0
    for case in range(CASES):
        path = draw.choice(files)
        path.write_bytes(damaged(contents[files.index(path)], contents, draw))
        for use, expected in zip(uses[kind], right, strict=True):
            start = time.perf_counter()
            try:
                found = use()
            except (ValueError, OSError) as error:
                errors += 1
                assert str(root) in str(error), f"{kind} {case}, {path.name}: {error} has no place"
            except Exception as error:
                raise AssertionError(f"{kind} {case}, {path.name}: {error!r}") from error
            else:
                assert found == expected, f"{kind} {case}, {path.name}: read as something else"
            assert time.perf_counter() - start < 10
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
    assert errors > CASES // 4
