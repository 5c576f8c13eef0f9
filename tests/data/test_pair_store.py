"""Pairs mapped from a folder are those that were read; changed files are read anew."""

import os
import pickle
import warnings

import numpy as np
import pytest

from unite_core.data import pairs as pairs_module
from unite_core.data.bad_media import BadMediaError
from unite_core.data.pairs import PairDataset, Pick
from unite_core.data.records import write_records


@pytest.fixture
def root(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    return tmp_path


RECORDS = [
    {"query": {"text": "one"}, "candidate": {"image": "a.png"}, "task": "find",
     "candidate_group": "g", "scores": [0.5]},
    {"query": {"text": "two ü", "instruction": "look"}, "candidate": {"image": "gone.png"}},
    {"query": {"image": "b.png", "text": "three"}, "candidate": {"text": "3"},
     "negative": [{"text": "no"}, {"text": "3"}, {"image": "c.png"}], "source": "s",
     "scores": [1.0, 0.25, 0.5, 0.75], "group": "g"},
    {"query": {"text": "four"}, "candidate": {"image": "a.png"}, "query_group": "h",
     "group": "g"},
]  # fmt: skip


def write(root, records=RECORDS):
    write_records(root / "rows.jsonl", records)


def dataset_of(root, store="store"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PairDataset([root / "rows.jsonl"], root, store and root / store)


def reads(monkeypatch):
    """A list that grows with every reading of the records."""
    calls, read = [], pairs_module.iter_rows
    monkeypatch.setattr(pairs_module, "iter_rows", lambda *a, **b: calls.append(1) or read(*a, **b))
    return calls


def everything(dataset):
    arrays = [*dataset.contents, *dataset.identities, *dataset.families, *dataset.table[:4]]
    return (
        list(dataset), dataset.bad, dataset.group_names, dataset.unscored,
        dataset.identity_of, dataset.pairs.digest(), dataset.media, dataset.media_count,
        dataset.table.sources, dataset.table.tasks,
        [(part.dtype, part.tolist()) for part in arrays],
    )  # fmt: skip


def test_a_mapped_data_set_is_the_one_in_memory(root):
    write(root)
    wanted = everything(dataset_of(root, None))
    made, opened = dataset_of(root), dataset_of(root)
    assert everything(made) == everything(opened) == wanted
    assert wanted[0][1].negatives == [{"text": "no"}, {"image": "c.png"}]
    assert wanted[0][1].scores == (1.0, 0.25, 0.75)
    assert wanted[6] == ["a.png", "b.png", "c.png"] and wanted[7] == 3
    assert opened[Pick(1, (1,))].scores == (1.0, 0.75)
    travelled = pickle.loads(pickle.dumps(opened.pairs))
    assert list(travelled) == list(opened.pairs) and travelled.folder == opened.pairs.folder


def test_columns_and_text_are_mapped_not_held(root):
    write(root)
    dataset_of(root)
    pairs = dataset_of(root).pairs
    for column in (*pairs.columns.values(), pairs.rows.ends, pairs.rows.text):
        while isinstance(column, np.ndarray) and not isinstance(column, np.memmap):
            column = column.base
        assert column is not None and not isinstance(column, bytearray)


def test_records_are_read_once(root, monkeypatch):
    write(root)
    calls = reads(monkeypatch)
    dataset_of(root), dataset_of(root)
    assert len(calls) == 1


def test_media_files_are_not_looked_up_again(root, monkeypatch):
    write(root)
    dataset_of(root)
    looked, defect = [], pairs_module._defect
    monkeypatch.setattr(
        pairs_module, "_defect", lambda path: looked.append(path.name) or defect(path)
    )
    dataset_of(root)
    assert looked == ["gone.png"]  # only what was missing


@pytest.mark.parametrize("change", ["records", "time", "missing file", "damage"])
def test_what_changed_is_read_anew(root, change, monkeypatch):
    write(root)
    dataset_of(root)
    if change == "records":
        write(root, RECORDS[:1])
    if change == "time":
        os.utime(root / "rows.jsonl", ns=(0, 0))
    if change == "missing file":
        (root / "gone.png").write_bytes(b"here")
    if change == "damage":
        (root / "store" / "store.json").unlink()
    calls = reads(monkeypatch)
    expected = dataset_of(root, None)
    calls.clear()
    assert everything(dataset_of(root)) == everything(expected) and calls


def test_another_media_root_is_read_anew(root, tmp_path_factory):
    write(root)
    dataset_of(root)
    empty = tmp_path_factory.mktemp("empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(BadMediaError):
            PairDataset([root / "rows.jsonl"], empty, root / "store")
    assert len(dataset_of(root)) == 3, "a start that failed left the folder as it was"


def test_the_warning_of_repeated_negatives_comes_at_every_start(root):
    write(root)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"1 hard negatives repeat .* record 3, negative\[2\]"):
            PairDataset([root / "rows.jsonl"], root, root / "store")


def test_of_many_media_a_fixed_part_is_listed(root, monkeypatch):
    write(root)
    monkeypatch.setattr(pairs_module, "MEDIA_LISTED", 2)
    dataset = dataset_of(root, None)
    assert len(dataset.media) == 2 and dataset.media_count == 3
    write(root, RECORDS[::-1])
    assert dataset_of(root, None).media == dataset.media
