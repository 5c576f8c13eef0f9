"""Every source gives the same rows in every packing, and broken ones an error by name."""

import contextlib
import csv
import errno
import gzip
import importlib
import io
import json
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from unite_core.data import json_stream as jsonrows
from unite_core.data.json_stream import RecordError
from unite_core.data.readers import iter_rows, row_files
from unite_core.files import read_json

ROWS = [
    {"query": {"text": f"text {n} ü\u2028"}, "candidate": {"image": f"{n}.png"}} for n in (1, 2)
]
rows_strategy = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.text(st.characters(codec="utf-8")), min_size=1),
    min_size=1,
    max_size=5,
)


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


PACKINGS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
FORMATS = {".jsonl": lines, ".json": lambda rows: json.dumps(rows).encode(), ".ndjson": lines}


def values(source, **options):
    rows = list(iter_rows(source, **options))
    assert not any(row.error for row in rows)
    return [row.value for row in rows]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", FORMATS)
@given(rows=rows_strategy)
@settings(max_examples=10)
def test_json_in_all_packings(tmp_path_factory, kind, packing, rows):
    path = tmp_path_factory.mktemp("json") / f"rows.v1{kind}{packing}"
    path.write_bytes(PACKINGS[packing](FORMATS[kind](rows)))
    assert values(path) == rows
    assert next(iter_rows(path)).where in (f"{path}, line 1", f"{path}, row 1")


def test_tables_parquet_and_folders_of_files(tmp_path):
    flat = [{"a": "1, 2", "b": 'line\n"two"'}, {"a": "", "b": "ü"}]
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + as_csv(flat)))
    (tmp_path / "t.tsv").write_bytes(b"a\tb\n1\t2\n1\n")
    assert values(tmp_path / "t.csv.gz") == flat
    good, bad = iter_rows(tmp_path / "t.tsv")
    assert good.value == {"a": "1", "b": "2"}
    assert bad.error.endswith("t.tsv, line 3: 1 cells for 2 columns; quote the texts")
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "b.parquet", row_group_size=1)
    (folder / "a.jsonl").write_bytes(lines(ROWS[:1]))
    (folder / "README.md").write_text("no rows")
    assert values(tmp_path / "set") == [ROWS[0], *ROWS]
    assert [file.name for file in row_files(tmp_path / "set")] == ["a.jsonl", "b.parquet"]
    assert [row.where for row in iter_rows(folder / "b.parquet")][1].endswith("b.parquet, row 2")


def test_saved_sets_are_read_by_split(tmp_path):
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list(ROWS)
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one, "test": one.select([1])}).save_to_disk(tmp_path / "two")
    assert values(tmp_path / "one") == ROWS
    assert values(tmp_path / "two", split="test") == ROWS[1:]
    with pytest.raises(RecordError, match="no split 'dev'; it has train, test"):
        values(tmp_path / "two", split="dev")
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(RecordError, match="one: cannot be loaded"):
        values(tmp_path / "one")


def test_hub_sets_are_streamed(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(*args, **options):
        asked.append((args, options))
        if args[0] == "owner/gone":
            raise FileNotFoundError("no such set")
        return datasets.Dataset.from_list(ROWS).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert values("hub:owner/name:subset", split="dev") == ROWS
    assert asked == [(("owner/name", "subset"), {"split": "dev", "streaming": True})]
    with pytest.raises(RecordError, match="hub:owner/gone: cannot be opened .no such set."):
        values("hub:owner/gone")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.jsonl", None, "No such file"),
        ("rows.txt", b"{}", "its name does not say"),
        ("empty.jsonl", b" \n", "empty file"),
        ("a.json", b'[{"a": 1}, {"a"', "row 2: not valid JSON"),
        ("a.jsonl.gz", gzip.compress(lines(ROWS), mtime=0)[:-9], "cannot be read to its end"),
        ("a.jsonl.gz", b"no gzip", "cannot be read to its end"),
        ("a.jsonl.zst", zstandard.compress(lines(ROWS))[:-3], "cannot be read to its end"),
        ("a.jsonl.zst", b"no zstandard", "cannot be read to its end"),
        ("a.parquet", b"PAR1 but no table", "no readable Parquet after row 0"),
        ("a.parquet", b"", "no readable Parquet after row 0"),
        ("a.csv", b"a,a\n1,2\n", "a column name comes twice"),
        ("a.csv", b"", "empty file"),
        ("a.csv", b'a,b\n"1"2,3\n', "no CSV"),
        ("a.csv", b"a,b\n\xff,3\n", "cannot be read to its end"),
    ],
)
def test_broken_files_are_errors_by_name(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordError, match=f"{name}.*{message}"):
        list(iter_rows(path))


def test_a_folder_without_rows_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="holds no .json"):
        list(iter_rows(tmp_path))


def test_a_bad_line_is_its_own_error_and_reading_goes_on(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(ROWS[:1]) + b'{"a": \xff}\n{"a": 1, "a": 2}\n\n' + lines(ROWS[1:]))
    first, second, third, last = iter_rows(path)
    assert [first.value, last.value] == ROWS
    assert last.where == f"{path}, line 5"
    assert second.error.startswith(f"{path}, line 2: not valid JSON in UTF-8")
    assert "field a given twice" in third.error


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_line_without_end_is_not_taken_in_whole(tmp_path, monkeypatch, packing):
    monkeypatch.setattr(jsonrows, "MAX_VALUE", 1 << 16)
    path = tmp_path / f"bomb.jsonl{packing}"
    path.write_bytes(PACKINGS[packing](lines(ROWS[:1]) + b"0" * (1 << 22)))
    reader = iter_rows(path)
    assert next(reader).value == ROWS[0]
    with pytest.raises(RecordError, match="line 2: longer than 65536 bytes"):
        next(reader)
    path = tmp_path / f"bomb.json{packing}"
    path.write_bytes(PACKINGS[packing](b'[{}, "' + b"0" * (1 << 23)))
    with pytest.raises(RecordError, match="row 2: .*a value longer than 65536 characters"):
        list(iter_rows(path))


@given(content=st.binary(max_size=300), data=st.data())
@settings(max_examples=150)
def test_any_bytes_in_any_format_are_rows_or_errors(tmp_path_factory, content, data):
    good = data.draw(st.sampled_from([b"", *(f(ROWS) for f in FORMATS.values()), as_csv(ROWS)]))
    at = data.draw(st.integers(0, len(good)))
    mixed = good[:at] + content + good[at:]
    packing = data.draw(st.sampled_from(list(PACKINGS)))
    packed = PACKINGS[packing](mixed) if data.draw(st.booleans()) else mixed
    kind = data.draw(st.sampled_from([*FORMATS, ".csv", ".tsv", ".parquet"]))
    path = tmp_path_factory.mktemp("any") / f"rows{kind}{packing}"
    path.write_bytes(packed)
    try:
        found = list(iter_rows(path))
    except RecordError as error:
        assert str(path) in str(error)
    else:
        assert all(row.where.startswith(str(path)) for row in found)


def test_a_missing_package_is_named(monkeypatch):
    def gone(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", gone)
    with pytest.raises(
        RecordError, match=r"needs datasets: pip install 'unite-workbook\[curate\]'"
    ):
        list(iter_rows("hub:owner/name"))


def pipe(path):
    os.mkfifo(path)


def dangling(path):
    path.symlink_to("nowhere.jsonl")


def circle(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [pipe, dangling, circle])
@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet", "x.csv.gz"])
def test_what_is_no_regular_file_is_an_error_and_never_waited_for(tmp_path, make, name):
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS))
    make(tmp_path / name)
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(RecordError, match=rf"{name}: (no regular|No such|Too many levels)"):
            list(iter_rows(source))


@pytest.mark.parametrize("suffix", [".bz2", ".xz", ".zip", ".lz4"])
def test_a_packing_that_is_not_read_is_an_error_in_a_folder(tmp_path, suffix):
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS))
    (tmp_path / f"b.jsonl{suffix}").write_bytes(b"packed")
    with pytest.raises(RecordError, match=rf"b.jsonl{suffix}: packed in a way that is not read"):
        list(iter_rows(tmp_path))
    (tmp_path / f"b.jsonl{suffix}").rename(tmp_path / f"images{suffix}")
    assert len(list(iter_rows(tmp_path))) == 2, "what holds no rows is nobody's business"


def test_a_subfolder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS))
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scan(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(RecordError, match="closed: Permission denied"):
        list(iter_rows(tmp_path))


@pytest.mark.parametrize("name", ["\0.jsonl", "\ud800.jsonl", "x" * 300 + ".jsonl"])
def test_a_name_that_no_file_can_have_is_an_error(tmp_path, name):
    with pytest.raises(RecordError, match="check the path"):
        list(iter_rows(tmp_path / name))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    "content",
    [
        b'a,b\n1,"' + b"x" * (1 << 22),
        b"a,b\n" + b"x" * (1 << 22),
        b'a,b\n"' + b'\n","' * (1 << 20),
        b"x" * (1 << 22),
    ],
)
def test_a_csv_row_without_end_is_not_taken_in_whole(tmp_path, monkeypatch, packing, content):
    monkeypatch.setattr(jsonrows, "MAX_VALUE", 1 << 16)
    path = tmp_path / f"bomb.csv{packing}"
    path.write_bytes(PACKINGS[packing](content))
    with pytest.raises(RecordError, match=r"line \d+: a row longer than 65536 characters"):
        list(iter_rows(path))


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".csv"])
def test_a_packed_bomb_is_refused_while_it_unpacks(tmp_path, monkeypatch, packing, kind):
    monkeypatch.setattr(jsonrows, "MAX_UNPACKED", 1 << 20)
    path = tmp_path / f"bomb{kind}{packing}"
    path.write_bytes(PACKINGS[packing](b'{"a": 1}\n' * (1 << 20)))
    count = 0
    with pytest.raises(RecordError, match="unpacks to more than 200 times"):
        for _ in iter_rows(path):
            count += 1
    assert count < 1 << 19


def seconds(work):
    start = time.process_time()
    with contextlib.suppress(RecordError, ValueError):
        work()
    return time.process_time() - start


def test_doubled_keys_take_linear_time(tmp_path):
    names = ", ".join(f'"k{n}": 1' for n in range(20_000))
    path = tmp_path / "a.json"
    path.write_text(f"[{{{names}, {names}}}]")
    assert seconds(lambda: list(iter_rows(path))) < 2
    with pytest.raises(RecordError, match="field k0, k1, k10 and 19997 more given twice"):
        list(iter_rows(path))
    assert seconds(lambda: read_json(path, strict=True)) < 2


def test_zstandard_unpacks_in_linear_time(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard.compress(b" " * (1 << 26) + b'\n{"a": 1}\n'))
    assert seconds(lambda: list(iter_rows(path))) < 3
