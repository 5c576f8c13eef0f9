"""An instruction goes where the family has its place, from items, records and `embed`."""

import json
from pathlib import Path

import numpy as np
import pytest

from unite_core import UniteEmbedder
from unite_core.data.items import ItemError, as_item
from unite_core.data.pairs import PairDataset
from unite_core.data.records import RecordError, content_id, validate_record
from unite_core.model.prompts import build_prompt
from unite_core.search.corpus import Corpus, item_key
from unite_core.train.collator import PairCollator

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
FIND = "Find its picture"
PICTURE = np.full((60, 90, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def embedder():
    return UniteEmbedder.load(FOLDER, max_length=400)


def test_system_turn_or_before_the_text():
    item = {"text": "a cat", "image": "a.png", "instruction": FIND}
    assert "system\nFind its picture<|im_end|>" in build_prompt(item, "gme")
    assert "system\nFind its picture.<|im_end|>" in build_prompt(item, "qwen3-vl-embedding")
    marked = item | {"text": "<|IMAGE|>\na cat"}
    assert "<|vision_end|>\nFind its picture\na cat\nSumm" in build_prompt(marked)
    assert build_prompt(item, "vlm2vec-v2") == "<|image_pad|> Find its picture a cat"
    assert "<|vision_end|>Find its picture a cat\nSumm" in build_prompt(item, "lamra")


def test_an_instruction_alone_is_the_text_where_it_has_no_place_of_its_own():
    prompt = build_prompt({"image": "a.png", "instruction": FIND})
    assert "<|vision_end|>\nFind its picture\nSummary above sentence and image in" in prompt
    assert build_prompt({"image": "a.png", "instruction": FIND}, "vlm2vec-v2") == (
        "<|image_pad|> Find its picture"
    )


def test_without_one_the_templates_own_stands():
    assert "system\nRepresent the user's input.<|" in build_prompt(
        {"text": "a"}, "qwen3-vl-embedding"
    )
    assert "system\nYou are a helpful assistant.<|" in build_prompt({"text": "a"}, "gme")
    assert build_prompt({"text": "a"}, "vlm2vec-v2") == "a"
    assert build_prompt({"video": "a.mp4"}, "vlm2vec-v2") == (
        "<|video_pad|> Represent the given video."
    )


@pytest.mark.parametrize("wrong", ["", " ", 3, "the <|IMAGE|>", "<|image_pad|>", "\ud800"])
def test_what_is_no_instruction_is_named(wrong):
    with pytest.raises(ItemError, match="^instruction: "):
        as_item({"text": "a", "instruction": wrong})
    with pytest.raises(RecordError, match="field instruction: "):
        validate_record({"query": {"text": "a"}, "candidate": {"text": "b"}, "instruction": wrong})
    with pytest.raises(ItemError, match="empty"):
        as_item({"instruction": FIND})


def test_embed_gives_it_to_items_without_their_own(embedder):
    items = [{"text": "a cat"}, {"text": "a cat", "instruction": "Other."}, PICTURE]
    given = embedder.embed(items, instruction=FIND, progress=False)
    own = [
        {"text": "a cat", "instruction": FIND},
        {"text": "a cat", "instruction": "Other."},
        {"image": PICTURE, "instruction": FIND},
    ]
    np.testing.assert_array_equal(given, embedder.embed(own, progress=False))
    plain = embedder.embed(items, progress=False)
    assert (np.abs(given - plain).max(1) > 1e-3).tolist() == [True, False, True]


def test_a_records_is_its_querys_in_training_and_search(embedder, tmp_path):
    records = [
        {"query": {"text": "a cat"}, "candidate": {"text": "a dog"}, "instruction": FIND},
        {"query": {"text": "a cat", "instruction": "Other."}, "candidate": {"text": "a cow"}},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    pairs = list(PairDataset([path]))
    assert [pair.query["instruction"] for pair in pairs] == [FIND, "Other."]
    batch = PairCollator(embedder.processor)(pairs)
    ids = {len(group["input_ids"]) for group in batch["groups"]}
    assert sum(ids) == 4, "queries of equal text and different instructions are two items"
    found = [item for _, item, _ in Corpus([path], take=("query",))]
    assert [item["instruction"] for item in found] == [FIND, "Other."]
    assert len({item_key(item) for item in found}) == 2
    assert len({content_id(item) for item in found}) == 1, "content is what is searched for"
