"""Anybody's data: which columns are guessed, where media are found, what is said when not."""

import csv
import json

import pytest
from PIL import Image

from unite_core.curate.own_data import find_data, own_items, own_pairs
from unite_core.curate.validate import Reject, Report
from unite_core.data.json_stream import RecordError


@pytest.fixture
def pictures(tmp_path):
    """A folder with six pictures below img."""
    (tmp_path / "img").mkdir()
    for number in range(6):
        Image.new("RGB", (20, 20), (40 * number, 0, 0)).save(tmp_path / "img" / f"{number}.png")
    return tmp_path


def write_table(path, head, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def pairs(data, **options):
    report = Report()
    return list(own_pairs(data, report, **options)), report


def test_columns_of_a_table_are_guessed_and_media_found_in_a_folder_below(pictures):
    rows = [[n, f"{n}.png", f"red number {n}", "x"] for n in range(6)]
    table = write_table(pictures / "list.csv", ["nr", "datei", "titel", "k"], rows)
    data = find_data(table)
    assert (data.layout, data.text, data.media) == ("media", "titel", "datei")
    assert data.words() == (
        f"list.csv: text from titel, media from datei, below {pictures / 'img'} "
        "(other columns: nr, k)"
    )
    records, report = pairs(data)
    assert records[2] == {
        "query": {"text": "red number 2"}, "candidate": {"image": "img/2.png"}
    }  # fmt: skip
    assert report.records == 6 and not report.rejects
    assert find_data(pictures).source.path == str(table)  # the one table of the folder


def test_known_names_win_over_longer_texts(pictures):
    rows = [["img/1.png", "short", "a much longer remark about nothing"]] * 2
    table = write_table(pictures / "t.csv", ["a", "caption", "remark"], rows)
    assert find_data(table).text == "caption"
    assert find_data(table, text="remark").text == "remark"


def test_rows_without_text_or_file_are_rejects_with_their_cause(pictures):
    rows = [["img/0.png", "zero"], ["img/1.png", ""], ["img/9.png", "nine"]]
    results, report = pairs(find_data(write_table(pictures / "t.csv", ["file", "title"], rows)))
    assert [isinstance(result, Reject) for result in results] == [False, True, True]
    assert dict(report.causes) == {"blank text": 1, "no file under the media root": 1}


def test_pictures_inside_a_parquet_become_files_beside_it(pictures):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = [
        {"image": {"bytes": (pictures / f"img/{n}.png").read_bytes(), "path": "x.png"},
         "text": f"number {n}"} for n in range(3)
    ]  # fmt: skip
    (pictures / "hf").mkdir()
    pq.write_table(pa.Table.from_pylist(cells), pictures / "hf" / "train.parquet")
    data = find_data(pictures / "hf" / "train.parquet")
    assert (data.text, data.media) == ("text", "image")
    records, _ = pairs(data)
    file = pictures / "hf" / records[1]["candidate"]["image"]
    assert file.read_bytes() == cells[1]["image"]["bytes"]
    pq.write_table(pa.Table.from_pylist(cells), pictures / "hf" / "more.parquet")
    records, report = pairs(find_data(pictures / "hf"))  # all files, again
    assert (
        report.records == 6 and records[4]["candidate"]["image"] == records[1]["candidate"]["image"]
    )


def test_texts_beside_media_and_media_alone(pictures):
    folder = pictures / "img"
    (folder / "0.txt").write_text("zero")
    data = find_data(folder)
    assert data.words() == "img: media with the text file of the same name"
    records, report = pairs(data)
    assert report.records == 1 and report.rejects == 5
    assert records[0]["candidate"] == {"image": "0.png"}
    items = [item for item in own_items(data, Report()) if isinstance(item, dict)]
    assert items[1] == {"id": "1.png", "image": "1.png"} and len(items) == 6


def test_two_columns_of_texts_are_pairs_and_items_are_distinct(tmp_path):
    rows = [["what?", "this"], ["who?", "that"]]
    data = find_data(write_table(tmp_path / "qa.csv", ["question", "answer"], rows))
    records, _ = pairs(data)
    assert records[0] == {"query": {"text": "what?"}, "candidate": {"text": "this"}}
    table = write_table(tmp_path / "t.csv", ["text"], [["one"], ["two"], ["one"]])
    items = list(own_items(find_data(table), Report()))
    assert items == [{"id": "1", "text": "one"}, {"id": "2", "text": "two"}]


def test_records_are_taken_as_they_are_with_a_column_as_their_group(tmp_path):
    pair = {"query": {"text": "a"}, "candidate": {"text": "b"}}
    rows = [pair | {"product": 7}, pair | {"product": None}, pair | {"task": "find"}]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = find_data(tmp_path / "r.jsonl", group="product", instruction="look:")
    assert data.layout == "records" and "candidate, group from product, media" in data.words()
    told = pair | {"query": {"text": "look:\na"}}
    found, _ = pairs(data)
    assert found == [told | {"group": "7"}, told, told | {"task": "find"}]
    by_task, report = pairs(find_data(tmp_path / "r.jsonl", group="task"))
    assert by_task[2:] == [pair | {"task": "find", "group": "find"}] and report.rejects == 1


def test_a_column_of_a_table_becomes_the_group_of_its_records(pictures):
    rows = [[f"img/{n}.png", f"red number {n}", n // 2 or ""] for n in range(6)]
    table = write_table(pictures / "t.csv", ["file", "title", "product"], rows)
    data = find_data(table, group="product")
    assert data.words().endswith("group from product") and data.group == "product"
    records, _ = pairs(data)
    assert [record.get("group") for record in records] == [None, None, "1", "1", "2", "2"]
    by_title, _ = pairs(find_data(table, group="title"))
    assert by_title[3]["group"] == by_title[3]["query"]["text"] == "red number 3"
    with pytest.raises(RecordError, match="no column 'pro' for --group .did you mean product"):
        find_data(table, group="pro")
    with pytest.raises(RecordError, match="--group product names a column, and a folder of media"):
        find_data(pictures / "img", group="product")


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"text": "titl"}, r"no column 'titl' for --text \(did you mean title\?\); it has file"),
        ({"image": "pic"}, "no column 'pic' for --image; it has file, title"),
        ({"image": "file", "video": "file"}, "name one column of media"),
        ({"media_root": "elsewhere"}, r"no file elsewhere/1\.png; give the folder"),
    ],
)
def test_what_does_not_fit_is_one_line_with_the_columns(pictures, named, words):
    table = write_table(pictures / "t.csv", ["file", "title"], [["1.png", "a picture"]])
    with pytest.raises(RecordError, match=words) as raised:
        find_data(table, **named)
    assert "\n" not in str(raised.value)


def test_one_side_alone_is_no_pairs(pictures):
    table = write_table(pictures / "t.csv", ["file", "nr"], [["img/1.png", "1"]])
    with pytest.raises(RecordError, match=r"none of texts was found; .* it has file, nr"):
        pairs(find_data(table))
    table = write_table(pictures / "u.csv", ["title", "nr"], [["a word", "1"]])
    with pytest.raises(RecordError, match="name it with --image; it has title, nr"):
        pairs(find_data(table))
    with pytest.raises(RecordError, match="pictures without texts are no pairs.*--text filename"):
        pairs(find_data(pictures / "img"))


def test_names_of_files_are_texts_where_that_is_asked_for(pictures):
    (pictures / "img/0.png").rename(pictures / "img/red-bike_007.png")
    (pictures / "img/1.png").rename(pictures / "img/a 4 on route_66.png")
    data = find_data(pictures / "img", text="filename")
    assert data.words() == "img: media with the words of their names"
    records, report = pairs(data)
    assert report.records == 2 and dict(report.causes) == {"no caption": 4}
    assert {"query": {"text": "red bike"}, "candidate": {"image": "red-bike_007.png"}} in records
    route = {"text": "a 4 on route 66"}
    assert {"query": route, "candidate": {"image": "a 4 on route_66.png"}} in records
    with pytest.raises(RecordError, match="--image file names a column, and a folder"):
        find_data(pictures / "img", text="filename", image="file")


def test_no_file_and_a_folder_of_several_tables_are_said(pictures):
    with pytest.raises(RecordError, match="no such file or folder"):
        find_data(pictures / "gone")
    for name in ("a.csv", "b.csv"):
        write_table(pictures / name, ["file", "title"], [["img/1.png", "one"]])
    with pytest.raises(RecordError, match=r"holds several tables, a\.csv, b\.csv; name one"):
        find_data(pictures)
