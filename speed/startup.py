"""Start of a training run on many records: seconds and memory of each process.

    python speed/startup.py [--records 6400000] [--processes 2] [--folder DIR]

The first start reads and checks synthetic records, all different, looks for their media files, and
writes the table that all map, in one process. At the later one all processes map it at once, make
the sampler and take the pairs of a batch. No model is loaded. Counted are processor seconds beside
those of the clock, as other programs may run, and the pages that a process shares with no other.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path

from _report import RESULTS, machine, reset_peak, resident, table, write_section

WORDS = ("red", "small", "round", "large", "blue", "square", "green")
FOLDERS, EVERY = 400, 16  # of the pictures; records that a picture comes in one of


def write_records(path: Path, count: int) -> int:
    """JSON Lines of so many different records, and their pictures; returns the size in bytes."""
    for n in range(FOLDERS):
        (path.parent / f"{n}").mkdir()
    with path.open("w", encoding="utf-8") as lines:
        for n in range(count):
            text = f"a {WORDS[n % 7]} {WORDS[n % 5]} thing beside another one, number {n}"
            candidate = f'{{"text": "{text}, and what follows it"}}'
            if n % EVERY == 0:
                name = f"{n // EVERY % FOLDERS}/{n}.png"
                (path.parent / name).write_bytes(b"x")
                candidate = f'{{"image": "{name}"}}'
            lines.write(f'{{"query": {{"text": "{text}"}}, "candidate": {candidate}}}\n')
    return path.stat().st_size


def private() -> int:
    """Bytes of this process that no other shares."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) * 1024


def start(folder: str, batch: int, results, rank: int, world: int) -> None:
    """What a process does before its first forward."""
    import torch

    torch.set_num_threads(1)
    from unite_core.data.pairs import PairDataset
    from unite_core.train.sampler import PairSampler

    before = private()
    reset_peak()
    begin, cpu = time.perf_counter(), time.process_time()
    dataset = PairDataset([f"{folder}/rows.jsonl"], folder, f"{folder}/store")
    sampler = PairSampler(dataset, batch * world, 10, rank=rank, world_size=world)
    pairs = [dataset[row] for row in next(iter(sampler))]
    spent = time.perf_counter() - begin, time.process_time() - cpu
    results[rank] = (*spent, private() - before, resident()[1], len(dataset), len(pairs))


def launch(folder: Path, world: int) -> list[tuple]:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        members = [context.Process(target=start, args=(str(folder), 64, results, rank, world))
                   for rank in range(world)]  # fmt: skip
        for member in members:
            member.start()
        for member in members:
            member.join()
        return [results[rank] for rank in range(world)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=6_400_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        size = write_records(folder / "rows.jsonl", options.records)
        runs = [("first", launch(folder, 1)), ("later", launch(folder, options.processes))]
        stored = sum(file.stat().st_size for file in (folder / "store").iterdir())
    finally:
        shutil.rmtree(folder)
    head = ["start", "records", "s", "processor s", "private GiB", "peak resident GiB"]
    rows = [
        [f"{name}, process {rank}", f"{count:,}", f"{seconds:.1f}", f"{cpu:.1f}",
         f"{held / 2**30:.2f}", f"{peak / 2**30:.2f}"]
        for name, found in runs
        for rank, (seconds, cpu, held, peak, count, _) in enumerate(found)
    ]  # fmt: skip
    text = f"""## Start of a run (`speed/startup.py`)

{machine()}. Synthetic records, all different, {size / 2**30:.2f} GiB of JSON Lines, a picture's
file for every {EVERY}th; one run. The first start reads them in one process, the later one maps a
table of {stored / 2**30:.2f} GiB in {options.processes} at once, up to the pairs of the first
batch; no model.

{table(head, rows)}"""
    write_section("startup", text, options.output)
    print(text)


if __name__ == "__main__":
    main()
