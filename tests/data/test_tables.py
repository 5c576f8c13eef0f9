"""Parquet and saved sets: an error for each bad row, media become files, bombs are refused."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unite_core.data import embedded, json_stream, tables
from unite_core.data.json_stream import RecordError
from unite_core.data.pairs import PairDataset
from unite_core.data.readers import iter_rows
from unite_core.data.records import read_records


def picture(seed, kind="png"):
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write(path, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


@pytest.fixture
def odd(tmp_path):
    """Rows 2 and 3 have a text that is no UTF-8 and a date that Python has not."""
    texts = pa.array([b"one", b"\xff\xfe", b"three", b"four"]).view(pa.string())
    dates = pa.array([1, 2, 2**40, 4], pa.int64()).view(pa.timestamp("s"))
    items = pa.StructArray.from_arrays([texts], ["text"])
    table = pa.table({"query": items, "seen": dates, "number": [1, 2, 3, 4]})
    return table


def check_odd(rows):
    assert [row.value and row.value["number"] for row in rows] == [1, None, None, 4]
    assert rows[3].value["query"] == {"text": "four"}
    assert "row 2, column query: unreadable cell (" in rows[1].error
    assert "row 3, column seen: unreadable cell (" in rows[2].error


def test_a_bad_string_or_date_is_the_error_of_its_row(odd, tmp_path):
    pq.write_table(odd, tmp_path / "odd.parquet")
    rows = list(iter_rows(tmp_path / "odd.parquet"))
    check_odd(rows)
    assert rows[1].error.startswith(f"{tmp_path}/odd.parquet, row 2")


def test_a_bad_cell_of_a_saved_set_is_the_error_of_its_row(odd, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset(odd).save_to_disk(tmp_path / "set")
    check_odd(list(iter_rows(tmp_path / "set")))


def test_training_counts_bad_rows_and_goes_on(tmp_path):
    pair = {"query": {"text": "a"}, "candidate": {"text": "b"}}
    odd = [
        {"query": {"text": "\ud800"}}, {"candidate": {"image": "\udcff.png"}}, {"task": "\ud800"},
        {"query_group": "\ud800"}, {"candidate": {"image": f"{'x' * 300}.png"}},
        {"query": {"text": "<|image_pad|>"}},
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(pair | change) for change in [{}, *odd]) + "\n{\n")
    dataset = PairDataset([path], tmp_path)
    assert len(dataset) == 1
    causes = [row.cause for row in dataset.bad]
    assert len(causes) == 7
    assert len({causes[0].split()[-1], *(cause.split()[-1] for cause in causes[1:4])}) == 1
    assert "surrogate" in causes[0]
    assert causes[4] == "file name too long"
    assert "reserved token" in causes[5]
    assert causes[6].startswith("not valid JSON")
    assert all(str(path) in row.message for row in dataset.bad)
    assert all(row.message.isprintable() for row in dataset.bad)


@pytest.fixture
def images(tmp_path):
    """A table as the hub has them: an Image column {bytes, path} and a list of such."""
    rows = [
        {"image": {"bytes": picture(0), "path": "0.png"}, "caption": "zero"},
        {"image": {"bytes": picture(1, "jpeg"), "path": None}, "caption": "one"},
        {"image": {"bytes": None, "path": "beside.png"}, "caption": "two"},
        {"image": {"bytes": picture(0), "path": "again/0.png"}, "caption": "zero again"},
    ]
    (tmp_path / "beside.png").write_bytes(picture(2))
    return write(tmp_path / "images.parquet", rows)


def test_media_in_a_table_become_files_named_after_their_content(images, tmp_path):
    root = tmp_path / "root"
    rows = [row.value for row in iter_rows(images, media_root=root)]
    paths = [row["image"] for row in rows]
    assert paths[2] == "beside.png"
    assert paths[0] == paths[3]
    assert paths[1].endswith(".jpg")
    assert (root / paths[0]).read_bytes() == picture(0)
    assert (root / paths[1]).read_bytes() == picture(1, "jpeg")
    files = [file for file in root.rglob("*") if file.is_file()]
    assert len(files) == 2
    before = {file: file.stat().st_mtime_ns for file in files}
    (root / paths[1]).write_bytes(b"cut")
    list(iter_rows(images, media_root=root))
    assert (root / paths[1]).read_bytes() == picture(1, "jpeg")
    assert (root / paths[0]).stat().st_mtime_ns == before[root / paths[0]]
    untouched = next(iter_rows(images)).value["image"]
    assert untouched["bytes"] == picture(0)


def test_names_in_a_table_lead_nowhere(tmp_path):
    rows = [
        {"image": {"bytes": picture(0), "path": path}}
        for path in ("../../../up.png", "/etc/x.png", "a.sh", "b.png\0", "c/" * 3000)
    ]
    path = write(tmp_path / "odd.parquet", rows)
    root = tmp_path / "root"
    found = [row.value["image"] for row in iter_rows(path, media_root=root)]
    assert {(root / name).resolve().parent.parent for name in found} == {root / embedded.FOLDER}
    assert all(name.endswith(".png") for name in found)


def test_records_with_media_in_the_table_train_from_it(tmp_path):
    def item(seed):
        return {"text": None, "image": {"bytes": picture(seed), "path": f"{seed}.png"}}

    rows = [
        {"query": {"text": f"text {n}"}, "candidate": item(n), "negative": [item(n + 1)]}
        for n in range(3)
    ]
    path = write(tmp_path / "train.parquet", rows)
    dataset = PairDataset([path], tmp_path / "root")
    assert not dataset.bad
    assert [len(pair.negatives) for pair in dataset] == [1, 1, 1]
    name = dataset[1].candidate["image"]
    assert dataset[0].negatives[0]["image"] == name
    assert (tmp_path / "root" / name).read_bytes() == picture(1)
    with pytest.raises(RecordError, match=r"row 1, field candidate.image: media inside a table"):
        read_records(path)


def test_image_features_of_saved_sets_are_not_decoded(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": picture(n), "path": None} for n in range(2)], "text": ["a", "b"]}
    features = datasets.Features(image=datasets.Image(), text=datasets.Value("string"))
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "set")
    found = [row.value for row in iter_rows(tmp_path / "set", media_root=tmp_path)]
    assert [(tmp_path / row["image"]).read_bytes() for row in found] == [picture(0), picture(1)]


def test_a_root_that_cannot_be_written_is_named(images, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / embedded.FOLDER).write_text("no folder")
    with pytest.raises(RecordError, match=r"root/embedded.*media of a table cannot be written"):
        list(iter_rows(images, media_root=tmp_path / "root"))


def repeated(count, nested):
    """A value of a megabyte that stands once in the file and `count` times in the rows."""
    value = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), ["x" * 1_000_000])
    return pa.StructArray.from_arrays([value], ["text"]) if nested else value


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("typed", [False, True])
def test_a_value_repeated_a_million_times_is_refused_in_little_memory(
    tmp_path, monkeypatch, nested, typed
):
    monkeypatch.setattr(json_stream, "MAX_UNPACKED", 1 << 27)
    path = tmp_path / "bomb.parquet"
    table = pa.table({"text": repeated(20_000, nested)})
    with pq.ParquetWriter(path, table.schema, store_schema=typed) as file:
        file.write_table(table)
    assert path.stat().st_size < 100_000
    count, before = 0, pa.total_allocated_bytes()
    with pytest.raises(RecordError, match=r"bomb.parquet: unpacks to more than 200 times its"):
        for row in iter_rows(path):
            count += 1
            assert len(row.value["text"]["text"] if nested else row.value["text"]) == 1_000_000
    assert count <= 256
    assert pa.total_allocated_bytes() - before < 1 << 27


def test_a_file_that_declares_twenty_gigabytes_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "bomb.parquet"
    cells = pa.ListArray.from_arrays([0, 20_000_000], pa.nulls(20_000_000, pa.int8()))
    pq.write_table(pa.table({"cells": cells}), path)
    del cells
    monkeypatch.setattr(tables, "table_rows", lambda batches, *_: map(pytest.fail, batches))
    with pytest.raises(RecordError, match="unpacks to more than 200 times"):
        list(iter_rows(path))


def test_a_batch_has_few_rows_where_rows_are_large(tmp_path, monkeypatch):
    taken = []

    def spy(batches, *rest):
        return real((taken.append(batch.num_rows) or batch for batch in batches), *rest)

    real = tables.table_rows
    monkeypatch.setattr(tables, "table_rows", spy)
    noise = np.random.default_rng(0).bytes(1 << 20)
    path = write(tmp_path / "large.parquet", [{"data": noise[n:]} for n in range(80)])
    assert len(list(iter_rows(path))) == 80
    assert max(taken) <= 64
    path = write(tmp_path / "small.parquet", [{"text": f"text {n}"} for n in range(3000)])
    taken.clear()
    assert len(list(iter_rows(path))) == 3000
    assert taken == [1024, 1024, 952]


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.table([[1], [2]], names=["a", "a"])
    pq.write_table(table, tmp_path / "two.parquet")
    with pytest.raises(RecordError, match="a column name comes twice"):
        list(iter_rows(tmp_path / "two.parquet"))
