"""Hard negatives: what each filter removes from planted data, files, resuming, a real model."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tests.search.planted import Planted, at, axis, name_of, pair, text
from unite_core.curate.dedupe import near_duplicates, with_groups
from unite_core.data.bad_media import BadMediaError
from unite_core.data.pairs import PairDataset
from unite_core.data.records import GROUPS, content_id, read_records, write_records
from unite_core.search import hard_negatives as mine
from unite_core.search import vector_store
from unite_core.search.config import MineConfig
from unite_core.search.exact import search
from unite_core.search.negative_filters import choose_negatives
from unite_core.search.pair_items import PairItems
from unite_core.settings import read_config, write_config
from unite_core.train.collator import PairCollator
from unite_core.train.config import TrainConfig
from unite_core.train.trainer import UniteTrainer

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"
NO_FILTER = {"margin": None, "ratio": None}


def run(folder, records, embedder, **options) -> tuple[list[dict], dict]:
    """The mined records and the report."""
    write_records(folder / "pairs.jsonl", records)
    options = {"media_root": str(folder), "negatives": 2, "depth": 20} | options
    config = MineConfig("m", str(folder / "pairs.jsonl"), str(folder / "hard.jsonl"), **options)
    path = mine.mine(config, embedder, progress=False)
    return read_records(path), json.loads((folder / "hard.report.json").read_text())


def names(record) -> list[str]:
    return [name_of(item) for item in record.get("negative", [])]


# One query "q" with its positive at .8; "o..." queries hold the other candidates.
SCORES = {"pos": 0.8, "near": 0.78, "high": 0.9, "hard": 0.7, "fair": 0.6, "easy": 0.2}


def planted(**more) -> Planted:
    scores = {name: at(score, n) for n, (name, score) in enumerate(SCORES.items(), 1)}
    return Planted(q=axis(0), **scores, **{f"o{n}": axis(40 + n) for n in range(9)}, **more)


def others(*items) -> list[dict]:
    """Records that bring candidates into the corpus."""
    return [pair(text(f"o{n}"), item) for n, item in enumerate(items)]


OTHERS = others(*(text(name) for name in ("near", "high", "hard", "fair", "easy")))


@pytest.mark.parametrize(
    ("options", "chosen", "removed"),
    [
        (NO_FILTER, ["high", "near"], {}),
        ({"ratio": 0.95, "margin": None}, ["hard", "fair"], {"ratio": 2}),  # above .76
        ({"ratio": 1.0}, ["near", "hard"], {"ratio": 1}),
        ({"ratio": 0.8}, ["fair", "easy"], {"ratio": 3}),  # above .64
        ({"ratio": None, "margin": 0.0}, ["near", "hard"], {"margin": 1}),
        ({"ratio": None, "margin": 0.15}, ["fair", "easy"], {"margin": 3}),
        ({"ratio": 0.95, "margin": 0.15}, ["fair", "easy"], {"margin": 3}),
        ({**NO_FILTER, "skip": 2}, ["hard", "fair"], {"skip": 2}),
        ({"ratio": 0.95, "skip": 3}, ["fair", "easy"], {"skip": 3}),
        ({"ratio": 0.95, "negatives": 9}, ["hard", "fair", "easy"], {"ratio": 2}),
        ({**NO_FILTER, "depth": 3}, ["high", "near"], {}),
    ],
)
def test_scores_decide_what_is_a_negative(tmp_path, options, chosen, removed):
    records = [pair(text("q"), text("pos")), *OTHERS]
    mined, report = run(tmp_path, records, planted(), **options)
    assert names(mined[0]) == chosen
    config = MineConfig("m", "d", "o", **({"negatives": 2, "depth": 20} | options))
    scores = np.array([[0.9, 0.8, 0.78, 0.7, 0.6, 0.2]], dtype=np.float32)[:, : config.depth]
    known = {"positive": np.isclose(scores, 0.8)}
    mask, counts = choose_negatives(scores, np.array([0.8]), known, config)
    assert mask.sum() == len(chosen)
    assert {name: n for name, n in counts.items() if n and name != "positive"} == removed
    assert report["removed"].keys() == {"query", "given", "identical", *counts}


def test_all_positives_of_a_query_and_the_query_are_no_negatives(tmp_path):
    embedder = planted(second=at(0.75, 20))
    records = [
        pair(text("q"), text("pos")),
        pair(text("q"), text("second")),
        pair(text("o0"), text("q")),
        pair(text("o1"), text("hard")),
    ]
    mined, report = run(tmp_path, records, embedder, **NO_FILTER)
    assert names(mined[0]) == names(mined[1]) == ["hard"]
    assert report["removed"]["positive"] == 2 + 2 + 1 + 1
    assert report["removed"]["query"] == 2
    assert report["fewer_than_asked"] == 2
    assert report["records_by_negatives"] == {"1": 2, "2": 2}


def test_the_same_text_in_other_letters_is_no_negative(tmp_path):
    twins = {"POS": at(0.7, 20), " pos ": at(0.65, 21), "ｐｏｓ": at(0.64, 22), "Q": at(0.63, 23)}
    records = [pair(text("q"), text("pos")), *others(*map(text, twins), text("fair"))]
    mined, report = run(tmp_path, records, planted(**twins))
    assert names(mined[0]) == ["fair"]
    assert report["removed"]["identical"] >= 4


def test_the_same_picture_under_another_name_is_no_negative(tmp_path):
    for name, data in (("pos", b"aaaa"), ("copy", b"aaaa"), ("other", b"bbbb"), ("long", b"bbbbb")):
        (tmp_path / name).write_bytes(data)
    embedder = Planted(
        q=axis(0), o0=axis(40), o1=axis(41), o2=axis(42), pos=at(0.8, 1), copy=at(0.7, 2),
        other=at(0.6, 3), long=at(0.5, 4),
    )  # fmt: skip
    pictures = [{"image": name} for name in ("copy", "other", "long")]
    records = [pair(text("q"), {"image": "pos"}), *others(*pictures)]
    mined, report = run(tmp_path, records, embedder)
    assert names(mined[0]) == ["other", "long"]
    assert report["removed"]["identical"] == 2  # the copy for q, the original for o0
    assert names(mined[1]) == ["other", "long"]


def test_negatives_that_a_record_has_are_kept_and_not_found_again(tmp_path):
    given = [text("hard"), text("elsewhere")]
    records = [pair(text("q"), text("pos"), negative=given), *OTHERS]
    mined, report = run(tmp_path, records, planted())
    assert names(mined[0]) == ["hard", "elsewhere", "fair", "easy"]
    assert report["removed"]["given"] == 1


@pytest.mark.parametrize(("same", "chosen"), [(True, ["fair", "easy"]), (False, ["hard", "fair"])])
def test_negatives_have_the_modality_of_the_positive(tmp_path, same, chosen):
    (tmp_path / "hard").write_bytes(b"x")
    items = [{"image": "hard"}, text("fair"), text("easy")]
    records = [pair(text("q"), text("pos")), *others(*items)]
    mined, _ = run(tmp_path, records, planted(), same_modality=same)
    assert names(mined[0]) == chosen
    if same:
        assert names(mined[1]) == []  # no other picture


def world(seed=0, queries=12) -> tuple[list[dict], Planted, dict[str, dict[str, set]]]:
    """Queries with own candidates: a positive, false negatives near or above, hard negatives."""
    rng = np.random.default_rng(seed)
    vectors, records, truth = {}, [], {}
    width = queries * 10
    free = iter(range(queries, width))
    for n in range(queries):
        positive = rng.uniform(0.5, 0.8)
        scores = {f"p{n}": positive}
        scores |= {f"false{n}-{i}": positive * rng.uniform(0.96, 1.1) for i in range(3)}
        scores |= {f"hard{n}-{i}": positive * rng.uniform(0.3, 0.94) for i in range(4)}
        for name, score in scores.items():
            vector = np.zeros(width, dtype=np.float32)
            vector[n], vector[next(free)] = score, np.sqrt(1 - score**2)
            vectors[name] = vector
        vectors[f"q{n}"] = np.eye(width, dtype=np.float32)[n]
        best = sorted((name for name in scores if "hard" in name), key=lambda x: -scores[x])
        truth[f"q{n}"] = best
        records.append(pair(text(f"q{n}"), text(f"p{n}")))
        records += [pair(text(f"x{name}"), text(name)) for name in scores if name[0] != "p"]
    vectors |= {f"x{name}": np.roll(v, 1) for name, v in list(vectors.items()) if name[0] in "fh"}
    return records, Planted(**vectors), truth


@pytest.mark.parametrize("blocks", [(4096, 65536), (5, 7)])
def test_planted_false_negatives_are_found_all_and_only_they(tmp_path, monkeypatch, blocks):
    monkeypatch.setattr(mine, "_QUERIES", blocks[0])
    monkeypatch.setattr(mine, "_CANDIDATES", blocks[1])
    records, embedder, truth = world()
    mined, _ = run(tmp_path, records, embedder, negatives=4)
    found = {record["query"]["text"]: names(record) for record in mined}
    assert {query: found[query] for query in truth} == truth
    unfiltered = tmp_path / "plain"
    mined, _ = run(unfiltered, records, embedder, negatives=4, **NO_FILTER)
    wrong = [name for record in mined if record["query"]["text"] in truth for name in names(record)
             if name.startswith("false")]  # fmt: skip
    assert len(wrong) == 3 * len(truth), "without filters the false negatives are there"


@given(st.integers(0, 99), st.integers(1, 40))
@settings(max_examples=25)
def test_search_in_blocks_is_the_search_of_the_whole(seed, depth):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (50, 4)).astype(np.float32)  # full of ties

    class Stored:
        @staticmethod
        def rows(items):
            return vectors[items]

    queries, pool = np.arange(10), np.arange(12, 50)
    expected, indices = search(vectors[queries], vectors[pool], depth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mine, "_CANDIDATES", 7)
        scores, items = mine._best(Stored, queries, pool, depth)
    np.testing.assert_array_equal(scores, expected)
    there = np.isfinite(expected)
    np.testing.assert_array_equal(items[there], pool[indices[there]])


def test_the_report_counts_what_happened(tmp_path):
    records, embedder, truth = world()
    mined, report = run(tmp_path, records, embedder, negatives=4)
    assert report["records"] == len(mined) == len(records)
    assert report["negatives"] == sum(len(names(record)) for record in mined)
    assert sum(report["positive_scores"]) == len(records)
    assert sum(report["negative_scores"]) == report["negatives"]
    counts = Counter(len(names(record)) for record in mined)
    assert report["records_by_negatives"] == {str(n): counts[n] for n in sorted(counts)}
    assert report["fewer_than_asked"] == sum(n for k, n in counts.items() if k < 4)
    bins = np.array(report["score_bins"])
    negatives = np.repeat(bins[1:], report["negative_scores"])
    assert negatives.max() <= 0.8 and len(bins) == 41
    assert report["removed"]["ratio"] >= 3 * len(truth)


def test_labels_sources_and_items_are_those_of_the_records(tmp_path):
    records = [pair(text("q"), text("pos"), task="T-T"), *OTHERS]
    records[1] |= {"source": "elsewhere", "target_modal": "text"}
    mined, _ = run(tmp_path, records, planted())
    assert mined[0] == records[0] | {"source": "pairs", "negative": [text("hard"), text("fair")]}
    assert mined[1]["source"] == "elsewhere" and mined[2]["source"] == "pairs"


def test_finished_work_is_not_repeated_and_not_overwritten(tmp_path):
    records = [pair(text("q"), text("pos")), *OTHERS]
    run(tmp_path, records, planted())
    before = (tmp_path / "hard.jsonl").read_bytes(), (tmp_path / "hard.report.json").read_bytes()
    again = planted()
    run(tmp_path, records, again)
    assert not again.calls
    for change in ({"negatives": 3}, {"media_root": "/"}):
        with pytest.raises(ValueError, match="of another configuration"):
            run(tmp_path, records, planted(), **change)
    with pytest.raises(ValueError, match="of another configuration"):
        run(tmp_path, records[:-1], planted())
    with pytest.raises(ValueError, match="of another configuration"):
        run(tmp_path, records, planted(another=axis(50)))
    assert before == (
        (tmp_path / "hard.jsonl").read_bytes(),
        (tmp_path / "hard.report.json").read_bytes(),
    )
    (tmp_path / "hard.jsonl").unlink()  # as if killed after the report, before the records
    run(tmp_path, records, planted())
    assert (tmp_path / "hard.jsonl").read_bytes() == before[0]
    (tmp_path / "hard.report.json").unlink()
    with pytest.raises(ValueError, match="its report is missing"):
        run(tmp_path, records, planted())


def test_other_filters_use_the_same_vectors(tmp_path):
    records = [pair(text("q"), text("pos")), *OTHERS]
    run(tmp_path, records, planted())
    write_records(tmp_path / "more.jsonl", [pair(text("o8"), text("easy")), *records])
    again = planted()
    config = MineConfig("m", str(tmp_path / "more.jsonl"), str(tmp_path / "b.jsonl"), negatives=1)
    mine.mine(config, again, progress=False)
    assert again.calls == [["o8"]]


def test_a_killed_run_goes_on_and_ends_like_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_store, "SHARD_ITEMS", 8)
    records, embedder, _ = world(queries=4)
    run(tmp_path / "whole", records, embedder, media_root=".")
    total = len(embedder.calls)
    _, killed, _ = world(queries=4)
    killed.dies_at = 3
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", records, killed, media_root=".")
    assert not (tmp_path / "killed" / "hard.jsonl").exists()
    killed.dies_at = None
    run(tmp_path / "killed", records, killed, media_root=".")
    assert len(killed.calls) == total and killed.calls == embedder.calls
    assert (tmp_path / "killed" / "hard.jsonl").read_bytes() == (
        tmp_path / "whole" / "hard.jsonl"
    ).read_bytes()
    shards = [sorted((tmp_path / name / "vectors").rglob("*")) for name in ("killed", "whole")]
    assert [p.name for p in shards[0]] == [p.name for p in shards[1]] and len(shards[0]) > total


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": ()}, r"data is \(\): must be one or more"),
        ({"depth": 5, "skip": 2}, "depth 5 must hold skip 2 and negatives 4"),
        ({"negatives": 0}, "negatives is 0: must be .* at least 1"),
        ({"margin": -0.1}, "margin is -0.1: must be .* at least 0"),
        ({"ratio": 1.2}, "ratio is 1.2: must be .* at least 0 and at most 1"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MineConfig(**({"model": "m", "data": "d", "output": "o"} | fields))


@pytest.fixture(scope="module")
def embedder():
    from unite_core.model.embedder import UniteEmbedder

    return UniteEmbedder.load(CHECKPOINT, max_frames=4)


@pytest.fixture
def pictures(tmp_path) -> list[dict]:
    """Records of six pictures, both directions and as a clip."""
    records = []
    for n, colour in enumerate(("red", "green", "blue", "black", "yellow", "purple")):
        picture = Image.new("RGB", (56, 56), "white")
        ImageDraw.Draw(picture).ellipse((8, 8, 30 + 4 * n, 48), fill=colour)
        picture.save(tmp_path / f"{colour}.png")
        caption, image = text(f"a {colour} circle"), {"image": f"{colour}.png"}
        clip = {"video": [[f"{colour}.png"] * 4]}
        records += [pair(caption, image, task="T-I"), pair(image, caption), pair(caption, clip)]
    return records


def mine_pictures(tmp_path, records, embedder, **options) -> Path:
    write_records(tmp_path / "pairs.jsonl", records)
    config = MineConfig(str(CHECKPOINT), str(tmp_path / "pairs.jsonl"), str(tmp_path / "h.jsonl"),
                        str(tmp_path), **{"ratio": None, "negatives": 2} | options)  # fmt: skip
    return mine.mine(config, embedder, progress=False)


def test_mined_media_are_what_a_plain_search_finds_and_can_be_trained_on(
    tmp_path, pictures, embedder
):
    mined = read_records(mine_pictures(tmp_path, pictures, embedder))
    images = [record["candidate"] for record in pictures[::3]]
    vectors = embedder.embed([record["query"] for record in pictures[::3]], tmp_path, None, False)
    found, indices = search(vectors, embedder.embed(images, tmp_path, None, False), 6)
    for n, record in enumerate(mined[::3]):
        assert record["negative"] == [images[i] for i in indices[n] if i != n][:2]
    assert all(set(item) == set(record["candidate"]) for record in mined
               for item in record["negative"])  # fmt: skip
    dataset = PairDataset([tmp_path / "h.jsonl"], tmp_path)
    batch = PairCollator(embedder.processor, tmp_path)([dataset[n] for n in range(6)])
    assert len(batch["order"]) == 6 * 4
    modality = batch["target_modality"].repeat_interleave(2)
    assert batch["negative_modality"].tolist() == modality.tolist()
    ids = batch["candidate_ids"].repeat_interleave(2)
    assert not (batch["negative_ids"] == ids).any()


def test_pictures_that_cannot_be_read_are_left_out_and_counted(tmp_path, pictures, embedder):
    (tmp_path / "cut.png").write_bytes((tmp_path / "red.png").read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    bad = [pair(text("cut"), {"image": "cut.png"}), pair(text("empty"), {"image": "empty.png"}),
           pair({"image": "cut.png"}, text("again"))]  # fmt: skip
    records = [*pictures[:4], *bad, *pictures[4:]]
    with pytest.raises(BadMediaError, match="3 of 21 records have media that cannot be read"):
        mine_pictures(tmp_path, records, embedder)
    mined = read_records(mine_pictures(tmp_path, records, embedder, max_bad_share=0.2))
    assert [record["query"] for record in mined] == [record["query"] for record in pictures]
    assert not any({"image": "cut.png"} in record["negative"] for record in mined)
    report = json.loads((tmp_path / "h.report.json").read_text())
    assert report["bad"] == {"empty file": 1, "cannot be decoded": 2}
    assert [row["where"][-8:] for row in report["left_out"]] == ["record 6", "record 5", "record 7"]
    assert "cut.png" in report["left_out"][1]["message"]


def test_an_item_that_does_not_fit_is_left_out_and_counted(tmp_path, embedder):
    Image.new("RGB", (280, 280)).save(tmp_path / "big.png")
    records = [pair(text("a"), text("b")), pair(text("c"), {"image": ["big.png"] * 9}),
               pair(text("d"), text("e"))]  # fmt: skip
    small = type(embedder).load(CHECKPOINT, max_length=40)
    cut = pytest.warns(UserWarning, match="text is cut")
    with cut, pytest.raises(BadMediaError, match="1 of 3 records (?s:.*)pairs.jsonl, record 2"):
        mine_pictures(tmp_path, records, small)
    mined = read_records(mine_pictures(tmp_path, records, small, max_bad_share=0.5))
    assert [record["query"] for record in mined] == [text("a"), text("d")]
    report = json.loads((tmp_path / "h.report.json").read_text())
    assert report["bad"] == {"tokens without any text, more than max_length 40": 1}


@pytest.mark.parametrize("kind", ["candidate_group", "group"])
def test_a_group_of_the_positive_holds_no_negatives_and_stays_in_the_output(tmp_path, kind):
    records = [
        pair(text("q"), text("pos"), **{kind: "same"}),
        *others(*(text(name) for name in ("high", "hard", "easy"))),
        pair(text("o7"), text("near"), query_group="asked", **{kind: "same"}),
        pair(text("o8"), text("fair"), query_group="asked"),
        pair(text("o6"), text("high"), **{kind: "same"}),
    ]
    mined, report = run(tmp_path, records, planted(), **NO_FILTER, negatives=9)
    assert names(mined[0]) == ["hard", "fair", "easy"]  # near and high are of its group
    assert report["removed"]["identical"] >= 2
    for row in (4, 5):  # queries of one group share their positives
        assert not {"pos", "near", "high", "fair"} & set(names(mined[row]))
    groups = [{name: row[name] for name in GROUPS if name in row} for row in mined]
    assert groups == [{name: row[name] for name in GROUPS if name in row} for row in records]


def test_groups_from_curation_hold_in_mining_and_in_training(tmp_path, embedder):
    rng = np.random.default_rng(0)
    for number in range(6):
        noise = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((112, 112), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"{number}.png")
        picture.save(tmp_path / f"{number}.jpg", quality=80)
    rows = [pair(text(f"number {n}"), {"image": f"{n}.png"}) for n in range(6)]
    rows += [pair(text(f"once more {n}"), {"image": f"{n}.jpg"}) for n in range(6)]
    rows = list(with_groups(rows, near_duplicates(rows, tmp_path)))
    assert len({row["candidate_group"] for row in rows}) == 6
    mined = mine_pictures(tmp_path, rows, embedder, negatives=11, depth=12, **NO_FILTER)
    for record in read_records(mined):
        (number,) = {Path(record["candidate"]["image"]).stem}
        stems = [Path(item["image"]).stem for item in record["negative"]]
        assert len(stems) == 10 and number not in stems
    write_records(tmp_path / "more.jsonl", [pair(text("another"), {"image": "0.jpg"})])
    config = TrainConfig(str(CHECKPOINT), (str(mined), str(tmp_path / "more.jsonl")),
                         str(tmp_path / "run"), {"name": "stage2", "batch_size": 13},
                         media_root=str(tmp_path))  # fmt: skip
    trainer = UniteTrainer.from_config(config)
    pairs = [trainer.train_dataset[row] for row in range(13)]
    batch, identity = trainer.data_collator(pairs), {}
    candidates = [found.candidate for found in pairs]
    negatives = [item for found in pairs for item in found.negatives]
    for ids, items in ((batch["candidate_ids"], candidates), (batch["negative_ids"], negatives)):
        for number, item in zip(ids.tolist(), items, strict=True):
            identity.setdefault(Path(item["image"]).stem, set()).add(number)
    assert all(len(numbers) == 1 for numbers in identity.values())
    assert len(set.union(*identity.values())) == 6


def test_the_command_mines_what_a_file_describes(tmp_path, pictures, unite, capsys):
    write_records(tmp_path / "pairs.jsonl", pictures)
    config = MineConfig(str(CHECKPOINT), str(tmp_path / "pairs.jsonl"), str(tmp_path / "h.jsonl"),
                        str(tmp_path), vectors=str(tmp_path / "v"))  # fmt: skip
    write_config(config, tmp_path / "mine.json")
    assert read_config(MineConfig, tmp_path / "mine.json") == config
    assert unite("mine", tmp_path / "mine.json") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "h.jsonl")
    assert len(list((tmp_path / "v").rglob("*.safetensors"))) == 1
    assert len(read_records(tmp_path / "h.jsonl")) == 18


@pytest.mark.slow
def test_mined_records_train_with_every_sampling_option(tmp_path, pictures, embedder):
    from unite_core.train.run import train

    mined = mine_pictures(tmp_path, pictures, embedder)
    sampling = {"quotas": {"text": 0.4, "image": 0.4, "video": 0.2}, "distinct": True,
                "negatives": 1, "mixing_exponent": 0.5, "group_by": "task"}  # fmt: skip
    config = TrainConfig(
        str(CHECKPOINT), str(mined), str(tmp_path / "out"),
        {"name": "stage2", "batch_size": 5, "max_steps": 4}, str(tmp_path), sampling=sampling,
        logging_steps=1,
    )  # fmt: skip
    assert train(config).is_dir()
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    rows = [row for row in history if "loss" in row]
    assert [row["epoch"] for row in rows] == [pytest.approx(5 * n / 18) for n in (1, 2, 3, 4)]
    assert all({"accuracy/text", "accuracy/image"} <= set(row) for row in rows)


def test_content_ids_of_the_corpus_are_those_of_the_records(tmp_path, pictures):
    write_records(tmp_path / "pairs.jsonl", pictures)
    corpus = PairItems(PairDataset([tmp_path / "pairs.jsonl"], tmp_path))
    assert len(corpus) == 18
    for row, record in enumerate(pictures):
        assert corpus[corpus.queries[row]] == record["query"]
        assert corpus[corpus.candidates[row]] == record["candidate"]
    assert [content_id(item) for item in corpus][:2] == [
        content_id(pictures[0][side]) for side in ("query", "candidate")
    ]
