"""Synthetic vectors with a known gap: every population value is a formula.

    x_m = c a_m + r_m sum_b sqrt(w_b) v_mb,   r_m = sqrt(1 - c^2 ||a_m||^2),
    v_mb = sqrt(s) u_b + sqrt(1 - s) e_mb,    u_b uniform on the sphere of block b, e_mb across it

a_m is the modality's offset (cone, modality and prompt together), the blocks b with dimensions d_b
and weights w_b are the spectrum, u is what counterparts share and s how much of it. c is 1, or
1 - h and 1 + h with equal chances, the same in all modalities of an item: then counterparts differ
by more or less of the offset, and the gap has sampling error of first order. All vectors have norm
1, and v_m is uniform on its spheres for every s, so the integrals of the measures are products of
0F1.

Items of a family have u, e and c in common in part, without any change of the distribution of one
item: u = sqrt(f) u_family + sqrt(1 - f) (a direction across it), likewise what e is drawn from, and
c is that of the family with chance sqrt(f). Population values are those of independent items.
"""

# Shapes: N items, D embedding size, E dimensions of the offsets, F families.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import hyp0f1

__all__ = ["SyntheticGap", "draw_families"]


@dataclass(frozen=True)
class SyntheticGap:
    """A population of modalities; `draw` samples it, `truth` gives the values to be found.

    offsets   {modality: E coordinates} in dimensions that the spectrum does not use, norms < 1
    spectrum  (dimensions, weight) of each block; dimensions >= 2, weights add up to 1
    signal    mean cosine of counterparts' varying parts, in [0, 1]
    sway      h, by which the offset's length varies between items, in [0, 1)
    family    f, what items of one family have in common, in [0, 1]; see `draw`
    basis     seed of the rotation that spreads all of this over the D dimensions

    >>> population = SyntheticGap({"text": (0.3, 0.0), "image": (0.0, 0.4)}, signal=0.8)
    >>> population.draw(100, seed=0)["image"].shape
    (100, 34)
    >>> round(population.truth("text", "image")["gap"], 3)
    0.5
    """

    offsets: Mapping[str, Sequence[float]]
    spectrum: Sequence[tuple[int, float]] = ((32, 1.0),)
    signal: float = 0.5
    basis: int = 0
    sway: float = 0.0
    family: float = 0.0

    def __post_init__(self):
        lengths = {len(offset) for offset in self.offsets.values()}
        longest = (1 + self.sway) * max(map(np.linalg.norm, self.offsets.values()))
        if len(lengths) != 1 or longest >= 1:
            raise ValueError(
                "offsets are vectors of one length E and, times 1 + sway, of norms below 1"
            )
        dims, weights = zip(*self.spectrum, strict=True)
        if min(dims) < 2 or min(weights) <= 0 or abs(sum(weights) - 1) > 1e-9:
            raise ValueError(
                "spectrum is (dimensions >= 2, weight > 0) per block, weights adding up to 1, not "
                f"{self.spectrum}"
            )
        for name in ("signal", "sway", "family"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")

    @property
    def dim(self) -> int:
        """D: the offsets' dimensions and the spectrum's."""
        offset = next(iter(self.offsets.values()))
        return len(offset) + sum(dim for dim, _ in self.spectrum)

    def draw(self, n: int, seed: int, groups: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Draw N counterparts, {modality: [N, D]}; row i is the same thing in every modality.

        `groups` [N] are families as numbers from 0 on; without them items are independent.
        """
        rng = np.random.default_rng(seed)
        code = None if groups is None else np.asarray(groups)
        if code is not None and code.shape != (n,):
            raise ValueError(f"groups must be [{n}], not {list(code.shape)}")
        shared = [_unit(self._directions(rng, n, dim, code)) for dim, _ in self.spectrum]
        lengths = self._lengths(rng, n, code)
        basis = np.random.default_rng(self.basis).standard_normal((self.dim, self.dim))
        rotation = np.linalg.qr(basis)[0]
        result = {}
        for name, offset in self.offsets.items():
            parts = [lengths[:, None] * np.asarray(offset, float)]
            radius = np.sqrt(1 - np.square(parts[0]).sum(1, keepdims=True))
            for (dim, weight), u in zip(self.spectrum, shared, strict=True):
                own = _across(u, self._directions(rng, n, dim, code))
                v = np.sqrt(self.signal) * u + np.sqrt(1 - self.signal) * own
                parts.append(radius * np.sqrt(weight) * v)
            result[name] = np.concatenate(parts, axis=1) @ rotation
        return result

    def truth(self, first: str, second: str) -> dict[str, float]:
        """Population values of the measures that do not depend on n, named as in `measure`.

        For `mmd2`, whose bandwidth is the sample's, see `mmd_squared`.
        """
        a, b = (np.asarray(self.offsets[name], float) for name in (first, second))
        within_x, within_y, between = float(a @ a), float(b @ b), float(a @ b)
        gap = within_x + within_y - 2 * between
        pair = (1 + self.sway**2) * between + self.signal * self._radii(first, second)
        inside = ((1 - within_x) / 2 + (1 - within_y) / 2) / 2
        return {
            "gap": max(gap, 0.0) ** 0.5, "gap_squared": gap,
            "similarity_x": within_x, "similarity_y": within_y, "similarity_xy": between,
            "pair_cosine": pair, "pair_excess": pair - between,
            "alignment": 2 - 2 * pair, "offset_share": gap / (2 - 2 * pair),
            "rmg": (1 - pair) / 2 / ((1 - pair) / 2 + inside), "cka": self._cka(first, second),
            "uniformity_x": float(np.log(self._kernel(first, first, 0.5))),
            "uniformity_y": float(np.log(self._kernel(second, second, 0.5))),
        }  # fmt: skip

    def mmd_squared(self, first: str, second: str, bandwidth: float) -> float:
        """Squared MMD of two modalities with k = exp(-||a - b||^2 / bandwidth)."""
        within = self._kernel(first, first, bandwidth) + self._kernel(second, second, bandwidth)
        return within - 2 * self._kernel(first, second, bandwidth)

    def participation(self, name: str) -> float:
        """Participation ratio of the population of a modality; a sample's is lower."""
        sway = self.sway**2 * float(np.sum(np.square(self.offsets[name])))
        spread = self._radii(name, name)
        return (sway + spread) ** 2 / (sway**2 + spread**2 * self._evenness())

    def _evenness(self) -> float:
        """Sum of squared shares of variance over the dimensions of the spectrum."""
        return sum(weight**2 / dim for dim, weight in self.spectrum)

    def _cka(self, first: str, second: str) -> float:
        """||C_xy||^2 / (||C_xx|| ||C_yy||) of the covariances: the offset's part and the rest."""
        a, b = (float(np.sum(np.square(self.offsets[name]))) for name in (first, second))
        squares = [
            self.sway**4 * offset + (signal * self._radii(*names)) ** 2 * self._evenness()
            for offset, signal, names in (
                (a * b, self.signal, (first, second)),
                (a * a, 1, (first, first)),
                (b * b, 1, (second, second)),
            )
        ]
        return squares[0] / (squares[1] * squares[2]) ** 0.5

    def _radius(self, name: str, length: float) -> float:
        return float(np.sqrt(1 - length**2 * np.sum(np.square(self.offsets[name]))))

    def _radii(self, first: str, second: str) -> float:
        """E r_x r_y of counterparts."""
        ends = (1 - self.sway, 1 + self.sway)
        return sum(self._radius(first, c) * self._radius(second, c) for c in ends) / 2

    def _kernel(self, first: str, second: str, bandwidth: float) -> float:
        """E exp(-||x - y||^2 / bandwidth) of unrelated items: one 0F1 for each sphere."""
        a, b = (np.asarray(self.offsets[name], float) for name in (first, second))
        total, ends = 0.0, (1 - self.sway, 1 + self.sway)
        for c, other in product(ends, ends):
            radii = self._radius(first, c) * self._radius(second, other)
            value = np.exp(2 * (c * other * (a @ b) - 1) / bandwidth)
            for dim, weight in self.spectrum:
                value *= hyp0f1(dim / 2, (2 * radii * weight / bandwidth) ** 2 / 4)
            total += value / 4
        return float(total)

    def _directions(self, rng, n: int, dim: int, code) -> np.ndarray:
        """[N, dim] of directions uniform on the sphere, alike in a family."""
        own = rng.standard_normal((n, dim))
        if code is None:
            return own
        common = _unit(rng.standard_normal((code.max() + 1, dim)))[code]
        return np.sqrt(self.family) * common + np.sqrt(1 - self.family) * _across(common, own)

    def _lengths(self, rng, n: int, code) -> np.ndarray:
        """[N] c of each item."""
        if not self.sway:
            return np.ones(n)
        sign = rng.choice([-1, 1], n)
        if code is not None:
            follows = rng.random(n) < np.sqrt(self.family)
            sign = np.where(follows, rng.choice([-1, 1], code.max() + 1)[code], sign)
        return 1 + self.sway * sign


def draw_families(n: int, families: int, seed: int) -> np.ndarray:
    """Families [N] of random sizes, numbers from 0 on: many of one item and a few large ones.

    Every one of F families has an item; each further one joins a family with a chance in
    proportion to a weight with exponential distribution.
    """
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=families)
    more = rng.choice(families, n - families, p=weights / weights.sum())
    return rng.permutation(np.concatenate([np.arange(families), more]))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _across(unit: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Directions of the rows made orthogonal to the unit rows."""
    return _unit(rows - np.sum(rows * unit, axis=1, keepdims=True) * unit)
