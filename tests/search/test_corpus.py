"""A corpus from files or memory: ids, sides of records, and what is refused."""

import pytest

from tests.search.test_encode import corpus_file
from unite_core.data.records import RecordError
from unite_core.search.corpus import Corpus, iter_items


def test_records_give_the_sides_asked_for(tmp_path):
    records = [{"query": {"text": "a"}, "candidate": {"text": "b"}}] * 2
    path = corpus_file(tmp_path, records)
    assert [name for name, *_ in iter_items(path)] == ["1:candidate", "2:candidate"]
    found = list(iter_items(path, ("query", "candidate"), prefix="x:"))
    assert [name for name, *_ in found][:2] == ["x:1:query", "x:1:candidate"]
    assert found[1][1:] == ({"text": "b"}, f"{path}, line 1, candidate")


def test_items_without_ids_are_numbered_and_bad_rows_named(tmp_path):
    assert [name for name, *_ in iter_items(corpus_file(tmp_path, [{"text": "a"}] * 2))] == [
        "1",
        "2",
    ]
    for row, message in (
        ({"id": [], "text": "a"}, "line 1, field id"),
        ({"text": ""}, "line 1.text: blank"),
        ({"image": "../a.png"}, "leaves the media root"),
        ([1], "row 1: an item is an object"),
    ):
        with pytest.raises(RecordError, match=message):
            list(iter_items(corpus_file(tmp_path, [row])))


def test_a_corpus_counts_and_refuses_what_it_cannot_use(tmp_path):
    given = [("a", {"text": "x"}), ("b", {"text": "y"})]
    first, second = Corpus((), given).survey(), Corpus((), given[::-1]).survey()
    assert first[0] == 2 and first[1] != second[1] and first == Corpus((), given).survey()
    with pytest.raises(ValueError, match="item 'a': the id 'a' is given twice"):
        Corpus((), [*given, ("a", {"text": "z"})]).survey()
    with pytest.raises(ValueError, match="no items"):
        Corpus((), []).survey()
    with pytest.raises(TypeError, match="not a generator"):
        Corpus((), iter(given))
    with pytest.raises(ValueError, match="one of the two"):
        Corpus(())
