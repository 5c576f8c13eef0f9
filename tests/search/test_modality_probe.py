"""The probe learns what is there, is saved as it was, and works from records to a search."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax

from tests.search.planted import Planted, axis, pair, text
from unite_core import UniteEmbedder
from unite_core.data.bad_media import BadMediaError
from unite_core.data.records import write_records
from unite_core.model.router import ModalityRouter
from unite_core.search.config import EncodeConfig, IndexConfig, ProbeConfig
from unite_core.search.encode import encode_corpus
from unite_core.search.index import build_index
from unite_core.search.modality_probe import (
    PROBE_FILE,
    ModalityProbe,
    fit_modality_probe,
    load_modality_probe,
)
from unite_core.search.probing import fit_probe
from unite_core.search.query import load_factorised, search_items
from unite_core.search.shards import ShardFolder

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"


def planted(codes, n=600, dim=12, seed=0, signal=1.5):
    """Queries that are close to a candidate and lean in a direction of its modality."""
    rng = np.random.default_rng(seed)
    pool = rng.standard_normal((n, dim))
    modality = rng.choice(codes, n)
    queries = pool + signal * np.eye(dim)[modality] + 0.3 * rng.standard_normal((n, dim))
    normed = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, pool))
    return *normed, modality


@pytest.mark.parametrize("codes", [[1, 2], [1, 2, 4], [1, 2, 3, 4]])
def test_the_probe_is_the_regression_that_is_best_on_held_out_queries(codes):
    queries, pool, modality = planted(codes)
    probe = fit_modality_probe(queries, pool, modality, np.arange(600))
    log_p = probe.log_probabilities(queries)
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1)
    assert probe.codes == tuple(codes) and log_p.shape == (600, len(codes))
    chance = np.bincount(modality).max() / 600
    fresh, _, asked = planted(codes, seed=1)
    right = np.mean(np.array(codes)[probe.log_probabilities(fresh).argmax(1)] == asked)
    assert right > chance + 0.15
    assert probe.fitted["held_out_accuracy"] == pytest.approx(right, abs=0.08)
    fresh_loss = -np.mean(
        np.take_along_axis(
            probe.log_probabilities(fresh), np.searchsorted(codes, asked)[:, None], 1
        )
    )
    assert probe.fitted["held_out_loss"] == pytest.approx(fresh_loss, abs=0.1)


def test_the_weights_are_where_the_penalised_likelihood_is_largest():
    queries, pool, modality = planted([1, 2, 4], 200)
    probe = fit_modality_probe(queries, pool, modality, np.arange(200))
    target = np.searchsorted([1, 2, 4], modality)

    def loss(weights, bias):
        log_p = log_softmax(queries.astype(np.float32) @ weights.T + bias, axis=1)
        return (weights**2).sum() / 2 - probe.fitted["C"] * log_p[np.arange(200), target].sum()

    best, rng = loss(probe.weights, probe.bias), np.random.default_rng(0)
    for _ in range(20):
        step = 0.05 * rng.standard_normal(probe.weights.shape)
        assert loss(probe.weights + step, probe.bias) > best
        assert loss(probe.weights, probe.bias + 0.1 * rng.standard_normal(3)) > best - 1e-3


def test_noise_is_not_learned():
    """The penalty is chosen on queries that were held out, so noise gives about the base rates."""
    rng = np.random.default_rng(0)
    queries, pool, modality = planted([1, 2], 300, dim=60, signal=0.0)
    probe = fit_modality_probe(queries, pool, rng.permutation(modality), np.arange(300))
    assert abs(probe.log_probabilities(queries[:100]) - np.log(0.5)).max() < 1.0
    assert probe.fitted["C"] <= 1


def test_queries_of_a_group_are_held_out_together():
    """Copies of a query tell the answer of each other; held out together they do not."""
    queries, pool, modality = planted([1, 2], 60, dim=60, signal=0.0)
    copies = np.repeat(np.arange(60), 5)
    args = queries[copies], pool, modality, copies
    alone, together = fit_modality_probe(*args), fit_modality_probe(*args, groups=copies)
    assert alone.fitted["held_out_accuracy"] == 1
    assert together.fitted["held_out_accuracy"] < 0.75
    assert (together.fitted["groups"], together.fitted["queries"]) == (60, 300)


def test_saved_and_loaded_is_the_same(tmp_path):
    queries, pool, modality = planted([1, 2, 4])
    probe = fit_modality_probe(queries, pool, modality, np.arange(600), model="abc")
    probe.save(tmp_path / PROBE_FILE)
    for place in (tmp_path, tmp_path / PROBE_FILE):
        again = load_modality_probe(place)
        np.testing.assert_array_equal(again.weights, probe.weights)
        np.testing.assert_array_equal(again.bias, probe.bias)
        assert (again.codes, again.temperature, again.model, again.fitted) == (
            probe.codes, probe.temperature, "abc", probe.fitted)  # fmt: skip
    before = (tmp_path / PROBE_FILE).read_bytes()
    again.save(tmp_path / PROBE_FILE)
    assert (tmp_path / PROBE_FILE).read_bytes() == before


def test_what_is_no_probe_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such probe; fit one with `unite probe`"):
        load_modality_probe(tmp_path)
    file = tmp_path / PROBE_FILE
    probe = ModalityProbe((1, 2), np.zeros((2, 3)), np.zeros(2), 0.05)
    probe.save(file)
    whole = file.read_bytes()
    for damaged in (whole[:-3], b"", b"{}"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="no whole probe"):
            load_modality_probe(file)
    save_file(load_file_of(whole, tmp_path), file)
    with pytest.raises(ValueError, match="no whole probe"):
        load_modality_probe(file)
    ModalityProbe((1, 2, 4), np.zeros((2, 3)), np.zeros(2), 0.05).save(file)
    with pytest.raises(ValueError, match="no whole probe"):
        load_modality_probe(file)
    with pytest.raises(ValueError, match="fitted on vectors of size 3"):
        probe.log_probabilities(np.zeros((1, 4)))


def load_file_of(data, folder):
    (folder / "other").write_bytes(data)
    return load_file(folder / "other")


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        ([1] * 20, "all queries ask for text"),
        ([1] * 18 + [2] * 2, "image is asked for by .* 2 groups"),
    ],
)
def test_too_little_to_fit_on_is_refused(modality, message):
    vectors = np.random.default_rng(0).standard_normal((20, 4))
    with pytest.raises(ValueError, match=message):
        fit_modality_probe(vectors, vectors, modality, np.arange(20))


def test_known_positives_do_not_count_in_the_temperature(tmp_path, monkeypatch):
    """Of 12 records: queries that are candidates, two positives of a query, a group."""
    from unite_core.search import probing

    seen = {}
    monkeypatch.setattr(probing, "fit_modality_probe",
                        lambda *args: seen.update(args=args)
                        or ModalityProbe((1,), np.zeros((1, 64)), np.zeros(1), 1.0))  # fmt: skip
    records = [
        pair(text("a"), text("x")), pair(text("a"), text("y")), pair(text("b"), text("a")),
        pair(text("c"), text("z"), candidate_group="g"),
        pair(text("d"), text("w"), candidate_group="g"),
    ]  # fmt: skip
    write_records(tmp_path / "pairs.jsonl", records)
    embedder = Planted(**{name: axis(n) for n, name in enumerate("abcdxyzw")})
    config = ProbeConfig("m", str(tmp_path / "pairs.jsonl"), str(tmp_path / "probe"))
    assert fit_probe(config, embedder, progress=False) == tmp_path / "probe"
    queries, pool, modality, positives, groups, hidden, folds, _ = seen["args"]
    names = np.array(list("abcdxyzw"))
    asked, candidates = names[queries.argmax(1)], names[pool.argmax(1)]
    assert asked.tolist() == ["a", "a", "b", "c", "d"]
    assert candidates[positives].tolist() == ["x", "y", "a", "z", "w"]
    assert [set(candidates[found]) for found in hidden] == [
        {"y", "a"}, {"x", "a"}, set(), {"w"}, {"z"}]  # fmt: skip
    assert modality == [1] * len(candidates) and folds == 5
    assert groups[0] == groups[1] and len(set(groups)) == 4


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A model, records that ask for texts and pictures, and an index of both."""
    root = tmp_path_factory.mktemp("world")
    UniteEmbedder.load(FOLDER).save(root / "model")
    colours = ("red", "green", "blue", "teal", "navy", "pink", "gold", "gray")
    for colour in colours:
        Image.new("RGB", (56, 56), colour).save(root / f"{colour}.png")
    records = [pair(text(f"Find a picture: {c}"), {"image": f"{c}.png"}) for c in colours]
    records += [pair(text(f"Say it in words: {c}"), text(f"something {c}")) for c in colours]
    write_records(root / "pairs.jsonl", records)
    rows = [{"id": f"{side}{n}", **record["candidate"]} for side in ("a", "b")
            for n, record in enumerate(records) if (n < 8) == (side == "a")]  # fmt: skip
    (root / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    encode_corpus(EncodeConfig(str(root / "model"), str(root / "vectors"),
                               str(root / "corpus.jsonl"), media_root=str(root), dim=32),
                  UniteEmbedder.load(root / "model"), progress=False)  # fmt: skip
    build_index(ShardFolder(root / "vectors"), IndexConfig()).save(root / "index")
    return root


def test_from_records_to_a_factorised_search(world, unite, capsys):
    given = ("--model", world / "model", "--data", world / "pairs.jsonl", "--media-root", world)
    assert unite("probe", *given, "--folds", 2) == 0
    assert "of 16 training queries right" in capsys.readouterr().out
    probe = load_modality_probe(world / "model")
    assert probe.codes == (1, 2) and probe.model and probe.weights.shape[1] == 64
    ask = ("search", world / "index", "--model", world / "model", "--media-root", world, "--k", 16,
           "--score", "factorised", "--text", "Find a picture: red")  # fmt: skip
    assert unite(*ask) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    shares = {line[2]: float(line[3]) for line in lines}
    assert len(lines) == 16 and sum(shares.values()) == pytest.approx(1, abs=2e-3)
    query = UniteEmbedder.load(world / "model").embed([text("Find a picture: red")], progress=False)
    wanted = np.exp(probe.log_probabilities(query))[0]  # of the whole vector, not of 32 numbers
    np.testing.assert_allclose([shares["text"], shares["image"]], wanted, atol=1e-3)
    assert sum(np.exp(float(line[1])) for line in lines) == pytest.approx(1, abs=1e-3)
    assert unite(*ask, "--temperature", 100.0) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for kind in ("text", "image"):
        scores = [float(line[1]) for line in lines if line[2] == kind]
        assert len(scores) == 8 and np.ptp(scores) < 0.03, "so warm that all of a kind are alike"


def test_a_router_is_the_first_factor_where_there_is_no_probe(world, tmp_path):
    with pytest.raises(ValueError, match="no router .*: fit a probe"):
        load_factorised(tmp_path)
    router = ModalityRouter(64, [1, 2])
    router.save(tmp_path)
    with pytest.raises(ValueError, match="its router has no temperature"):
        load_factorised(tmp_path)
    assert load_factorised(tmp_path, 0.05).temperature == 0.05
    ModalityRouter(64, [1, 2], temperature=0.03).save(tmp_path)
    assert load_factorised(tmp_path, 0.05).temperature == 0.05
    scorer = load_factorised(tmp_path)
    assert scorer.temperature == 0.03
    index = build_index(ShardFolder(world / "vectors"))
    embedder = UniteEmbedder.load(world / "model")
    found = search_items(index, embedder, [text("red")], 16, scorer=scorer)
    np.testing.assert_allclose(found.probability, 0.5)
    ModalityProbe((1, 2), np.zeros((2, 64)), np.array([0.0, np.log(3)]), 0.1).save(
        tmp_path / PROBE_FILE
    )
    found = search_items(index, embedder, [text("red")], 16, scorer=load_factorised(tmp_path))
    np.testing.assert_allclose(found.probability, np.where(found.modality == 2, 0.75, 0.25))


def test_what_does_not_belong_together_is_refused(world, tmp_path, unite, capsys):
    ModalityProbe((1, 2), np.zeros((2, 64)), np.zeros(2), 0.1, "another").save(tmp_path / "probe")
    ask = ("search", world / "index", "--model", world / "model", "--text", "a")
    assert unite(*ask, "--score", "factorised", "--probe", tmp_path / "probe") == 2
    assert "fitted for another model" in capsys.readouterr().err
    assert unite(*ask, "--temperature", 0.1) == 2
    assert "belong to --score factorised" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is no folder: give the probe's file as output"):
        fit_probe(ProbeConfig("owner/name", str(world / "pairs.jsonl")))
    (world / "bad.png").write_bytes(b"no picture")
    records = [pair(text(f"q{n}"), {"image": "bad.png"}) for n in range(3)]
    write_records(tmp_path / "bad.jsonl", records)
    config = ProbeConfig(str(world / "model"), str(tmp_path / "bad.jsonl"), media_root=str(world))
    with pytest.raises(BadMediaError, match="3 of 3 records"):
        fit_probe(config, progress=False)
