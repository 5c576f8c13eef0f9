"""Time and memory of the whole gap table, growing with n, beside what peers give of it.

    python speed/gap.py [--sizes 1000,5000,20000,100000] [--dim 1536] [--repeats 1]

Vectors come from the generator with a known gap, so that every run also says how far values are
from the truth. Sums are over all items; what looks at all pairs of items is of a stated random
part. Each size runs in a process of its own: its peak memory includes the vectors.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from _report import RESULTS, machine, resident, spread, table, versions, write_section

from unite_core import gap
from unite_core.gap import distribution, moments

SHOWN = ("gap", "rmg", "cka", "separability", "participation_x", "frechet", "neighbour_share",
         "mmd2", "mutual_knn", "hub_skew", "uniformity_x")  # fmt: skip
PEERS = ("scikit-learn", "umap-learn")


def vectors(size, dim):
    """Pairs of float32 unit vectors with a gap of 0.5, and the truth about them."""
    known = gap.SyntheticGap(
        {"text": (0.25, 0.1), "image": (-0.25, 0.1)},
        spectrum=((dim // 8, 0.7), (dim - dim // 8 - 2, 0.3)), signal=0.6,
    )  # fmt: skip
    parts = {"text": [], "image": []}
    for number, start in enumerate(range(0, size, 4096)):
        for name, rows in known.draw(min(4096, size - start), number).items():
            parts[name].append(rows.astype(np.float32))
    x, y = (np.concatenate(part) for part in parts.values())
    return x, y, known.truth("text", "image")


def one_size(size, dim, pairwise):
    """What a child process measures: seconds, peak bytes, values, intervals, errors."""
    x, y, truth = vectors(size, dim)
    gap.measure(x[:200], y[:200], resamples=2)  # libraries and buffers of the first call
    start = time.perf_counter()
    rows = gap.measure(x, y, pairwise=pairwise)
    seconds = time.perf_counter() - start
    found = {name: [rows[name].value, *rows[name].interval, rows[name].n] for name in SHOWN}
    missed = []
    for name, right in truth.items():
        low, high = rows[name].interval
        if name != "offset_share" and not low - 1e-6 <= right <= high + 1e-6:
            missed.append(name)
    return {"seconds": seconds, "peak": resident()[1], "inputs": x.nbytes + y.nbytes,
            "found": found, "missed": missed, "truths": len(truth) - 1}  # fmt: skip


def apart(*arguments):
    """`one_size` in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"n, D, part = {arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def timed(function, repeats):
    """Seconds of each call and the last value."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = function()
        times.append(time.perf_counter() - start)
    return times, value


def plain_cka(x, y):
    """The definition with N x N matrices, as public scripts have it."""
    k, other = x @ x.T, y @ y.T
    n = len(k)
    np.fill_diagonal(k, 0)
    np.fill_diagonal(other, 0)

    def hsic(a, b):
        sums = a.sum(0) @ b.sum(0)
        corner = a.sum() * b.sum() / ((n - 1) * (n - 2))
        return np.vdot(a, b) + corner - 2 / (n - 2) * sums

    return hsic(k, other) / (hsic(k, k) * hsic(other, other)) ** 0.5


def sklearn_separability(x, y):
    """scikit-learn's logistic regression, pairs held out together, the same penalty."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score

    rows = np.concatenate([x, y])
    middle = rows.mean(0)
    rows = (rows - middle) / np.sqrt(np.square(rows - middle).sum(1).mean())
    label, group = np.repeat([0, 1], len(x)), np.tile(np.arange(len(x)), 2)
    penalty = 1 / (1e-4 * 2 * len(x) * 0.8)
    model = LogisticRegression(C=penalty, tol=1e-5, max_iter=200)
    return cross_val_score(model, rows, label, groups=group, cv=GroupKFold(5)).mean()


def parts(size, dim, repeats):
    """Rows of the table of single measures: ours, a peer or the plain definition, agreement."""
    x, y, _ = vectors(size, dim)
    wide = [side.astype(np.float64) for side in (x, y)]

    def cka():
        return moments.debiased_cka(moments.Moments.of_vectors(*wide, paired=True))

    def separability():
        return distribution.held_out_hits(*wide, paired=True, folds=5, seed=0).mean()

    jobs = [("debiased CKA", cka, "N × N definition", lambda: plain_cka(*wide))]
    if find_spec("sklearn"):
        jobs.append(("held-out separability, 5 folds", separability, "scikit-learn",
                     lambda: sklearn_separability(*wide)))  # fmt: skip
    rows = []
    for name, ours, peer, theirs in jobs:
        (own, value), (other, reference) = timed(ours, repeats), timed(theirs, repeats)
        rows.append([name, spread(own), peer, spread(other), f"{min(other) / min(own):.1f}",
                     f"{value:.5f}", f"{reference:.5f}"])  # fmt: skip
    return rows


def section(options):
    """The Markdown section."""
    done = {size: apart(size, options.dim, options.pairwise) for size in options.sizes}
    head = ["n per modality", "seconds", "peak memory GB", "of it vectors GB",
            "intervals that hold the truth"]  # fmt: skip
    rows = [[str(size), f"{one['seconds']:.1f}", f"{one['peak'] / 1e9:.2f}",
             f"{one['inputs'] / 1e9:.2f}",
             f"{one['truths'] - len(one['missed'])} of {one['truths']}"]
            for size, one in done.items()]  # fmt: skip
    values = [[name] + [_cell(one["found"][name]) for one in done.values()] for name in SHOWN]
    lines = [
        "## The gap table (`speed/gap.py`)",
        f"{machine()}; numpy {np.__version__}, {versions(*PEERS)}. Generated float32 unit vectors, "
        f"D = {options.dim}, a gap of 0.5. The whole table of `gap.measure` with 30 half-sample "
        "intervals and all nulls. Gap, RMG, CKA, participation, Fréchet and separability are of "
        f"all items (in float32 above {2**24 // options.dim} items, and separability with 2 folds "
        "instead of 5 there); the others, and all intervals and nulls, of at most "
        f"{options.pairwise} random items of each modality.",
        table(head, rows),
        "### Values [99 % interval], n of the measure",
        table(["measure", *map(str, done)], values),
        f"### Single measures, n = {options.part} (seconds, n = {options.repeats} repeats)",
        table(["measure", "ours", "against", "theirs", "× ours", "our value", "their value"],
              parts(options.part, options.dim, options.repeats)),
        "No peer gives the whole table (see GAP.md §7: one to three measures each, without nulls).",
    ]  # fmt: skip
    return "\n\n".join(lines)


def _cell(found):
    value, low, high, n = found
    return f"{value:.3g} [{low:.3g}, {high:.3g}], {n:.0f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,5000,20000,100000", help="n, with commas between")
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--pairwise", type=int, default=2000)
    parser.add_argument("--part", type=int, default=2000, help="n of the single measures")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a child process measures
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_size(*json.loads(options.one))))
        return
    options.sizes = [int(size) for size in options.sizes.split(",")]
    text = section(options)
    print(text)
    write_section("gap", text, options.output)


if __name__ == "__main__":
    main()
