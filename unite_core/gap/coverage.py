"""How often intervals hold the truth, where the truth is known; the table in docs/gap.md.

python -m unite_core.gap.coverage    # about 15 minutes on one core
"""

# Shapes: N pairs, F families.

from __future__ import annotations

import warnings
from collections.abc import Collection

import numpy as np

from .synthetic import SyntheticGap, draw_families
from .table import measure

__all__ = ["POPULATIONS", "SCENES", "coverage"]


_OFFSETS = {"text": (0.5, 0.1, 0.0), "image": (0.3, -0.3, 0.1)}
_REST = {"spectrum": ((10, 0.6), (24, 0.4)), "signal": 0.7, "family": 0.6}
POPULATIONS = {
    "gap": SyntheticGap(_OFFSETS, **_REST),
    "swaying gap": SyntheticGap(_OFFSETS, sway=0.5, **_REST),
    "no gap": SyntheticGap(dict.fromkeys(_OFFSETS, (0.4, 0.0)), **_REST),
}
"""Populations of text and image: a fixed gap, one that differs between items, none."""
SCENES = {
    "swaying gap, n 80": ("swaying gap", 80, None, True),
    "gap, n 80": ("gap", 80, None, True),
    "no gap, n 80": ("no gap", 80, None, True),
    "swaying gap, n 120 in 60 families": ("swaying gap", 120, 60, True),
    "no gap, n 120 in 60 families": ("no gap", 120, 60, True),
    "swaying gap, n 120 in 24 families": ("swaying gap", 120, 24, True),
    "swaying gap, n 120 in 60 families, not told": ("swaying gap", 120, 60, False),
}
"""Rows of the table: population, n, families, whether they are told."""


def coverage(
    population: SyntheticGap,
    n: int,
    families: int | None = None,
    given: bool = True,
    repeats: int = 200,
    names: Collection[str] | None = None,
    level: float = 0.95,
) -> dict[str, float]:
    """Share of samples whose interval of `gap.measure` holds the true value.

    Args
        population  of "text" and "image"
        n           pairs of a sample
        families    into which they fall at random (`draw_families`); None: independent pairs
        given       whether `measure` is told the families
        repeats     samples, seeds 0 to repeats - 1
        names       measures; all where None
        level       of the intervals
    A measure without a population value (it depends on n) is held against its mean over the
    samples. Samples of too few families have no interval and do not count.
    """
    tables = []
    for seed in range(repeats):
        groups = None if families is None else draw_families(n, families, seed)
        drawn = population.draw(n, seed, groups)
        known = {"groups": groups} if given else {}
        table = measure(drawn["text"], drawn["image"], k=5, level=level, seed=seed, **known)
        tables.append(table)
    truth, shares = population.truth("text", "image"), {}
    for name in names or tables[0]:
        right = truth.get(name, np.mean([table[name].value for table in tables]))
        ends = np.array([row.interval for table in tables if (row := table[name]).interval])
        shares[name] = float(np.mean((ends[:, 0] <= right) & (right <= ends[:, 1])))
    return shares


def _print_table() -> None:
    names = ("gap", "offset_share", "pair_excess", "rmg", "cka", "mmd2", "neighbour_share",
             "frechet", "hub_skew")  # fmt: skip
    print("| sample | " + " | ".join(names) + " |")
    print("|---" * (1 + len(names)) + "|")
    for scene, (population, *rest) in SCENES.items():
        shares = coverage(POPULATIONS[population], *rest, names=names)
        print(f"| {scene} | " + " | ".join(f"{share:.2f}" for share in shares.values()) + " |")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of few families, which are meant
    _print_table()
