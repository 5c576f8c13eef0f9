"""Families: items that vary together, such as one drawing in five colours or a text's captions.

Items of one family are not independent draws. So families, not items, are what is drawn again for
intervals and exchanged for nulls, and no mean compares two items of one family. Without groups
every pair (or, without pairs, every item) is a family of its own.
"""

# Shapes: N, M items of the two modalities, F families.

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

__all__ = ["FEW", "FEWEST", "Families"]


FEW = 15
"""Effective families below which intervals are too narrow, which is warned of."""
FEWEST = 10
"""Effective families below which there is no interval."""


@dataclass(frozen=True)
class Families:
    """The family of every item, as a code that both modalities share.

    x, y     [N], [M] codes; equal with pairs
    paired   row i of both modalities is the same thing
    grouped  whether families were given; otherwise every pair or item is one
    """

    x: np.ndarray
    y: np.ndarray
    paired: bool
    grouped: bool

    @classmethod
    def alone(cls, n: int, m: int, paired: bool) -> Families:
        """Independent pairs (N = M), or independent items."""
        return cls(np.arange(n), np.arange(m) + (0 if paired else n), paired, grouped=False)

    @classmethod
    def of(cls, groups, kept: tuple[np.ndarray, np.ndarray], paired: bool) -> Families:
        """From the `groups` of `measure`; `kept` are the rows [N], [M] that were not repeats.

        Raises ValueError on labels that are missing or of another number than rows, and on fewer
        than two families. Warns below 15 effective families.
        """
        if groups is None:
            return cls.alone(*(int(mask.sum()) for mask in kept), paired)
        if paired:
            sides = (_labels(groups, len(kept[0]), "groups"),) * 2
        else:
            if not isinstance(groups, tuple | list) or len(groups) != 2:
                raise ValueError(
                    "groups without pairs are (labels of x [N], labels of y [M]), not "
                    f"{type(groups).__name__} {list(np.shape(groups))}"
                )
            sides = (
                _labels(groups[0], len(kept[0]), "groups of x"),
                _labels(groups[1], len(kept[1]), "groups of y"),
            )
        families = cls(*sides, paired, grouped=True)._take(*map(np.flatnonzero, kept))
        families._check()
        return families

    @property
    def size(self) -> int:
        """Items of the modality that has fewer."""
        return min(len(self.x), len(self.y))

    @property
    def least_half(self) -> int:
        """Fewest items that `half` can give."""
        counts = (np.bincount(side, minlength=1 + max(self.x.max(), self.y.max()))
                 for side in (self.x, self.y))  # fmt: skip
        return min(
            sum(int(np.sort(sizes[part])[: len(part) // 2].sum()) for part in self.strata)
            for sizes in counts
        )

    @property
    def count(self) -> int:
        """F of the modality that has fewer."""
        return min(len(np.unique(side)) for side in (self.x, self.y))

    @property
    def effective(self) -> float:
        """Families of equal size that would say as much: (sum of sizes)^2 / sum of their squares.

        Of the modality that has fewer; N where every item is its own family.
        """
        sizes = (np.unique(side, return_counts=True)[1] for side in (self.x, self.y))
        return float(min(one.sum() ** 2 / np.square(one).sum() for one in sizes))

    @cached_property
    def strata(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes of families that are in both modalities, only in x, and only in y."""
        both = np.intersect1d(self.x, self.y)
        return both, np.setdiff1d(self.x, both), np.setdiff1d(self.y, both)

    def sample(self, limit: int, rng) -> tuple[np.ndarray, np.ndarray, Families]:
        """Rows of x and of y, equally many and at most `limit`, and their families.

        Random items, or all items of random families; the last one may be cut.
        """
        size = min(self.size, limit)
        if self.grouped:
            order = rng.permutation(1 + max(self.x.max(), self.y.max()))
            rows, rows_y = (
                np.sort(np.argsort(order[side], kind="stable")[:size]) for side in (self.x, self.y)
            )
        else:
            rows = np.sort(rng.permutation(len(self.x))[:size])
            rows_y = rows if self.paired else np.sort(rng.permutation(len(self.y))[:size])
        return rows, rows_y, self._take(rows, rows_y)

    def half(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Positions in x and in y, equally many, of the items of a random half of the families."""
        chosen = np.concatenate([rng.permutation(part)[: len(part) // 2] for part in self.strata])
        x = _members(self.x, chosen)
        y = x if self.paired else _members(self.y, chosen)
        size = min(len(x), len(y))
        return x[:size], y[:size]

    def exchanged(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Positions in [x, y] (those of y from N on) with modalities assigned at random.

        With pairs the members of each pair change places or not, all pairs of a family together.
        Without, a family of both modalities changes sides or not, and the families of a single one
        are shuffled between both sides; sizes stay N and M as far as families of both allow.
        """
        n = len(self.x)
        both, only_x, only_y = self.strata
        turned = rng.random(len(both)) < 0.5
        if self.paired:
            turned = np.isin(self.x, both[turned])
            first, second = np.arange(n), np.arange(n) + n
            return np.where(turned, second, first), np.where(turned, first, second)
        first, second = (
            np.concatenate([_members(self.x, of_x), n + _members(self.y, of_y)])
            for of_x, of_y in ((both[~turned], both[turned]), (both[turned], both[~turned]))
        )
        codes = np.concatenate([self.x, self.y])
        pool = _members(codes, rng.permutation(np.concatenate([only_x, only_y])))
        room = int(np.clip(n - len(first), 0, len(pool)))
        return np.concatenate([first, pool[:room]]), np.concatenate([second, pool[room:]])

    def mismatched(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Positions in x and in y of pairs that are none.

        Given families are matched whole, each with another of nearly its size, so that neighbours
        still come from families; of the larger one items are left out.
        """
        if not self.grouped:
            return np.arange(len(self.x)), rng.permutation(len(self.y))
        codes, sizes = np.unique(self.x, return_counts=True)
        order = np.lexsort((rng.random(len(codes)), sizes))
        members = np.split(np.argsort(self.x, kind="stable"), np.cumsum(sizes)[:-1])
        x, y = [], []
        for one, other in zip(order, np.roll(order, 1), strict=True):
            size = min(sizes[one], sizes[other])
            x.append(rng.permutation(members[one])[:size])
            y.append(rng.permutation(members[other])[:size])
        return np.concatenate(x), np.concatenate(y)

    def folds(self, folds: int, rng) -> tuple[np.ndarray, np.ndarray]:
        """[N], [M] fold of each item; a family is in one fold."""
        fold = np.empty(1 + max(self.x.max(), self.y.max()), dtype=int)
        for part, start in zip(self.strata, (0, len(self.strata[0]), len(self.strata[0])),
                               strict=True):  # fmt: skip
            fold[part] = (rng.permutation(len(part)) + start) % folds
        return fold[self.x], fold[self.y]

    def _take(self, rows, rows_y) -> Families:
        """Of some rows, with codes from 0 on."""
        codes = np.concatenate([self.x[rows], self.y[rows_y]])
        codes = np.unique(codes, return_inverse=True)[1].reshape(-1)
        return replace(self, x=codes[: len(rows)], y=codes[len(rows) :])

    def _check(self) -> None:
        if self.count < 2:
            raise ValueError(
                "groups put all items of a modality into one family: nothing is independent; "
                "give the families that vary independently, two or more"
            )
        if self.effective < FEW:
            rule = "there is no interval" if self.effective < FEWEST else "intervals are too narrow"
            warnings.warn(
                f"groups make {self.effective:.1f} effective families ({self.count} families): "
                f"below {FEWEST if self.effective < FEWEST else FEW} {rule}; add families, not "
                "items",
                stacklevel=4,
            )


def _labels(groups: Sequence, rows: int, name: str) -> np.ndarray:
    """Labels as an array of one dimension without missing ones."""
    labels = np.asarray(groups)
    if labels.shape != (rows,):
        raise ValueError(
            f"{name} must be one label for each of the {rows} rows, not {list(labels.shape)}"
        )
    if labels.dtype.kind not in "biufSUO":
        raise ValueError(f"{name} must be numbers or text, not {labels.dtype}")
    missing = np.array([label is None or label != label for label in labels.tolist()])
    if missing.any():
        raise ValueError(
            f"{name} row {np.flatnonzero(missing)[0]} has no label ({missing.sum()} such rows): an "
            "item without family gets a label of its own"
        )
    return labels.astype(str) if labels.dtype.kind == "O" else labels


def _members(codes: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Positions of the items of some families, in the order of these."""
    place = np.full(1 + codes.max(initial=-1), len(families))
    known = families[families < len(place)]
    place[known] = np.flatnonzero(families < len(place))
    order = np.argsort(place[codes], kind="stable")
    return order[: np.count_nonzero(place[codes] < len(families))]
