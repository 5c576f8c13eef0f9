"""Standard errors, intervals and nulls of the measures."""

# Shapes: N, M items of the two modalities, D embedding size, P items of the sample.

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import distribution, moments, pairwise
from .families import Families
from .measures import MEASURES, Measure
from .values import (
    Sample,
    agreement_values,
    hub_values,
    linear_values,
    mixing_values,
    pairwise_values,
)

__all__ = [
    "cut_interval", "freedom", "drawn_nulls", "exchanged_nulls", "linear_nulls",
    "of_sample", "root", "separability", "sphere_values", "standard_errors",
]  # fmt: skip


_FRECHET_HALF = 400  # items of a half; singular values cost the third power of it
_NULL_DRAWS = 10
_EXCHANGED_ITEMS = 5000  # of all draws of a null together, which costs the third power of a draw's
_SHARES = ("neighbour_share", "neighbour_share_centred", "separability")


def linear_nulls(m: moments.Moments) -> dict[str, float]:
    """Nulls of `linear_values` by formula; those of cka and participation have to be drawn."""
    _, _, between = moments.mean_cosines(m)
    # what sampling adds to the raw square is what debiasing takes away
    noise = moments.centroid_gap_squared(m) - moments.debiased_gap_squared(m)
    nulls = dict.fromkeys(("gap_squared", "similarity_x", "similarity_y", "similarity_xy"), 0.0)
    return nulls | {
        "gap_raw": max(noise, 0.0) ** 0.5, "rmg": 0.5, "alignment": 2 - 2 * between,
        "offset_share": 0.0, "pair_cosine": between, "pair_excess": 0.0,
    }  # fmt: skip


def standard_errors(sample: Sample, families: Families, resamples: int, rng) -> dict[str, float]:
    """Standard errors of all measures but separability, from random halves of the sample.

    Halves are drawn without replacement, since the duplicates of a bootstrap would be each other's
    nearest neighbours. A half of H among the sample's F families differs from all F with variance
    s^2 (1 / H - 1 / F), while the value differs from the truth with s^2 / (number of `families`,
    those of all items).
    """
    draws: dict[str, list[float]] = {}
    for _ in range(resamples):
        x, y = sample.half(rng)
        xx, yy, xy = sample.blocks(x, y)
        sums = moments.Moments.of_gram(xx, yy, xy, sample.paired, sample.same(x, y))
        drawn = linear_values(sums) | pairwise_values(sample, x, y)
        part = slice(_FRECHET_HALF)
        drawn["frechet"] = distribution.frechet_of_gram(
            xx[part, part], yy[part, part], xy[part, part]
        )
        _add(draws, drawn)
    errors, count = {}, sample.families.count
    for name, values in draws.items():
        size = count if of_sample(name, families) else families.count
        taken = count // 2
        if name == "frechet" and sample.size // 2 > _FRECHET_HALF:
            taken *= _FRECHET_HALF / (sample.size // 2)
        factor = (1 / size) / (1 / taken - 1 / count)
        errors[name] = float(np.std(values, ddof=1)) * factor**0.5
    least = 1 / (2 * sample.families.effective)
    return {name: max(error, least) if name in _SHARES else error
            for name, error in errors.items()}  # fmt: skip


def drawn_nulls(sample: Sample, dim: int, rng) -> dict[str, float]:
    """Nulls of `pairwise_values` and of cka: means over draws.

    Modalities are exchanged at random or pairing is at random, as `MEASURES` says; uniformity has
    that of the sphere in R^dim. For measures after centring the modalities are centred first:
    exchanged before, their offset would be part of both sides.
    """
    draws: dict[str, list[float]] = {}
    centred = sample.centred()
    for _ in range(_NULL_DRAWS):
        places = sample.exchanged(rng)
        cosines = sample.blocks(*places)
        again = pairwise.centred_cosines(*centred.blocks(*places))
        drawn = mixing_values(sample, cosines, again, sample.same(*places))
        drawn |= hub_values(cosines[2], sample.k)
        if sample.paired:
            places = sample.mismatched(rng)
            xx, yy, xy = sample.blocks(*places)
            drawn["cka"] = moments.debiased_cka(moments.Moments.of_gram(xx, yy, xy, True))
            drawn |= agreement_values(sample, xx, yy, places[0])
        _add(draws, drawn)
    nulls = _means(draws)
    return nulls | dict.fromkeys(
        ("uniformity_x", "uniformity_y"), distribution.sphere_uniformity(dim)
    )


def sphere_values(sample: Sample, x: np.ndarray, y: np.ndarray, rng) -> dict[str, float]:
    """Hubs, means over draws, and participation of as many uniform vectors on the sphere."""
    draws: dict[str, list[float]] = {}
    for _ in range(_NULL_DRAWS):
        sides = (rng.standard_normal((sample.size, x.shape[1])) for _ in range(2))
        one, other = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
        _add(draws, hub_values(one @ other.T, sample.k))
    return _means(draws) | {
        f"participation_{name}": distribution.sphere_participation(*side.shape)
        for name, side in (("x", x), ("y", y))
    }


def exchanged_nulls(x: np.ndarray, y: np.ndarray, families: Families, rng) -> dict[str, float]:
    """Nulls of Fréchet distance and participation, which depend on n: of all items, exchanged.

    Means over 10 draws at 500 items, over fewer where more items make a draw certain. For
    participation the modalities are centred first, or their offset would be a direction of spread.
    """
    draws: dict[str, list[float]] = {}
    together = np.concatenate([x, y])
    centred = np.concatenate([side - side.mean(0, dtype=np.float64).astype(side.dtype)
                              for side in (x, y)])  # fmt: skip
    for _ in range(int(np.clip(_EXCHANGED_ITEMS // min(len(x), len(y)), 1, _NULL_DRAWS))):
        places = families.exchanged(rng)
        drawn = {"frechet": distribution.frechet(*(together[part] for part in places))}
        for name, part in zip(("x", "y"), places, strict=True):
            drawn[f"participation_{name}"] = moments.participation(centred[part])
        _add(draws, drawn)
    return _means(draws)


def separability(x: np.ndarray, y: np.ndarray, families: Families, seed: int):
    """Balanced held-out accuracy and its standard error over families."""
    folds = 5 if x.dtype == np.float64 else 2  # a large collection needs no more
    hits = distribution.held_out_hits(x, y, families.paired, folds, seed, families)
    sides = hits[: len(x)], hits[len(x) :]
    parts = [(side - side.mean()) / (2 * len(side)) for side in sides]  # [N], [M] of the deviation
    totals = np.bincount(np.concatenate([families.x, families.y]), np.concatenate(parts))
    variance = totals @ totals * len(totals) / (len(totals) - 1)
    # without a miss the interval is that of the rule of three
    least = min(map(len, sides)) / (len(hits) * families.effective)
    return float(sum(side.mean() for side in sides) / 2), max(float(variance) ** 0.5, least)


def freedom(families: Families, resamples: int) -> float:
    """Degrees of freedom of a standard error, which varies with the halves and the families.

    Without groups these are 50 or more, and only the halves count.
    """
    if not families.grouped:
        return resamples - 1
    return 1 / (1 / (resamples - 1) + 1 / (families.effective - 1))


def of_sample(name: str, families: Families) -> bool:
    """Whether a measure is of the sample rather than of all items."""
    return MEASURES[name].interval == "sample" or (name == "cka" and families.grouped)


def cut_interval(name: str, value: float, width: float) -> tuple[float, float]:
    """value +- width, cut to the measure's range; the value itself always lies inside."""
    lowest, highest = MEASURES[name].limits
    low, high = max(value - width, lowest), min(value + width, highest)
    return float(min(low, value)), float(max(high, value))


def root(squared: Measure) -> Measure:
    """The gap from its square, which is negative by chance where there is no gap."""
    ends = squared.interval
    return replace(
        squared,
        value=max(squared.value, 0.0) ** 0.5,
        interval=ends and tuple(max(end, 0.0) ** 0.5 for end in ends),
    )


def _add(draws: dict[str, list[float]], drawn: dict[str, float]) -> None:
    for name, value in drawn.items():
        draws.setdefault(name, []).append(value)


def _means(draws: dict[str, list[float]]) -> dict[str, float]:
    return {name: float(np.mean(values)) for name, values in draws.items()}
