"""Generative pretraining: examples, labels on answers only, order, a real small run."""

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer

from unite_core.model.embedder import UniteEmbedder
from unite_core.settings import read_config
from unite_core.tiny.examples import (
    IGNORED,
    Example,
    GenerativeCollator,
    generative_examples,
    summary_examples,
)
from unite_core.tiny.model import EMBED_CONFIG, SPECIAL_TOKENS, new_model, train_tokenizer
from unite_core.tiny.pretrain import PHASES, answer_loss, batch_order, pretrain_backbone
from unite_core.tiny.pretrain_vision import ConceptCollator, augment, concepts_of, seeded

RECORDS = [
    {"query": {"text": "a red square"}, "candidate": {"image": "red.png"}},
    {"query": {"image": "blue.png"}, "candidate": {"text": "a blue square"}},
    {"query": {"text": "rot"}, "candidate": {"text": "red"}},
    {"query": {"image": "red.png"}, "candidate": {"image": "blue.png"}},
    {
        "query": {"text": "<|IMAGE|>\nWhich colour?", "image": "blue.png"},
        "candidate": {"text": "blue"},
    },
    {"query": {"video": ["red.png", "blue.png"]}, "candidate": {"text": "red turns blue"}},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        Image.new("RGB", (112, 112), colour).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["Summary above sentence in one word: a red blue square turns rot Which colour?"] * 9
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), vocab_size=400)


def test_records_are_read_towards_their_text():
    examples = generative_examples(RECORDS + RECORDS)
    assert [e.answer for e in examples] == [
        "a red square", "a blue square", "red", "blue", "red turns blue",
    ]  # fmt: skip
    assert examples[0].item == {"image": "red.png"}


def test_tokenizer_keeps_every_byte_and_every_special_token(tokenizer):
    text = "naïve 手 🙂\n<|im_start|>x"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert all(len(tokenizer(token)["input_ids"]) == 1 for token in SPECIAL_TOKENS)


def test_labels_are_on_the_answer_only(root, tokenizer):
    collator = GenerativeCollator(generative_examples(RECORDS), root, tokenizer, seed=0)
    batch = collator([1, 2, 3, 4])
    answers = [tokenizer.decode(row[row != IGNORED]) for row in batch["labels"]]
    assert answers == [
        f"{said}<|im_end|>\n<|endoftext|>"
        for said in ("a blue square", "red", "blue", "red turns blue")
    ]
    pads = batch["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert pads.sum(1).tolist() == [16, 0, 16, 0]
    assert batch["pixel_values"].shape == (2 * 64, 1176)
    assert batch["video_grid_thw"].tolist() == [[1, 8, 8]]


def test_the_same_examples_are_augmented_the_same_way(root, tokenizer):
    examples = generative_examples(RECORDS)
    first, again = (GenerativeCollator(examples, root, tokenizer, seed=3) for _ in range(2))
    other = GenerativeCollator(examples, root, tokenizer, seed=4)
    assert torch.equal(first([0, 1])["pixel_values"], again([0, 1])["pixel_values"])
    assert not torch.equal(first([0, 1])["pixel_values"], other([0, 1])["pixel_values"])


def test_augmentation_brings_in_white_and_moves_a_clips_frames_together():
    frame = torch.zeros(1, 3, 56, 56)
    clip = augment(frame.repeat(200, 2, 1, 1), seeded(0))
    assert torch.equal(clip[:, :3], clip[:, 3:])
    assert clip.min() >= 0 and clip.max() <= 1
    corners = clip[:, :3, 0, 0]
    assert corners.max() > 0.8, "no draw brought white into a corner"


def test_augmentation_recolours_and_blurs_but_leaves_the_page_white():
    page = torch.ones(300, 3, 56, 56)
    assert torch.allclose(augment(page.clone(), seeded(0)), page, atol=1e-5)
    page[:, 0, 20:36, 20:36] = 0.2  # a square, a little green and blue
    changed = augment(page, seeded(0))
    middles = changed[:, :, 26:30, 26:30].mean((2, 3))
    assert middles.std(0).min() > 0.03, "colours stay as they are"
    steps = (changed[:, 0, :, 1:] - changed[:, 0, :, :-1]).abs().amax((1, 2))
    assert steps.min() < 0.5 * steps.max(), "no draw is blurred"


def test_every_example_comes_once_per_epoch():
    examples = [Example({"text": "x" * n}, "y") for n in range(64)]
    keys = [(1, len(one.item["text"])) for one in examples]
    order = batch_order(keys, steps=16, batch_size=8, seed=0)
    assert len(order) == 128 and sorted(order[:64]) != order[:64]
    assert np.bincount(order, minlength=64).tolist() == [2] * 64


def test_a_concept_has_its_pictures_and_all_that_is_said_of_them():
    (red,) = concepts_of(
        RECORDS + [{"query": {"image": "red.png"}, "candidate": {"text": "scarlet"}}]
    )
    assert (red.pictures, red.texts) == (["red.png"], ["a red square", "scarlet"])


def test_looking_draws_two_pictures_and_a_text_of_each_concept(root, tokenizer):
    records = [RECORDS[0], {"query": {"text": "a red square"}, "candidate": {"image": "blue.png"}}]
    records += [{"query": {"text": "blue"}, "candidate": {"image": "blue.png"}}]
    collator = ConceptCollator(concepts_of(records), root, tokenizer, seed=0)
    batch, again = collator([0, 1]), collator([0, 1])
    assert batch["pixels"].shape == (4, 64, 1176)
    assert torch.equal(batch["pixels"], again["pixels"])
    channels = batch["pixels"].unflatten(2, (3, -1)).mean((1, 3))  # [4, RGB]
    redder = channels[:, 0] > channels[:, 2]
    assert redder[0] != redder[2], "the two pictures of a concept are two where it has two"
    start = batch["offsets"].tolist()[1]
    assert tokenizer.decode(batch["tokens"][:start]) == "a red square"


def test_the_loss_is_that_of_the_whole_model_on_answers(root, tokenizer):
    model = new_model(tokenizer).eval()
    for phase in ("describe", "summarize"):
        batch = GenerativeCollator(generative_examples(RECORDS), root, tokenizer, 0, phase)([0, 3])
        with torch.no_grad():
            expected = model(**batch, use_cache=False).loss
            assert torch.allclose(answer_loss(model, **batch), expected, atol=1e-5)


@pytest.mark.parametrize("phase", ["look", "describe"])
def test_a_run_saves_a_loadable_model_and_resumes_to_the_same(phase, root, tmp_path, monkeypatch):
    settings = {"steps": 4, "batch_size": 2, "learning_rate": 3e-3, "save_steps": 2}
    records = RECORDS + [{"query": {"text": "blue"}, "candidate": {"image": "blue.png"}}]
    start = None
    if phase == "describe":
        start = pretrain_backbone(records, root, tmp_path / "look", "look", steps=1, batch_size=2)
    whole = pretrain_backbone(records, root, tmp_path / "whole", phase, start=start, **settings)
    manifest = json.loads((whole / "pretraining.json").read_text())
    assert manifest["media"] == ["blue.png", "red.png"]
    assert [each["examples"] for each in manifest["phases"]][-1] == {"look": 2, "describe": 6}[
        phase
    ]
    assert read_config(type(EMBED_CONFIG), whole / "unite.json") == EMBED_CONFIG
    embedder = UniteEmbedder.load(whole)
    items = [{"text": "red"}, {"image": "red.png"}]
    vectors = embedder.embed(items, root, progress=False)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    class Killed(Exception):
        pass

    calls = itertools.count()
    collator = ConceptCollator if phase == "look" else GenerativeCollator
    collate = collator.__call__

    def killed_at_the_fourth_batch(self, samples):
        if next(calls) == 3:
            raise Killed
        return collate(self, samples)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(collator, "__call__", killed_at_the_fourth_batch)
        pretrain_backbone(records, root, tmp_path / "resumed", phase, start=start, **settings)
    assert list((tmp_path / "resumed" / "checkpoints").glob("checkpoint-2"))
    resumed = pretrain_backbone(records, root, tmp_path / "resumed", phase, start=start, **settings)
    again = UniteEmbedder.load(resumed).embed(items, root, progress=False)
    assert np.array_equal(again, vectors)


def test_only_the_first_phase_begins_anew(root, tmp_path):
    for phase, start in (("look", "folder"), ("describe", None), ("sing", "folder")):
        with pytest.raises(ValueError, match="only look begins anew"):
            pretrain_backbone(RECORDS, root, tmp_path, phase, steps=1, start=start)


def test_the_second_phase_sums_up_every_answer_and_asks_no_questions():
    examples = summary_examples(generative_examples(RECORDS))
    assert [(sorted(e.item), e.answer) for e in examples] == [
        (["image"], "a red square"), (["image"], "a blue square"), (["text"], "red"),
        (["video"], "red turns blue"), (["text"], "a red square"), (["text"], "a blue square"),
        (["text"], "red"), (["text"], "red turns blue"),
    ]  # fmt: skip


def test_an_answer_sees_the_item_through_the_pooled_token_only(root, tokenizer):
    examples = generative_examples(RECORDS)[:1]
    batch = GenerativeCollator(examples, root, tokenizer, 0, "summarize")([0])
    ids, mask = batch["input_ids"][0], batch["attention_mask"][0, 0]
    pooled = int((ids == tokenizer.convert_tokens_to_ids("<|endoftext|>")).nonzero()[0])
    assert batch["labels"][0, pooled] == IGNORED and batch["labels"][0, pooled + 1] != IGNORED
    assert mask[pooled, : pooled + 1].all() and not mask[pooled, pooled + 1 :].any()
    assert not mask[pooled + 1 :, :pooled].any() and mask[pooled + 1 :, pooled].all()
    assert torch.equal(mask[pooled:, pooled:], torch.ones_like(mask[pooled:, pooled:]).tril())


def test_each_phase_goes_on_from_the_one_before(root, tmp_path):
    folder, folders = None, []
    for phase in PHASES:
        folder = pretrain_backbone(RECORDS, root, tmp_path / phase, phase, 2, 5, 3e-3, start=folder)
        folders.append(folder)
    phases = json.loads((folder / "pretraining.json").read_text())["phases"]
    assert [phase["phase"] for phase in phases] == list(PHASES)
    look, describe, summarize = (load_file(each / "model.safetensors") for each in folders)
    new = new_model(AutoTokenizer.from_pretrained(folder)).state_dict()
    layers = [name for name in look if ".layers." in name]
    assert layers and all(torch.equal(look[n], new[_named(n)].bfloat16()) for n in layers)
    for before, after in ((look, describe), (describe, summarize)):
        moved = [name for name in before if not torch.equal(before[name], after[name])]
        seen = {name for name in moved if "visual" in name}
        assert seen and all("merger" in name for name in seen), "the tower stays as it looked"
        assert any("layers" in name for name in moved)


def _named(released: str) -> str:
    """The name in transformers' module of a weight in the released layout."""
    return released.replace("model.", "model.language_model.", 1)
