"""Hard negatives mined anew while a model trains: what is mined, and runs that are killed."""

# ruff: noqa: F811 - a fixture of another module is an argument
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.train.test_claim import (  # noqa: F401 - corpus is a fixture
    CHECKPOINT,
    COLOURS,
    Killed,
    config_of,
    corpus,
    die_at,
)
from tests.train.test_parallel import run_processes
from unite_core.data.pairs import PairDataset, Pick
from unite_core.data.records import read_records, write_records
from unite_core.files import read_json
from unite_core.model.embedder import UniteEmbedder
from unite_core.search.config import MineConfig
from unite_core.search.hard_negatives import NegativeMiner, mine
from unite_core.settings import SettingsError
from unite_core.train.config import StageConfig
from unite_core.train.refresh import MinedPairs
from unite_core.train.run import train

FIELDS = {"negatives": 2, "depth": 6, "ratio": None}
REFRESH = {"refresh_steps": 2, "refresh": FIELDS, "max_steps": 5, "save_steps": 2}


@pytest.fixture(scope="module")
def embedder():
    return UniteEmbedder.load(CHECKPOINT, "cpu")


def dataset_of(corpus) -> PairDataset:
    return PairDataset([corpus / "rows"], corpus)


def test_pairs_get_the_negatives_that_mining_writes(corpus, embedder, tmp_path):
    records = [
        *read_records(corpus / "rows" / "a.jsonl"), *read_records(corpus / "rows" / "b.jsonl"),
        {"query": {"text": "again"}, "candidate": {"image": "red.bmp"}},
        {"query": {"image": "red.bmp"}, "candidate": {"text": "a red one"}},
        {"query": {"image": "blue.bmp"}, "candidate": {"text": "a blue one"}},
    ]  # fmt: skip
    write_records(tmp_path / "all.jsonl", records)
    config = MineConfig(str(CHECKPOINT), str(tmp_path / "all.jsonl"), str(tmp_path / "hard.jsonl"),
                        str(corpus), **FIELDS)  # fmt: skip
    wanted = [r.get("negative", []) for r in read_records(mine(config, embedder, False))]
    pairs = PairDataset([tmp_path / "all.jsonl"], corpus)
    rows = NegativeMiner(FIELDS)(embedder, pairs, corpus, tmp_path / "vectors")
    mined = MinedPairs(pairs, rows)
    assert [pair.negatives for pair in mined] == wanted
    assert mined.table.negatives.tolist() == [len(found) for found in wanted]
    assert max(mined.table.negatives) == 2 and rows.dtype == np.int32
    other = NegativeMiner({**FIELDS, "skip": 1})(embedder, pairs, corpus, tmp_path / "vectors")
    assert not np.array_equal(rows, other), "the fields of the stage decide"


def test_negatives_of_records_come_first_and_can_be_drawn(corpus):
    row = {"query": {"text": "q"}, "candidate": {"image": "red.bmp"}, "scores": [3, 1],
           "negative": {"text": "given"}}  # fmt: skip
    write_records(corpus / "rows" / "a.jsonl", [row])
    pairs = dataset_of(corpus)
    mined = MinedPairs(pairs, np.array([[2, 1], [0, -1], [-1, -1]]))
    given, second, first = {"text": "given"}, pairs[2].candidate, pairs[1].candidate
    assert mined[0].negatives == [given, second, first] and mined[0].scores == ()
    assert mined[Pick(0, (0, 2))].negatives == [given, first]
    assert [len(pair.negatives) for pair in mined] == [3, 1, 0] == mined.table.negatives.tolist()
    assert pairs[0].negatives == [given] and pairs.table.negatives.tolist() == [1, 0, 0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


class DyingMiner(NegativeMiner):
    """Is killed after it has embedded everything, at its second mining."""

    calls = 0

    def __call__(self, *given):
        super().__call__(*given)
        DyingMiner.calls += 1
        if DyingMiner.calls == 2:
            raise Killed
        return super().__call__(*given)


def test_a_run_killed_while_it_mines_or_trains_ends_with_the_same_bits(corpus, monkeypatch):
    whole = config_of(corpus, output=str(corpus / "whole"), **REFRESH)
    train(whole, miner=NegativeMiner)
    config = config_of(corpus, **REFRESH)
    with pytest.raises(Killed):
        train(config, miner=DyingMiner)
    out = corpus / "out"
    assert [(out / f"negatives-{step}.npy").is_file() for step in (2, 4)] == [True, False]
    with monkeypatch.context() as patch:
        die_at(patch, 4)
        with pytest.raises(Killed):
            train(config, miner=NegativeMiner)
    assert (out / "negatives-4.npy").is_file() and not (out / "mining").exists()
    train(config, miner=NegativeMiner)
    assert same(weights(corpus / "whole"), weights(out))
    for step in (2, 4):
        first, second = (np.load(corpus / n / f"negatives-{step}.npy") for n in ("whole", "out"))
        assert np.array_equal(first, second) and (first >= 0).any()
    steps = [row["step"] for row in read_json(out / "history.json") if "loss" in row]
    assert steps == sorted(set(steps)) and steps[-1] == 5
    train(config_of(corpus, output=str(corpus / "plain"), max_steps=5))
    assert not same(weights(corpus / "plain"), weights(out)), "the guard: negatives matter"


def test_a_run_whose_negatives_are_gone_says_so(corpus, monkeypatch):
    config = config_of(corpus, **REFRESH | {"save_steps": 1})
    with monkeypatch.context() as patch:
        die_at(patch, 3)
        with pytest.raises(Killed):
            train(config, miner=NegativeMiner)
    (corpus / "out" / "negatives-2.npy").unlink()
    with pytest.raises(ValueError, match=r"negatives-2.npy is missing, .*checkpoint-3 was trained"):
        train(config, miner=NegativeMiner)


@pytest.mark.slow
def test_processes_share_the_mining(corpus, embedder, tmp_path):
    alone = NegativeMiner(FIELDS)(embedder, dataset_of(corpus), corpus, tmp_path / "alone")
    for rows in run_processes(2, _mine_in, corpus, tmp_path / "shared"):
        assert np.array_equal(rows, alone)
    assert len(alone) == len(COLOURS)


def _mine_in(rank, world, corpus, folder):
    import unite_core.search.vector_store as store

    store.SHARD_ITEMS = 4  # so that both have some
    embedder = UniteEmbedder.load(CHECKPOINT, "cpu")
    return NegativeMiner(FIELDS)(embedder, dataset_of(corpus), corpus, folder)


def test_what_cannot_be_mined_is_refused(corpus):
    with pytest.raises(ValueError, match="refresh_steps needs a miner: train"):
        train(config_of(corpus, refresh_steps=2))
    with pytest.raises(ValueError, match=r"refresh.model is no field; known: negatives, depth"):
        train(config_of(corpus, refresh_steps=2, refresh={"model": "x"}), miner=NegativeMiner)
    with pytest.raises(SettingsError, match="refresh: .*negatives"):
        train(config_of(corpus, refresh_steps=2, refresh={"negatives": 0}), miner=NegativeMiner)
    assert not list((corpus / "out").glob("*")), "a failed start claims nothing"
    with pytest.raises(ValueError, match="refresh needs refresh_steps"):
        StageConfig("x", refresh=FIELDS)
    with pytest.raises(ValueError, match="must be null for margin_mse: no teacher scores them"):
        StageConfig("x", loss="margin_mse", refresh_steps=2)
    with pytest.raises(ValueError, match="refresh_steps cannot mine with shard_frozen"):
        config_of(corpus, refresh_steps=2, shard_frozen=True)
