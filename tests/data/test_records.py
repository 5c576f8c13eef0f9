"""The record schema: what is read is what was written, and every refusal names its remedy."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unite_core.data import json_stream as jsonrows
from unite_core.data.items import IMAGE_PLACEHOLDER
from unite_core.data.modality import Modality
from unite_core.data.records import (
    RecordError,
    content_id,
    iter_records,
    read_records,
    target_modality,
    validate_item,
    validate_record,
    write_records,
)

PAIR = {"query": {"text": "a red circle"}, "candidate": {"image": "a.png"}}
FULL = {
    "query": {"text": "<|IMAGE|>\nin green", "image": "media/a.png"},
    "candidate": {"text": "ein grüner Kreis", "video": [["f0.png", "f1.png"]]},
    "negative": [{"text": "a blue star"}, {"image": ["b.png", "c.png"]}],
    "target_modal": "text,video",
    "task": "modify",
    "source": "shapes",
}
texts = st.text(min_size=1).filter(lambda text: text.strip() and IMAGE_PLACEHOLDER not in text)
names = st.from_regex(r"[a-z0-9]{1,8}\.(png|mp4)", fullmatch=True)
items = st.fixed_dictionaries(
    {"text": texts}, optional={"image": names | st.lists(names, min_size=1, max_size=3)}
) | st.fixed_dictionaries({"video": names})
valid_records = st.fixed_dictionaries(
    {"query": items, "candidate": items},
    optional={"negative": items, "task": st.text(st.characters(exclude_categories=("Cs",)))},
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def changed(record, path, value):
    """A copy of `record` with the value at a path of keys set, or removed if it is ..."""
    record = copy.deepcopy(record)
    holder = record
    for key in path[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return record


def as_file(folder, text, name="records.jsonl"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def test_schema_accepts_the_full_record_and_null_fields():
    validate_record(FULL)
    validate_record(PAIR | {"negative": None, "target_modal": None})
    assert target_modality(FULL) == Modality.TEXT | Modality.VIDEO
    assert target_modality(PAIR) == Modality.IMAGE


@given(st.lists(valid_records, max_size=8))
@settings(max_examples=50)
def test_round_trip_through_both_formats(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("round")
    as_list = as_file(folder, json.dumps(rows, indent=1), "rows.json")
    assert read_records(as_list) == rows
    if rows:
        assert write_records(folder / "rows.jsonl", rows) == len(rows)
        assert read_records(folder / "rows.jsonl") == rows


@given(st.lists(valid_records, min_size=1, max_size=5), st.integers(1, 40))
@settings(max_examples=50)
def test_list_reader_gives_the_same_with_any_buffer_size(tmp_path_factory, rows, chunk):
    path = as_file(tmp_path_factory.mktemp("chunk"), json.dumps(rows), "rows.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonrows, "_CHUNK", chunk)
        assert read_records(path) == rows


def test_list_is_streamed(tmp_path, monkeypatch):
    rows = [PAIR | {"task": f"task {number}"} for number in range(2000)]
    path = as_file(tmp_path, json.dumps(rows)[:-1] + ", oops]", "rows.json")
    monkeypatch.setattr(jsonrows, "_CHUNK", 1000)
    reader = iter_records(path)
    assert [next(reader) for _ in range(2000)] == rows  # the end of the file was not needed
    with pytest.raises(RecordError, match=r"rows.json, row 2001: not valid JSON"):
        next(reader)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_by_name(tmp_path_factory, content):
    path = as_file(tmp_path_factory.mktemp("bytes"), content)
    try:
        rows = read_records(path)
    except RecordError as error:
        assert str(path) in str(error)
    else:
        assert not rows, "random bytes cannot be a record"


@given(st.lists(valid_records, min_size=1, max_size=3), st.data())
@settings(max_examples=100)
def test_damaged_json_never_gives_other_records(tmp_path_factory, rows, data):
    text = json.dumps(rows)
    at = data.draw(st.integers(1, len(text) - 1))
    for damaged in (text[:at], text[:at] + "\x00" + text[at:]):
        path = as_file(tmp_path_factory.mktemp("damaged"), damaged, "rows.json")
        with pytest.raises(RecordError, match=r"row \d+: not valid JSON"):
            read_records(path)


@given(json_values)
def test_any_json_value_as_a_record_is_refused_with_a_place(value):
    with pytest.raises(RecordError, match="^here"):
        validate_record(value, "here")


@given(json_values, st.sampled_from(["query", "candidate", "negative", "target_modal", "task"]))
def test_any_json_value_in_a_field_is_accepted_or_refused_with_a_place(value, field):
    try:
        validate_record(PAIR | {field: value}, "here")
    except RecordError as error:
        assert str(error).startswith("here, field ")
        assert ";" in str(error) or ":" in str(error)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["querry"], {}, "unknown field querry; records have query"),
        (["query"], ..., "field query: missing"),
        (["query"], None, "field query: missing"),
        (["query"], "a text", "field query: an item is an object"),
        (["query"], {}, "field query: empty item; give it at least one of text"),
        (["query", "audio"], "a.wav", "field query: unknown field audio; items have text"),
        (["query", "text"], 3, r"query\.text: int 3 is not a string"),
        (["query", "text"], "  \n", r"query\.text: blank text"),
        (["query", "text"], "\ud83d", r"query\.text: half a surrogate"),
        (["query", "image"], [], r"query\.image: .*empty list"),
        (["query", "image"], ["a.png", "b.png"], "1 <|IMAGE|> for 2 image"),
        (["query", "image"], 7, r"query\.image: int 7 is no medium"),
        (["query", "image"], "https://host/a.png", "is a URL; download it"),
        (["query", "image"], "data:image/png;base64,AAAA", "is a URL; download it"),
        (["query", "image"], ..., "1 <|IMAGE|> for 0 image"),
        (["query", "image"], "", "is no path"),
        (["query", "image"], "a\0.png", "is no path"),
        (["candidate", "video"], [["f0.png", 3]], r"video, frame 2: int 3 is no medium"),
        (["candidate", "video"], [[]], r"video: video is an empty list"),
        (["negative"], [], "field negative: empty list"),
        (["negative", 1], {}, r"field negative\[2\]: empty item"),
        (["target_modal"], "text,sound", "field target_modal: unknown modality 'sound'"),
        (["target_modal"], "image", "disagrees with the candidate, which has text.video"),
        (["target_modal"], 4, "field target_modal: int 4 is not a string"),
        (["task"], 4, "field task: int 4 is not a string"),
    ],
)
def test_refusals_name_place_field_and_remedy(tmp_path, path, value, message):
    message = message.replace("|", r"\|")
    record = changed(FULL, path, value)
    file = as_file(tmp_path, "\n".join(json.dumps(row) for row in (PAIR, FULL, record)))
    with pytest.raises(RecordError, match=rf"records.jsonl, line 3.*{message}"):
        read_records(file)
    file = as_file(tmp_path, json.dumps([PAIR, record]), "records.json")
    with pytest.raises(RecordError, match=rf"records.json, row 2.*{message}"):
        read_records(file)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.png", "media/../../a.png", r"C:\a.png", r"\\host\a.png"]
)
def test_paths_stay_below_the_media_root(name):
    validate_item({"image": name})  # nothing is said about paths without a media root
    for item in ({"image": name}, {"video": name}, {"video": [["f.png", name]]}):
        with pytest.raises(RecordError, match="leaves the media root 'media'"):
            validate_item(item, media_root="media")


def test_files_are_looked_for_when_asked(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "empty.png").touch()
    validate_record(PAIR, media_root=tmp_path, check_media=True)
    with pytest.raises(RecordError, match=r"candidate\.image: no file .*b\.png; correct the path"):
        validate_record(
            PAIR | {"candidate": {"image": "b.png"}}, media_root=tmp_path, check_media=True
        )
    with pytest.raises(RecordError, match=r"empty\.png is empty; fetch"):
        validate_item({"image": "empty.png"}, media_root=tmp_path, check_media=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file; write one record per line"),
        (b"   \n ", "empty file"),
        (b'{"query": {"text": "a"}, "query": {"text": "b"}}', "line 1: .*query given twice"),
        (b'\n{"query": "\xff"}', "line 2: not valid JSON in UTF-8"),
        (b"[" * 100_000, "row 1: not valid JSON"),
        (b"[{}] {}", "row 1, field query: missing"),
        (b'["' + b"x" * 100 + b'"]', "row 1: a record is an object"),
    ],
)
def test_broken_files(tmp_path, content, message):
    path = as_file(tmp_path, content)
    with pytest.raises(RecordError, match=message):
        read_records(path)
    with pytest.raises(RecordError, match="No such file or directory; check the path"):
        read_records(tmp_path / "absent.jsonl")


def test_text_after_the_list_is_refused_and_blank_lines_are_not(tmp_path):
    line = json.dumps(PAIR)
    with pytest.raises(RecordError, match="text after the closing"):
        read_records(as_file(tmp_path, f"[{line}] {line}"))
    assert read_records(as_file(tmp_path, f"\ufeff{line}\n\n{line}\n")) == [PAIR, PAIR]
    assert read_records(as_file(tmp_path, f"\ufeff \n[{line}]\n")) == [PAIR]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_records(path, [PAIR])
    with pytest.raises(RecordError, match="line 2, field query: missing"):
        write_records(path, [FULL, {}])
    image = {"query": {"image": Image.new("RGB", (2, 2))}, "candidate": {"text": "a"}}
    with pytest.raises(RecordError, match="line 1: media in memory cannot be written; save them"):
        write_records(path, [image])
    assert read_records(path) == [PAIR]
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_content_id_is_equal_exactly_for_equal_content(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    equal = [
        [{"text": "a", "image": "b.png"}, {"image": ["./b.png"], "text": "a", "video": None}],
        [{"video": ["0.png", "1.png"]}, {"video": [["0.png", "1.png"]]}],
        [{"image": pixels}, {"image": [pixels.copy()]}],
        [{"image": Image.fromarray(pixels)}, {"image": Image.fromarray(pixels.copy())}],
    ]
    different = [
        {"text": "a"}, {"text": "a "}, {"text": "a", "image": "a"}, {"image": "a"}, {"video": "a"},
        {"image": ["a", "b"]}, {"image": ["b", "a"]}, {"video": [["0.png"], ["1.png"]]},
        {"image": pixels.reshape(2, 8, 3)}, {"image": pixels[::-1].copy()},
        *(pair[0] for pair in equal),
    ]  # fmt: skip
    for left, right in equal:
        assert content_id(left) == content_id(right)
    assert len({content_id(item) for item in different}) == len(different)
    assert content_id({"text": "a"}) == "6d6720f88d92c31b319103ad57ab970b"  # stable across runs
