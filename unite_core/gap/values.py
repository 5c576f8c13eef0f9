"""Values of the measures by name: sums over all items, and pairs of items in a random sample.

The cost of pairs grows with the square of the number of items, hence the sample. Intervals and
nulls of all measures come from parts of the same sample.
"""

# Shapes: P items of each modality in the sample, N, M items of the two modalities, K neighbours.

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import moments, pairwise
from .families import Families

__all__ = [
    "Blocks", "Sample", "agreement_values", "hub_values", "linear_values", "mixing_values",
    "pairwise_values",
]  # fmt: skip

Blocks = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Cosines, or masks of them, within x, within y and between them."""


@dataclass(frozen=True)
class Sample:
    """All cosines among P + P items, x first, and ways to draw parts of them."""

    cosines: np.ndarray  # [2 P, 2 P]
    families: Families
    k: int
    bandwidth: float  # median squared distance

    @classmethod
    def draw(
        cls, x: np.ndarray, y: np.ndarray, families: Families, k: int, limit: int, rng
    ) -> Sample:
        """At most `limit` random items of x [N, D] and as many of y [M, D]."""
        rows, rows_y, families = families.sample(limit, rng)
        both = np.concatenate([x[rows], y[rows_y]]).astype(np.float64)
        cosines = both @ both.T
        upper = cosines[np.triu_indices(len(both), 1)]
        return cls(cosines, families, k, bandwidth=2 * (1 - float(np.median(upper))))

    @property
    def paired(self) -> bool:
        """Whether row i of both modalities is the same thing."""
        return self.families.paired

    @property
    def size(self) -> int:
        """P."""
        return len(self.cosines) // 2

    def blocks(self, x, y) -> Blocks:
        """Cosines xx, yy, xy of the items at positions x and y."""
        return tuple(self.cosines[np.ix_(*part)] for part in ((x, x), (y, y), (x, y)))

    def same(self, x, y) -> Blocks | None:
        """Which of these are of one family; None where families were not given."""
        if not self.families.grouped:
            return None
        code = np.concatenate([self.families.x, self.families.y])
        return tuple(code[one][:, None] == code[other] for one, other in ((x, x), (y, y), (x, y)))

    def centred(self) -> Sample:
        """The same items after each modality's mean is subtracted and norms are 1 again."""
        xx, yy, xy = pairwise.centred_cosines(*self.blocks(*self.all()))
        return replace(self, cosines=np.block([[xx, xy], [xy.T, yy]]))

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of all items of x and of y."""
        return np.arange(self.size), np.arange(self.size) + self.size

    def half(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Positions of a random half of the families, the same in both modalities if shared."""
        x, y = self.families.half(rng)
        return x, y + self.size

    def exchanged(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Positions, equally many, with modalities assigned at random (`Families.exchanged`)."""
        x, y = self.families.exchanged(rng)
        size = min(len(x), len(y))
        return x[:size], y[:size]

    def mismatched(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Positions with true modalities and random pairing."""
        x, y = self.families.mismatched(rng)
        return x, y + self.size


def linear_values(m: moments.Moments) -> dict[str, float]:
    """All measures that are sums over items; those of pairs only where there are pairs.

    With families `pairwise_values` has another cka, which replaces this one.
    """
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
    (xx, yy, xy), same = sample.blocks(x, y), sample.same(x, y)
    values = {
        "uniformity_x": pairwise.uniformity(xx, same and same[0]),
        "uniformity_y": pairwise.uniformity(yy, same and same[1]),
    }
    centred = pairwise.centred_cosines(xx, yy, xy)
    values |= mixing_values(sample, (xx, yy, xy), centred, same) | hub_values(xy, sample.k)
    if sample.paired:
        values |= agreement_values(sample, xx, yy, x)
    return values


def mixing_values(
    sample: Sample, cosines: Blocks, centred: Blocks, same: Blocks | None
) -> dict[str, float]:
    """Measures that depend on the modalities but not on pairs, also after centring."""
    values = {}
    for suffix, part in (("", cosines), ("_centred", centred)):
        values[f"neighbour_share{suffix}"] = pairwise.neighbour_share(*part, sample.k)
        values[f"mmd2{suffix}"] = pairwise.mmd_squared(*part, sample.bandwidth, sample.paired, same)
    return values


def hub_values(xy, k: int) -> dict[str, float]:
    """Hubness of y among the neighbours of x, and back."""
    there, back = pairwise.hubness(xy, k), pairwise.hubness(xy.T, k)
    return {f"hub_{name}": value for name, value in there.items()} | {
        f"hub_{name}_back": value for name, value in back.items()
    }


def agreement_values(sample: Sample, xx, yy, x) -> dict[str, float]:
    """Measures that depend on pairs but not on the offset; x are the positions of the pairs."""
    raw, chance = pairwise.mutual_neighbours(xx, yy, sample.k), sample.k / (len(xx) - 1)
    values = {"mutual_knn": (raw - chance) / (1 - chance), "mutual_knn_raw": raw}
    if sample.families.grouped:
        values["cka"] = pairwise.family_cka(xx, yy, sample.families.x[x])
    return values
