"""A finished store of vectors is used only as it was written: each change is noticed and named."""

import json
import os
import shutil
import signal
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.search.planted import D, Planted, text
from unite_core import versions as versions_module
from unite_core.files import InUseError, working_in
from unite_core.search import shards as shards_module
from unite_core.search import vector_store
from unite_core.search.blocks import model_key
from unite_core.search.config import EncodeConfig, MineConfig
from unite_core.search.encode import encode_corpus
from unite_core.search.hard_negatives import mine
from unite_core.search.index import build_index
from unite_core.search.shards import Shard, ShardFolder, read_shard, shard_files, write_shard
from unite_core.search.vector_store import encode_items

NAMES = [f"{n}.png" for n in range(7)]


def embedder() -> Planted:
    return Planted(**{name: np.random.default_rng(n).random(D, np.float32)
                      for n, name in enumerate([*NAMES, "a", "b"])})  # fmt: skip


@pytest.fixture
def finished(tmp_path):
    """Configuration of a finished corpus of seven pictures in shards of two, and its folder."""
    for n, name in enumerate(NAMES):
        Image.new("RGB", (4, 4), (n, 0, 0)).save(tmp_path / name)
    rows = [{"id": f"id{n}", "image": name} for n, name in enumerate(NAMES)]
    data = tmp_path / "rows" / "corpus.jsonl"
    data.parent.mkdir()
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = EncodeConfig("m", str(tmp_path / "out"), str(data.parent), str(tmp_path),
                          shard_items=2)  # fmt: skip
    return config, encode_corpus(config, embedder(), progress=False)


def rewritten(path, change) -> None:
    """Write a shard again with another header or other tensors, as other software would."""
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in ("vectors", "modality")}
        checksum, _, header = file.metadata()["unite"].partition(" ")
    header = json.loads(header)
    change(header, tensors)
    save_file(tensors, path, {"unite": f"{checksum} {json.dumps(header)}"})


def reverse(header, tensors) -> None:
    header["ids"] = header["ids"][::-1]


def flip(header, tensors) -> None:
    tensors["vectors"].view(np.uint8)[0, 0] ^= 1


def spoil_code(header, tensors) -> None:
    tensors["modality"][:] = 9


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def write_anew(path) -> None:
    """A whole shard of the same ids and digest with other vectors."""
    shard = read_shard(path)
    write_shard(path, Shard(shard.ids, -shard.vectors, shard.modality, {}, shard.noted))


@pytest.mark.parametrize(
    ("damage", "message", "repaired"),
    [
        (lambda f: f[1].unlink(), "vectors-000001.safetensors is missing .1 of 4 .*again", True),
        (lambda f: shutil.copy(f[0], f[1]), "vectors-000001.*such as a copy: remove it", False),
        (lambda f: shutil.copy(f[0], f[0].with_name("vectors-000004.safetensors")),
         "vectors-000004.*no shard of this corpus: remove it", False),
        (lambda f: cut(f[2]), "vectors-000002.*no whole shard .* remove it", False),
        (lambda f: rewritten(f[2], flip), "vectors-000002.*its bytes have changed", False),
        (lambda f: rewritten(f[2], reverse), "vectors-000002.*has changed since it was", False),
        (lambda f: rewritten(f[2], spoil_code), "vectors-000002.*its bytes have changed", False),
        (lambda f: write_anew(f[2]), "vectors-000002.*another shard than was written", False),
        (lambda f: f[2].write_bytes(b""), "vectors-000002.*no whole shard .* remove it", False),
    ],
)  # fmt: skip
def test_each_damage_is_noticed_by_index_and_encode_and_repaired(finished, damage, message,
                                                                 repaired):  # fmt: skip
    config, folder = finished
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    damage(shard_files(folder))
    with pytest.raises(ValueError, match=message):
        build_index(ShardFolder(folder))
    if not repaired:
        with pytest.raises(ValueError, match=message):
            encode_corpus(config, embedder(), progress=False)
        for path in shard_files(folder):
            if before.get(path.name) != path.read_bytes():
                path.unlink()  # the remedy that the errors name
    encode_corpus(config, embedder(), progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert build_index(ShardFolder(folder)).counts == {"image": 7}


def test_media_replaced_after_the_end_are_noticed(finished, tmp_path):
    config, _ = finished
    Image.new("RGB", (8, 4)).save(tmp_path / NAMES[5])
    with pytest.raises(ValueError, match="vectors-000002.*files than these, which have changed"):
        encode_corpus(config, embedder(), progress=False)


def test_rows_of_a_folder_are_part_of_the_claim(finished, tmp_path):
    config, _ = finished
    (tmp_path / "rows" / "more.jsonl").write_text('{"id": "more", "text": "a"}\n')
    with pytest.raises(ValueError, match=r"another model, corpus .*\(corpus changed\)"):
        encode_corpus(config, embedder(), progress=False)


def test_a_report_that_lists_no_shards_is_made_again(finished):
    config, folder = finished
    whole = (folder / "report.json").read_bytes()
    for content in (b"[]", b'{"inputs": {}}', b'{"inputs": 3, "files": 4}'):
        (folder / "report.json").write_bytes(content)
        with pytest.raises(ValueError, match="report.json: does not list the shards"):
            ShardFolder(folder)
        encode_corpus(config, embedder(), progress=False)
        assert (folder / "report.json").read_bytes() == whole


def test_a_code_of_no_modality_is_neither_written_nor_read(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    for code in (0, 8, 255):
        shard = Shard(["a"], np.ones((1, 4)), np.array([code], dtype=np.uint8))
        with pytest.raises(ValueError, match=f"a.safetensors: {code} is the code of no modality"):
            write_shard(path, shard)
        with monkeypatch.context() as patch:
            patch.setattr(shards_module.Shard, "check", lambda _: None)
            write_shard(path, shard)
        with pytest.raises(ValueError, match=f"a.safetensors: {code} is the code of no modality"):
            read_shard(path)
        path.unlink()


def test_a_store_by_content_is_checked_too(tmp_path):
    items = [text("a"), text("b")]
    for change in (flip, reverse):
        encode_items(embedder(), items, tmp_path, progress=False)
        (path,) = tmp_path.rglob("*.safetensors")
        rewritten(path, change)
        with pytest.raises(ValueError, match="changed since it was written.*remove it"):
            encode_items(embedder(), items, tmp_path, progress=False).rows(np.array([0, 1]))
        path.unlink()
    stored = encode_items(embedder(), items, tmp_path, progress=False)
    path = stored.shards[0].rename(stored.shards[0].with_name("x.safetensors"))
    with pytest.raises(ValueError, match="x.safetensors: not the shard that was written here"):
        encode_items(embedder(), items, tmp_path, progress=False)


def test_one_process_at_a_time_works_in_an_output(finished, tmp_path):
    config, folder = finished
    with working_in(folder), pytest.raises(InUseError, match="out: another process works here"):
        encode_corpus(config, embedder(), progress=False)
    store = tmp_path / "store"
    with working_in(store / model_key(embedder())), pytest.raises(InUseError):
        encode_items(embedder(), [text("a")], store, progress=False)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": {"text": "a"}, "candidate": {"text": "b"}}\n')
    settings = MineConfig("m", (str(pairs),), str(tmp_path / "mined.jsonl"))
    with working_in(settings.output), pytest.raises(InUseError, match="mined.jsonl: another"):
        mine(settings, embedder(), progress=False)


def test_other_versions_are_said_and_go_on(finished, monkeypatch, tmp_path):
    config, folder = finished
    encode_items(embedder(), [text("a")], tmp_path / "store", progress=False)
    before = (folder / "report.json").read_bytes()
    found = versions_module.note_versions() | {"pillow": "0"}
    monkeypatch.setattr(versions_module, "note_versions", lambda: found)
    with pytest.warns(UserWarning, match=r"out was begun with other versions .pillow .*0 now"):
        encode_corpus(config, embedder(), progress=False)
    assert (folder / "report.json").read_bytes() == before
    with pytest.warns(UserWarning, match="other versions"):
        encode_items(embedder(), [text("a")], tmp_path / "store", progress=False)


def test_mining_notices_pictures_and_rows_that_changed(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    row = {"query": {"image": "0.png"}, "candidate": {"text": "b"}}
    (folder / "a.jsonl").write_text(json.dumps(row) + "\n")
    config = MineConfig("m", (str(folder),), str(tmp_path / "mined.jsonl"), str(tmp_path))
    assert mine(config, embedder(), progress=False) == mine(config, embedder(), progress=False)
    stamp = (tmp_path / "0.png").stat().st_mtime_ns
    os.utime(tmp_path / "0.png", ns=(stamp, stamp + 10**9))
    with pytest.raises(ValueError, match=r"another configuration, .*\(items changed\)"):
        mine(config, embedder(), progress=False)
    os.utime(tmp_path / "0.png", ns=(stamp, stamp))
    (folder / "b.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"another configuration, .*\(data changed\)"):
        mine(config, embedder(), progress=False)


def test_a_start_that_came_to_nothing_claims_nothing(finished, tmp_path):
    config, _ = finished
    other = {**vars(config), "output": str(tmp_path / "other")}
    other.pop("__pydantic_initialised__", None)
    with pytest.raises(ValueError, match="dim 65 is not in 1 to 64"):
        encode_corpus(EncodeConfig(**other | {"dim": 65}), embedder(), progress=False)
    broken = embedder()
    broken.dies_at = 0
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(EncodeConfig(**other), broken, progress=False)
    folder = encode_corpus(EncodeConfig(**other | {"dim": 32}), embedder(), progress=False)
    assert len(shard_files(folder)) == 4


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    shard = Shard(["a"], np.ones((1, 4)), np.ones(1, dtype=np.uint8))
    with pytest.raises(OSError, match=r"a.safetensors: cannot be written .*is the disk full\?"):
        write_shard(tmp_path / "a.safetensors", shard)
    assert not list(tmp_path.iterdir())


_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir"}


def die_at(operation: int, work) -> bool:
    """Do work in a forked process that kills itself at a file operation; whether it was killed."""
    child = os.fork()
    if not child:
        seen = 0

        def count(event, _):
            nonlocal seen
            seen += event in _EVENTS
            if event in _EVENTS and seen == operation:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it may be killed, not fail"
    return os.WIFSIGNALED(status)


def test_kills_at_every_file_operation_lose_no_vector_of_a_corpus(finished, tmp_path):
    config, folder = finished
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    planted, kills = embedder(), 0
    for operation in range(1, 1000, 2):
        shutil.rmtree(folder)
        if not die_at(operation, lambda: encode_corpus(config, planted, progress=False)):
            break
        kills += 1
        kept = {path: path.stat().st_mtime_ns for path in shard_files(folder)}
        encode_corpus(config, planted, progress=False)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
        assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert kills >= 20


def test_kills_at_every_file_operation_lose_no_vector_of_a_store(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_store, "SHARD_ITEMS", 2)
    planted, items = embedder(), [text(name) for name in [*NAMES, "a", "b"]]
    expected = np.stack([planted.vectors[item["text"]] for item in items])
    kills = 0
    for operation in range(1, 1000):
        store = tmp_path / str(operation)
        if not die_at(operation, partial(encode_items, planted, items, store, progress=False)):
            break
        kills += 1
        stored = encode_items(planted, items, store, progress=False)
        np.testing.assert_array_equal(stored.rows(np.arange(9)), expected)
        assert not list(store.rglob("*.partial"))
    assert kills >= 20
