"""A user's column of groups, from a table through curate and split into training and mining."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unite_core.data.items import files_of
from unite_core.data.pairs import PairDataset
from unite_core.data.records import read_records
from unite_core.evaluation.tasks import read_tasks
from unite_core.train.config import TrainConfig
from unite_core.train.trainer import UniteTrainer

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
PRODUCTS, EACH = 10, 4
WORDS = ("round", "square", "small", "large", "wooden", "iron", "glass", "paper", "new", "light")


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Ten products with four different pictures each, one picture of no product."""
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(0), []
    for number in range(PRODUCTS * EACH + 1):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(f"{number}.png")
        product, view = divmod(number, EACH)
        caption = f"A {WORDS[product % 10]} thing seen from side {view}, the {number + 7}th of all"
        rows.append([f"{number}.png", caption, f"p{product}" if product < PRODUCTS else ""])
    with Path("things.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "caption", "product"], *rows])
    return tmp_path


def product(record) -> int:
    return int(Path(next(files_of(record["candidate"]))).stem) // EACH


def test_groups_go_from_a_table_to_training(table, unite, capsys):
    kept = ("--rules.alignment", "keep", "--rules.duplicates", "near", "--no-figures")
    assert unite("curate", "things.csv", "--group", "product", "--output", "c", *kept) == 0
    assert "group from product" in capsys.readouterr().err
    mix = read_records("c/mix.parquet")
    assert len(mix) > 0.8 * PRODUCTS * EACH
    for record in mix:
        assert record.get("group") == (f"p{product(record)}" if product(record) < 10 else None)

    assert unite("split", "c/mix.parquet", "--output", "s", "--test", "0.3") == 0
    sides = {name: read_records(f"s/{name}.jsonl") for name in ("train", "test")}
    found = {name: {record.get("group") for record in side} for name, side in sides.items()}
    assert not found["train"] & found["test"] and len(found["test"]) > 1
    assert len(found["train"] | found["test"]) >= PRODUCTS

    stage = {"name": "stage1", "batch_size": 4, "max_steps": 20, "lora_dropout": 0.0}
    config = TrainConfig(str(CHECKPOINT), "s/train.jsonl", "out", stage, ".")
    trainer = UniteTrainer.from_config(config)
    groups = [record.get("group") for record in sides["train"]]
    for batch in trainer.sampler:
        assert len({groups[row] for row in batch}) == 4, "pairs of a product never meet"


def test_a_group_is_no_right_answer_of_an_evaluation(table, unite):
    assert unite("split", "things.csv", "--group", "product", "--output", "s", "--test", "0.3") == 0
    held_out = PairDataset(["s/test.jsonl"], ".")
    assert held_out.identity_of == {} and held_out.grouped
    for task in read_tasks("s/test.tasks.json"):
        assert all(len(places) == 1 for places in task.positives)
        assert len(set(task.families)) < len(task.queries), "but a family of the interval"


def test_a_recipe_s_columns_are_not_options(table, unite, capsys):
    saved = ("--save-config", "r.json", "--no-figures")
    assert unite("curate", "things.csv", "--group", "product", "--output", "c", *saved) == 0
    assert unite("curate", "r.json", "--output", "d", "--no-figures") == 0
    assert [r.get("group") for r in read_records("d/mix.parquet")] == [
        r.get("group") for r in read_records("c/mix.parquet")
    ]
    capsys.readouterr()
    assert unite("curate", "r.json", "--group", "file", "--output", "e") == 2
    assert "--group: a recipe names columns in the options" in capsys.readouterr().err
