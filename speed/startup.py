"""Start of a training run on many records: seconds and memory of each process.

    python speed/startup.py [--records 6400000] [--read 200000] [--processes 2]

The first start reads and checks synthetic records in one process and writes the table that all map.
It is measured on `--read` records; the table is then repeated until it has `--records`, columns and
text alike, and opened by all processes at once: each maps it, makes the sampler and takes the pairs
of a batch. No model is loaded. Counted are processor seconds beside those of the clock, as other
programs may run, and the pages that a process shares with no other.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from _report import RESULTS, machine, reset_peak, resident, table, write_section

WORDS = ("red", "small", "round", "large", "blue", "square", "green")
FOLDERS = 400


def write_records(path: Path, count: int) -> int:
    """JSON Lines of so many records; returns their size in bytes."""
    (path.parent / "m").mkdir()
    for n in range(FOLDERS):
        (path.parent / f"m/{n}.png").write_bytes(b"x")
    with path.open("w", encoding="utf-8") as lines:
        for n in range(count):
            text = f"a {WORDS[n % 7]} {WORDS[n % 5]} thing beside another one, number {n}"
            candidate = f'{{"text": "{text}, and what follows it"}}'
            if n % 16 == 0:
                candidate = f'{{"image": "m/{n % FOLDERS}.png"}}'
            lines.write(f'{{"query": {{"text": "{text}"}}, "candidate": {candidate}}}\n')
    return path.stat().st_size


def repeat(store: Path, times: int) -> None:
    """Make a table so many times as long: the same rows again."""
    ends = np.load(store / "ends.npy")
    for file in store.glob("*.npy"):
        np.save(file, np.tile(np.load(file), times))
    starts = np.arange(times)[:, None] * ends[-1]
    np.save(store / "ends.npy", (starts + ends).ravel())
    text = (store / "text.json").read_bytes()
    with (store / "text.json").open("ab") as longer:
        for _ in range(times - 1):
            longer.write(text)


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
    parser.add_argument("--read", type=int, default=200_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        write_records(folder / "rows.jsonl", options.read)
        runs = [("first", launch(folder, 1))]
        repeat(folder / "store", options.records // options.read)
        runs.append(("later", launch(folder, options.processes)))
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

{machine()}. Synthetic records; one run. The first start reads them in one process, the later one
maps a table of {stored / 2**30:.2f} GiB in {options.processes} at once, up to the pairs of the
first batch; no model. The table is that of the first start, repeated.

{table(head, rows)}"""
    write_section("startup", text, options.output)
    print(text)


if __name__ == "__main__":
    main()
