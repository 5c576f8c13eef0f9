"""The index over encoded shards beside plain faiss: time to build, and to search.

`python speed/index.py [--items N] [--dim D] [--queries Q]`
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import faiss
import numpy as np
from _report import RESULTS, machine, spread, table, versions, write_section

from unite_core.data.modality import Modality
from unite_core.search.index import build_index
from unite_core.search.shards import Shard

SHARD, K, RUNS = 65_536, 10, 3


def made_shards(items: int, dim: int, kinds: int) -> list[Shard]:
    """Random unit vectors of `kinds` modalities, in turns."""
    codes = [int(m) for m in (Modality.TEXT, Modality.IMAGE, Modality.VIDEO)[:kinds]]
    generator, shards = np.random.default_rng(0), []
    for start in range(0, items, SHARD):
        n = min(SHARD, items - start)
        vectors = generator.standard_normal((n, dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        modality = np.resize(np.array(codes, np.uint8), n)
        shards.append(Shard([str(start + row) for row in range(n)], vectors, modality))
    return shards


def timed(work):
    start = perf_counter()
    result = work()
    return perf_counter() - start, result


def plain(shards: list[Shard]) -> faiss.IndexFlatIP:
    index = faiss.IndexFlatIP(shards[0].vectors.shape[1])
    for shard in shards:
        index.add(shard.vectors)
    return index


def measured(shards: list[Shard], queries: np.ndarray) -> dict[str, list[float]]:
    """Seconds of each run, the two in turns; what they find must agree."""
    seconds: dict[str, list[float]] = {}

    def run(name, work):
        took, result = timed(work)
        seconds.setdefault(name, []).append(took)
        return result

    for _ in range(RUNS):
        theirs = run("faiss, build", lambda: plain(shards))
        ours = run("ours, build", lambda: build_index(shards))
        scores, _ = run("faiss, search", lambda index=theirs: index.search(queries, K))
        found = run("ours, search", lambda index=ours: index.search(queries, K))
        assert np.allclose(found.scores, scores, atol=1e-5), "the two find other candidates"
    return seconds


def main(items: int, dim: int, queries: int, output: Path) -> None:
    rows = []
    asked = np.random.default_rng(1).standard_normal((queries, dim), dtype=np.float32)
    for kinds, name in ((1, "one modality"), (3, "mixed pool of three")):
        seconds = measured(made_shards(items, dim, kinds), asked)
        for what in ("build", "search"):
            ours, theirs = seconds[f"ours, {what}"], seconds[f"faiss, {what}"]
            ratio = np.median(np.divide(ours, theirs))
            rows.append([f"{what}, {name}", spread(ours), spread(theirs), f"{ratio:.2f}"])
    head = [f"{items:,} x {dim}, exact", "ours, s", "plain faiss, s", "ours / faiss"]
    text = f"""## Index (`speed/index.py`)

{machine()}; {versions("faiss-cpu", "numpy")}. {queries} queries, {K} best; median [lowest, highest]
of {RUNS} runs in turns; both find the same scores.

{table(head, rows)}"""
    write_section("index", text, output)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    main(options.items, options.dim, options.queries, options.output)
