"""Measures of whole distributions: Fréchet distance and separability; values of the sphere."""

# Shapes: N, M items of the two modalities, D embedding size.

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh, eigvalsh, svdvals
from scipy.optimize import minimize
from scipy.special import expit, hyp0f1

from .families import Families

__all__ = [
    "frechet", "frechet_of_gram", "held_out_hits", "sphere_participation", "sphere_uniformity",
]  # fmt: skip


_PENALTY = 1e-4  # relative to the mean loss, so that it does not fade as n grows


def sphere_uniformity(dim: int) -> float:
    """Uniformity of the uniform distribution on the sphere in R^D: -4 + log 0F1(; D/2; 4)."""
    return float(-4 + np.log(hyp0f1(dim / 2, 4.0)))


def sphere_participation(n: int, dim: int) -> float:
    """Expected participation ratio of N items that use all D directions equally."""
    return dim * (n - 1) / (n + dim)


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Fréchet distance of two Gaussians with the means and covariances of x [N, D] and y [M, D].

        ||mean x - mean y||^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))

    Strongly biased: about 1 for equal distributions at N = 500, D = 1 536. Report it only beside
    its value after the modalities were exchanged at random.
    """
    offset = x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)
    if min(len(x), len(y)) <= x.shape[1]:
        a, b = _centred(x), _centred(y)
        overlap = svdvals(a @ b.T).sum() / np.sqrt((len(x) - 1.0) * (len(y) - 1.0))
        spread = sum(
            float(np.einsum("nd,nd->", s, s, dtype=np.float64)) / (len(s) - 1) for s in (a, b)
        )
    else:  # one centred copy at a time
        covariances = [_covariance(_centred(side)) for side in (x, y)]
        overlap, spread = _root_trace(*covariances), sum(map(np.trace, covariances))
    return float(offset @ offset + spread - 2 * overlap)


def _centred(side: np.ndarray) -> np.ndarray:
    return np.asarray(side - side.mean(0), dtype=side.dtype)


def frechet_of_gram(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray) -> float:
    """`frechet` from inner products xx [N, N], yy [M, M], xy [N, M]."""
    offset = xx.mean() + yy.mean() - 2 * xy.mean()
    spread = sum((np.trace(part) - part.sum() / len(part)) / (len(part) - 1) for part in (xx, yy))
    centred = xy - xy.mean(0) - xy.mean(1)[:, None] + xy.mean()
    overlap = svdvals(centred).sum() / np.sqrt((len(xx) - 1.0) * (len(yy) - 1.0))
    return float(offset + spread - 2 * overlap)


def held_out_hits(
    x: np.ndarray,
    y: np.ndarray,
    paired: bool,
    folds: int,
    seed: int,
    families: Families | None = None,
) -> np.ndarray:
    """Whether a logistic regression tells the modality of items that it was not fitted on.

    Both members of a pair, and all items of a family, are held out together, since one in the
    training part would give the others away. Training accuracy is useless here: it is 96 % on pure
    noise at N = 500, D = 1 536.

    Args: x [N, D], y [M, D], folds >= 2, families (None: items are independent).
    Returns [N + M] of 0, 1 and 1/2 (undecided), x first.
    """
    families = families or Families.alone(len(x), len(y), paired)
    folds = min(folds, families.count)
    fold_x, fold_y = families.folds(folds, np.random.default_rng(seed))
    hits = [np.empty(len(x)), np.empty(len(y))]
    for fold in range(folds):
        direction, level = _logistic(x[fold_x != fold], y[fold_y != fold])
        for part, side, held, sign in ((0, x, fold_x == fold, -1), (1, y, fold_y == fold, 1)):
            margin = sign * (side[held] @ direction - level)
            hits[part][held] = (np.sign(margin) + 1) / 2
    return np.concatenate(hits)


def _logistic(x, y) -> tuple[np.ndarray, float]:
    """Direction [D] and threshold that tell y (above) from x, with equal weight per modality."""
    middle = (x.mean(0) + y.mean(0)) / 2
    spread = np.mean([np.square(side).sum(1).mean() for side in (x, y)]) - middle @ middle
    scale = 1 / np.sqrt(max(spread, 1e-12))

    def loss(weights):
        total, slope, tilt = 0.0, np.zeros(len(middle)), 0.0
        direction = (scale * weights[:-1]).astype(x.dtype)
        for side, sign in ((x, -1), (y, 1)):
            margin = sign * (side @ direction - middle @ direction + weights[-1])
            pull = -sign * expit(-margin) / (2 * len(side))
            total += np.logaddexp(0, -margin).mean() / 2
            slope += scale * (pull.astype(side.dtype) @ side - pull.sum() * middle)
            tilt += pull.sum()
        total += _PENALTY / 2 * weights[:-1] @ weights[:-1]
        return total, np.append(slope + _PENALTY * weights[:-1], tilt)

    found = minimize(
        loss, np.zeros(len(middle) + 1), jac=True, method="L-BFGS-B",
        options={"maxiter": 100, "gtol": 1e-5, "maxls": 40},
    ).x  # fmt: skip
    direction = (scale * found[:-1]).astype(x.dtype)
    return direction, float(middle @ direction - found[-1])


def _covariance(centred) -> np.ndarray:
    total = np.zeros((centred.shape[1],) * 2)
    for start in range(0, len(centred), 8192):
        block = centred[start : start + 8192]
        total += block.T @ block
    return total / (len(centred) - 1)


def _root_trace(first, second) -> float:
    """tr (A B)^(1/2) of two covariances, from the root of the first."""
    values, vectors = eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return float(np.sqrt(np.maximum(eigvalsh(root @ second @ root), 0)).sum())
