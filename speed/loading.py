"""Loading the 2B's weights beside transformers' AutoModel: seconds and memory, in one run.

    python speed/loading.py [--repeats 3] [--at /tmp] [--layers 28] [--dry]

A random checkpoint at the sizes of Qwen2-VL-2B, bfloat16, in shards of 2 GB, is written in the two
layouts of names in use: that of released checkpoints (`model.layers.*`) and that of transformers
(`model.language_model.*`). Every load is a process of its own, without the time of imports, from
files that are in the page cache; repeats are interleaved. Ours also checks names, shapes and every
value. Private memory is what a load holds besides mapped files, whose pages the system can drop;
the peak counts both.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from _report import machine, reset_peak, resident, spread, table, versions, write_section

TEXT = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12,
    "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}  # fmt: skip
VISION = {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16}
LAYOUTS = {"released names": False, "transformers' names": True}
WAYS = ("AutoModel", "ours", "AutoModel, float32", "ours, float32")
SHARD = 2 * 10**9  # bytes


def make_checkpoint(folder: Path, layers: int, nested: bool) -> int:
    """Write random weights of the 2B's shapes; returns their bytes."""
    import transformers
    from safetensors.torch import save_file

    config = transformers.Qwen2VLConfig(
        text_config=TEXT | {"num_hidden_layers": layers}, vision_config=VISION, dtype="bfloat16",
        architectures=["Qwen2VLForConditionalGeneration"], tie_word_embeddings=True,
    )  # fmt: skip
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = transformers.Qwen2VLModel(config).state_dict()
    shards, used = [{}], 0
    for name, meta in shapes.items():
        weight = torch.empty(meta.shape, dtype=torch.bfloat16).uniform_(-0.02, 0.02)
        if used + weight.nbytes > SHARD:
            save_file(shards[-1], folder / f"{len(shards)}.safetensors", {"format": "pt"})
            shards[-1] = dict.fromkeys(shards[-1])
            shards.append({})
            used = 0
        shards[-1][_outer(name, nested)] = weight
        used += weight.nbytes
    save_file(shards[-1], folder / f"{len(shards)}.safetensors", {"format": "pt"})
    placed = {n: f"{i}.safetensors" for i, shard in enumerate(shards, 1) for n in shard}
    index = {"metadata": {}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(2 * meta.numel() for meta in shapes.values())


def _outer(name: str, nested: bool) -> str:
    """A weight's name in `Qwen2VLModel` as files have it."""
    if nested or not name.startswith("language_model."):
        return f"model.{name}" if nested else name
    return name.replace("language_model.", "model.", 1)


def load_once(way: str, folder: str) -> dict[str, float]:
    """Seconds, and bytes that one load adds to this process: at the peak, private at the end."""
    import transformers

    from unite_core.model.checkpoint import load_backbone

    transformers.utils.logging.disable_progress_bar()
    kind = {"dtype": torch.float32 if "float32" in way else torch.bfloat16}
    transformers.Qwen2VLModel  # noqa: B018  its module is imported here
    reset_peak()
    before, start = (resident()[0], private()), time.perf_counter()
    if way.startswith("ours"):
        model = load_backbone(Path(folder), **kind)
    else:
        model = transformers.AutoModel.from_pretrained(folder, **kind)
    seconds = time.perf_counter() - start
    added = {"peak": resident()[1] - before[0], "private": private() - before[1]}
    assert sum(weight.numel() for weight in model.parameters()) > 0  # it is still there
    return {"seconds": seconds, **added}


def private() -> int:
    """Bytes of this process in memory that are no file's (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


def measure(folder: Path, repeats: int) -> dict[str, list[dict]]:
    found = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            command = [sys.executable, __file__, "--load", way, "--at", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{way} failed:\n{done.stderr[-2000:]}")
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(way, found[way][-1], file=sys.stderr)
    return found


def report(found: dict[str, dict[str, list[dict]]], size: int, layers: int) -> str:
    rows = []
    for layout, ways in found.items():
        for way, cells in ways.items():
            base = WAYS[2] if "float32" in way else WAYS[0]
            seconds = [cell["seconds"] for cell in cells]
            ratio = median(seconds) / median(cell["seconds"] for cell in ways[base])
            sizes = [f"{median(c[key] for c in cells) / 1e9:.2f}" for key in ("peak", "private")]
            rows.append([f"{layout}, {way}", spread(seconds), f"{ratio:.2f}", *sizes])
    head = ["", "seconds: median [lowest, highest]", "× AutoModel", "peak, GB", "private, GB"]
    repeats = len(next(iter(next(iter(found.values())).values())))
    return f"""## Loading weights (`speed/loading.py`)

{machine()}; {versions("transformers", "safetensors")}. A random checkpoint at the sizes of
Qwen2-VL-2B with {layers} layers, {size / 1e9:.2f} GB in bfloat16, from the page cache;
{repeats} interleaved repeats, each in a process of its own.

{table(head, rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--at", default=tempfile.gettempdir(), help="folder for the weights")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--load", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--dry", action="store_true", help="print, do not write RESULTS.md")
    options = parser.parse_args()
    if options.load:
        return print(json.dumps(load_once(options.load, options.at)))
    found = {}
    for layout, nested in LAYOUTS.items():
        with tempfile.TemporaryDirectory(dir=options.at) as scratch:
            size = make_checkpoint(Path(scratch), options.layers, nested)
            found[layout] = measure(Path(scratch), options.repeats)
    text = report(found, size, options.layers)
    print(text)
    if not options.dry:
        write_section("loading", text)


if __name__ == "__main__":
    main()
