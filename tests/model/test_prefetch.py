"""Other processes read what this one would; scripts need no guard; a dead process is an error."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unite_core import UniteEmbedder
from unite_core.model import prefetch
from unite_core.model.prefetch import read_ahead

FOLDER = Path(__file__).parents[1] / "data" / "unite_qwen2vl_tiny"


@pytest.fixture
def pictures(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(11):
        size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)), 3)
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"no picture")
    return tmp_path


@pytest.fixture(scope="module")
def embedder() -> UniteEmbedder:
    return UniteEmbedder.load(FOLDER, device="cpu")


def items_in(folder: Path) -> list[dict]:
    found = [{"image": f"{number}.png"} for number in (*range(4), *range(5, 11))]
    in_memory = np.full((50, 60, 3), 99, np.uint8)
    return [*found, {"image": in_memory}, {"text": "no picture"}]


def read_all(embedder, folder, workers):
    names = [[f"{n}.png" for n in part] for part in (range(5), range(5, 11), [])]
    plans = (
        (k, embedder.plan([{"image": n} for n in part], part, folder))
        for k, part in enumerate(names)
    )
    found = {}
    for label, plan, reads in read_ahead(plans, embedder.processor.reader, folder, workers):
        found[label] = [read() for read in reads], len(list(plan.reads))
    return found


def test_reads_are_those_of_this_process_in_order(embedder, pictures):
    (pictures / "4.png").unlink()
    Image.new("RGB", (50, 50)).save(pictures / "4.png")
    here, there = (read_all(embedder, pictures, workers) for workers in (0, 2))
    assert list(here) == list(there) == [0, 1, 2]
    for label in here:
        assert len(here[label][0]) == len(there[label][0]) == here[label][1]
        for one, other in zip(here[label][0], there[label][0], strict=True):
            np.testing.assert_array_equal(one.frames, other.frames)


@pytest.mark.slow
def test_embed_reads_ahead_and_changes_no_bit(embedder, pictures, monkeypatch):
    items = items_in(pictures)
    expected = embedder.embed(items, pictures, progress=False)
    started = []
    processes = prefetch._processes
    monkeypatch.setattr(
        prefetch, "_processes", lambda count: started.append(count) or processes(count)
    )
    ahead = UniteEmbedder.load(FOLDER, device="cpu", workers=2)
    np.testing.assert_array_equal(ahead.embed(items, pictures, progress=False), expected)
    assert set(started) == {2}
    started.clear()
    ahead.embed(items[:2], pictures, progress=False)
    assert not started, "a few files are read here"


@pytest.mark.slow
def test_a_script_needs_no_guard(pictures, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from unite_core import UniteEmbedder\n"
        f"embedder = UniteEmbedder.load({str(FOLDER)!r}, device='cpu', workers=1)\n"
        "items = [{'image': f'{n}.png'} for n in (0, 1, 2, 3)]\n"
        f"print(embedder.embed(items, {str(pictures)!r}, progress=False).shape)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "(4, 64)" and done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_that_says_what_to_do(embedder, pictures, monkeypatch):
    monkeypatch.setattr(prefetch, "_read", partial(_die))
    with pytest.raises(RuntimeError, match="media died, .* use fewer workers"):
        read_all(embedder, pictures, 1)
    monkeypatch.undo()
    (pictures / "4.png").unlink()
    Image.new("RGB", (50, 50)).save(pictures / "4.png")
    assert len(read_all(embedder, pictures, 1)) == 3, "the next ones are new"


def _die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
