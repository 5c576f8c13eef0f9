"""A corpus, a data set layout, a loss, a benchmark and a backbone from outside the package.

What stands here is what CONTRIBUTING.md says: each is one decorated function or entry.
"""

import json
import subprocess
import sys

import pytest

PLUGIN = """
from unite_core.corpora import CORPORA
from unite_core.curate.adapters import ADAPTERS
from unite_core.train.losses import LOSSES


@CORPORA.register("dots")
def build_dots(root, seed=0, count=4):
    from pathlib import Path
    from PIL import Image
    from unite_core.data.records import write_records
    from unite_core.files import write_json

    root = Path(root)
    (root / "media").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        name = f"media/{number}.png"
        Image.new("RGB", (56, 56), (number * 50 % 256, seed % 256, 90)).save(root / name)
        rows.append({"query": {"text": f"dot number {number}"}, "candidate": {"image": name}})
    write_records(root / "stage1.jsonl", rows)
    write_json(root / "manifest.json", {})


@ADAPTERS.register("titled")
def titled(row, language="en"):
    yield {"query": {"text": f"{row['title']} ({language})"}, "candidate": {"image": row["file"]}}


@LOSSES.register("cross_entropy")
def cross_entropy_loss(batch, stage):
    import torch

    scores = batch.query @ batch.candidate.T / batch.temperature
    positive = torch.arange(len(scores), device=scores.device)
    losses = torch.nn.functional.cross_entropy(scores, positive, reduction="none")
    return losses[batch.rows or slice(None)].sum() / len(losses)
"""


def unite(*arguments, cwd):
    command = [sys.executable, "-m", "unite_core", "--plugin", "dots", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "dots.py").write_text(PLUGIN)
    return folder


@pytest.mark.slow
def test_a_corpus_a_loss_and_a_layout_from_outside_make_a_trained_model(folder):
    from unite_core.data.records import read_records
    from unite_core.tiny import TINY

    made = unite("corpus", "dots", "--seed", 3, "--option", "count=6", cwd=folder)
    assert made.returncode == 0, made.stderr
    assert len(read_records(folder / "data/dots/stage1.jsonl")) == 6

    rows = [{"title": f"dot {n}", "file": f"data/dots/media/{n}.png"} for n in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"name": "dots", "path": "rows.jsonl", "adapter": "titled",
              "options": {"language": "nl"}}  # fmt: skip
    rules = {"clean": {"least_contrast": 0}, "duplicates": "keep", "alignment": "keep"}
    recipe = {"name": "dots", "sources": [source], "output": "mix", "rules": rules}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    curated = unite("curate", "recipe.json", "--no-figures", cwd=folder)
    assert curated.returncode == 0, curated.stderr
    mixes = list((folder / "mix").rglob("*.parquet"))
    assert any("dot 5 (nl)" in str(read_records(mix)) for mix in mixes if "reasons" not in mix.name)

    options = ("--model", TINY, "--data", "data/dots/stage1.jsonl", "--media-root", "data/dots",
               "--output", "run", "--stage.loss", "cross_entropy", "--stage.batch-size", 3,
               "--stage.max-steps", 2, "--stage.save-steps", 2)  # fmt: skip
    trained = unite("train", *options, cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert (folder / "run" / "model" / "model.safetensors").is_file()
    assert (
        json.loads((folder / "run" / "train.json").read_text())["stage"]["loss"] == "cross_entropy"
    )


def test_without_the_plugin_the_names_are_unknown(folder, unite, capsys, tmp_path):
    assert unite("corpus", "dots", "--root", tmp_path / "dots") == 2
    assert "'dots' is no corpus" in capsys.readouterr().err
    options = ("--model", "m", "--data", "d", "--output", "o")
    assert unite("train", *options, "--stage.loss", "cross_entropy") == 2
    assert "must be one of info_nce, mamcl, random_mask" in capsys.readouterr().err


def test_a_registered_name_is_taken_once():
    from unite_core.registry import Registry

    things = Registry("thing")
    things.register("one")(1)
    with pytest.raises(ValueError, match="thing 'one' is registered already"):
        things.register("one")(2)
    with pytest.raises(ValueError, match=r"'ona' is no thing \(did you mean 'one'\?\); known: one"):
        things["ona"]
    assert list(things) == ["one"] and "one" in things and len(things) == 1
