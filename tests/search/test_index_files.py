"""An index on disk: whole after every kill, and never read where a byte is not as written."""

import json
import os
import signal
import sys

import numpy as np
import pytest

from tests.search.test_index import units, world
from unite_core.files import InUseError, working_in
from unite_core.search.config import IndexConfig
from unite_core.search.index import VectorIndex, build_index, load_index
from unite_core.search.shards import Shard

_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def save_and_die(index: VectorIndex, folder, at: int) -> bool:
    """Save in a forked process that kills itself at file operation `at`; whether it was killed."""
    child = os.fork()
    if not child:
        seen = 0

        def count(event, _):
            nonlocal seen
            if event in _EVENTS:
                seen += 1
                if seen == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            index.save(folder)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it may be killed, not fail"
    return os.WIFSIGNALED(status)


def versions() -> tuple[VectorIndex, VectorIndex]:
    """Two indexes that share no id."""
    shards, _, _ = world(70)
    renamed = [Shard([f"new{i}" for i in s.ids], s.vectors, s.modality) for s in shards[:1]]
    return build_index(shards), build_index(renamed)


def test_no_kill_loses_an_index_and_each_save_can_be_repeated(tmp_path):
    old, new = versions()
    kills = news = 0
    for at in range(1, 1000):
        folder = tmp_path / str(at) / "index"
        old.save(folder)
        if not save_and_die(new, folder, at):
            break
        kills += 1
        found = load_index(folder)
        assert found.ids in (old.ids, new.ids), f"kill {at}"
        news += found.ids == new.ids
        again = new if at % 2 else old
        again.save(folder)
        assert load_index(folder).ids == again.ids
        assert [entry.name for entry in folder.parent.iterdir() if entry.name[-5:] != ".lock"] == [
            "index"
        ], f"kill {at}: something is left"
    assert kills >= 20 and 0 < news < kills, (kills, news)


def test_a_killed_first_save_is_no_index_and_can_be_repeated(tmp_path):
    _, new = versions()
    kills = 0
    for at in range(1, 1000):
        folder = tmp_path / str(at) / "index"
        if not save_and_die(new, folder, at):
            break
        kills += 1
        try:
            assert load_index(folder).ids == new.ids
        except ValueError as error:
            assert "no whole index" in str(error)
        new.save(folder)
        assert load_index(folder).ids == new.ids
    assert kills >= 15


def test_an_error_while_saving_keeps_the_old_index(tmp_path, monkeypatch):
    old, new = versions()
    old.save(tmp_path / "index")

    def full(*_):
        raise RuntimeError("write error in text.faiss: No space left on device")

    monkeypatch.setattr("faiss.write_index", full)
    with pytest.raises(OSError, match=r"index: cannot be written .*No space.*is the disk full\?"):
        new.save(tmp_path / "index")
    assert load_index(tmp_path / "index").ids == old.ids
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


def flip(path, place=-3) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def cut_ids(folder) -> None:
    ids = json.loads((folder / "ids.json").read_text())
    (folder / "ids.json").write_text(json.dumps(ids[:-1]))


def reverse_ids(folder) -> None:
    ids = json.loads((folder / "ids.json").read_text())
    (folder / "ids.json").write_text(json.dumps(ids[::-1]))


def drop_field(folder) -> None:
    noted = json.loads((folder / "index.json").read_text())
    del noted["counts"]
    (folder / "index.json").write_text(json.dumps(noted))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "text.faiss").unlink(), "text.faiss: is missing; build and save"),
        (lambda f: flip(f / "text.faiss"), "text.faiss: its bytes have changed .* build and save"),
        (lambda f: flip(f / "rows.safetensors"), "rows.safetensors: its bytes have changed"),
        (lambda f: (f / "ids.json").unlink(), "ids.json: is missing"),
        (cut_ids, "ids.json: its bytes have changed"),
        (reverse_ids, "ids.json: its bytes have changed"),
        (drop_field, "index.json: does not describe an index"),
        (lambda f: (f / "index.json").write_text("[1]"), "index.json: does not describe an index"),
        (lambda f: (f / "index.json").write_text("{"), "index.json: not JSON"),
        (lambda f: (f / "index.json").write_bytes(b""), "index.json: not JSON"),
    ],
)
def test_a_damaged_index_is_named_with_the_remedy(tmp_path, damage, message):
    index, _ = versions()
    index.save(tmp_path / "index")
    damage(tmp_path / "index")
    with pytest.raises(ValueError, match=message):
        load_index(tmp_path / "index")
    index.save(tmp_path / "index")
    assert load_index(tmp_path / "index").ids == index.ids


def test_other_files_are_never_replaced(tmp_path):
    index, _ = versions()
    index.save(tmp_path / "index")
    (tmp_path / "index" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"other files than an index .notes.txt."):
        index.save(tmp_path / "index")
    assert load_index(tmp_path / "index").ids == index.ids
    with pytest.raises(ValueError, match="is a file; choose another folder"):
        index.save(tmp_path / "index" / "notes.txt")


def test_one_process_at_a_time_saves(tmp_path):
    index, _ = versions()
    with working_in(tmp_path / "index"), pytest.raises(InUseError, match="another process works"):
        index.save(tmp_path / "index")


def test_shards_that_do_not_go_together_are_named():
    rng = np.random.default_rng(0)
    ones = np.ones(2, dtype=np.uint8)
    small = Shard(["a", "b"], units(rng, 2, 8), ones, name="first")
    large = Shard(["c", "d"], units(rng, 2, 16), ones, name="second")
    for config in (IndexConfig(), IndexConfig("ivf", cells=1)):
        with pytest.raises(ValueError, match="second: vectors of size 16 among others of size 8"):
            build_index([small, large], config)
    with pytest.raises(ValueError, match="8 is the code of no modality"):
        build_index([Shard(["a", "b"], units(rng, 2), 8 * ones)])
    with pytest.raises(ValueError, match="1 ids, 2 vectors and 2 modalities"):
        build_index([Shard(["a"], units(rng, 2), ones)])
    with pytest.raises(ValueError, match="the id 'a' is in the shards twice"):
        build_index([small, small])


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("neighbours", 1, "at least 2"),  # faiss would crash
        ("neighbours", 10**10, "at most 1024"),
        ("build_depth", 10**10, "at most 65536"),
        ("search_depth", 10**10, "at most 65536"),
    ],
)
def test_numbers_that_faiss_cannot_take_are_refused(field, value, allowed):
    with pytest.raises(ValueError, match=f"{field} is {value}: must be .*{allowed}"):
        IndexConfig("hnsw", **{field: value})


def test_k_may_be_any_whole_number(tmp_path):
    from unite_core.search.exact import search

    index, _ = versions()
    queries = units(np.random.default_rng(0), 3)
    for k in (np.int64(2), np.uint8(2)):
        assert index.search(queries, k).rows.shape == (3, 2)
        assert search(queries, queries, k)[1].shape == (3, 2)
    for find in (lambda k: index.search(queries, k), lambda k: search(queries, queries, k)):
        for k in (2.5, "2", None):
            with pytest.raises(ValueError, match="k must be a whole number, not"):
                find(k)
