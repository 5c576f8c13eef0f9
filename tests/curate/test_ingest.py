"""Ingesting writes valid records and rejects in parts, resumes, and refuses a changed source."""

import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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


def test_half_surrogates_are_rejects_by_name_wherever_they_stand(tmp_path):
    good = {"query": {"text": "a"}, "candidate": {"text": "b"}}
    odd = [{"query": {"text": "\ud800"}}, {"candidate": {"image": "\ud800.png"}}, {"\ud800": 1},
           {"task": "\ud800"}, {"source": "\udcff"}, {"query_group": "\ud800"},
           {"candidate": {"text": "b", "\ud800": 1}}, {"negative": {"text": "\ud800"}}]  # fmt: skip
    rows = [good, *(good | change for change in odd)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Source("rows", "rows.jsonl")
    for workers in (0, 1):
        folder = tmp_path / f"out {workers}"
        report = ingest.ingest_source(source, folder, tmp_path, tmp_path, max_bad_share=1.0,
                                      workers=workers)  # fmt: skip
        assert report.causes == {"broken Unicode": 6, "unknown field": 2}
        assert list(iter_ingested(folder)) == [good]
        shown = json.loads((folder / "report.json").read_text())["examples"]
        assert all(f"{tmp_path}/rows.jsonl, line" in message for *_, message in shown)


def test_file_names_that_are_no_utf8_are_rejects(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for name in (b"a", b"\xff"):
        with open(os.fsencode(folder) + b"/" + name + b".txt", "w") as file:
            file.write("a caption")
        Image.new("RGB", (8, 8)).save(folder / "a.png")
        os.link(folder / "a.png", os.fsencode(folder) + b"/\xff.png") if name != b"a" else None
    source = Source("pairs", "pairs", "pairs", "folder")
    report = ingest.ingest_source(source, tmp_path / "out", tmp_path, tmp_path, max_bad_share=1.0)
    assert (report.records, report.causes) == (1, {"broken Unicode": 1})


@pytest.mark.parametrize("content", ["{}", "[]", "5", '{"rows": 1, "records": 1, "causes": 3}'])
def test_damaged_counts_of_a_part_are_named(run, tmp_path, content):
    run(tmp_path / "out")
    (tmp_path / "out" / "part-00000.json").write_text(content)
    with pytest.raises(RecordError, match=r"part-00000.json: no .*; remove"):
        run(tmp_path / "out")
    (tmp_path / "out" / "part-00000.jsonl").write_text('{"query')
    with pytest.raises(RecordError, match=r"part-00000.jsonl, line 1: damaged"):
        list(iter_ingested(tmp_path / "out"))


@pytest.mark.parametrize("depth", ["file", "header", "decode"])
def test_causes_are_those_of_the_files_and_not_of_their_names(tmp_path, depth):
    folder = tmp_path / "truncated archive; no column"
    folder.mkdir()
    page = "<!DOCTYPE html><html><body>" + "<p>404 not found</p>\n" * 99 + "</body></html>"
    (folder / "more than 9 pixels.mp4").write_text(page)
    (folder / "is cut.png").write_text(page)
    (folder / "truncated.png").touch()
    (folder / "truncated.mp4").touch()
    rows = [
        {
            "query": {"text": "a"},
            "candidate": {"video" if "mp4" in file.name else "image": file.name},
        }
        for file in sorted(folder.iterdir())
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Source("rows", "rows.jsonl")
    report = ingest.ingest_source(source, tmp_path / "out", tmp_path, folder, depth, 1.0)
    broken = {} if depth == "file" else {"cannot be decoded": 2}
    assert report.causes == {"empty file": 2} | broken


def test_media_in_a_table_are_unpacked_before_parts_are_held(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "png")
    rows = [{"image": {"bytes": content.getvalue(), "path": "x.png"}, "caption": "red"},
            {"image": {"bytes": b"<html>", "path": "y.png"}, "caption": "page"},
            {"image": {"bytes": b"", "path": None}, "caption": "empty"}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    source = Source("set", "set.parquet", "set", "captions")
    for workers in (0, 1):
        folder = tmp_path / f"out {workers}"
        report = ingest.ingest_source(source, folder, tmp_path, tmp_path / "root", "decode", 1.0,
                                      workers)  # fmt: skip
        assert report.causes == {"cannot be decoded": 1, "empty file": 1}
        (record,) = iter_ingested(folder)
        path = tmp_path / "root" / "set" / record["candidate"]["image"]
        assert path.read_bytes() == content.getvalue()
