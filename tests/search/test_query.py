"""From a corpus to the results of a query: encode, index, search, as a user does it."""

import json
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from PIL import Image

from unite_core import UniteEmbedder
from unite_core.search import query as search
from unite_core.search.config import EncodeConfig
from unite_core.search.encode import encode_corpus
from unite_core.search.index import build_index, load_index
from unite_core.search.query import check_model, run_lines, search_items
from unite_core.search.shards import ShardFolder

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
COLOURS = ("red", "green", "blue", "teal")


@pytest.fixture(scope="module")
def embedder() -> UniteEmbedder:
    return UniteEmbedder.load(FOLDER)


@pytest.fixture(scope="module")
def world(tmp_path_factory, embedder) -> Path:
    """Pictures and texts, encoded to 32 numbers each and indexed."""
    root = tmp_path_factory.mktemp("world")
    for n, colour in enumerate(COLOURS):
        Image.new("RGB", (56 + 28 * n, 56), colour).save(root / f"{colour}.png")
    rows = [{"id": f"p-{colour}", "image": f"{colour}.png"} for colour in COLOURS]
    rows += [{"id": f"t-{colour}", "text": f"something {colour}"} for colour in COLOURS]
    (root / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = EncodeConfig(str(FOLDER), str(root / "vectors"), str(root / "corpus.jsonl"),
                          media_root=str(root), dim=32)  # fmt: skip
    encode_corpus(config, embedder, progress=False)
    build_index(ShardFolder(root / "vectors")).save(root / "index")
    return root


def test_a_query_finds_itself_first_with_cosine_1(world, unite, capsys):
    assert unite("index", world / "vectors", world / "again") == 0
    capsys.readouterr()
    given = ("--model", FOLDER, "--media-root", world, "--k", 3)
    unite("search", world / "again", *given, "--image", "blue.png")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["1", "1.0000", "image", "blue.png", "[p-blue]"]
    unite("search", world / "again", *given, "--text", "something teal",
            "--modality", "text")  # fmt: skip
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["1", "1.0000", "text", "something", "teal", "[t-teal]"]
    assert {line[2] for line in lines} == {"text"}


def test_fields_keep_the_order_in_which_they_are_given(world, unite, monkeypatch, embedder):
    asked = []
    monkeypatch.setattr(search, "search_items",
                        lambda _, __, items, **___: asked.extend(items) or search_items(
                            load_index(world / "index"), embedder, [{"text": "x"}], 1))  # fmt: skip
    for order in (("--image", "a.png", "--text", "t"), ("--text", "t", "--image", "a.png")):
        unite("search", world / "index", "--model", FOLDER, *order, "--image", "b.png")
    assert [list(item) for item in asked] == [["image", "text"], ["text", "image"]]
    assert asked[0]["image"] == ["a.png", "b.png"]


def test_an_instruction_goes_with_queries(world, unite, monkeypatch, embedder):
    asked = []
    monkeypatch.setattr(search, "search_items",
                        lambda _, __, items, **___: asked.extend(items) or search_items(
                            load_index(world / "index"), embedder, [{"text": "x"}], 1))  # fmt: skip
    given = ("--model", FOLDER, "--instruction", "Find its picture.")
    unite("search", world / "index", *given, "--text", "a cat")
    (world / "told.jsonl").write_text('{"text": "a dog"}\n')
    files = ("--queries", world / "told.jsonl", "--output", world / "told.trec")
    unite("search", world / "index", *given, *files)
    told = {"instruction": "Find its picture."}
    assert asked == [{"text": "a cat"} | told, {"text": "a dog"} | told]


def test_a_run_of_many_queries_is_read_by_ir_measures(world, embedder, unite, monkeypatch):
    rows = [{"id": f"q-{colour}", "text": f"something {colour}"} for colour in COLOURS]
    (world / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(search, "_BLOCK", 3)  # the last block is shorter
    files = ("--queries", world / "queries.jsonl", "--output", world / "run.trec")
    unite("search", world / "index", "--model", FOLDER, *files, "--k", 8)
    run = list(ir_measures.read_trec_run(str(world / "run.trec")))
    assert len(run) == 4 * 8 and not list(world.glob("*.partial"))
    qrels = [ir_measures.Qrel(f"q-{colour}", f"t-{colour}", 1) for colour in COLOURS]
    assert ir_measures.calc_aggregate([ir_measures.RR], qrels, run)[ir_measures.RR] == 1.0
    items = [{"text": row["text"]} for row in rows]
    found = search_items(load_index(world / "index"), embedder, items, 8)
    np.testing.assert_allclose([row.score for row in run], found.scores.ravel(), atol=1e-5)


def test_another_model_or_another_setting_is_refused(world, embedder, unite, capsys):
    loaded = load_index(world / "index")
    check_model(loaded, embedder)
    with pytest.raises(ValueError, match="another model, or of other settings"):
        check_model(loaded, embedder.configured(max_length=77))
    raw = ("--embed", '{"prompt": "raw"}')
    assert unite("search", world / "index", "--model", FOLDER, "--text", "a", *raw) == 2
    assert "another model" in capsys.readouterr().err
    loaded.model = ""  # vectors from elsewhere
    check_model(loaded, embedder)


def test_what_cannot_be_searched_is_named(world, embedder, unite, capsys):
    loaded = load_index(world / "index")
    with pytest.raises(ValueError, match=r"queries.jsonl, line 2: .*none.png"):
        list(run_lines(loaded, embedder, [("1", {"text": "a"}, "queries.jsonl, line 1"),
                                          ("2", {"image": "none.png"}, "queries.jsonl, line 2")],
                       world))  # fmt: skip
    with pytest.raises(ValueError, match="id 'a b': ids in a TREC run have no white space"):
        list(run_lines(loaded, embedder, [("a b", {"text": "a"}, "here")]))
    for wrong in ((), ("--text", "a", "--queries", "b"), ("--queries", "b")):
        assert unite("search", world / "index", "--model", FOLDER, *wrong) == 2
        assert "give one query by --text" in capsys.readouterr().err
