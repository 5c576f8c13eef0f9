"""Measures of all pairs of items, from matrices of cosines: spread, mixing, neighbours, hubs.

Their cost is N^2. Ties for the last places of a neighbour list count in proportion, so that exact
repeats across modalities favour neither.
"""

# Shapes: N, M items of the two modalities, K neighbours.

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

__all__ = [
    "centred_cosines", "family_cka", "hubness", "mmd_squared", "mutual_neighbours",
    "neighbour_share", "same_modality_counts", "uniformity",
]  # fmt: skip


_TIE = 1e-9  # cosines closer than this are equal; float64 products differ by 1e-15


def uniformity(cosines: np.ndarray, same: np.ndarray | None = None) -> float:
    """log mean exp(-2 ||x_i - x_j||^2) over i < j of one modality (Wang & Isola 2020).

    cosines [N, N]; `same` [N, N] marks items of one family, which are not compared. 0: all at one
    point; uniform on the sphere: `sphere_uniformity(D)`, about -4. Do not pool modalities: two
    distant clusters look more uniform than one.
    """
    return float(np.log(_mean_outside(np.exp(4 * (cosines - 1)), same)))


def mmd_squared(
    xx: np.ndarray, yy: np.ndarray, xy: np.ndarray, bandwidth: float, paired: bool, same=None
) -> float:
    """Unbiased squared maximum mean discrepancy with k = exp(-||a - b||^2 / bandwidth).

    From cosines xx [N, N], yy [M, M], xy [N, M]; bandwidth > 0, usually the median squared
    distance. 0 in expectation for equal distributions at any N and D, negative by chance. `paired`
    leaves pairs, which are more alike than chance, out of the cross term; `same`, three masks of
    the shapes of the cosines, leaves out items of one family everywhere.
    """
    masks = same or (None, None, None if paired else False)
    xx, yy, xy = (
        _mean_outside(np.exp(2 * (cosines - 1) / bandwidth), mask)
        for cosines, mask in zip((xx, yy, xy), masks, strict=True)
    )
    return float(xx + yy - 2 * xy)


def same_modality_counts(same: np.ndarray, other: np.ndarray, k: int) -> np.ndarray:
    """Number of items of the same modality among each item's k nearest of both: [N] in [0, k].

    same [N, N] cosines with items of the same modality (the diagonal is skipped), other [N, M] with
    those of the other one. Fractions where several candidates tie for the last places.
    """
    same = same.copy()
    np.fill_diagonal(same, -np.inf)
    last = np.partition(np.concatenate([same, other], axis=1), -k, axis=1)[:, -k, None]
    above = (same > last + _TIE).sum(1)
    above_other = (other > last + _TIE).sum(1)
    tied = (np.abs(same - last) <= _TIE).sum(1)
    tied_other = (np.abs(other - last) <= _TIE).sum(1)
    return above + (k - above - above_other) * tied / (tied + tied_other)


def neighbour_share(xx, yy, xy, k: int) -> float:
    """Mean share of the same modality among an item's k nearest of both.

    About (N - 1) / (2 N - 1) without a gap, 1 where a search never leaves the query's modality.
    Both modalities must have the same number of items.
    """
    counts = np.concatenate([same_modality_counts(xx, xy, k), same_modality_counts(yy, xy.T, k)])
    return float(counts.mean() / k)


def mutual_neighbours(xx: np.ndarray, yy: np.ndarray, k: int) -> float:
    """Share of k nearest neighbours on which both modalities agree (Huh et al. 2024), in [0, 1].

    xx, yy [N, N] cosines of pairs. Unrelated structures share c = k / (N - 1): compare only at
    equal N and k, or corrected for chance, (m - c) / (1 - c).
    """
    inside = [_nearest(cosines, k) for cosines in (xx, yy)]
    return float((inside[0] & inside[1]).sum() / (k * len(xx)))


def family_cka(xx: np.ndarray, yy: np.ndarray, code: np.ndarray) -> float:
    """`moments.debiased_cka` where items of one family are no independent draws.

    From cosines xx, yy [N, N] of pairs and the family [N] of each, a number from 0 on. The unbiased
    estimator of HSIC is a mean over four different items; here they are of four different families.
    """
    shape = (len(code), 1 + code.max())
    member = csr_array((np.ones(len(code)), (np.arange(len(code)), code)), shape=shape)
    outside = code[:, None] != code
    x, y, ones = (_by_family(outside * part, member) for part in (xx, yy, 1.0))
    terms = _distinct_sums(ones, ones)  # numbers of terms
    xy, x2, y2 = (
        float(np.divide(_distinct_sums(*sides), terms) @ (1, -2, 1))
        for sides in ((x, y), (x, x), (y, y))
    )
    return xy / (x2 * y2) ** 0.5 if x2 > 0 and y2 > 0 else 0.0


def hubness(cosines: np.ndarray, k: int) -> dict[str, float]:
    """How unequally candidates appear among the k best of the queries.

    cosines [N, M] queries by candidates. Returns `skew`, the skewness of the number of result lists
    that a candidate is in, and `never`, the share of candidates that are in none. Both grow with N
    and with anisotropy: read them beside their null.
    """
    best = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    counts = np.bincount(best.ravel(), minlength=cosines.shape[1]).astype(float)
    away = counts - counts.mean()
    spread = np.mean(away**2)
    skew = np.mean(away**3) / spread**1.5 if spread > 0 else 0.0
    return {"skew": float(skew), "never": float(np.mean(counts == 0))}


def centred_cosines(xx, yy, xy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cosines after each modality's mean is subtracted and norms are 1 again.

    What remains of a gap is not offset but shape and scale.
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


def _by_family(kernel, member) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kernel [N, N], its sums for items by families [N, F] and for families [F, F]."""
    by_item = kernel @ member
    return kernel, by_item, member.T @ by_item


def _distinct_sums(k, l) -> tuple[float, float, float]:  # noqa: E741 - the estimator's letters
    """Sums of k_ij l_ij, k_ij l_iq and k_ij l_qr over items i, j, q, r of different families."""
    two = float(np.vdot(k[0], l[0]))
    three = k[1].sum(1) @ l[1].sum(1) - np.vdot(k[1], l[1])
    four = k[2].sum() * l[2].sum() - 4 * (k[2].sum(1) @ l[2].sum(1)) + 2 * np.vdot(k[2], l[2])
    return two, float(three), float(four)


def _mean_outside(kernel, same) -> float:
    """Mean of the entries that `same` does not mark; None marks the diagonal, False nothing."""
    if same is None:
        return (kernel.sum() - np.trace(kernel)) / (kernel.size - len(kernel))
    if same is False:
        return kernel.sum() / kernel.size
    return (kernel.sum() - kernel[same].sum()) / (kernel.size - np.count_nonzero(same))


def _nearest(cosines, k) -> np.ndarray:
    """[N, N] whether j is among the k nearest of i."""
    away = -cosines
    np.fill_diagonal(away, np.inf)
    mask = np.zeros(away.shape, dtype=bool)
    np.put_along_axis(mask, np.argpartition(away, k - 1, axis=1)[:, :k], True, axis=1)
    return mask
