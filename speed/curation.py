"""Curation of a million generated records: validated, profiled, exactly deduplicated, in one run.

    python speed/curation.py [--records 1000000] [--images 100000] [--workers 2] [--at FOLDER]

Every record has a text of its own and a PNG file of its own (16 x 16 noise, 0.8 kB); 1 % of the
records are broken in one of four ways, 5 % are copies of another under other file names. Made
before the clock starts, and kept in FOLDER for another run. What is counted must be what was
planted, or the run fails: a benchmark of wrong results is none.

Near-duplicates are measured on their own pictures: 64 x 64, 5 % are JPEG copies. The resume row
kills a run in the middle and starts it again. Memory is the peak of this process and of its
workers together (Linux).
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from unite_core.curate.dedupe import exact_duplicates
from unite_core.curate.ingest import ingest_source, iter_ingested
from unite_core.curate.item_groups import first_of
from unite_core.curate.perceptual_hash import image_hashes, near_groups
from unite_core.curate.profile import profile
from unite_core.curate.recipe import Source

FOLDER_SIZE = 1000  # files per folder
BROKEN = 100  # one record of so many is broken
PART = 20_000  # records of a part of `ingest`
COPIED = 20  # one of so many is a copy of the one before it
WORDS = np.array(
    ["a", "the", "red", "blue", "old", "young", "man", "woman", "dog", "cat", "tree", "house"]
    + ["river", "runs", "sleeps", "jumps", "over", "under", "near", "with", "small", "bright"]
)


def png(rng: np.random.Generator) -> bytes:
    """A 16 x 16 RGB picture of noise, written without Pillow: 10 microseconds instead of 60."""
    rows = np.zeros((16, 49), np.uint8)  # a filter byte before each row
    rows[:, 1:] = rng.integers(0, 256, (16, 48), np.uint8)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)),
             (b"IDAT", zlib.compress(rows.tobytes(), 0)), (b"IEND", b"")]  # fmt: skip
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def make_records(root: Path, count: int) -> dict[str, int]:
    """Write records and media below `root`; returns what was planted. Finished corpora are kept."""
    noted = root / "planted.json"
    if noted.is_file():
        return json.loads(noted.read_text())
    shutil.rmtree(root, ignore_errors=True)
    rng, planted = np.random.default_rng(0), {"broken": 0, "copies": 0}
    root.mkdir(parents=True)
    text, content, copied = "", b"", False
    with (root / "records.jsonl").open("w") as file:
        for number in range(count):
            folder = root / "media" / f"{number // FOLDER_SIZE:05d}"
            if number % FOLDER_SIZE == 0:
                folder.mkdir(parents=True)
            path = f"{folder.name}/{number:08d}.png"
            copied = number % COPIED == COPIED - 1 and number % BROKEN not in (0, 1)
            if not copied:
                text = " ".join(rng.choice(WORDS, 12)) + f" {number}"
                content = png(rng)
            (folder.parent / path).write_bytes(content)
            line = json.dumps({"query": {"text": text}, "candidate": {"image": path},
                               "source": "generated", "task": f"task {number % 5}"})  # fmt: skip
            broken = number % BROKEN == 0
            file.write((broken_line(number, line) if broken else line) + "\n")
            planted["broken"] += broken
            planted["copies"] += copied
    noted.write_text(json.dumps(planted))
    return planted


def broken_line(number: int, line: str) -> str:
    kinds = (
        line[:-3],
        line.replace('"query"', '"querry"'),
        line.replace('.png"', '.gone"'),
        line.replace('"image": "', '"image": "../'),
    )
    return kinds[number // BROKEN % len(kinds)]


def make_images(root: Path, count: int) -> int:
    """Pictures of smooth noise, every twentieth a JPEG copy of the one before; their number."""
    noted = root / "planted.json"
    if noted.is_file():
        return json.loads(noted.read_text())
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    rng, copies = np.random.default_rng(1), 0
    picture = None
    for number in range(count):
        if number % FOLDER_SIZE == 0:
            (root / f"{number // FOLDER_SIZE:05d}").mkdir()
        if number % COPIED == COPIED - 1:
            picture.save(root / image_path(number), "JPEG", quality=70)
            copies += 1
            continue
        pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
        picture = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        picture.save(stream, "PNG", compress_level=1)
        (root / image_path(number)).write_bytes(stream.getvalue())
    noted.write_text(json.dumps(copies))
    return copies


def image_path(number: int) -> str:
    return f"{number // FOLDER_SIZE:05d}/{number:08d}.img"


def curate(root: Path, workers: int) -> dict[str, float]:
    """Seconds of each step, and what was found."""
    source = Source("made", "records.jsonl", "media")
    clock, steps = time.perf_counter(), {}

    def lap(name: str) -> None:
        nonlocal clock
        steps[name], clock = time.perf_counter() - clock, time.perf_counter()

    report = ingest_source(
        source, root / "ingested", root, root, max_bad_share=0.02, workers=workers, part_rows=PART
    )
    lap("validate")
    found = profile(iter_ingested(root / "ingested"), root / "media")
    lap("profile")
    groups = exact_duplicates(iter_ingested(root / "ingested"), root / "media").rows
    lap("exact")
    steps["rejects"], steps["copies"] = report.rejects, int((~first_of(groups)).sum())
    steps["profiled"] = found["records"]
    return steps


def near(root: Path, count: int, workers: int) -> dict[str, float]:
    names = [image_path(number) for number in range(count)]
    clock = time.perf_counter()
    hashes = image_hashes(names, root, workers)
    hashed = time.perf_counter() - clock
    groups = near_groups(hashes)
    steps = {"hash": hashed, "group": time.perf_counter() - clock - hashed}
    twin = np.arange(COPIED - 1, count, COPIED)
    steps["found"] = float((groups[twin] == groups[twin - 1]).mean())
    steps["merged"] = int((~first_of(groups)).sum())
    return steps


def measured(work: Callable, *args) -> dict[str, float]:
    """The result of `work` in a process of its own, with its peak memory and its children's."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, work, *args))
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


def _measure(sender, work: Callable, *args) -> None:
    clock = time.perf_counter()
    result = work(*args)
    result["seconds"] = time.perf_counter() - clock
    largest_child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    result["memory"] = own_peak() + args[-1] * largest_child  # the last one is `workers`
    sender.send(result)


def own_peak() -> int:
    """As `_report.resident`, whose module imports torch and would raise what it measures."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def killed(root: Path, workers: int, parts: int, count: int) -> dict[str, float]:
    """Kill `curate` once so many of its parts are done, run it again, and time that."""
    shutil.rmtree(root / "ingested", ignore_errors=True)
    process = multiprocessing.get_context("spawn").Process(target=_own_group, args=(root, workers))
    process.start()
    while (done := len(list((root / "ingested").glob("part-*.json")))) < parts:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    if parts and done * PART >= count:
        raise RuntimeError("the run was over before it could be killed: take more records")
    return {**measured(curate, root, workers), "parts": done}


def _own_group(root: Path, workers: int) -> None:
    os.setpgrp()
    curate(root, workers)


def sizes(largest: int) -> list[int]:
    """10 000, 100 000, ... below the largest, and the largest."""
    steps = [10**power for power in range(4, 9) if 10**power < largest]
    return [*steps, largest]


def check(found: dict, planted: dict, count: int) -> None:
    assert found["rejects"] == planted["broken"], (found, planted)
    assert found["copies"] == planted["copies"], (found, planted)
    assert found["profiled"] == count - planted["broken"], found


def main() -> None:
    from _report import write_section

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at", type=Path, default=Path("runs/benchmark_curation"))
    options = parser.parse_args()
    rows, workers = [], options.workers
    for count in sizes(options.records):
        root = options.at / f"records_{count}"
        planted = make_records(root, count)
        shutil.rmtree(root / "ingested", ignore_errors=True)
        found = measured(curate, root, workers)
        check(found, planted, count)
        rows.append(
            [f"{count:,} records", *(f"{found[name]:.1f}" for name in STEPS), memory(found)]
        )
        print(rows[-1], flush=True)
    again = killed(root, workers, count // PART // 3, count)
    check(again, planted, count)
    name = f"the same, killed after {again['parts']} of {-(-count // PART)} parts and resumed"
    rows.append([name, *(f"{again[step]:.1f}" for step in STEPS), memory(again)])
    images = []
    for count in sizes(options.images):
        root = options.at / f"images_{count}"
        copies = make_images(root, count)
        found = measured(near, root, count, workers)
        assert found["found"] >= 0.9, found
        precise = found["found"] * copies / max(found["merged"], 1)
        cells = [f"{found[step]:.1f}" for step in ("hash", "group", "seconds")]
        images.append([f"{count:,} images", *cells, memory(found),
                       f"{found['found']:.3f}", f"{precise:.3f}"])  # fmt: skip
        print(images[-1], flush=True)
    write_section("curation", section(rows, images, workers))


STEPS = ("validate", "profile", "exact", "seconds")


def memory(found: dict) -> str:
    return f"{found['memory'] / 2**30:.2f}"


def section(rows: list, images: list, workers: int) -> str:
    from _report import machine, table, versions

    head = ["", *(f"{step}, s" for step in STEPS[:-1]), "all, s", "peak memory, GiB"]
    image_head = ["", "hash, s", "group, s", "all, s", "peak memory, GiB", "found", "precision"]
    return f"""## Curation (`speed/curation.py`)

{machine()}; {versions("numpy", "pillow", "orjson")}. {workers} worker processes for validation and
for hashing, one process for the rest. One text and one PNG file of its own per record, 1 % broken
records, 5 % copies; the counts found are the counts planted. One run each.

{table(head, rows)}

Near-duplicate pictures, 64 x 64, 5 % JPEG copies at quality 70:

{table(image_head, images)}"""


if __name__ == "__main__":
    main()
