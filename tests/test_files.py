"""A replaced file is the old one or the new one, never a part; an output has one worker."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from unite_core import files
from unite_core.files import InUseError, replacing, replacing_folder, whole_folder, working_in


def test_the_new_file_takes_the_place_of_the_old_at_the_end(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for text in ("old", "new"):
        with replacing(path) as partial:
            partial.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_contents_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(files, "flush", lambda path: flushed.append(path.read_text()))
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
    (tmp_path / "file.0-1.partial").touch()  # of another machine
    with replacing(tmp_path / "file") as partial:
        partial.write_text("new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "file.0-1.partial"]


def test_two_processes_never_share_a_partial_file(tmp_path):
    program = """
from unite_core.files import replacing
with replacing("file") as partial:
    print(partial)"""
    with replacing(tmp_path / "file") as partial:
        partial.write_text("ours")
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True,
                              text=True)  # fmt: skip
        assert done.returncode and partial.name not in done.stdout and "file." in done.stdout
    assert (tmp_path / "file").read_text() == "ours"


def test_a_full_disk_is_named(tmp_path):
    named = pytest.raises(OSError, match="No space left on device: '.*file'")
    with named, replacing(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    for use in (replacing, replacing_folder, working_in):
        for path in (tmp_path / "file" / "a", tmp_path / "file" / "a" / "b"):
            with pytest.raises(NotADirectoryError, match="is a file, or lies in one"), use(path):
                pass
    with pytest.raises(IsADirectoryError, match="is a folder; give the name"), replacing(tmp_path):
        pass


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "folder"
    for text in ("one", "two"):
        with replacing_folder(path) as partial:
            (partial / text).write_text(text)
        assert [entry.name for entry in path.iterdir()] == [text]
    with pytest.raises(KeyError), replacing_folder(path) as partial:
        (partial / "three").touch()
        raise KeyError
    assert [entry.name for entry in path.iterdir()] == ["two"]
    path.rename(tmp_path / ".folder.old")  # as a kill between the two renames leaves it
    assert (whole_folder(path) / "two").read_text() == "two"
    with pytest.raises(KeyError), replacing_folder(path) as partial:
        raise KeyError
    assert [str(entry.relative_to(tmp_path)) for entry in tmp_path.rglob("*")] == [
        "folder", "folder/two"
    ]  # fmt: skip


_HOLD = """
import sys
from unite_core.files import working_in
with working_in(sys.argv[1]):
    print("here", flush=True)
    sys.stdin.read()"""


def holder(path) -> subprocess.Popen:
    """A process that holds an output until its stdin is closed."""
    words = [sys.executable, "-c", _HOLD, str(path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"here\n"
    return process


def test_one_process_at_a_time_works_in_an_output(tmp_path):
    output = tmp_path / "new" / "out"
    other = holder(output)
    refused = pytest.raises(InUseError, match=f"another process works here .process {other.pid} ")
    with refused, working_in(output):
        pass
    with working_in(tmp_path / "new" / "other"):
        pass
    other.communicate()
    with working_in(output):
        with pytest.raises(InUseError, match=f"process {os.getpid()} "), working_in(output):
            pass
        assert not output.exists(), "the lock makes no output"
        output.mkdir()
        output.rename(tmp_path / "moved")
    with pytest.raises(KeyError), working_in(output):
        raise KeyError
    assert not list((tmp_path / "new").iterdir()), "nothing is left"


def test_the_lock_of_a_killed_process_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        other = holder(".")
        other.kill()
        other.communicate()
    with working_in("."), pytest.raises(InUseError), working_in(tmp_path):
        pass


def test_a_forked_process_does_not_keep_the_lock(tmp_path):
    with working_in(tmp_path / "out"):
        child = os.fork()
        if not child:
            signal.pause()
    try:
        with working_in(tmp_path / "out"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_an_output_whose_parent_is_read_only_is_locked_inside(tmp_path, monkeypatch):
    output = tmp_path / "out"
    output.mkdir()
    monkeypatch.setattr(files.os, "access", lambda *_: False)
    with working_in(output):
        assert [file.name for file in output.iterdir()] == [".lock"]
    assert not list(output.iterdir())


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(UserWarning, match="has no locks"), working_in(tmp_path / "out"):
        pass
