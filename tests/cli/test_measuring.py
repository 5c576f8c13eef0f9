"""Own data measured from the command line: tasks, gains, the gap, the card."""

import json

import numpy as np
import pytest
from PIL import Image

from unite_core.evaluation.results import load_results
from unite_core.model.embedder import UniteEmbedder
from unite_core.search.modality_probe import PROBE_FILE, ModalityProbe


class Planted:
    """An embedder whose pairs agree by their number, as far as its noise lets them."""

    def __init__(self, noise):
        self.noise = noise

    def embed(self, items, media_root=".", progress=True):
        rows = []
        for item in items:
            side, number = item["text"].split()
            shared = np.random.default_rng(int(number)).normal(size=8)
            own = np.random.default_rng([int(number), len(side)]).normal(size=8)
            rows.append(shared + self.noise * own)
        vectors = np.array(rows, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """`tiny` finds little, `tiny-stage1` nearly all; sixty pairs of two columns of texts."""
    noise = {"tiny": 5.0, "tiny-stage1": 0.2}
    monkeypatch.setattr(UniteEmbedder, "load", lambda name, **_: Planted(noise[str(name)]))
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"q {n},answer {n}\n" for n in range(60))
    (tmp_path / "pairs.csv").write_text("query,positive\n" + rows)
    return tmp_path


def test_pairs_are_scored_both_ways_against_another_model(planted, unite, capsys):
    words = ("--data", "pairs.csv", "--against", "tiny", "--output", "scores")
    assert unite("evaluate", "tiny-stage1", *words) == 0
    out, err = capsys.readouterr()
    for pool in ("single", "mixed"):
        for metric in ("recall@1", "recall@10"):
            assert f"{metric}, {pool} pool, in percent [95 %" in out
    assert "text to text: tiny-stage1 gains +" in out
    assert "points of recall@10 (chance 8%) over tiny, single pool" in out
    assert "query from query, candidate from positive" in err
    before, after = (load_results(planted / "scores" / f"results-{n}.json") for n in (0, 1))
    score = after.score("text to text", "held out")
    assert score.n == 120 and score.families == 60, "a pair is one family in both directions"
    assert score.value > 0.9 > before.score("text to text", "held out").value
    assert score.chance == pytest.approx(10 / 119)


def test_gains_on_several_splits_say_which(planted, unite, capsys):
    sides = [{"queries": [{"text": f"q {n}"} for n in range(20 * k, 20 * k + 20)],
              "candidates": [{"text": f"answer {n}"} for n in range(20 * k, 20 * k + 20)],
              "positives": [[n] for n in range(20)], "name": "words", "split": split,
              "families": [str(n) for n in range(20)]}
             for k, split in enumerate(("known", "new"))]  # fmt: skip
    (planted / "tasks.json").write_text(json.dumps(sides))
    assert unite("evaluate", "tiny-stage1", "--data", "tasks.json", "--against", "tiny") == 0
    out, _ = capsys.readouterr()
    for split in ("known", "new"):
        assert f"words, {split}: tiny-stage1 gains +" in out


def test_one_index_is_also_ranked_by_the_factorised_score_of_a_model(planted, unite, capsys,
                                                                      monkeypatch):  # fmt: skip
    monkeypatch.setattr("unite_core.search.blocks.model_key", lambda _: "its key")
    words = ("--data", "pairs.csv", "--score", "factorised")
    assert unite("evaluate", "tiny", *words) == 2
    assert "tiny: no modality_probe.safetensors and no router" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UniteEmbedder, "load", lambda *_, **__: Planted(0.2))
        (planted / "mine").mkdir()
        (planted / "mine" / "config.json").write_text("{}")
        probe = ModalityProbe((1, 2), np.zeros((2, 8)), np.zeros(2), 0.1)
        probe.save(planted / "mine" / PROBE_FILE)
        assert unite("evaluate", "mine", *words, "--against", "tiny", "--output", "scores") == 0
        out = capsys.readouterr().out
        ModalityProbe((1, 2), np.zeros((2, 8)), np.zeros(2), 0.1, "another key").save(
            planted / "mine" / PROBE_FILE
        )
        assert unite("evaluate", "mine", *words) == 2
        assert "the probe was fitted for another model" in capsys.readouterr().err
    assert "tiny: has neither probe nor router, so it is scored by cosine alone" in out
    table = out.partition("recall@10, mixed, factorised pool, in percent")[2].partition("\n\n")[0]
    assert "mine" in table and "tiny" not in table
    assert "mine gains" in out
    found = load_results(planted / "scores" / "results-1.json")
    by = [found.score("text to text", "held out", pool=pool).value
          for pool in ("mixed", "mixed, factorised")]  # fmt: skip
    assert by[0] == by[1] > 0.9, "all candidates are texts, whose order it keeps"


def test_a_model_that_ships_with_a_router_needs_no_probe(unite, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = []
    for name in ("red", "green", "blue", "yellow"):
        Image.new("RGB", (56, 56), name).save(f"{name}.png")
        rows.append(f"{name} sheet,{name}.png\n")
    (tmp_path / "pairs.csv").write_text("text,image\n" + "".join(rows))
    factorised = ("--model", "tiny-stage2", "--score", "factorised", "--k", "3", "--text")
    assert unite("search", "pairs.csv", *factorised, "Find a picture of: red sheet") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[2] for line in lines] == ["image"] * 3 and float(lines[0][3]) > 0.9
    assert unite("evaluate", "tiny-stage2", "--data", "pairs.csv", "--score", "factorised") == 0
    assert "mixed, factorised pool" in capsys.readouterr().out
    assert unite("search", "pairs.csv", "--model", "tiny-stage1", *factorised[2:], "red") == 2
    assert "tiny-stage1: no modality_probe.safetensors and no router" in capsys.readouterr().err


@pytest.mark.parametrize(("pairs", "k"), [(16, 5), (11, 1)])
def test_in_a_small_pool_gains_are_of_a_recall_that_chance_does_not_reach(planted, unite, capsys,
                                                                          pairs, k):  # fmt: skip
    head, *rows = (planted / "pairs.csv").read_text().splitlines()
    (planted / "pairs.csv").write_text("\n".join([head, *rows[:pairs]]))
    assert unite("evaluate", "tiny-stage1", "--data", "pairs.csv", "--against", "tiny") == 0
    out = capsys.readouterr().out
    chance = 10 / (2 * pairs - 1)
    assert f"chance alone reaches {chance:.0%} of recall@10" in out
    assert f"points of recall@{k} (chance {k / (2 * pairs - 1):.0%}) over tiny" in out
    assert "recall@10, single pool" not in out


def test_a_split_s_tasks_are_scored_with_its_groups_as_families(planted, unite, capsys):
    assert unite("split", "pairs.csv", "--output", "s", "--test", "0.5") == 0
    out, err = capsys.readouterr()
    assert "30 pairs for training, 30 for testing in 30 of 60 groups" in out
    assert "unite train --model tiny-stage1 --data s/train.jsonl --output runs/mine" in err
    evaluated = "unite evaluate runs/mine/model --data s/test.tasks.json --against tiny-stage1"
    assert evaluated in err
    assert unite("evaluate", "tiny", "--data", "s/test.tasks.json") == 0
    assert " 60  30 (30.0) " in capsys.readouterr().out
    noted = json.loads((planted / "s" / "split.json").read_text())
    assert (noted["pairs"], noted["train"], noted["test_groups"]) == (60, 30, 30)


def test_a_call_is_saved_and_repeated(planted, unite, capsys):
    words = ("--data", "pairs.csv", "--against", "tiny", "--save-config", "call.json")
    assert unite("evaluate", "tiny-stage1", *words) == 0
    first = capsys.readouterr().out
    assert json.loads((planted / "call.json").read_text()) == {
        "model": "tiny-stage1", "data": ["pairs.csv"], "against": ["tiny"]
    }  # fmt: skip
    assert unite("evaluate", "--config", "call.json") == 0
    assert capsys.readouterr().out == first
    assert unite("evaluate", "tiny", "--config", "call.json") == 0
    assert "tiny-stage1" not in capsys.readouterr().out, "what is given wins"
    assert unite("split", "pairs.csv", "--output", "a", "--seed", "3", "--test", "0.3",
                 "--save-config", "split.json") == 0  # fmt: skip
    assert unite("split", "--config", "split.json", "--output", "b") == 0
    assert (planted / "a/test.jsonl").read_text() == (planted / "b/test.jsonl").read_text()
    (planted / "split.json").write_text('{"outputt": "c"}')
    capsys.readouterr()
    assert unite("split", "--config", "split.json") == 2
    assert "split.json: outputt is no setting of this verb" in capsys.readouterr().err


def test_the_gap_of_two_files_and_of_pairs_of_one_modality(planted, unite, capsys):
    rng = np.random.default_rng(0)
    for name in ("x", "y"):
        vectors = rng.normal(size=(80, 16)).astype(np.float32)
        np.save(planted / f"{name}.npy", vectors / np.linalg.norm(vectors, axis=1)[:, None])
    assert unite("gap", "x.npy", "y.npy", "--output", "gap.json") == 0
    assert "x.npy and y.npy, intervals of 99 %" in capsys.readouterr().out
    found = json.loads((planted / "gap.json").read_text())["x.npy and y.npy"]
    assert found["pair_cosine"]["n"] == 80
    assert unite("gap", "tiny", "--data", "pairs.csv") == 2
    assert "no 50 pairs of two modalities" in capsys.readouterr().err


def test_a_card_needs_a_model_s_folder(planted, unite, capsys):
    assert unite("evaluate", "tiny", "--data", "pairs.csv", "--card") == 2
    assert "--card writes into a model's folder, which tiny is not" in capsys.readouterr().err
