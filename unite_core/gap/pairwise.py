"""Measures of all pairs of items, from matrices of cosines: mixing, spread, neighbours, hubs.

Their cost is N^2, so they are taken of a random part of a large collection. Ties in a neighbour
list are shared out in proportion, so that exact repeats across modalities favour neither.
"""

# Shapes: N, M items of the two modalities, K neighbours.

from __future__ import annotations

import numpy as np

__all__ = [
    "centred_cosines",
    "hubness",
    "mmd_squared",
    "mutual_neighbours",
    "neighbour_counts",
    "own_neighbour_share",
    "uniformity",
]


_TIE = 1e-9  # cosines closer than this are equal; float64 products differ by 1e-15


def uniformity(cosines: np.ndarray) -> float:
    """log mean exp(-2 ||x_i - x_j||^2) over i < j of one modality (Wang & Isola 2020).

    cosines [N, N]. 0: all at one point; uniform on the sphere: `sphere_uniformity(D)`, about -4.
    Never of both modalities pooled: two far clusters look more uniform than one.
    """
    n = len(cosines)
    kernel = np.exp(4 * (cosines - 1))
    return float(np.log((kernel.sum() - np.trace(kernel)) / (n * (n - 1))))


def mmd_squared(
    xx: np.ndarray, yy: np.ndarray, xy: np.ndarray, bandwidth: float, paired: bool
) -> float:
    """Unbiased squared maximum mean discrepancy with k = exp(-||a - b||^2 / bandwidth).

    From cosines xx [N, N], yy [M, M], xy [N, M]; bandwidth > 0, the median squared distance of
    all items by custom. 0 in expectation for equal distributions at any N and D, below by chance;
    with `paired` only if pairs, which are more alike than chance, are left out of the cross term.
    """
    inside = []
    for cosines in (xx, yy):
        kernel = np.exp(2 * (cosines - 1) / bandwidth)
        n = len(kernel)
        inside.append((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))
    kernel = np.exp(2 * (xy - 1) / bandwidth)
    pairs = np.trace(kernel) if paired else 0.0
    between = (kernel.sum() - pairs) / (kernel.size - len(kernel) * paired)
    return float(sum(inside) - 2 * between)


def neighbour_counts(own: np.ndarray, other: np.ndarray, k: int) -> np.ndarray:
    """How many of each item's k nearest, among both modalities, are of its own: [N] in [0, k].

    own [N, N] cosines with the item's modality (its own entry is skipped), other [N, M] with the
    other one. Fractions where several candidates tie for the last places.
    """
    own = own.copy()
    np.fill_diagonal(own, -np.inf)
    everyone = np.concatenate([own, other], axis=1)
    last = np.partition(everyone, -k, axis=1)[:, -k, None]
    above = (own > last + _TIE).sum(1)
    above_other = (other > last + _TIE).sum(1)
    tied = (np.abs(own - last) <= _TIE).sum(1)
    tied_other = (np.abs(other - last) <= _TIE).sum(1)
    return above + (k - above - above_other) * tied / (tied + tied_other)


def own_neighbour_share(xx, yy, xy, k: int) -> float:
    """Share of an item's k nearest among both modalities that are of its own, averaged.

    About (N - 1) / (2 N - 1) without a gap, 1 where a mixed index never leaves the modality. Give
    as many items of one modality as of the other.
    """
    counts = np.concatenate([neighbour_counts(xx, xy, k), neighbour_counts(yy, xy.T, k)])
    return float(counts.mean() / k)


def mutual_neighbours(xx: np.ndarray, yy: np.ndarray, k: int) -> float:
    """Share of k nearest neighbours that both modalities agree on (Huh et al. 2024), in [0, 1].

    xx, yy [N, N] cosines of pairs. Unrelated structures share k / (N - 1), so compare at equal N
    and k only, or corrected for chance: (m - c) / (1 - c).
    """
    inside = [_nearest(cosines, k) for cosines in (xx, yy)]
    return float((inside[0] & inside[1]).sum() / (k * len(xx)))


def hubness(cosines: np.ndarray, k: int) -> dict[str, float]:
    """How unequally candidates turn up among the k best of the queries.

    cosines [N, M] queries by candidates. Returns `skew`, the skewness of the number of lists that
    a candidate is in, and `never`, the share of candidates that are in none. Both grow with N and
    with anisotropy: read them beside their null.
    """
    best = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    counts = np.bincount(best.ravel(), minlength=cosines.shape[1]).astype(float)
    away = counts - counts.mean()
    spread = np.mean(away**2)
    skew = np.mean(away**3) / spread**1.5 if spread > 0 else 0.0
    return {"skew": float(skew), "never": float(np.mean(counts == 0))}


def centred_cosines(xx, yy, xy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cosines after each modality's mean is subtracted and norms are 1 again.

    What is left of a gap then is no offset but shape and scale (GAP §4).
    """
    mean_xx, mean_yy = xx.mean(0), yy.mean(0)  # x_j . mean x, y_j . mean y
    centred = [
        xx - mean_xx - mean_xx[:, None] + xx.mean(),
        yy - mean_yy - mean_yy[:, None] + yy.mean(),
        xy - xy.mean(0) - xy.mean(1)[:, None] + xy.mean(),
    ]
    norm_x, norm_y = (np.sqrt(np.diag(part)) for part in centred[:2])
    return (
        centred[0] / np.outer(norm_x, norm_x),
        centred[1] / np.outer(norm_y, norm_y),
        centred[2] / np.outer(norm_x, norm_y),
    )


def _nearest(cosines, k) -> np.ndarray:
    """[N, N] whether j is among the k nearest of i."""
    away = -cosines
    np.fill_diagonal(away, np.inf)
    mask = np.zeros(away.shape, dtype=bool)
    np.put_along_axis(mask, np.argpartition(away, k - 1, axis=1)[:, :k], True, axis=1)
    return mask
