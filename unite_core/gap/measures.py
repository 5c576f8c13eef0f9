"""What every measure is: meaning, range, value without a gap, interval. One look-up per measure.

    print(gap.MEASURES["rmg"])

Formulas, sources and pitfalls are in docs/gap.md, one section per measure (docs/gap.md#rmg).
`gap.measure` computes them; d is a distance of two unit vectors, n the number of items.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["INTERVALS", "MEASURES", "PAIRED", "Definition", "Measure"]


INTERVALS = {
    "items": "of all items; random halves of the sample, scaled to all items",
    "sample": "of at most `pairwise` random items per modality; random halves of these",
    "halves": "of all items; random halves of at most 400 items, scaled to all items",
    "folds": "of all items; standard error of the held-out hits",
    "square": "of all items; the roots of the ends of gap_squared's interval",
}
"""What a value is computed from, and how its interval comes about; halves are of families."""


@dataclass(frozen=True)
class Definition:
    """What a measure is and how to read it; `str` gives all of it as text.

    meaning   what is computed
    null      what the value would be, at the same n, without what the measure looks for
    range     (lowest, highest) of the estimate for unit vectors
    interval  a key of `INTERVALS`
    sphere    whether the value of uniform vectors on the sphere stands beside the null
    paired    whether row i of both modalities must be the same thing
    cut       whether intervals are cut to the range
    """

    meaning: str
    null: str
    range: tuple[float, float]
    interval: str = "items"
    sphere: bool = False
    paired: bool = False
    cut: bool = True

    def __str__(self) -> str:
        low, high = self.range
        needs = "; needs pairs" if self.paired else ""
        beside = f" (beside it: {_SPHERE})" if self.sphere else ""
        return (
            f"{self.meaning}{needs}\n"
            f"range [{low:g}, {high:g}]; without a gap: {self.null}{beside}\n"
            f"value and interval: {INTERVALS[self.interval]}"
        )

    @property
    def limits(self) -> tuple[float, float]:
        """Where intervals are cut."""
        return self.range if self.cut else (-math.inf, math.inf)


_ANY, _SHARE = (-math.inf, math.inf), (0, 1)
_EXCHANGED, _SPHERE = "modalities exchanged at random", "uniform vectors on the sphere"
_CENTRED = "modalities centred, then exchanged at random"
_UNPAIRED = "pairing at random"

MEASURES = {
    # distance of the means
    "gap": Definition("distance of the modalities' means, debiased", "0", (0, 2), "square"),
    "gap_squared": Definition(
        "square of the gap with its sign, which is negative by chance", "0", (-math.inf, 4),
        cut=False,
    ),
    "gap_raw": Definition(
        "distance of the means as the literature reports it, too large by sampling",
        "its size from sampling alone", (0, 2),
    ),
    "offset_share": Definition(
        "share of `alignment` that one offset of all pairs explains, debiased, negative by chance",
        "0", (-math.inf, 1), paired=True, cut=False,
    ),
    # cosines
    "similarity_x": Definition("mean cosine of different items of x", "0", (-1, 1), cut=False),
    "similarity_y": Definition("mean cosine of different items of y", "0", (-1, 1), cut=False),
    "similarity_xy": Definition(
        "mean cosine of an x and a y that are no pair", "0", (-1, 1), cut=False
    ),
    "pair_cosine": Definition(
        "mean cosine of pairs", _UNPAIRED, (-1, 1), paired=True, cut=False
    ),
    "pair_excess": Definition(
        "pair_cosine minus similarity_xy", "0", (-2, 2), paired=True, cut=False
    ),
    "alignment": Definition("mean squared distance of pairs", _UNPAIRED, (0, 4), paired=True),
    "rmg": Definition(
        "relative modality gap: distance of pairs beside that of items of one modality",
        ".5, a pair is as far apart as two random items of one modality", _SHARE, paired=True,
    ),
    # spread of one modality
    "uniformity_x": Definition("log mean exp(-2 d^2) within x", _SPHERE, (-8, 0), "sample"),
    "uniformity_y": Definition("log mean exp(-2 d^2) within y", _SPHERE, (-8, 0), "sample"),
    "participation_x": Definition(
        "number of directions that the spread of x uses", _CENTRED, (1, math.inf), sphere=True
    ),
    "participation_y": Definition(
        "number of directions that the spread of y uses", _CENTRED, (1, math.inf), sphere=True
    ),
    # how well the modalities mix
    "separability": Definition(
        "held-out accuracy of a logistic regression that tells the modality", ".5", _SHARE,
        "folds",
    ),
    "neighbour_share": Definition(
        "share of the same modality among an item's k nearest of both", _EXCHANGED, _SHARE,
        "sample",
    ),
    "neighbour_share_centred": Definition(
        "neighbour_share after each mean is subtracted and norms are 1 again", _CENTRED,
        _SHARE, "sample",
    ),
    "mmd2": Definition(
        "unbiased squared MMD, Gaussian kernel at the median squared distance", _EXCHANGED,
        _ANY, "sample",
    ),
    "mmd2_centred": Definition(
        "mmd2 after each mean is subtracted and norms are 1 again", _CENTRED, _ANY, "sample"
    ),
    "frechet": Definition(
        "Fréchet distance of Gaussians with the modalities' means and covariances",
        _EXCHANGED, (0, math.inf), "halves",
    ),
    # agreement of structure, whatever the offset
    "cka": Definition(
        "linear CKA, debiased, negative by chance", _UNPAIRED, (-math.inf, 1), paired=True
    ),
    "mutual_knn": Definition(
        "share of k nearest neighbours on which both modalities agree, corrected for chance",
        _UNPAIRED, (-math.inf, 1), "sample", paired=True,
    ),
    "mutual_knn_raw": Definition(
        "mutual_knn without the correction", "pairing at random, about k / (n - 1)", _SHARE,
        "sample", paired=True,
    ),
    # hubs
    "hub_skew": Definition(
        "skewness of how often a y is among the k nearest of an x", _EXCHANGED, _ANY, "sample",
        sphere=True,
    ),
    "hub_never": Definition(
        "share of y that are among no x's k nearest", _EXCHANGED, _SHARE, "sample", sphere=True
    ),
    "hub_skew_back": Definition(
        "hub_skew of x among the k nearest of y", _EXCHANGED, _ANY, "sample", sphere=True
    ),
    "hub_never_back": Definition(
        "hub_never of x among the k nearest of y", _EXCHANGED, _SHARE, "sample", sphere=True,
        cut=False,
    ),
}  # fmt: skip
"""{name: Definition} of everything that `gap.measure` returns."""

PAIRED = frozenset(name for name, definition in MEASURES.items() if definition.paired)
"""Measures that need pairs."""


@dataclass(frozen=True)
class Measure:
    """One measured number with what it takes to read it; also by key, as `row["value"]`.

    interval  None below 10 effective families
    null      what the value would be, at this n, without what it looks for (see `MEASURES`)
    n         items of each modality, or pairs
    families  effective families among them; n where no groups were given
    sphere    the value of uniform vectors on the sphere, where that says something, else None
    """

    value: float
    interval: tuple[float, float] | None
    null: float
    n: int
    families: float
    sphere: float | None = None

    def __getitem__(self, name: str):
        if name not in self.keys():
            raise KeyError(f"a measure has {', '.join(self.keys())}; not {name!r}")
        return getattr(self, name)

    def keys(self) -> tuple[str, ...]:
        """Names of the fields, which let `dict(row)` work."""
        return ("value", "interval", "null", "n", "families", "sphere")
