"""Ingesting writes valid records and rejects in parts, resumes, and refuses a changed source."""

import json

import numpy as np
import pytest
from PIL import Image

from unite_core.curate import ingest
from unite_core.curate.ingest import iter_ingested
from unite_core.curate.recipe import Source
from unite_core.curate.validate import BadRowsError
from unite_core.data.json_stream import RecordError


def row(number, image="a.png"):
    return {"query": {"text": f"text {number}"}, "candidate": {"image": image}}


@pytest.fixture
def media(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(
        root / "a.png"
    )
    return root


@pytest.fixture
def run(media, tmp_path):
    """`ingest` of a file with three bad rows among 95, in parts of 20."""
    rows = [json.dumps(row(number)) for number in range(95)]
    rows[10] = rows[60] = "{"
    rows[70] = json.dumps(row(70, "gone.png"))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))

    def run(folder, max_bad_share=0.05, **options):
        options = {"part_rows": 20, "max_bad_share": max_bad_share} | options
        return ingest.ingest_source(
            Source("rows", "rows.jsonl"), folder, tmp_path, media, **options
        )

    return run


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_ingest_keeps_the_good_and_lists_the_bad(run, tmp_path):
    folder = tmp_path / "out"
    report = run(folder)
    assert (report.rows, report.records) == (95, 92)
    assert report.causes == {"not JSON": 2, "no file under the media root": 1}
    kept = list(iter_ingested(folder))
    assert kept == [row(n) for n in range(95) if n not in (10, 60, 70)]
    rejects = [
        json.loads(line)
        for path in sorted(folder.glob("*.rejects.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert [reject["where"].split(", ")[1] for reject in rejects] == [
        "line 11",
        "line 61",
        "line 71",
    ]
    assert json.loads((folder / "report.json").read_text())["rejects"] == 3
    assert not list(folder.glob("*.partial"))


def test_more_rejects_than_allowed_are_an_error(run, tmp_path):
    with pytest.raises(BadRowsError, match="3 rejects in 95 rows"):
        run(tmp_path / "out", 0.03)
    with pytest.raises(RecordError, match="no report.json, so it is not complete"):
        list(iter_ingested(tmp_path / "out"))


def test_a_stopped_run_goes_on_and_ends_the_same(run, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole)
    real, done = ingest._check_part, []

    def stop_in_the_third(convert, folder, media, number, rows):
        done.append(number)
        if number == 2 and len(done) == 3:
            raise KeyboardInterrupt
        return real(convert, folder, media, number, rows)

    monkeypatch.setattr(ingest, "_check_part", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(broken)
    again = run(broken)
    assert done == [0, 1, 2, 2, 3, 4], "parts that are done are not checked again"
    assert files(broken) == files(whole)
    assert again == run(whole)


@pytest.mark.slow
def test_workers_make_the_same_files(run, tmp_path):
    run(tmp_path / "here")
    run(tmp_path / "there", workers=2)
    assert files(tmp_path / "here") == files(tmp_path / "there")


def test_a_folder_is_not_mixed_with_another_source(run, tmp_path):
    run(tmp_path / "out")
    with pytest.raises(RecordError, match="made with other depth; remove the folder"):
        run(tmp_path / "out", depth="decode")
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(RecordError, match="made with other files"):
        run(tmp_path / "out")


def test_a_file_that_was_fetched_again_is_looked_at_again(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row(0)))
    (tmp_path / "a.png").touch()
    source = Source("rows", "rows.jsonl")
    with pytest.raises(BadRowsError, match="1 x empty file"):
        ingest.ingest_source(source, tmp_path / "first", tmp_path, tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert ingest.ingest_source(source, tmp_path / "second", tmp_path, tmp_path).records == 1


@pytest.mark.parametrize("adapter", ["native", "folder"])
def test_a_source_knows_its_files_again_until_they_change(adapter, tmp_path):
    (tmp_path / "set").mkdir()
    source = Source("set", "set", adapter=adapter)
    for name in ("x.png", "x.txt", "rows.jsonl"):
        (tmp_path / "set" / name).write_text("one")
    before = source.stamp(tmp_path)
    assert source.stamp(tmp_path) == before
    (tmp_path / "set" / "x.txt").write_text("one\ntwo")
    caption = source.stamp(tmp_path)
    assert (caption != before) == (adapter == "folder")
    (tmp_path / "set" / "rows.jsonl").unlink()
    (tmp_path / "set" / "more.jsonl").write_text("one")
    assert source.stamp(tmp_path) != caption


def test_a_folder_with_another_picture_is_not_what_was_ingested(tmp_path):
    (tmp_path / "pairs").mkdir()
    source = Source("pairs", "pairs", "pairs", "folder")
    for name in ("x", "y"):
        Image.new("RGB", (8, 8)).save(tmp_path / "pairs" / f"{name}.png")
        (tmp_path / "pairs" / f"{name}.txt").write_text(name)
        if name == "x":
            ingest.ingest_source(source, tmp_path / "out", tmp_path, tmp_path)
    with pytest.raises(RecordError, match="made with other files"):
        ingest.ingest_source(source, tmp_path / "out", tmp_path, tmp_path)


def test_sources_of_all_layouts(tmp_path):
    (tmp_path / "pairs").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pairs" / "x.png")
    (tmp_path / "pairs" / "x.txt").write_text("one\ntwo")
    folder = Source("pairs", "pairs", "pairs", "folder")
    assert ingest.ingest_source(folder, tmp_path / "a", tmp_path, tmp_path).records == 2
    (tmp_path / "nli.csv").write_text("sent0,sent1,hard_neg\nq,p,n\n")
    texts = Source("nli", "nli.csv", adapter="text-pairs", options={"task": "nli"})
    assert ingest.ingest_source(texts, tmp_path / "b", tmp_path).records == 1
    (record,) = iter_ingested(tmp_path / "b")
    assert record["task"] == "nli"
    with pytest.raises(RecordError, match="'none' is no adapter"):
        ingest.ingest_source(Source("x", "nli.csv", adapter="none"), tmp_path / "c", tmp_path)
    with pytest.raises(ValueError, match="depth must be one of name, file"):
        ingest.ingest_source(texts, tmp_path / "c", tmp_path, depth="deep")
    assert not (tmp_path / "c").exists()
