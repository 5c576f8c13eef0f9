"""Measures that are sums over items: gap, RMG, alignment, CKA, participation ratio.

All of them need only a few sums of inner products. `Moments.of_vectors` computes these from vectors
in time linear in N, `Moments.of_gram` from matrices of inner products; both give the same numbers.
"""

# Shapes: N, M items of the two modalities, D embedding size.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from .families import Families

__all__ = [
    "Moments", "alignment", "centroid_gap_squared", "debiased_cka", "debiased_gap_squared",
    "mean_cosines", "participation", "participation_ratio", "relative_gap",
]  # fmt: skip


_ROWS = 8192  # of a block: float64 sums of float32 vectors without a float64 copy


@dataclass(frozen=True)
class Moments:
    """Sums of inner products within and between two modalities."""

    self_x: np.ndarray  # [N] x_i . x_i
    self_y: np.ndarray  # [M]
    rows_x: np.ndarray  # [N] sum_j x_i . x_j, j = i included
    rows_y: np.ndarray  # [M]
    cross: float  # sum_ij x_i . y_j
    pairs: np.ndarray | None  # [N] x_i . y_i; None: unpaired
    square_x: float  # sum_ij (x_i . x_j)^2 = ||X'X||^2
    square_y: float
    square_xy: float | None  # sum_ij (x_i . x_j)(y_i . y_j) = ||X'Y||^2; None: unpaired
    inside: tuple[float, float, float]  # sums within x, y and between, inside families
    inside_counts: tuple[int, int, int]  # of their terms

    @classmethod
    def of_vectors(
        cls, x: np.ndarray, y: np.ndarray, paired: bool, families: Families | None = None
    ) -> Moments:
        """From vectors [N, D] and [M, D], of any norm; without families items are independent."""
        self_x, self_y, pairs = _dots(x, x), _dots(y, y), _dots(x, y) if paired else None
        inside = _of_items(self_x, self_y, pairs)
        if families is not None and families.grouped:
            inside = _of_families(x, y, families)
        sum_x, sum_y = x.sum(0, dtype=np.float64), y.sum(0, dtype=np.float64)
        return cls(
            self_x=self_x, self_y=self_y,
            rows_x=_project(x, sum_x), rows_y=_project(y, sum_y),
            cross=float(sum_x @ sum_y), pairs=pairs,
            square_x=_product_square(x, x), square_y=_product_square(y, y),
            square_xy=_product_square(x, y) if paired else None,
            inside=inside[0], inside_counts=inside[1],
        )  # fmt: skip

    @classmethod
    def of_gram(
        cls, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray, paired: bool, same=None
    ) -> Moments:
        """From inner products xx [N, N], yy [M, M], xy [N, M].

        `same` are three masks of their shapes, of items of one family; None: all independent.
        """
        self_x, self_y, pairs = np.diag(xx), np.diag(yy), np.diag(xy) if paired else None
        sums, counts = _of_items(self_x, self_y, pairs)
        if same is not None:
            parts = tuple(zip((xx, yy, xy), same, strict=True))
            sums = tuple(float(part[mask].sum()) for part, mask in parts)
            counts = tuple(int(np.count_nonzero(mask)) for _, mask in parts)
        return cls(
            self_x=self_x, self_y=self_y, rows_x=xx.sum(1), rows_y=yy.sum(1),
            cross=float(xy.sum()), pairs=pairs,
            square_x=float(np.vdot(xx, xx)), square_y=float(np.vdot(yy, yy)),
            square_xy=float(np.vdot(xx, yy)) if paired else None,
            inside=sums, inside_counts=counts,
        )  # fmt: skip


def mean_cosines(m: Moments) -> tuple[float, float, float]:
    """Mean cosines within x, within y and between them: S_xx, S_yy, S_xy.

    No item is compared with itself, with its pair or with one of its family.
    """
    n_x, n_y = len(m.self_x), len(m.self_y)
    sums, counts = (m.rows_x.sum(), m.rows_y.sum(), m.cross), (n_x * n_x, n_y * n_y, n_x * n_y)
    return tuple(
        float((total - inside) / (count - left_out))
        for total, inside, count, left_out in zip(
            sums, m.inside, counts, m.inside_counts, strict=True
        )
    )


def debiased_gap_squared(m: Moments) -> float:
    """Squared distance of the modalities' means, without sampling bias.

        G^2 = S_xx + S_yy - 2 S_xy,   means over different, unpaired items of different families

    Negative by chance where there is no gap. True pairs are left out of S_xy: they are closer than
    chance and would shrink the gap of a well aligned model.
    """
    within_x, within_y, between = mean_cosines(m)
    return within_x + within_y - 2 * between


def centroid_gap_squared(m: Moments) -> float:
    """||mean x - mean y||^2 as in Liang et al. 2022, biased by about 2 / N."""
    n_x, n_y = len(m.self_x), len(m.self_y)
    square = m.rows_x.sum() / n_x**2 + m.rows_y.sum() / n_y**2 - 2 * m.cross / (n_x * n_y)
    return max(float(square), 0.0)  # rounding can make 0 negative


def alignment(m: Moments) -> dict[str, float]:
    """Mean squared distance of pairs, and how much of it one offset of all pairs explains.

        E ||x - y||^2 = ||E x - E y||^2 + E ||(x - E x) - (y - E y)||^2

    Returns `alignment`, an unbiased estimate of the left side, in [0, 4] for unit vectors, and
    `offset_share`, the ratio of the unbiased estimates of the first term on the right
    (`debiased_gap_squared`) and of the left side: at most 1, negative by chance without an offset,
    0 where all pairs coincide.
    """
    total = float(np.mean(m.self_x + m.self_y - 2 * m.pairs))
    offset = debiased_gap_squared(m)
    return {"alignment": total, "offset_share": offset / total if total > 1e-12 else 0.0}


def relative_gap(m: Moments) -> float:
    """Relative modality gap (Schrodi et al. 2024): distance of pairs beside that within modalities.

        RMG = P / (P + I),  P = (1 - p) / 2,  I = ((1 - S_xx) / 2 + (1 - S_yy) / 2) / 2

    for unit vectors, p the mean cosine of pairs. 0: pairs coincide; 0.5: a pair is as far apart as
    two random items of one modality; towards 1 as the spread collapses. Implementations that drop
    the 1/2 in P only give other numbers.
    """
    within_x, within_y, _ = mean_cosines(m)
    apart = (1 - float(m.pairs.mean())) / 2
    inside = ((1 - within_x) / 2 + (1 - within_y) / 2) / 2
    return apart / (apart + inside)


def debiased_cka(m: Moments) -> float:
    """Linear centred kernel alignment from unbiased HSIC (Song et al.); needs pairs.

    1 for structures that are equal up to rotation and scale, 0 in expectation for unrelated ones
    (negative by chance). The biased form gives 0.76 for the latter at N = 500, D = 1 536.
    """
    sides = ((m.self_x, m.rows_x), (m.self_y, m.rows_y))
    xy = _unbiased_hsic(m.square_xy, *sides[0], *sides[1])
    xx = _unbiased_hsic(m.square_x, *sides[0], *sides[0])
    yy = _unbiased_hsic(m.square_y, *sides[1], *sides[1])
    return xy / (xx * yy) ** 0.5 if xx > 0 and yy > 0 else 0.0


def participation_ratio(square: float, squares: np.ndarray, rows: np.ndarray) -> float:
    """Number of directions that the spread uses: (sum l)^2 / sum l^2, l the covariance spectrum.

    From ||X'X||^2, x_i . x_i [N] and the rows' sums [N]. At most min(D, N - 1); about
    D (N - 1) / (N + D) even when all directions are used equally.
    """
    n, total = len(rows), rows.sum()
    spread = squares.sum() - total / n
    return float(spread**2 / (square - 2 / n * (rows @ rows) + (total / n) ** 2))


def participation(x: np.ndarray) -> float:
    """`participation_ratio` of vectors [N, D]."""
    rows = _project(x, x.sum(0, dtype=np.float64))
    return participation_ratio(_product_square(x, x), _dots(x, x), rows)


def _unbiased_hsic(square, diagonal_k, rows_k, diagonal_l, rows_l) -> float:
    """n (n - 3) times the estimator, from sums; diagonals of both kernels left out."""
    n = len(diagonal_k)
    rows_k, rows_l = rows_k - diagonal_k, rows_l - diagonal_l
    corner = rows_k.sum() * rows_l.sum() / ((n - 1) * (n - 2))
    return float(square - diagonal_k @ diagonal_l + corner - 2 / (n - 2) * (rows_k @ rows_l))


def _of_items(self_x, self_y, pairs) -> tuple[tuple, tuple]:
    """Sums and counts of comparisons of items with themselves and with their pair."""
    sums = float(self_x.sum()), float(self_y.sum()), 0.0 if pairs is None else float(pairs.sum())
    return sums, (len(self_x), len(self_y), 0 if pairs is None else len(pairs))


def _of_families(x, y, families: Families) -> tuple[tuple, tuple]:
    """Sums and counts of comparisons inside families, from the sums of each family."""
    size = 1 + max(families.x.max(), families.y.max())
    sums, sizes = [], []
    for side, codes in ((x, families.x), (y, families.y)):
        sizes.append(np.bincount(codes, minlength=size))
        shape = (size, len(codes))
        member = csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=shape)
        sums.append(member @ side)
    ways = ((0, 0), (1, 1), (0, 1))
    return (
        tuple(float(np.vdot(sums[a], sums[b])) for a, b in ways),
        tuple(int(sizes[a] @ sizes[b]) for a, b in ways),
    )


def _dots(x, y) -> np.ndarray:
    return np.einsum("nd,nd->n", x, y).astype(np.float64)


def _project(x, vector) -> np.ndarray:
    return (x @ vector.astype(x.dtype)).astype(np.float64)


def _product_square(x, y) -> float:
    """||X'Y||^2, the [D, D] product summed over blocks of rows in float64."""
    if len(x) < x.shape[1]:  # the same number from [N, N] products
        return float(np.vdot(x @ x.T, y @ y.T) if x is not y else np.square(x @ x.T).sum())
    product = np.zeros((x.shape[1], y.shape[1]))
    for start in range(0, len(x), _ROWS):
        product += x[start : start + _ROWS].T @ y[start : start + _ROWS]
    return float(np.vdot(product, product))
