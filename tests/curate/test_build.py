"""A recipe gives the same mix every time, from what the rules left, and says what it did."""

import json
import posixpath
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unite_core.corpora.scenes import Scene, draw
from unite_core.curate import media_facts
from unite_core.curate.adapters import adapter
from unite_core.curate.build import MixError, build_mix, choose, write_rows
from unite_core.curate.recipe import Recipe, Source, read_recipe
from unite_core.curate.rows import below, load_tests
from unite_core.curate.validate import BadRowsError
from unite_core.data.json_stream import RecordError
from unite_core.data.pairs import PairDataset
from unite_core.data.readers import iter_rows
from unite_core.data.records import validate_record


@pytest.fixture
def base(tmp_path):
    for name, colour in (("one", "red"), ("two", "blue")):
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        rows = []
        for size in ("small", "medium", "large"):
            for shape in ("circle", "star", "ring", "cross"):
                path = f"images/{size}-{shape}.png"
                draw(Scene(shape, colour, size), 84).save(folder / path)
                text = {"text": f"{name}: a {size} {colour} {shape}"}
                rows.append({"query": text, "candidate": {"image": path}, "task": shape})
        rows.append({**rows[0]})
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def recipe(**changes):
    sources = [
        {"name": name, "path": f"{name}/rows.jsonl", "media": name, "weight": weight}
        for name, weight in (("one", 2), ("two", 1))
    ]
    rules = {"alignment": "keep", "duplicates": "exact"}
    return Recipe(**{"name": "m", "output": "out", "sources": sources, "rules": rules} | changes)


def mixed(base, **changes):
    done = build_mix(recipe(**changes), base)
    convert = adapter("native")
    rows = [
        record for row in iter_rows(done.parent / "mix.parquet") for record in convert(row.value)
    ]
    return json.loads(done.read_text()), rows


def test_weights_decide_shares_and_records_are_usable(base):
    done, rows = mixed(base)
    assert done["records"] == len(rows) == 18
    assert [sum(row["source"] == name for row in rows) for name in ("one", "two")] == [12, 6]
    for row in rows:
        validate_record(row, media_root=base, check_media=True)


def test_the_same_recipe_gives_the_same_bytes_and_a_seed_others(base):
    first = mixed(base, output="a")
    assert first == (mixed(base, output="b")[0] | {"stamp": first[0]["stamp"]}, first[1])
    assert (base / "a/mix.parquet").read_bytes() == (base / "b/mix.parquet").read_bytes()
    assert mixed(base, output="c", seed=1)[0]["records_sha256"] != first[0]["records_sha256"]


def test_a_finished_mix_is_left_alone_until_something_changes(base):
    done = build_mix(recipe(), base)
    before = (done.parent / "mix.parquet").stat().st_mtime_ns
    assert build_mix(recipe(), base) == done
    assert (done.parent / "mix.parquet").stat().st_mtime_ns == before
    with (base / "one/rows.jsonl").open("a") as file:
        file.write(json.dumps({"query": {"text": "p"}, "candidate": {"text": "q"}}) + "\n")
    build_mix(recipe(), base)
    assert (done.parent / "mix.parquet").stat().st_mtime_ns != before


def test_new_pairs_in_a_plain_folder_change_the_mix(base):
    def put(name, colour):
        draw(Scene("star", colour), 84).save(base / "pairs" / f"{name}.png")
        (base / "pairs" / f"{name}.txt").write_text(f"a {colour} star")

    (base / "pairs").mkdir()
    put("a", "red")
    folder = recipe(sources=[Source("pairs", "pairs", "pairs", "folder")])
    done = build_mix(folder, base)
    first = json.loads(done.read_text())
    assert first["records"] == 1 and json.loads(build_mix(folder, base).read_text()) == first
    put("b", "blue")
    assert json.loads(build_mix(folder, base).read_text())["records"] == 2


def test_an_interrupted_mix_is_not_taken_for_a_whole_one(base):
    done = build_mix(recipe(), base)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_mix(recipe(seed=5), base, draw=stop)
    assert not done.is_file(), "the old mix's mark is gone before anything is overwritten"
    assert build_mix(recipe(seed=5), base).is_file()


def test_reasons_and_card_say_what_went_and_why(base):
    done = build_mix(recipe(), base)
    rows = [row.value for row in iter_rows(done.parent / "reasons.parquet")]
    assert len(rows) == 26 and sum(row["kept"] for row in rows) == 18
    reasons = [reason for row in rows for reason in row["reasons"]]
    assert reasons.count("exact duplicate") == 2 and reasons.count("over quota") == 6
    card = (done.parent / "card.md").read_text()
    assert "| exact duplicate | 2 | 2 | 2 |" in card and done.parent.joinpath("card.json").is_file()


def test_quotas_and_filters(base):
    sources = [
        Source("one", "one/rows.jsonl", "one", quota=3),
        Source("two", "two/rows.jsonl", "two", tasks=("star",), pair_types=("text > image",)),
    ]
    _, rows = mixed(base, sources=sources)
    assert [row["source"] for row in rows].count("one") == 3
    assert {row["task"] for row in rows if row["source"] == "two"} == {"star"}


def test_a_mix_that_cannot_be_filled_names_the_source(base):
    with pytest.raises(MixError, match="source one: 20 records are asked for and 12 are left"):
        build_mix(recipe(size=30), base)


def test_a_longer_source_extends_a_mix_instead_of_redrawing_it():
    keys = np.random.default_rng(0).permutation(100).astype(np.uint64)
    plan = recipe(sources=[Source("a", "x", quota=10)])
    short = choose(plan, np.zeros(50, int), np.ones(50, bool), keys[:50])
    long = choose(plan, np.zeros(100, int), np.ones(100, bool), keys)
    assert {row for row in long.tolist() if row < 50} <= set(short.tolist())
    assert (np.diff(keys[long].astype(int)) > 0).all()


def test_bad_rows_are_counted_and_too_many_stop_the_run(base):
    with (base / "one/rows.jsonl").open("a") as file:
        file.write('{"query": {}}\nnot json\n')
    with pytest.raises(BadRowsError, match="2 rejects in 15 rows"):
        build_mix(recipe(), base)
    done = build_mix(recipe(max_bad_share=0.5), base)
    rejects = (done.parent / "rejects.jsonl").read_text().splitlines()
    assert len(rejects) == 2 and all(json.loads(line)["source"] == "one" for line in rejects)
    assert not (base / "out" / "rejects.jsonl.partial").exists()


def test_evaluation_pairs_never_get_in(base):
    row = json.loads((base / "one/rows.jsonl").read_text().splitlines()[1])
    (base / "test.jsonl").write_text(json.dumps(row) + "\n")
    tests = [{"name": "t", "path": "test.jsonl", "media": "one"}]
    rules = {"alignment": "keep", "duplicates": "keep"}
    _, rows = mixed(base, tests=tests, rules=rules)
    assert below(row, "one")["query"] not in [kept["query"] for kept in rows]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 3, "sources": [{"name": "a", "path": "x"}]}, "size needs weights"),
        ({"sources": []}, r"sources is \[\]: must be one or more objects"),
        ({"model": "m"}, "alignment"),
        ({"sources": [{"name": "a", "path": "x", "media": "../y"}]}, "below the media root"),
        ({"rules": {"cleaning": {}}}, r"rules\.cleaning is no field \(did you mean clean\?\)"),
        (
            {"sources": [{"name": "a", "path": "x", "weight": 1}, {"name": "b", "path": "y"}]},
            "some have none",
        ),
    ],
)
def test_impossible_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_the_command_prints_the_card_s_summary_or_the_error(base, unite, capsys):
    path = base / "recipe.json"
    path.write_text(json.dumps(asdict(recipe())))
    assert read_recipe(path) == recipe()
    assert unite("curate", path, "--no-figures") == 0
    done = json.loads((base / recipe().output / "mix.json").read_text())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"m: {done['records']} records of ") and len(lines) <= 12
    assert f"in a random batch of {done['records']} pairs" in "\n".join(lines)
    assert lines[-1] == f"all of it: {base / recipe().output / 'card.md'}"
    path.write_text('{"name": "m"}')
    assert unite("curate", path) == 2 and "sources is missing" in capsys.readouterr().err


def test_training_reads_a_mix_and_takes_duplicates_for_one_item(base):
    picture = base / "one/images/small-star.png"
    (base / "one/images/copy.png").write_bytes(picture.read_bytes())
    row = {"query": {"text": "a second caption"}, "candidate": {"image": "images/copy.png"}}
    with (base / "one/rows.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    done = build_mix(recipe(sources=[Source("one", "one/rows.jsonl", "one")]), base)
    pairs = PairDataset([done.parent / "mix.parquet"], base)
    assert len(pairs) == 13 and not pairs.bad
    shown = [posixpath.basename(pair.candidate["image"][0]) for pair in pairs.pairs]
    copy, original = shown.index("copy.png"), shown.index("small-star.png")
    queries, candidates = pairs.identities
    assert candidates[copy] == candidates[original]
    assert len(set(candidates)) == 12 and len(set(queries)) == 13
    _, names = pairs.contents
    assert names[copy] != names[original], "the guard: only the group says it"


def test_one_title_on_many_pictures_is_grouped_counted_and_shown(base):
    rows = [json.loads(line) for line in (base / "one/rows.jsonl").read_text().splitlines()]
    rows = [row | {"query": {"text": "A part of the whole"}} for row in rows[:5]] + rows[5:-1]
    (base / "one/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Source("one", "one/rows.jsonl", "one")
    profile = {"batch_size": 12}
    done = build_mix(recipe(sources=[source], profile=profile), base)
    card = json.loads((done.parent / "card.json").read_text())
    assert card["repeated_texts"][0] == {
        "text": "A part of the whole", "records": 5, "media": 5, "kept": 5,
    }  # fmt: skip
    told = [row["false_negatives"] * row["records"] for row in card["after"]["sources"]]
    assert sum(told) == pytest.approx(5 * 4), "in a batch of all, four others for each of five"
    pairs = PairDataset([done.parent / "mix.parquet"], base)
    assert len(set(pairs.identities[0])) == 8 and len(pairs) == 12
    few = {"clean": {"most_media": 4}, "alignment": "keep"}
    done = build_mix(recipe(sources=[source], rules=few), base)
    assert json.loads(done.read_text())["records"] == 7


def test_recipes_of_one_media_root_decode_once(base, monkeypatch):
    build_mix(recipe(output="a"), base)
    monkeypatch.setattr(media_facts, "_measure_one", lambda *_: pytest.fail("decoded again"))
    build_mix(recipe(output="b", rules={"duplicates": "near", "alignment": "keep"}), base)


def test_a_teacher_s_scores_are_kept(base):
    pair = {"query": {"text": "q"}, "candidate": {"text": "c"}}
    hard = pair | {"negative": [{"text": "n"}], "scores": [2.5, -1.0]}
    write_rows(base / "rows.parquet", [hard, pair], {})
    assert [pair.scores for pair in PairDataset([base / "rows.parquet"])] == [(2.5, -1.0), ()]


def test_a_mix_that_keeps_duplicates_names_no_groups(base):
    rules = {"alignment": "keep", "duplicates": "keep"}
    _, rows = mixed(base, rules=rules)
    assert len(rows) >= 13 and not any(row.get("candidate_group") for row in rows)


def test_a_hub_image_set_is_curated_and_trained_from(base, tmp_path):
    files = sorted((base / "one/images").glob("*.png"))[:6]
    rows = [{"image": {"bytes": file.read_bytes(), "path": file.name}, "caption": file.stem}
            for file in files]  # fmt: skip
    rows.append({"image": {"bytes": b"<html>", "path": "page.png"}, "caption": "a page"})
    pq.write_table(pa.Table.from_pylist(rows), base / "hub.parquet")
    source = Source("hub", "hub.parquet", "hub", "captions")
    done = build_mix(recipe(sources=[source], rules={"alignment": "keep"}), base)
    pairs = PairDataset([done.parent / "mix.parquet"], base)
    paths = {pair.query["text"]: pair.candidate["image"][0] for pair in pairs}
    assert set(paths) == {file.stem for file in files}
    assert all(path.startswith("hub/embedded/") for path in paths.values())
    assert all((base / paths[file.stem]).read_bytes() == file.read_bytes() for file in files)
    removed = json.loads((done.parent / "card.json").read_text())["removed"]
    assert [(row["reason"], row["hits"]) for row in removed] == [("unreadable", 1)]


@pytest.mark.parametrize(
    "task",
    [
        {"queries": [{"text": "a"}]},
        {"queries": [{"text": "a"}], "positives": [[7]], "candidates": [{"text": "b"}]},
        {"queries": 5, "positives": 5, "candidates": 5},
        {"queries": [5], "positives": [[0]], "candidates": [{"text": "b"}]},
        {"queries": [{"text": "a"}], "positives": [], "candidates": []},
    ],
)
def test_a_damaged_evaluation_task_is_named(base, task):
    (base / "tasks.json").write_text(json.dumps([task]))
    with pytest.raises(RecordError, match="tasks.json, task 1[:,]"):
        list(load_tests(Source("tasks", "tasks.json"), base))
