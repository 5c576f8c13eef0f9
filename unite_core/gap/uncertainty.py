"""Standard errors, intervals and nulls of the measures."""

# Shapes: N, M items of the two modalities, D embedding size, P items of the sample, H of a half.

from __future__ import annotations

import numpy as np

from . import distribution, moments
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
    "cut_interval", "drawn_nulls", "linear_nulls", "root", "separability", "split_half_frechet",
    "standard_errors",
]  # fmt: skip


_FRECHET_HALF = 400  # items of a half; singular values cost the third power of it
_NULL_DRAWS = 10
_SHARES = ("neighbour_share", "neighbour_share_centred", "separability")


def linear_nulls(m: moments.Moments, dim: int) -> dict[str, float]:
    """Nulls of `linear_values` by formula; that of cka has to be drawn."""
    within_x, within_y, between = moments.mean_cosines(m)
    n_x, n_y = len(m.self_x), len(m.self_y)
    noise = (1 - within_x) / n_x + (1 - within_y) / n_y
    if m.pairs is not None:  # pairs move together, so their means do
        noise -= 2 * (float(m.pairs.mean()) - between) / n_x
    nulls = dict.fromkeys(("gap_squared", "similarity_x", "similarity_y", "similarity_xy"), 0.0)
    nulls |= {f"participation_{side}": distribution.sphere_participation(n, dim)
              for side, n in (("x", n_x), ("y", n_y))}  # fmt: skip
    return nulls | {
        "gap_raw": max(noise, 0.0) ** 0.5, "rmg": 0.5, "alignment": 2 - 2 * between,
        "offset_share": 1 / n_x, "pair_cosine": between, "pair_excess": 0.0,
    }  # fmt: skip


def standard_errors(sample: Sample, n: int, resamples: int, rng) -> dict[str, float]:
    """Standard errors of all measures but separability, from random halves of the sample.

    Halves are drawn without replacement, since the duplicates of a bootstrap would be each other's
    nearest neighbours. A half of H among P items differs from all P with variance
    s^2 (1 / H - 1 / P), while the value differs from the truth with s^2 / n.
    """
    draws: dict[str, list[float]] = {}
    for _ in range(resamples):
        x, y = sample.half(rng)
        drawn = pairwise_values(sample, x, y)
        xx, yy, xy = sample.blocks(x, y)
        drawn |= linear_values(moments.Moments.of_gram(xx, yy, xy, sample.paired))
        part = slice(_FRECHET_HALF)
        drawn["frechet"] = distribution.frechet_of_gram(
            xx[part, part], yy[part, part], xy[part, part]
        )
        for name, value in drawn.items():
            draws.setdefault(name, []).append(value)
    errors, half = {}, sample.size // 2
    for name, values in draws.items():
        size = sample.size if MEASURES[name].interval == "sample" else n
        taken = min(half, _FRECHET_HALF) if name == "frechet" else half
        factor = (1 / size) / (1 / taken - 1 / sample.size)
        errors[name] = float(np.std(values, ddof=1)) * factor**0.5
    return {name: max(error, 1 / (2 * sample.size)) if name in _SHARES else error
            for name, error in errors.items()}  # fmt: skip


def drawn_nulls(sample: Sample, dim: int, rng) -> dict[str, float]:
    """Nulls that have no formula: means over draws.

    Modalities are exchanged at random, pairing is at random, or vectors are uniform on the sphere
    in R^dim: `MEASURES` says which.
    """
    draws: dict[str, list[float]] = {}
    for _ in range(_NULL_DRAWS):
        drawn = mixing_values(sample, *sample.blocks(*sample.exchanged(rng)))
        if sample.paired:
            xx, yy, xy = sample.blocks(*sample.mismatched(rng))
            drawn |= agreement_values(xx, yy, sample.k)
            drawn["cka"] = moments.debiased_cka(moments.Moments.of_gram(xx, yy, xy, True))
        for name, value in drawn.items():
            draws.setdefault(name, []).append(value)
    x, y = (rng.standard_normal((sample.size, dim)) for _ in range(2))
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y))
    nulls = {name: float(np.mean(values)) for name, values in draws.items()}
    nulls |= dict.fromkeys(("uniformity_x", "uniformity_y"), distribution.sphere_uniformity(dim))
    return nulls | hub_values(x @ y.T, sample.k)


def split_half_frechet(x: np.ndarray, y: np.ndarray, rng) -> float:
    """Fréchet distance between random halves of one modality, mean of both modalities."""
    values = []
    for side in (x, y):
        order = rng.permutation(len(side))
        half = len(side) // 2
        values.append(distribution.frechet(side[order[:half]], side[order[half : 2 * half]]))
    return float(np.mean(values))


def separability(x: np.ndarray, y: np.ndarray, paired: bool, seed: int) -> tuple[float, float]:
    """Balanced held-out accuracy and its standard error, over pairs or over items."""
    folds = 5 if x.dtype == np.float64 else 2  # a large collection needs no more
    hits = distribution.held_out_hits(x, y, paired, folds, seed)
    hits_x, hits_y = hits[: len(x)], hits[len(x) :]
    if paired:
        variance = np.var((hits_x + hits_y) / 2, ddof=1) / len(x)
    else:
        variance = (np.var(hits_x, ddof=1) / len(x) + np.var(hits_y, ddof=1) / len(y)) / 4
    # without a miss the interval is that of the rule of three
    error = max(float(variance) ** 0.5, 1 / len(hits))
    return float((hits_x.mean() + hits_y.mean()) / 2), error


def cut_interval(name: str, value: float, width: float) -> tuple[float, float]:
    """value +- width, cut to the measure's range; the value itself always lies inside."""
    lowest, highest = MEASURES[name].limits
    low, high = max(value - width, lowest), min(value + width, highest)
    return float(min(low, value)), float(max(high, value))


def root(squared: Measure) -> Measure:
    """The gap from its square, which is negative by chance where there is no gap."""
    value, low, high = (max(v, 0.0) ** 0.5 for v in (squared.value, *squared.interval))
    return Measure(value, (low, high), 0.0, squared.n)
