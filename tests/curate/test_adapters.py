"""Adapters make records of rows in the layouts of the real data sets, and refuse all others."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unite_core.curate.adapters import ADAPTERS, adapter, require_columns
from unite_core.curate.media_folders import folder_files, folder_rows
from unite_core.curate.validate import MediaCheck, Report, cause_of, check_rows
from unite_core.data.json_stream import RecordError
from unite_core.data.readers import Row, iter_rows
from unite_core.data.records import validate_record


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
    labelled = {"query": {"text": "a"}, "candidate": {"image": "a.png"}, "task": "own"}
    assert records("native", labelled, task="t", source="s") == [labelled | {"source": "s"}]


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
    (row,) = (found.value for found in iter_rows(path))
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
            record["query"]["text"],
            record["candidate"]["text"],
            [n["text"] for n in record.get("negative", [])],
        )
        for record in made
    ]
    assert found == expected
    few = records("text-pairs", row, negatives=1, positives=1, instruction="Find:")
    assert [len(record.get("negative", [])) <= 1 for record in few] == [True]
    assert few[0]["query"]["text"] == "Find:\nq"


def test_unknown_layouts_and_options_are_refused():
    with pytest.raises(RecordError, match="'coco' is no adapter; known: native, mmeb"):
        adapter("coco")
    with pytest.raises(RecordError, match="adapter covr has no option sufix; it has suffix"):
        adapter("covr", sufix=".mp4")
    with pytest.raises(RecordError, match="no columns of pairs among a; known are sent0, sent1"):
        records("text-pairs", {"a": 1})


@ADAPTERS.register("my-set")
def my_set(row, language="en"):
    """A layout from outside the package."""
    require_columns(row, ("title", "file"), "my-set")
    text = {"text": f"{language}: {row['title']}"}
    yield {"query": text, "candidate": {"image": row["file"]}}


def test_a_layout_is_one_registered_function():
    made = records("my-set", {"title": "a cat", "file": "a.png"}, language="de", task="t")
    assert made == [{"query": {"text": "de: a cat"}, "candidate": {"image": "a.png"}, "task": "t"}]
    with pytest.raises(RecordError, match="adapter my-set has no option lang; it has language, in"):
        adapter("my-set", lang="de")
    with pytest.raises(RecordError, match="no column file; a my-set row has title, file"):
        records("my-set", {"title": "a cat"})


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


ODD_ROWS = [
    ("mmeb", MMEB | {"qry": 5}),
    ("mmeb", MMEB | {"pos_text": ["a"], "qry_image_path": 3}),
    ("mmeb", MMEB | {"neg_text": {"a": 1}}),
    ("covr", {"pth1": 1, "pth2": None, "edit": 7}),
    ("captions", {"image": 4, "caption": 5}),
    ("captions", {"image": {"a": 1}, "captions": [None, 3, {"raw": 1}]}),
    ("text-pairs", {"query": 1, "positive": 2, "negative": 3}),
    ("text-pairs", {"query": "a", "positive": [{"title": 1, "text": 2}], "negative": {}}),
    ("native", {"query": 5, "candidate": [], "negative": 3}),
]


@pytest.mark.parametrize(("name", "row"), ODD_ROWS)
def test_odd_rows_are_rejects_of_a_known_cause(name, row):
    report = Report()
    convert = adapter(name, instruction="Find it:", task="t")
    rows = [Row("set.jsonl, row 1", row), Row("set.jsonl, row 2", row)]
    results = list(check_rows(rows, convert, MediaCheck(depth="name"), report))
    assert results and all(result.where.startswith("set.jsonl, row") for result in results)
    assert report.rows == 2 and set(report.causes) <= {"wrong type", "empty item"}


@ADAPTERS.register("crashes")
def crashes(row):
    yield {"query": {"text": row["text"].strip()}, "candidate": {"text": "a"}}


def test_a_crash_of_an_adapter_is_a_reject_that_names_it():
    report = Report()
    rows = [Row("row 1", {"text": 5}), Row("row 2", {}), Row("row 3", {"text": "good "})]
    found = list(check_rows(rows, adapter("crashes"), MediaCheck(depth="name"), report))
    assert found[2] == {"query": {"text": "good"}, "candidate": {"text": "a"}}
    assert report.causes == {"not the layout of the adapter": 2}
    assert "adapter crashes (AttributeError: 'int' object has no" in found[0].message
    assert "(KeyError: 'text')" in found[1].message


def test_options_may_have_any_name():
    with pytest.raises(RecordError, match="adapter native has no option name"):
        adapter("native", name="x")


def test_a_plain_folder_skips_nothing_in_silence(tmp_path, monkeypatch):
    for name in ("a.png", "a.txt", "b.txt", "c.png"):
        (tmp_path / name).write_text("text")
    (tmp_path / "b.png").symlink_to("gone.png")
    (tmp_path / "c.txt").symlink_to("gone.txt")
    os.mkfifo(tmp_path / "d.png")
    (tmp_path / "d.txt").write_text("d")
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scan(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)
    good, *bad = folder_rows(tmp_path)
    assert good.value == {"image": "a.png", "caption": ["text"]}
    errors = {row.where.rpartition("/")[2]: cause_of(row.error) for row in bad}
    assert errors == {
        "b.png": "no regular file", "c.png": "no regular file", "d.png": "no regular file",
        "closed": "unreadable folder",
    }  # fmt: skip
    assert len(list(folder_files(tmp_path))) == 5
