"""The model card: what it says of a run, sections that are filled in later, and after a resume."""

from dataclasses import replace

import pytest
from huggingface_hub import EvalResult, ModelCard
from PIL import Image

from unite_core.data.pairs import PairDataset
from unite_core.data.records import write_records
from unite_core.files import read_json, write_json
from unite_core.train.config import STAGE_2, TrainConfig
from unite_core.train.model_card import CARD, GAP, RESULTS, add_section, write_card
from unite_core.train.run import train


@pytest.fixture
def records(tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    rows = [
        {"query": {"text": f"red {n}"}, "candidate": {"image": "a.png"}, "task": "T-I"}
        for n in range(3)
    ]
    rows.append({"query": {"image": "a.png"}, "candidate": {"text": "red"}, "source": "mine"})
    write_records(tmp_path / "pairs.jsonl", rows)
    return tmp_path / "pairs.jsonl"


@pytest.fixture
def config(records, tmp_path):
    config = TrainConfig(
        "tiny", str(records), str(tmp_path / "out"), STAGE_2, media_root=str(tmp_path)
    )
    noted = {str(records): "aa11", "tiny": "bb22", "media": {"files": 1, "content": "cc33"}}
    write_json(tmp_path / "out" / "inputs.json", noted)
    return config


@pytest.fixture
def card(config, records, tmp_path):
    write_card(tmp_path, config, PairDataset([records], tmp_path), 7)
    return tmp_path / CARD


def section(text, title):
    (found,) = [part for part in text.split("\n## ")[1:] if part.startswith(title)]
    return found


def test_front_matter_is_what_the_hub_reads(card):
    about = ModelCard.load(card).data.to_dict()
    assert about["license"] == "apache-2.0", "that of the shipped backbone"
    assert about["library_name"] == "sentence-transformers"
    assert about["pipeline_tag"] == "sentence-similarity"
    assert "base_model" not in about, "the shipped backbone is not on the hub"


def test_data_are_counted_by_source_task_and_modalities_with_their_hashes(card, records):
    text = section(card.read_text(), "Training data")
    assert text.count("4 pairs.") == 1
    assert "| pairs | T-I | text → image | 3 |" in text
    assert "| mine |  | image → text | 1 |" in text
    assert f"| records | {records.parent.name}/pairs.jsonl | aa11 |" in text
    assert "| media | 1 files | cc33 |" in text and "| started from | tiny | bb22 |" in text


def test_settings_are_those_of_the_run(card):
    text = section(card.read_text(), "Settings")
    assert "7 steps" in text
    assert "| loss | mamcl |" in text and "| learning_rate | 2e-05 |" in text
    assert "| lora_alpha | 64 |" in text
    assert "| epochs |" not in text, "it has its default"


@pytest.mark.parametrize(("base", "licence", "hub"), [
    (None, None, None),
    ("---\nlicense: mit\nbase_model: o/n\n---\n\n# x\n", "mit", "o/n"),
])  # fmt: skip
def test_licence_and_base_are_inherited_or_said_to_be_unknown(
    config, records, tmp_path, base, licence, hub
):
    model = tmp_path / "start"
    model.mkdir()
    if base:
        (model / CARD).write_text(base)
    write_card(tmp_path, replace(config, model=str(model)), PairDataset([records], tmp_path), 7)
    found = ModelCard.load(tmp_path / CARD)
    assert (found.data.license, found.data.base_model) == (licence, hub)
    assert ("is not known here" in found.text) == (licence is None)


def test_a_section_is_filled_replaced_and_added_and_the_rest_stays(card, tmp_path):
    before = card.read_text()
    assert "Not measured yet." in section(before, RESULTS)
    one = EvalResult("t", "own", "mine", "recall@10", 0.5, metric_name="recall@10, single")
    add_section(tmp_path, RESULTS, "half of them", [one])
    one.metric_value = 0.75
    add_section(tmp_path, RESULTS, "three quarters", [one])
    add_section(tmp_path, GAP, "### wide\n\nvery")
    add_section(tmp_path, "Remarks", "none")
    found = ModelCard.load(card)
    assert [each.metric_value for each in found.data.eval_results] == [0.75]
    assert "three quarters" in section(found.text, RESULTS) and "half" not in found.text
    assert section(found.text, GAP).strip().endswith("very")
    assert found.text.rstrip().endswith("## Remarks\n\nnone")
    for title in ("Use", "Training data", "Settings", "Licences"):
        assert section(found.text, title).strip() == section(before, title).strip()


def test_a_section_needs_a_card_and_no_heading_of_its_own(card, tmp_path):
    with pytest.raises(ValueError, match="begin its own headings with ###"):
        add_section(tmp_path, RESULTS, "## Results\n\ntwice")
    with pytest.raises(ValueError, match="README.md is missing"):
        add_section(tmp_path / "none", RESULTS, "x")


def test_training_writes_it_and_a_resumed_run_the_same(records, tmp_path):
    stage = replace(STAGE_2, batch_size=2, max_steps=2, save_steps=1)
    cards = []
    for name, kill in (("whole", False), ("resumed", True)):
        config = TrainConfig(
            "tiny", str(records), str(tmp_path / name), stage, media_root=str(tmp_path)
        )
        model = train(config)
        if kill:  # as a run that ended after its last checkpoint and before its model
            (model / CARD).unlink()
            model.rename(tmp_path / "aside")
            model = train(config)
        cards.append((model / CARD).read_text())
    assert cards[0] == cards[1] and "2 steps" in cards[0]
    assert read_json(tmp_path / "whole" / "inputs.json")["media"]["content"] in cards[0]
