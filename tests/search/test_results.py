"""What a search found, as text and as a page; own files anywhere, own data without an index."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from unite_core.data.modality import Modality
from unite_core.search.index import build_index
from unite_core.search.results import (
    Hit,
    Items,
    contact_page,
    copy_items,
    hit_table,
    hits_of,
    write_items,
)
from unite_core.search.shards import Shard

EVIL = '<script>alert("x")</script> & "quotes"'


@pytest.fixture
def found(tmp_path):
    """An index of a picture, a text and a file that is gone, and what one query finds in it."""
    Image.new("RGB", (40, 20), "red").save(tmp_path / "red.png")
    corpus = [("7:candidate", {"image": "red.png"}, ""), ("own", {"text": EVIL}, ""),
              ("3", {"image": "gone.png"}, "")]  # fmt: skip
    write_items(tmp_path / "vectors", corpus, tmp_path)
    copy_items(tmp_path / "vectors", tmp_path / "index")
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    codes = np.array([Modality.IMAGE, Modality.TEXT, Modality.IMAGE], np.uint8)
    index = build_index([Shard([name for name, _, _ in corpus], vectors, codes)])
    return index, index.search(np.array([[1.0, 0.0]], np.float32), 3), Items(tmp_path / "index")


def test_results_carry_path_or_text_score_and_modality(found):
    (hits,) = hits_of(*found)
    assert [(hit.rank, round(hit.score, 1), hit.modality, hit.words) for hit in hits] == [
        (1, 1.0, "image", "red.png"), (2, 0.8, "text", EVIL), (3, 0.0, "image", "gone.png"),
    ]  # fmt: skip
    lines = hit_table(hits).splitlines()
    assert lines[0].split() == ["1", "1.0000", "image", "red.png"]  # the row's number is no name
    assert lines[1].endswith(f"{EVIL}  [own]")


def test_a_picture_is_shown_with_the_text_that_stands_with_it(found, tmp_path):
    index, result, _ = found
    corpus = [("7:query", {"text": "<|IMAGE|>\na red  box"}, ""),
              ("7:candidate", {"image": "red.png"}, "")]  # fmt: skip
    write_items(tmp_path, corpus, tmp_path)
    (hits,) = hits_of(index, result, Items(tmp_path))
    assert (hits[0].caption, hits[0].words) == ("a red box", "a red box (red.png)")
    assert hits[1].caption == ""
    assert hit_table(hits).splitlines()[0].endswith("a red box (red.png)")
    assert 'alt="a red box (red.png)"' in contact_page({"text": "box"}, hits, tmp_path)
    (own,) = hit_table([Hit(1, 1.0, "image", "a.png", {"image": "a.png"}, caption="one")]).split(
        "\n"
    )
    assert own.endswith("one (a.png)"), "the id, which is the path, is not told twice"


def test_an_index_without_items_shows_ids(found, tmp_path):
    index, result, _ = found
    (hits,) = hits_of(index, result, Items(tmp_path))
    assert hit_table(hits).splitlines()[0].split()[-1] == "7:candidate"


def test_a_long_text_is_cut_to_one_line():
    (line,) = hit_table([Hit(1, 0.5, "text", "1", {"text": "word\n" * 90})]).splitlines()
    assert len(line) < 130 and line.endswith("...")


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.images, self.words = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_data(self, data):
        self.words.append(data)


def test_a_page_escapes_texts_and_holds_its_pictures(found):
    (hits,) = hits_of(*found)
    page = contact_page({"text": EVIL}, hits, found[2].media_root)
    read = Tags()
    read.feed(page)
    assert "script" not in read.tags and EVIL in read.words
    (image,) = read.images  # the file that is gone is its path
    assert image["alt"] == "red.png" and image["src"].startswith("data:image/png;base64,")
    assert "gone.png" in read.words
    assert not re.search(r'(src|href)="(?!data:)', page)


@pytest.mark.slow
def test_a_folder_is_searched_at_once_with_a_file_from_anywhere(tmp_path, monkeypatch, unite,
                                                                capsys):  # fmt: skip
    for name, colour in (("red", "red"), ("blue", "blue")):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (56, 56), colour).save(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    query = tmp_path / "pictures" / "blue.png"
    words = ("../pictures", "--model", "tiny", "--image", query, "--html", "hits.html",
             "--sheet", "hits.png")  # fmt: skip
    for _ in range(2):  # the second time from the store
        assert unite("search", *words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["1", "1.0000", "image", "blue.png"]
    page = (tmp_path / "work" / "hits.html").read_text()
    assert page.count("<img") == 3
    with Image.open("hits.png") as sheet:
        assert min(sheet.size) > 100
    assert unite("search", "../pictures", "--model", "tiny", "--image", "../pictures/red.png") == 0
    assert capsys.readouterr().out.split()[3] == "red.png"
    (tmp_path / "pictures" / "red.txt").write_text("all red")
    assert unite("search", "../pictures", "--model", "tiny", "--image", "../pictures/red.png") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("all red (red.png)")
    rows = "file,title\nred.png,a red square\nblue.png,a blue square\n"
    (tmp_path / "pictures" / "list.csv").write_text(rows)
    assert unite("search", "../pictures", "--model", "tiny", "--column", "title", "--text",
                 "a blue square") == 0  # fmt: skip
    assert capsys.readouterr().out.splitlines()[0].split(maxsplit=3)[2:] == [
        "text",
        "a blue square",
    ]


def test_items_in_memory_are_left_out_of_the_file(tmp_path):
    picture = Image.new("RGB", (4, 4))
    write_items(tmp_path, [("a", {"image": picture, "text": "t"}, "")], ".")
    rows = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert rows[1] == {"id": "a", "item": {"image": None, "text": "t"}}
    assert Hit(1, 1.0, "text+image", "a", rows[1]["item"]).words == "t"
