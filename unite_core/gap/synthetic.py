"""Synthetic vectors with a known gap: every population value is a formula.

    x_m = a_m + r_m sum_b sqrt(w_b) v_mb,    r_m = sqrt(1 - ||a_m||^2),
    v_mb = sqrt(s) u_b + sqrt(1 - s) e_mb,   u_b uniform on the sphere of block b, e_mb across it

a_m is the modality's offset (cone, modality and prompt together), the blocks b with dimensions d_b
and weights w_b are the spectrum, u is what counterparts share and s how much of it. All vectors
have norm 1, and v_m is uniform on its spheres for every s, so the integrals of the measures are
products of 0F1.
"""

# Shapes: N items, D embedding size, E dimensions of the offsets.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import hyp0f1

__all__ = ["SyntheticGap"]


@dataclass(frozen=True)
class SyntheticGap:
    """A population of modalities; `draw` samples it, `truth` gives the values to be found.

    offsets   {modality: E coordinates} in dimensions that the spectrum does not use, norms < 1
    spectrum  (dimensions, weight) of each block; dimensions >= 2, weights add up to 1
    signal    mean cosine of counterparts' varying parts, in [0, 1]
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

    def __post_init__(self):
        lengths = {len(offset) for offset in self.offsets.values()}
        if len(lengths) != 1 or any(np.linalg.norm(a) >= 1 for a in self.offsets.values()):
            raise ValueError("offsets are vectors of one length E and of norms below 1")
        dims, weights = zip(*self.spectrum, strict=True)
        if min(dims) < 2 or min(weights) <= 0 or abs(sum(weights) - 1) > 1e-9:
            raise ValueError(
                "spectrum is (dimensions >= 2, weight > 0) per block, weights adding up to 1, not "
                f"{self.spectrum}"
            )
        if not 0 <= self.signal <= 1:
            raise ValueError(f"signal must be in [0, 1], not {self.signal}")

    @property
    def dim(self) -> int:
        """D: the offsets' dimensions and the spectrum's."""
        offset = next(iter(self.offsets.values()))
        return len(offset) + sum(dim for dim, _ in self.spectrum)

    def draw(self, n: int, seed: int) -> dict[str, np.ndarray]:
        """Draw N counterparts, {modality: [N, D]}; row i is the same thing in every modality."""
        rng = np.random.default_rng(seed)
        shared = [_on_sphere(rng, n, dim) for dim, _ in self.spectrum]
        basis = np.random.default_rng(self.basis).standard_normal((self.dim, self.dim))
        rotation = np.linalg.qr(basis)[0]
        result = {}
        for name, offset in self.offsets.items():
            parts = [np.tile(np.asarray(offset, float), (n, 1))]
            for (_, weight), u in zip(self.spectrum, shared, strict=True):
                v = np.sqrt(self.signal) * u + np.sqrt(1 - self.signal) * _across(rng, u)
                parts.append(self._radius(name) * np.sqrt(weight) * v)
            result[name] = np.concatenate(parts, axis=1) @ rotation
        return result

    def truth(self, first: str, second: str) -> dict[str, float]:
        """Population values of the measures that do not depend on n, named as in `measure`.

        For `mmd2`, whose bandwidth is the sample's, see `mmd_squared`.
        """
        a, b = (np.asarray(self.offsets[name], float) for name in (first, second))
        within_x, within_y, between = float(a @ a), float(b @ b), float(a @ b)
        gap = within_x + within_y - 2 * between
        pair = between + self._radius(first) * self._radius(second) * self.signal
        inside = ((1 - within_x) / 2 + (1 - within_y) / 2) / 2
        return {
            "gap": max(gap, 0.0) ** 0.5, "gap_squared": gap,
            "similarity_x": within_x, "similarity_y": within_y, "similarity_xy": between,
            "pair_cosine": pair, "pair_excess": pair - between,
            "alignment": 2 - 2 * pair, "offset_share": gap / (2 - 2 * pair),
            "rmg": (1 - pair) / 2 / ((1 - pair) / 2 + inside), "cka": self.signal**2,
            "uniformity_x": float(np.log(self._kernel(first, first, 0.5))),
            "uniformity_y": float(np.log(self._kernel(second, second, 0.5))),
        }  # fmt: skip

    def mmd_squared(self, first: str, second: str, bandwidth: float) -> float:
        """Squared MMD of two modalities with k = exp(-||a - b||^2 / bandwidth)."""
        within = self._kernel(first, first, bandwidth) + self._kernel(second, second, bandwidth)
        return within - 2 * self._kernel(first, second, bandwidth)

    def participation(self) -> float:
        """Participation ratio of the population; a sample's is lower."""
        return 1 / sum(weight**2 / dim for dim, weight in self.spectrum)

    def _radius(self, name: str) -> float:
        return float(np.sqrt(1 - np.sum(np.square(self.offsets[name]))))

    def _kernel(self, first: str, second: str, bandwidth: float) -> float:
        """E exp(-||x - y||^2 / bandwidth) of unrelated items: one 0F1 for each sphere."""
        a, b = (np.asarray(self.offsets[name], float) for name in (first, second))
        value = np.exp(2 * (a @ b - 1) / bandwidth)
        for dim, weight in self.spectrum:
            slope = 2 * self._radius(first) * self._radius(second) * weight / bandwidth
            value *= hyp0f1(dim / 2, slope**2 / 4)
        return float(value)


def _on_sphere(rng, n: int, dim: int) -> np.ndarray:
    rows = rng.standard_normal((n, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _across(rng, unit: np.ndarray) -> np.ndarray:
    """Uniform on the sphere orthogonal to each unit row."""
    rows = rng.standard_normal(unit.shape)
    rows -= np.sum(rows * unit, axis=1, keepdims=True) * unit
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
