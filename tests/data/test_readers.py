"""Every source gives the same rows in every packing, and broken ones an error by name."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from unite_core.curate.adapters import ADAPTERS, adapter, folder_rows
from unite_core.data import json_stream as jsonrows
from unite_core.data import readers
from unite_core.data.json_stream import RecordError
from unite_core.data.readers import Row, iter_rows, row_files
from unite_core.data.records import validate_record

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
        ("a.jsonl.gz", gzip.compress(lines(ROWS))[:-9], "cannot be read to its end"),
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


# Adapters, on rows in the layout of the real sets


def records(name, row, **options):
    made = list(adapter(name, **options)(row))
    for record in made:
        validate_record(record)
    return made


def test_native_rows_lose_what_tables_fill_in():
    row = {
        "query": {"text": "<|IMAGE|>\nin green", "image": "a.jpg", "video": None},
        "candidate": {"text": None, "image": {"type": "image", "image": "b.jpg"}, "video": None},
        "negative": None,
        "target_modal": "image",
    }
    expected = {
        "query": {"text": "<|IMAGE|>\nin green", "image": "a.jpg"},
        "candidate": {"image": "b.jpg"},
        "target_modal": "image",
    }
    assert records("native", row) == [expected]
    hard = {**row, "negative": [{"text": "c", "image": None}]}
    assert records("native", hard) == [expected | {"negative": [{"text": "c"}]}]
    none = {**row, "negative": {"text": None, "image": None}}
    assert records("native", none) == [expected]
    own = ROWS[0] | {"task": "own"}
    assert records("native", own, task="t", source="s") == [own | {"source": "s"}]


MMEB = {
    "qry": "<|image_1|>\nRepresent the given image with the question: What is it?\n",
    "qry_image_path": "A-OKVQA/Train/a.jpg", "pos_text": "a cat", "pos_image_path": "",
    "neg_text": "a dog", "neg_image_path": "",
}  # fmt: skip


def test_mmeb_rows():
    record = {
        "query": {
            "text": "<|IMAGE|>\nRepresent the given image with the question: What is it?",
            "image": "A-OKVQA/Train/a.jpg",
        },
        "candidate": {"text": "a cat"},
        "negative": {"text": "a dog"},
    }
    assert records("mmeb", MMEB) == [record]
    to_image = {
        **MMEB, "qry": "Find an image.", "qry_image_path": "", "pos_text": "<|image_1|>\n",
        "pos_image_path": "b.jpg", "neg_text": None, "neg_image_path": None,
    }  # fmt: skip
    expected = {"query": {"text": "Find an image."}, "candidate": {"image": "b.jpg"}}
    assert records("mmeb", to_image) == [expected]
    with pytest.raises(RecordError, match="no column qry; a MMEB row has qry, qry_image_path"):
        records("mmeb", {key: value for key, value in MMEB.items() if key != "qry"})


def test_covr_rows(tmp_path):
    path = tmp_path / "webvid2m-covr_train.csv"
    path.write_text(
        "txt1,txt2,sim_txt,pth1,pth2,edit,int1,int2\n"
        'A dog,"A cat, asleep",0.8,012301_012350/1001,000101_000150/22,make it a cat,1,2\n'
    )
    (row,) = values(path)
    expected = {
        "query": {"text": "<|VIDEO|>\nmake it a cat", "video": "videos/012301_012350/1001.mp4"},
        "candidate": {"video": "videos/000101_000150/22.mp4"},
    }
    assert records("covr", row, folder="videos") == [expected]


@pytest.mark.parametrize(
    ("row", "items"),
    [
        ({"image": "a.jpg", "caption": ["one", "two"], "filename": "a"}, ["image", "image"]),
        ({"video_id": "video0", "video": "video0.mp4", "caption": ["one", "two"]}, ["video"] * 2),
        ({"file_name": "a.jpg", "sentences": [{"raw": "one"}, {"raw": "two"}]}, ["image"] * 2),
        ({"video_name": "3.mp4", "caption": "one"}, ["video"]),
        ({"path": "clips/3.webm", "text": "one"}, ["video"]),
    ],
)
def test_caption_rows(row, items):
    made = records("captions", row)
    assert [record["query"]["text"] for record in made] == ["one", "two"][: len(items)]
    assert [list(record["candidate"]) for record in made] == [[item] for item in items]
    turned = records("captions", row, direction="media-text", instruction="Describe.")
    mark = {"image": "<|IMAGE|>", "video": "<|VIDEO|>"}[items[0]]
    assert turned[0]["query"]["text"] == f"{mark}\nDescribe."
    assert turned[0]["candidate"] == {"text": "one"}


def test_caption_columns_can_be_named():
    row = {"img": "a.gif", "alt": "x", "image": "no.jpg"}
    made = records("captions", row, image="img", caption="alt", media="image", folder="m")
    assert made == [{"query": {"text": "x"}, "candidate": {"image": "m/a.gif"}}]
    with pytest.raises(RecordError, match="no column of captions among img"):
        records("captions", {"img": "a.png", "image": "b.png"})


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"sent0": "q", "sent1": "p", "hard_neg": "n"}, [("q", "p", ["n"])]),
        ({"anchor": "q", "positive": "p", "negative": "n"}, [("q", "p", ["n"])]),
        ({"sentence1": "q", "sentence2": "p", "label": 1}, [("q", "p", [])]),
        ({"question": "q", "answer": "p"}, [("q", "p", [])]),
        ({"query": "q", "pos": ["p", "o"], "neg": ["n"]}, [("q", "p", ["n"]), ("q", "o", ["n"])]),
        (
            {
                "query_id": "1", "query": "q",
                "positive_passages": [{"docid": "7", "title": "t", "text": "p"}],
                "negative_passages": [{"docid": "8", "title": "", "text": "n"}, {"text": "m"}],
            },
            [("q", "t p", ["n", "m"])],
        ),
        (
            {
                "dataset": "nq", "question": "q", "answers": ["a"], "negative_ctxs": [],
                "positive_ctxs": [{"title": "t", "text": "p", "score": 1.0}],
                "hard_negative_ctxs": [],
            },
            [("q", "t p", [])],
        ),
    ],
)  # fmt: skip
def test_text_pair_rows(row, expected):
    made = records("text-pairs", row)
    found = [
        (
            one["query"]["text"],
            one["candidate"]["text"],
            [n["text"] for n in one.get("negative", [])],
        )
        for one in made
    ]
    assert found == expected
    few = records("text-pairs", row, negatives=1, positives=1, instruction="Find:")
    assert [len(one.get("negative", [])) <= 1 for one in few] == [True]
    assert few[0]["query"]["text"] == "Find:\nq"


def test_unknown_layouts_and_options_are_refused():
    with pytest.raises(RecordError, match="no adapter 'coco'; there are native, mmeb"):
        adapter("coco")
    with pytest.raises(RecordError, match="adapter covr has no option sufix; it has suffix"):
        adapter("covr", sufix=".mp4")
    with pytest.raises(RecordError, match="no columns of pairs among a; known are sent0, sent1"):
        records("text-pairs", {"a": 1})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["query", "candidate", "negative", "qry", "qry_image_path", "pos_text", "pos_image_path",
          "neg_text", "pth1", "pth2", "edit", "image", "video", "caption", "sentences", "anchor",
          "positive", "positive_passages", "question", "positive_ctxs",
          "hard_negative_ctxs"]  # fmt: skip


@pytest.mark.parametrize("name", ADAPTERS)
@given(row=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=6) | json_values)
@settings(max_examples=60)
def test_any_row_is_converted_or_refused(name, row):
    try:
        for record in adapter(name, instruction="do")(row):
            validate_record(record)
    except RecordError as error:
        assert str(error)


def test_folders_of_media_and_texts(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a.mp4", "lonely.jpg", "sub/c.JPG", "still.webp", "moves.webp"):
        (tmp_path / name).write_bytes(b"RIFF____WEBPVP8X____\x00")
    (tmp_path / "moves.webp").write_bytes(b"RIFF____WEBPVP8X____\x02")
    for name in ("a", "b", "sub/c", "still", "moves", "alone"):
        (tmp_path / f"{name}.txt").write_text(f"caption of {name}\n\n second \n", encoding="utf-8")
    (tmp_path / "bad.png").touch()
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    (tmp_path / "linked.png").touch()
    (tmp_path / "linked.txt").symlink_to("/etc/hostname")
    (tmp_path / "notes.md").touch()
    found = {row.where.removeprefix(str(tmp_path) + "/"): row for row in folder_rows(tmp_path)}
    assert list(found) == ["a.mp4", "alone.txt", "b.png", "bad.png", "linked.png", "lonely.jpg",
                           "moves.webp", "still.webp", "sub/c.JPG"]  # fmt: skip
    assert found["sub/c.JPG"].value == {
        "image": "sub/c.JPG",
        "caption": ["caption of sub/c", "second"],
    }
    assert found["a.mp4"].value["video"] == "a.mp4"
    assert ["video" in found[f"{name}.webp"].value for name in ("moves", "still")] == [True, False]
    errors = {name: row.error for name, row in found.items() if row.error}
    assert list(errors) == ["alone.txt", "bad.png", "linked.png", "lonely.jpg"]
    assert "a link" in errors["linked.png"]
    assert all(isinstance(row, Row) for row in found.values())
    with pytest.raises(RecordError, match="no folder"):
        list(folder_rows(tmp_path / "none"))


def test_a_missing_package_is_named(monkeypatch):
    def gone(name):
        raise ImportError(name)

    monkeypatch.setattr(readers.importlib, "import_module", gone)
    with pytest.raises(
        RecordError, match=r"needs datasets: pip install 'unite-workbook\[curate\]'"
    ):
        list(iter_rows("hub:owner/name"))
