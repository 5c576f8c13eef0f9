"""A corpus on disk: equal to one by one, byte by byte the same after a kill, bad items counted."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unite_core import UniteEmbedder
from unite_core.data.bad_media import BadMediaError
from unite_core.data.modality import Modality
from unite_core.files import replacing
from unite_core.search import blocks as encode_module
from unite_core.search.config import EncodeConfig
from unite_core.search.corpus import iter_items
from unite_core.search.encode import encode_corpus
from unite_core.search.shards import (
    read_header,
    read_shard,
    shard_files,
    truncate,
)
from unite_core.settings import write_config

CHECKPOINT = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"


@pytest.fixture(scope="module")
def embedder() -> UniteEmbedder:
    return UniteEmbedder.load(CHECKPOINT, max_frames=4)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """Six pictures of several sizes and a clip of four frames."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for n in range(6):
        pixels = rng.integers(0, 255, (56 + 28 * (n % 3), 56 + 14 * n, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    frames = [Image.open(folder / "0.png").rotate(90 * n) for n in range(4)]
    frames[0].save(folder / "clip.webp", save_all=True, append_images=frames[1:], duration=500)
    return folder


def rows() -> list[dict]:
    found = [{"id": f"p{n}", "image": f"{n}.png"} for n in range(6)]
    found += [{"id": f"c{n}", "text": f"<|IMAGE|> with {n} hats", "image": f"{n}.png"}
              for n in range(6)]  # fmt: skip
    found += [{"id": f"t{n}", "text": "word " * (n + 1)} for n in range(5)]
    return [*found, {"id": "v", "video": "clip.webp"}, {"id": "again", "image": "0.png"}]


def corpus_file(folder: Path, chosen: list[dict] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chosen or rows()))
    return path


def settings(folder: Path, media: Path, **more) -> EncodeConfig:
    values = {"data": str(corpus_file(folder)), "media_root": str(media), "shard_items": 7} | more
    return EncodeConfig(str(CHECKPOINT), str(folder / "out"), **values)


def stored(folder: Path) -> tuple[list[str], np.ndarray]:
    shards = [read_shard(path) for path in shard_files(folder)]
    ids = [name for shard in shards for name in shard.ids]
    return ids, np.concatenate([shard.vectors for shard in shards])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def one_by_one(embedder, media) -> np.ndarray:
    items = [{key: value for key, value in row.items() if key != "id"} for row in rows()]
    return np.concatenate([embedder.embed([item], media, progress=False) for item in items])


def test_shards_hold_what_one_by_one_embedding_gives_in_order(tmp_path, embedder, media):
    folder = encode_corpus(settings(tmp_path, media), embedder, progress=False)
    ids, vectors = stored(folder)
    assert ids == [row["id"] for row in rows()]
    np.testing.assert_allclose(vectors, one_by_one(embedder, media), atol=1e-5)
    assert [len(read_header(path)["ids"]) for path in shard_files(folder)] == [7, 7, 5]
    codes = np.concatenate([read_shard(path).modality for path in shard_files(folder)])
    picture, both = Modality.IMAGE, Modality.TEXT | Modality.IMAGE
    assert codes.tolist() == [picture] * 6 + [both] * 6 + [1] * 5 + [Modality.VIDEO, picture]
    report = json.loads((folder / "report.json").read_text())
    assert (report["items"], report["vectors"], report["bad"]) == (19, 19, {})


def test_an_instruction_is_of_items_that_have_none(tmp_path, embedder, media):
    items = [{"text": "a cat"}, {"text": "a dog", "instruction": "Find its name."}]
    file = str(corpus_file(tmp_path / "told", items))
    config = settings(tmp_path, media, data=file, instruction="Find its picture.")
    _, vectors = stored(encode_corpus(config, embedder, progress=False))
    expected = embedder.embed(items, instruction="Find its picture.", progress=False)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert np.abs(vectors - embedder.embed(items, progress=False)).max(1).tolist()[0] > 1e-3
    with pytest.raises(ValueError, match="corpus changed"):
        other = settings(tmp_path, media, data=file, instruction="Find its owner.")
        encode_corpus(other, embedder, progress=False)


@pytest.mark.slow
def test_processes_that_decode_change_no_byte(tmp_path, media):
    folders = []
    for workers in (0, 2):
        embedder = UniteEmbedder.load(CHECKPOINT, workers=workers)
        config = settings(tmp_path / str(workers), media)
        folders.append(encode_corpus(config, embedder, progress=False))
    assert contents(folders[0]) == contents(folders[1])


def encode_and_die(config, at: int) -> None:
    """Kill this process in the middle of writing shard `at`."""
    torch.set_num_threads(1)  # as in the other process: sums depend on it in their last bit
    write, calls = encode_module.write_shard, []

    def write_some(path, *rest):
        calls.append(path)
        if len(calls) == at:
            with replacing(path) as partial:
                partial.write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
        write(path, *rest)

    encode_module.write_shard = write_some
    encode_corpus(config, progress=False)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes(tmp_path, embedder, media):
    whole = encode_corpus(settings(tmp_path / "whole", media), embedder, progress=False)
    killed = settings(tmp_path / "killed", media, embed={"max_frames": 4}, load={"workers": 1})
    process = multiprocessing.get_context("spawn").Process(target=encode_and_die, args=(killed, 2))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(shard_files(killed.output)) == 1
    assert not Path(killed.output, "report.json").exists()
    encode_corpus(killed, embedder, progress=False)
    assert contents(killed.output) == contents(whole)


def test_what_is_there_is_not_embedded_again(tmp_path, embedder, media, monkeypatch):
    config = settings(tmp_path, media)
    folder = encode_corpus(config, embedder, progress=False)
    before = contents(folder)
    shard_files(folder)[1].unlink()
    (folder / "report.json").unlink()
    plans = []
    plan = embedder.plan
    monkeypatch.setattr(
        embedder, "plan", lambda items, *rest: plans.append(len(items)) or plan(items, *rest)
    )
    encode_corpus(config, embedder, progress=False)
    encode_corpus(config, embedder, progress=False)
    assert plans == [7] and contents(folder) == before


def test_another_corpus_model_or_configuration_is_refused(tmp_path, embedder, media):
    encode_corpus(settings(tmp_path, media), embedder, progress=False)
    for change in ({"dim": 32}, {"number_format": "int8"}, {"shard_items": 8}):
        with pytest.raises(ValueError, match="another model, corpus or configuration"):
            encode_corpus(settings(tmp_path, media, **change), embedder, progress=False)
    with pytest.raises(ValueError, match="another model"):
        config = settings(tmp_path, media)
        corpus_file(tmp_path, rows()[::-1])
        encode_corpus(config, embedder, progress=False)
    (tmp_path / "out" / "inputs.json").unlink()
    with pytest.raises(ValueError, match="unknown origin"):
        encode_corpus(settings(tmp_path, media), embedder, progress=False)


def test_a_file_that_changed_between_two_runs_is_noticed(tmp_path, embedder, media):
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes((media / name).read_bytes())
    chosen = [{"image": "0.png"}, {"image": "1.png"}]
    config = EncodeConfig("m", str(tmp_path / "out"), str(corpus_file(tmp_path, chosen)),
                          str(tmp_path), shard_items=1)  # fmt: skip
    folder = encode_corpus(config, embedder, progress=False)
    (folder / "report.json").unlink()
    (tmp_path / "1.png").write_bytes((media / "2.png").read_bytes())
    with pytest.raises(ValueError, match="vectors-000001.*files than these, which have changed"):
        encode_corpus(config, embedder, progress=False)


def test_bad_items_are_counted_by_cause_and_listed_by_id(tmp_path, embedder, media):
    cut_file = (media / "0.png").read_bytes()[:-60]
    (tmp_path / "0.png").write_bytes((media / "0.png").read_bytes())
    (tmp_path / "cut.png").write_bytes(cut_file)
    chosen = [{"id": "good", "image": "0.png"}, {"id": "cut", "image": "cut.png"},
            {"id": "gone", "image": "none.png"}, {"id": "words", "text": "words"},
            {"id": "cut too", "image": "cut.png", "text": "<|IMAGE|> x"}]  # fmt: skip
    options = {"data": str(corpus_file(tmp_path, chosen)), "shard_items": 2}
    config = EncodeConfig("m", str(tmp_path / "out"), media_root=str(tmp_path), max_bad_share=0.7,
                          **options)  # fmt: skip
    folder = encode_corpus(config, embedder, progress=False)
    assert stored(folder)[0] == ["good", "words"]
    report = json.loads((folder / "report.json").read_text())
    assert report["bad"] == {"cannot be decoded": 2, "no such file under the media root "
                             f"{tmp_path}": 1}  # fmt: skip
    assert {one["where"] for one in report["left_out"]} == {"cut", "cut too", "gone"}
    assert all("remove" in one["message"] or "replace" in one["message"] or "check" in
               one["message"] for one in report["left_out"])  # fmt: skip
    strict = EncodeConfig("m", str(tmp_path / "strict"), media_root=str(tmp_path), **options)
    with pytest.raises(BadMediaError, match=r"(?s)1 of 5 .*\n  cut: "):
        encode_corpus(strict, embedder, progress=False)
    assert not Path(strict.output, "report.json").exists()


def test_a_cut_has_unit_norm_and_the_first_numbers(tmp_path, embedder, media):
    full = stored(encode_corpus(settings(tmp_path / "a", media), embedder, progress=False))[1]
    short = stored(
        encode_corpus(settings(tmp_path / "b", media, dim=16), embedder, progress=False)
    )[1]
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(short, truncate(full, 16), atol=1e-6)
    assert ((short * full[:, :16]).sum(1) > 0).all()
    with pytest.raises(ValueError, match="dim 65 is not in 1 to 64"):
        truncate(full, 65)


def test_any_file_of_rows_will_do(tmp_path, embedder, media):
    """Parquet fills in nulls for what an item lacks, CSV has texts and names of files only."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    chosen = [row for row in rows() if row["id"] in ("p1", "c2", "t3", "v")]
    flat = [{"id": None, "text": None, "image": None, "video": None} | row for row in chosen]
    parquet.write_table(arrow.Table.from_pylist(flat), tmp_path / "corpus.parquet")
    encode_corpus(
        settings(tmp_path / "json", media, data=str(corpus_file(tmp_path, chosen))), embedder
    )
    encode_corpus(
        settings(tmp_path / "table", media, data=str(tmp_path / "corpus.parquet")), embedder
    )
    wanted, found = stored(tmp_path / "json/out"), stored(tmp_path / "table/out")
    assert found[0] == wanted[0] == [row["id"] for row in chosen]
    np.testing.assert_array_equal(found[1], wanted[1])
    (tmp_path / "corpus.csv").write_text("id,text\na,word\nb,word word\n")
    assert [(n, item) for n, item, _ in iter_items(tmp_path / "corpus.csv")] == [
        ("a", {"text": "word"}),
        ("b", {"text": "word word"}),
    ]


def test_items_in_memory_are_encoded(tmp_path, embedder, media):
    with Image.open(media / "1.png") as picture:
        picture.load()
    items = [("one", {"image": picture}), ("two", {"image": np.asarray(picture)})]
    config = EncodeConfig("m", str(tmp_path / "out"))
    ids, vectors = stored(encode_corpus(config, embedder, items, progress=False))
    assert ids == ["one", "two"]
    expected = embedder.embed([{"image": "1.png"}], media, progress=False)
    np.testing.assert_allclose(vectors, expected.repeat(2, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"number_format": "float8"}, "number_format is 'float8': must be one of"),
        ({"take": "negative"}, "take.0 is 'negative': must be one of"),
        ({"shard_items": 0}, "shard_items is 0: must be .* at least 1"),
        ({"embed": {"frames": 3}}, "embed.frames is no field"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        EncodeConfig("m", "o", **fields)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(tmp_path, embedder, media):
    alone = encode_corpus(settings(tmp_path / "alone", media), embedder, progress=False)
    config = settings(tmp_path / "both", media, embed={"max_frames": 4})
    write_config(config, tmp_path / "config.json")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               "-m", "unite_core", "encode", str(tmp_path / "config.json")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ,
                          "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == config.output
    assert contents(config.output) == contents(alone)


@pytest.mark.slow
def test_the_command_takes_a_file_and_arguments(tmp_path, media):
    path = corpus_file(tmp_path, rows()[:3])
    command = [sys.executable, "-m", "unite_core", "encode", "--model", str(CHECKPOINT), "--data",
               str(path), "--output", str(tmp_path / "out"), "--media-root", str(media),
               "--number-format", "float16", "--dim", "32"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "3/3" in done.stderr and "item/s" in done.stderr
    ids, vectors = stored(tmp_path / "out")
    assert ids == ["p0", "p1", "p2"] and vectors.shape == (3, 32)
