"""Values of the measures by name: sums over all items, and pairs of items in a random sample.

The cost of pairs grows with the square of the number of items, hence the sample. Intervals and
nulls of all measures come from parts of the same sample.
"""

# Shapes: P items of each modality in the sample, N, M items of the two modalities, K neighbours.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import moments, pairwise

__all__ = [
    "Sample", "agreement_values", "hub_values", "linear_values", "mixing_values",
    "pairwise_values",
]  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """All cosines among P + P items, x first, and ways to draw parts of them."""

    cosines: np.ndarray  # [2 P, 2 P]
    paired: bool
    k: int
    bandwidth: float  # median squared distance

    @classmethod
    def draw(cls, x: np.ndarray, y: np.ndarray, paired: bool, k: int, limit: int, rng) -> Sample:
        """At most `limit` random items of x [N, D] and as many of y [M, D]."""
        size = min(len(x), len(y), limit)
        rows = np.sort(rng.permutation(len(x))[:size])
        rows_y = rows if paired else np.sort(rng.permutation(len(y))[:size])
        both = np.concatenate([x[rows], y[rows_y]]).astype(np.float64)
        cosines = both @ both.T
        upper = cosines[np.triu_indices(len(both), 1)]
        return cls(cosines, paired, k, bandwidth=2 * (1 - float(np.median(upper))))

    @property
    def size(self) -> int:
        """P."""
        return len(self.cosines) // 2

    def blocks(self, x, y) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cosines xx, yy, xy of the items at positions x and y."""
        return tuple(self.cosines[np.ix_(*part)] for part in ((x, x), (y, y), (x, y)))

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of all items of x and of y."""
        return np.arange(self.size), np.arange(self.size) + self.size

    def half(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Positions of a random half of each modality; of the same pairs where there are pairs."""
        x = rng.permutation(self.size)[: self.size // 2]
        y = x if self.paired else rng.permutation(self.size)[: self.size // 2]
        return x, y + self.size

    def exchanged(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Positions with modalities assigned at random: within each pair, or among all items."""
        if not self.paired:
            order = rng.permutation(2 * self.size)
            return order[: self.size], order[self.size :]
        x, y = self.all()
        swapped = rng.random(self.size) < 0.5
        return np.where(swapped, y, x), np.where(swapped, x, y)

    def mismatched(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Positions with true modalities and random pairing."""
        x, y = self.all()
        return x, rng.permutation(y)


def linear_values(m: moments.Moments) -> dict[str, float]:
    """All measures that are sums over items; those of pairs only where there are pairs."""
    within_x, within_y, between = moments.mean_cosines(m)
    values = {
        "gap_squared": moments.debiased_gap_squared(m),
        "gap_raw": moments.centroid_gap_squared(m) ** 0.5,
        "similarity_x": within_x, "similarity_y": within_y, "similarity_xy": between,
        "participation_x": moments.participation_ratio(m.square_x, m.self_x, m.rows_x),
        "participation_y": moments.participation_ratio(m.square_y, m.self_y, m.rows_y),
    }  # fmt: skip
    if m.pairs is not None:
        pair = float(m.pairs.mean())
        values |= {"pair_cosine": pair, "pair_excess": pair - between}
        values |= {"rmg": moments.relative_gap(m), "cka": moments.debiased_cka(m)}
        values |= moments.alignment(m)
    return values


def pairwise_values(sample: Sample, x, y) -> dict[str, float]:
    """All measures of pairs of items, of the items at positions x and y."""
    xx, yy, xy = sample.blocks(x, y)
    values = {"uniformity_x": pairwise.uniformity(xx), "uniformity_y": pairwise.uniformity(yy)}
    values |= mixing_values(sample, xx, yy, xy) | hub_values(xy, sample.k)
    if sample.paired:
        values |= agreement_values(xx, yy, sample.k)
    return values


def mixing_values(sample: Sample, xx, yy, xy) -> dict[str, float]:
    """Measures that depend on the modalities but not on pairs, also after centring."""
    values = {}
    for suffix, part in (("", (xx, yy, xy)), ("_centred", pairwise.centred_cosines(xx, yy, xy))):
        values[f"neighbour_share{suffix}"] = pairwise.neighbour_share(*part, sample.k)
        values[f"mmd2{suffix}"] = pairwise.mmd_squared(*part, sample.bandwidth, sample.paired)
    return values


def hub_values(xy, k: int) -> dict[str, float]:
    """Hubness of y among the neighbours of x, and back."""
    there, back = pairwise.hubness(xy, k), pairwise.hubness(xy.T, k)
    return {f"hub_{name}": value for name, value in there.items()} | {
        f"hub_{name}_back": value for name, value in back.items()
    }


def agreement_values(xx, yy, k: int) -> dict[str, float]:
    """Measures that depend on pairs but not on the offset."""
    raw, chance = pairwise.mutual_neighbours(xx, yy, k), k / (len(xx) - 1)
    return {"mutual_knn": (raw - chance) / (1 - chance), "mutual_knn_raw": raw}
