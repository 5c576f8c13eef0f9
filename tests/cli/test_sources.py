"""What is said of own data before they are read, and where media inside a table go."""

import os

import pytest
from PIL import Image

from unite_core.cli.sources import find_sources, write_pairs


@pytest.fixture
def packed(tmp_path):
    """A Parquet file of three pictures with texts."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = []
    for number in range(3):
        Image.new("RGB", (20, 20), (80 * number, 0, 0)).save(tmp_path / "one.png")
        cell = {"bytes": (tmp_path / "one.png").read_bytes(), "path": None}
        rows.append({"image": cell, "text": f"red {number} parts"})
    (tmp_path / "hf").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "hf/train.parquet")
    return tmp_path / "hf/train.parquet"


@pytest.mark.parametrize("writable", [True, False])
def test_media_inside_a_table_become_files_where_it_is_said(packed, tmp_path, monkeypatch, capsys,
                                                            writable):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: writable)
    found = find_sources([str(packed)])
    folder = (packed.parent if writable else tmp_path / ".unite") / "embedded"
    assert f"media inside it become files below {folder}" in capsys.readouterr().err
    assert not folder.exists()
    write_pairs([str(packed)], found, tmp_path / "out")
    assert len(list(folder.rglob("*.png"))) == 3
    assert (packed.parent / "embedded").exists() == writable


def test_nothing_is_said_of_media_that_are_files(tmp_path, capsys):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("file,title\na.png,black\n")
    find_sources([str(tmp_path / "t.csv")])
    assert "become files" not in capsys.readouterr().err
