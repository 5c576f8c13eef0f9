"""Encoding a mixed corpus to vectors beside sentence-transformers and a plain loop, in one run.

    python speed/encode.py [--texts 2000 --images 2000 --clips 300] [--repeats 2]
                                [--processes 2] [--memory 1000 20000] [--model FOLDER]

Texts of many lengths, pictures of many sizes and clips are written to files once; every route reads
the same files with the same weights, and its vectors must equal ours to 1e-4. Only ours also writes
its vectors to disk. Repeats are interleaved: one of each route, then again. No route's time holds
imports and loading: that of torchrun, the command as users start it, is less the time that the same
command takes for two items. The memory part encodes a smaller and a larger corpus in processes of
their own and compares their peaks.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _report import machine, resident, spread, table, versions, write_section
from PIL import Image
from torch.nn.functional import normalize

from unite_core import UniteEmbedder
from unite_core.export.sentence_transformers import export_model
from unite_core.search.config import EncodeConfig
from unite_core.search.encode import encode_corpus
from unite_core.search.shards import read_shard, shard_files
from unite_core.tiny.model import TINY

LIMITS = {"image_min_pixels": 56 * 56, "image_max_pixels": 448 * 448,
          "video_min_pixels": 56 * 56, "video_max_pixels": 112 * 112}  # fmt: skip
SIZES = (64, 96, 160, 240, 320, 480, 640)  # of pictures' sides
WORDS = ("red", "small", "circle", "above", "the", "large", "blue", "square", "next", "to", "green")
BATCH = 32  # of the routes with a fixed size; sentence-transformers' default
PLAIN = "plain loop, fixed batches"


def make_corpus(folder: Path, texts: int, images: int, clips: int) -> list[dict]:
    """Items with absolute paths, in a random but fixed order."""
    rng = np.random.default_rng(0)
    items = [{"text": " ".join(rng.choice(WORDS, rng.integers(3, 80)))} for _ in range(texts)]
    for n in range(images):
        path = folder / f"{n}.{('jpg', 'png')[n % 2]}"
        picture(rng, *rng.choice(SIZES, 2)).save(path)
        items.append({"image": str(path)})
    for n in range(clips):
        path = folder / f"{n}.mp4"
        write_clip(path, rng, 24 + int(rng.integers(48)))
        items.append({"video": str(path)})
    return [items[n] for n in rng.permutation(len(items))]


def picture(rng, height: int, width: int) -> Image.Image:
    """Smooth colours, so that files compress as photographs do."""
    coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    return coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC)


def write_clip(path: Path, rng, frames: int) -> None:
    """A picture that moves sideways, as MPEG-4, 240 x 180, 12 frames a second."""
    import av

    wide = np.asarray(picture(rng, 180, 240 + 2 * frames))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12, width=240, height=180)
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(wide[:, 2 * n : 2 * n + 240].copy())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def ours(embedder: UniteEmbedder, items: list[dict], folder: Path) -> np.ndarray:
    """`encode_corpus` to shards on disk."""
    shutil.rmtree(folder, ignore_errors=True)
    config = EncodeConfig("as given", str(folder), media_root="/")
    named = [(str(n), item) for n, item in enumerate(items)]
    encode_corpus(config, embedder, named, progress=False)
    return np.concatenate([read_shard(path).vectors for path in shard_files(folder)])


def by_torchrun(model: Path, items: list[dict], folder: Path, processes: int) -> np.ndarray:
    """`torchrun -m unite_core encode` with processes of one thread each."""
    shutil.rmtree(folder, ignore_errors=True)
    path = lines_of(items, len(items), folder.with_suffix(".jsonl"))
    size = -(-len(items) // processes)  # one shard each
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes),
               "-m", "unite_core", "encode", "--model", str(model), "--output", str(folder),
               "--data", str(path), "--media-root", "/", "--shard-items", str(size)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"torchrun failed:\n{done.stderr[-2000:]}")
    return np.concatenate([read_shard(path).vectors for path in shard_files(folder)])


@torch.inference_mode()
def plain(embedder: UniteEmbedder, items: list[dict]) -> np.ndarray:
    """Batches of a fixed size in the order of the corpus, transformers' own forward."""
    found = []
    for start in range(0, len(items), BATCH):
        encoded = [embedder.processor.encode(i, "/") for i in items[start : start + BATCH]]
        batch = embedder.processor.collate(encoded)
        batch = {name: part.to(embedder.device) for name, part in batch.items()}
        mask = batch["attention_mask"]
        positions = (mask.cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)
        hidden = embedder.backbone(**batch, position_ids=positions, use_cache=False)
        found.append(normalize(hidden.last_hidden_state[:, -1].float(), dim=-1))
    return torch.cat(found).cpu().numpy()


def measure(routes: dict, starts: dict, repeats: int, count: int) -> dict[str, list[float]]:
    """Items per second of each route, without what its like in `starts` takes; all vectors must
    equal the first route's to 1e-4."""
    rates, expected = {name: [] for name in routes}, None
    for _ in range(repeats):
        for name, route in routes.items():
            start = time.perf_counter()
            if name in starts:
                starts[name]()
            loaded = time.perf_counter()
            vectors = route()
            seconds = time.perf_counter() - loaded - (loaded - start)
            rates[name].append(count / seconds)
            print(f"{name}: {rates[name][-1]:.1f} items/s", file=sys.stderr)
            expected = vectors if expected is None else expected
            worst = np.abs(vectors - expected).max()
            if not worst <= 1e-4:
                raise SystemExit(f"{name}: vectors differ by {worst:.2g}, more than 1e-4")
    return rates


def peak_of(items: list[dict], count: int, model: Path, folder: Path) -> int:
    """Bytes at most in memory while a process of its own encodes `count` items."""
    path = lines_of(items, count, folder / f"memory-{count}.jsonl")
    command = [sys.executable, __file__, "--peak", str(path), "--model", str(model)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def lines_of(items: list[dict], count: int, path: Path) -> Path:
    """`count` items, these over and over, as JSON Lines with paths below /."""
    with path.open("w") as lines:
        for n in range(count):
            item = items[n % len(items)]
            below_root = {kind: value.removeprefix("/") for kind, value in item.items()}
            lines.write(json.dumps({"id": str(n), **below_root}) + "\n")
    return path


def encode_for_peak(path: Path, model: Path) -> None:
    """Encode a file and print this process's peak."""
    config = EncodeConfig(str(model), f"{path}.out", str(path), media_root="/", shard_items=512)
    encode_corpus(config, progress=False)
    print(resident()[1])


def report(options, rates, peaks) -> str:
    bases = [np.median(rates[name]) for name in ("sentence-transformers encode", PLAIN)]
    rows = [[name, spread(values), *(f"{np.median(values) / base:.2f}" for base in bases)]
            for name, values in rates.items()]  # fmt: skip
    memory = ", ".join(f"{count} items: {peak / 2**20:.0f} MiB" for count, peak in peaks.items())
    return f"""## Encoding a mixed corpus (`speed/encode.py`)

{machine()}; {versions("sentence-transformers", "transformers")}. {options.texts} texts,
{options.images} pictures of {SIZES[0]} to {SIZES[-1]} pixels a side, {options.clips} clips, all
from files; unite-tiny, vectors of all routes equal to 1e-4; {options.repeats} interleaved repeats.
Median [lowest, highest].

{table(["route", "items a second", "× sentence-transformers", "× plain loop"], rows)}

Peak memory of `encode_corpus` by size of the corpus (512 items a shard): {memory}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("texts", 2000), ("images", 2000), ("clips", 300), ("repeats", 2),
                          ("processes", 2)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 20000])
    parser.add_argument("--model", default=str(TINY))
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--dry", action="store_true", help="print, do not write RESULTS.md")
    options = parser.parse_args()
    if options.peak:
        return encode_for_peak(Path(options.peak), Path(options.model))
    with tempfile.TemporaryDirectory() as scratch:
        text = run(options, Path(scratch))
    print(text)
    if not options.dry:
        write_section("encode", text)


def run(options, folder: Path) -> str:
    from sentence_transformers import SentenceTransformer

    items = make_corpus(folder, options.texts, options.images, options.clips)
    UniteEmbedder.load(options.model, **LIMITS).save(folder / "model")
    export_model(folder / "model", folder / "exported")
    embedder = UniteEmbedder.load(folder / "model")
    peer = SentenceTransformer(str(folder / "exported"), trust_remote_code=True)
    several = f"ours, {options.processes} processes by torchrun"

    def spread_out(some: list[dict]) -> np.ndarray:
        return by_torchrun(folder / "model", some, folder / "spread", options.processes)

    routes = {
        "ours": lambda: ours(embedder, items, folder / "out"),
        several: lambda: spread_out(items),
        "sentence-transformers encode": lambda: peer.encode(
            items, batch_size=BATCH, show_progress_bar=False
        ),
        PLAIN: lambda: plain(embedder, items),
    }
    starts = {several: lambda: spread_out(items[: options.processes])}
    rates = measure(routes, starts, options.repeats, len(items))
    peaks = {count: peak_of(items, count, folder / "model", folder) for count in options.memory}
    return report(options, rates, peaks)


if __name__ == "__main__":
    main()
