"""A file that is replaced is the old one or the new one, never a part of it."""

import os
import signal
import subprocess
import sys

import pytest

from unite_core import files as atomic
from unite_core.files import replacing


def test_the_new_file_takes_the_place_of_the_old_at_the_end(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for text in ("old", "new"):
        with replacing(path) as partial:
            partial.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_contents_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(atomic, "flush", lambda path: flushed.append(path.read_text()))
    with replacing(tmp_path / "a") as partial:
        partial.write_text("whole")
    with replacing(tmp_path / "b", durable=False) as partial:
        partial.write_text("can be made again")
    assert flushed == ["whole"]


def test_a_kill_in_between_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_text("old")
    program = """
import os, signal
from unite_core.files import replacing
with replacing("file") as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_text() == "old"
