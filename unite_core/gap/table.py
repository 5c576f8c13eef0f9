"""The table: every measure of two modalities with its interval, its null and its n.

Measures that are sums (gap, alignment, RMG, CKA, participation), Fréchet and separability are of
all items. Those of all pairs of items are of at most `pairwise` random ones, as are the intervals
and nulls of all. An interval comes from `resamples` random halves, drawn without replacement,
since a bootstrap would make duplicates: value +- t s, s the halves' standard deviation scaled to
n. It is about the measure at this n: mutual neighbours, Fréchet, hubness and participation have
other values at other n.
"""

# Shapes: N, M items of the two modalities, D embedding size, P items in pairwise measures,
# H items of a half, R resamples, K neighbours.

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from . import distribution as shape
from . import moments, pairwise
from .vectors import check_sides

__all__ = ["MEASURES", "Measure", "PAIRED", "format_table", "matrix", "measure"]


MEASURES = {
    "gap": "distance of the means, debiased, pairs left out [0]",
    "uniformity_x": "log mean exp(-2 d^2) within x [the uniform sphere]",
    "uniformity_y": "the same within y",
    "neighbour_share": "own modality among the k nearest of both [modalities exchanged]",
    "mmd2": "unbiased MMD^2, RBF at the median squared distance [modalities exchanged]",
    "neighbour_share_centred": "after each mean is taken off and norms are 1 again",
    "mmd2_centred": "after each mean is taken off and norms are 1 again",
    "hub_skew": "skewness of how often a y is among the k nearest of x [the uniform sphere]",
    "hub_never": "share of y among no x's k nearest [the uniform sphere]",
    "hub_skew_back": "hub_skew of x among the k nearest of y",
    "hub_never_back": "hub_never of x among the k nearest of y",
    "gap_squared": "the gap's square with its sign, negative by chance [0]",
    "gap_raw": "distance of the means as they are [its size from sampling alone]",
    "similarity_x": "mean cosine of different items of x [0]",
    "similarity_y": "mean cosine of different items of y [0]",
    "similarity_xy": "mean cosine of items that are no pair [0]",
    "participation_x": "directions that the spread of x uses [the uniform sphere]",
    "participation_y": "directions that the spread of y uses [the uniform sphere]",
    "frechet": "Fréchet distance [halves of one modality, N / 2 against N / 2, both averaged]",
    "separability": "held-out accuracy of logistic regression of the modality [.5]",
    "pair_cosine": "mean cosine of pairs [pairing at random]",
    "pair_excess": "pair_cosine less similarity_xy [0]",
    "rmg": "relative modality gap [.5: a pair as far apart as any two of one modality]",
    "alignment": "mean squared distance of pairs [pairing at random]",
    "offset_share": "share of alignment that is offset of the means [1 / N]",
    "cka": "debiased linear CKA [pairing at random]",
    "mutual_knn": "k nearest that both agree on, corrected for chance [pairing at random]",
    "mutual_knn_raw": "the same, not corrected [pairing at random, about k / (N - 1)]",
}
"""What each measure is, and in brackets what its null is."""

PAIRED = frozenset(
    {"pair_cosine", "pair_excess", "rmg", "alignment", "offset_share", "cka", "mutual_knn",
     "mutual_knn_raw"}
)  # fmt: skip
"""Measures that need pairs."""

_LINEAR = {"gap_squared", "gap_raw", "rmg", "alignment", "offset_share", "similarity_x",
           "similarity_y", "similarity_xy", "pair_cosine", "pair_excess", "cka", "participation_x",
           "participation_y"}  # fmt: skip
_SHARES = {"neighbour_share", "neighbour_share_centred", "separability"}
_LOWEST = {"gap_raw": 0, "rmg": 0, "alignment": 0, "mutual_knn_raw": 0, "frechet": 0,
           "participation_x": 1, "participation_y": 1, "hub_never": 0}  # fmt: skip
_HIGHEST = {"rmg": 1, "alignment": 4, "cka": 1, "mutual_knn": 1, "mutual_knn_raw": 1,
            "hub_never": 1, "uniformity_x": 0, "uniformity_y": 0}  # fmt: skip
_FRECHET_HALF = 400  # items of a half, whose singular values cost the third power of it
_NULL_DRAWS = 10


@dataclass(frozen=True)
class Measure:
    """One number with what it takes to read it; also by key, as `row["value"]`.

    null is what the measure would be, at this n, without what it looks for (see `MEASURES`).
    """

    value: float
    interval: tuple[float, float]
    null: float
    n: int

    def __getitem__(self, name: str):
        if name not in self.keys():
            raise KeyError(f"a measure has {', '.join(self.keys())}; not {name!r}")
        return getattr(self, name)

    def keys(self) -> tuple[str, ...]:
        """Names of the fields; with them a measure is a mapping to `dict` and to tables."""
        return ("value", "interval", "null", "n")


@dataclass(frozen=True)
class _Sample:
    """The pairwise part: all cosines among P + P items, x first, and how to draw from them."""

    cosines: np.ndarray  # [2 P, 2 P]
    paired: bool
    k: int
    bandwidth: float

    @property
    def size(self) -> int:
        return len(self.cosines) // 2

    def blocks(self, x, y) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cosines xx, yy, xy of the items at positions x and y."""
        return tuple(self.cosines[np.ix_(*part)] for part in ((x, x), (y, y), (x, y)))

    def all(self) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(self.size), np.arange(self.size) + self.size

    def half(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Positions of a random half of each modality, of the same pairs where there are pairs."""
        x = rng.permutation(self.size)[: self.size // 2]
        y = x if self.paired else rng.permutation(self.size)[: self.size // 2]
        return x, y + self.size

    def exchanged(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Modalities handed out anew: within each pair, or among all items."""
        if not self.paired:
            order = rng.permutation(2 * self.size)
            return order[: self.size], order[self.size :]
        x, y = self.all()
        swapped = rng.random(self.size) < 0.5
        return np.where(swapped, y, x), np.where(swapped, x, y)

    def mismatched(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """The modalities as they are, the pairing at random."""
        x, y = self.all()
        return x, rng.permutation(y)


def measure(
    x: np.ndarray,
    y: np.ndarray,
    paired: bool = True,
    k: int = 10,
    *,
    pairwise: int = 2000,
    resamples: int = 30,
    level: float = 0.99,
    seed: int = 0,
) -> dict[str, Measure]:
    """Every measure of the gap between two modalities.

    Args
        x, y       [N, D], [M, D]  vectors, made unit where they are not (with a warning)
        paired     row i of both is the same thing; without pairs what needs them is left out
        k          >= 1            neighbours of neighbour_share, mutual_knn and hubs
        pairwise   >= 50           items of each modality in measures of all pairs of items
        resamples  >= 2            halves behind the intervals
        level      in (0, 1)       of the intervals
        seed       of all draws
    Returns {name: Measure} for the names of `MEASURES`, those of `PAIRED` only with pairs.
    Raises ValueError on what `check_sides` refuses and on k that is no smaller than a half.
    """
    x, y = check_sides(x, y, paired)
    rng = np.random.default_rng(seed)
    sample = _sample(x, y, paired, k, pairwise, rng)
    _check_options(sample, resamples, level)
    whole = moments.Moments.of_vectors(x, y, paired)
    values = _pairwise_values(sample, *sample.all()) | _linear_values(whole)
    values["frechet"] = shape.frechet(x, y)
    spreads = _spreads(sample, min(len(x), len(y)), resamples, rng)
    nulls = _linear_nulls(whole, x.shape[1]) | _drawn_nulls(sample, x.shape[1], rng)
    nulls["frechet"] = _split_half_frechet((x, y), rng)
    values["separability"], spreads["separability"] = _separability(x, y, paired, seed)
    nulls["separability"] = 0.5
    width = float(stdtrit(resamples - 1, (1 + level) / 2))
    sizes = dict.fromkeys(values, sample.size) | dict.fromkeys(
        [*_LINEAR, "frechet", "separability"], min(len(x), len(y))
    )
    table = {
        name: Measure(
            values[name], _interval(name, values[name], width * spreads[name]), nulls[name],
            sizes[name],
        )
        for name in values
    }  # fmt: skip
    return {"gap": _root(table["gap_squared"])} | table


def matrix(
    vectors: Mapping[str, np.ndarray],
    paired: bool | Collection[tuple[str, str]] = True,
    **options,
) -> dict[str, np.ndarray]:
    """Every measure between every two of M modalities: {measure: [M, M]}.

    Args
        vectors  {modality: [N, D]}
        paired   whether all rows are pairs, or the pairs of modalities whose rows are
        options  of `measure`
    Entry [i, j] is of modalities i and j in the order of `vectors`; hubs are those of j among
    queries of i. Where a measure is of a single modality, or needs pairs that are not there, the
    entry is NaN. `similarity` holds the mean cosines, diagonal included: a squared gap is the
    contrast S_ii + S_jj - 2 S_ij of it. `uniformity` and `participation` are on the diagonal.
    """
    names = list(vectors)
    if len(names) < 2:
        raise ValueError(f"{len(names)} modality has no gap: give two or more")
    size, tables = len(names), {}
    for i in range(size):
        for j in range(i + 1, size):
            both = (names[i], names[j])
            has_pairs = paired if isinstance(paired, bool) else (
                both in paired or both[::-1] in paired
            )  # fmt: skip
            tables[i, j] = measure(vectors[both[0]], vectors[both[1]], has_pairs, **options)
    keys = dict.fromkeys(name for table in tables.values() for name in table)
    keys = [name for name in keys if not name.endswith(("_x", "_y", "_xy", "_back"))]
    result = {key: np.full((size, size), np.nan)
              for key in [*keys, "similarity", "uniformity", "participation"]}  # fmt: skip
    for (i, j), table in tables.items():
        for key in keys:
            if key in table:
                back = table.get(f"{key}_back", table[key])
                result[key][i, j], result[key][j, i] = table[key].value, back.value
        result["similarity"][[i, j], [j, i]] = table["similarity_xy"].value
        for key in ("similarity", "uniformity", "participation"):
            result[key][i, i] = table[f"{key}_x"].value
            result[key][j, j] = table[f"{key}_y"].value
    return result


def format_table(table: Mapping[str, Measure], names: Collection[str] | None = None) -> str:
    """The measures as plain text: value, interval, null and n; `names` chooses and orders."""
    rows = [("measure", "value", "interval", "null", "n")]
    for name in names or table:
        row = table[name]
        low, high = row.interval
        numbers = (f"{row.value:.4g}", f"[{low:.4g}, {high:.4g}]", f"{row.null:.4g}", str(row.n))
        rows.append((name, *numbers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0])]
                  + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)])
        for row in rows
    ]  # fmt: skip
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _sample(x, y, paired, k, limit, rng) -> _Sample:
    """Cosines among at most `limit` random items of each modality, as many of one as the other."""
    size = min(len(x), len(y), limit)
    rows = np.sort(rng.permutation(len(x))[:size])
    rows_y = rows if paired else np.sort(rng.permutation(len(y))[:size])
    both = np.concatenate([x[rows], y[rows_y]]).astype(np.float64)
    cosines = both @ both.T
    upper = cosines[np.triu_indices(len(both), 1)]
    return _Sample(cosines, paired, k, bandwidth=2 * (1 - float(np.median(upper))))


def _check_options(sample: _Sample, resamples: int, level: float) -> None:
    if not 1 <= sample.k < sample.size // 2:
        raise ValueError(
            f"k = {sample.k} neighbours need halves of more than {sample.k} items, "
            f"not {sample.size // 2}: lower k, or give more items"
        )
    if resamples < 2 or not 0 < level < 1:
        raise ValueError(f"resamples {resamples} must be 2 or more and level {level} in (0, 1)")
    if sample.bandwidth <= 1e-12:
        raise ValueError("half of all distances are 0: the vectors have collapsed to a point")


def _linear_values(m: moments.Moments) -> dict[str, float]:
    within_x, within_y, between = moments.mean_cosines(m)
    values = {
        "gap_squared": moments.debiased_gap_squared(m),
        "gap_raw": moments.centroid_gap_squared(m) ** 0.5,
        "similarity_x": within_x, "similarity_y": within_y, "similarity_xy": between,
        "participation_x": moments.participation_ratio(m.square_x, m.self_x, m.rows_x),
        "participation_y": moments.participation_ratio(m.square_y, m.self_y, m.rows_y),
    }  # fmt: skip
    if m.pairs is not None:
        pair = float(m.pairs.mean())
        values |= {"pair_cosine": pair, "pair_excess": pair - between}
        values |= {"rmg": moments.relative_gap(m), "cka": moments.debiased_cka(m)}
        values |= moments.alignment(m)
    return values


def _linear_nulls(m: moments.Moments, dim: int) -> dict[str, float]:
    within_x, within_y, between = moments.mean_cosines(m)
    n_x, n_y = len(m.self_x), len(m.self_y)
    noise = (1 - within_x) / n_x + (1 - within_y) / n_y
    if m.pairs is not None:  # pairs move together, so their means do
        noise -= 2 * (float(m.pairs.mean()) - between) / n_x
    nulls = dict.fromkeys(("gap_squared", "similarity_x", "similarity_y", "similarity_xy"), 0.0)
    nulls |= {f"participation_{side}": shape.sphere_participation(n, dim)
              for side, n in (("x", n_x), ("y", n_y))}  # fmt: skip
    return nulls | {
        "gap_raw": max(noise, 0.0) ** 0.5, "rmg": 0.5, "alignment": 2 - 2 * between,
        "offset_share": 1 / n_x, "pair_cosine": between, "pair_excess": 0.0,
    }  # fmt: skip


def _pairwise_values(sample: _Sample, x, y) -> dict[str, float]:
    xx, yy, xy = sample.blocks(x, y)
    values = {"uniformity_x": pairwise.uniformity(xx), "uniformity_y": pairwise.uniformity(yy)}
    values |= _mixing(sample, xx, yy, xy) | _hubs(xy, sample.k)
    if sample.paired:
        values |= _agreement(xx, yy, sample.k)
    return values


def _mixing(sample: _Sample, xx, yy, xy) -> dict[str, float]:
    """What knows of the modalities but not of pairs, as it is and after centring."""
    values = {}
    for suffix, part in (("", (xx, yy, xy)), ("_centred", pairwise.centred_cosines(xx, yy, xy))):
        values[f"neighbour_share{suffix}"] = pairwise.own_neighbour_share(*part, sample.k)
        values[f"mmd2{suffix}"] = pairwise.mmd_squared(*part, sample.bandwidth, sample.paired)
    return values


def _hubs(xy, k: int) -> dict[str, float]:
    there, back = pairwise.hubness(xy, k), pairwise.hubness(xy.T, k)
    return {f"hub_{name}": value for name, value in there.items()} | {
        f"hub_{name}_back": value for name, value in back.items()
    }


def _agreement(xx, yy, k: int) -> dict[str, float]:
    """What knows of pairs but not of the offset, of all pairs of items."""
    raw, chance = pairwise.mutual_neighbours(xx, yy, k), k / (len(xx) - 1)
    return {"mutual_knn": (raw - chance) / (1 - chance), "mutual_knn_raw": raw}


def _spreads(sample: _Sample, n: int, resamples: int, rng) -> dict[str, float]:
    """Standard errors from random halves of the sample.

    A half of H among P items differs from all P with variance s^2 (1 / H - 1 / P), while the value
    differs from the truth with s^2 / n.
    """
    draws: dict[str, list[float]] = {}
    for _ in range(resamples):
        x, y = sample.half(rng)
        drawn = _pairwise_values(sample, x, y)
        xx, yy, xy = sample.blocks(x, y)
        drawn |= _linear_values(moments.Moments.of_gram(xx, yy, xy, sample.paired))
        few = slice(_FRECHET_HALF)
        drawn["frechet"] = shape.frechet_of_gram(xx[few, few], yy[few, few], xy[few, few])
        for name, value in drawn.items():
            draws.setdefault(name, []).append(value)
    spreads, half = {}, sample.size // 2
    for name, values in draws.items():
        size = n if name in _LINEAR or name == "frechet" else sample.size
        taken = min(half, _FRECHET_HALF) if name == "frechet" else half
        factor = (1 / size) / (1 / taken - 1 / sample.size)
        spreads[name] = float(np.std(values, ddof=1)) * factor**0.5
    return {name: max(spread, 1 / (2 * sample.size)) if name in _SHARES else spread
            for name, spread in spreads.items()}  # fmt: skip


def _drawn_nulls(sample: _Sample, dim: int, rng) -> dict[str, float]:
    """Means over draws without a difference of modalities, without pairing, and on the sphere."""
    draws: dict[str, list[float]] = {}
    for _ in range(_NULL_DRAWS):
        drawn = _mixing(sample, *sample.blocks(*sample.exchanged(rng)))
        if sample.paired:
            xx, yy, xy = sample.blocks(*sample.mismatched(rng))
            drawn |= _agreement(xx, yy, sample.k)
            drawn["cka"] = moments.debiased_cka(moments.Moments.of_gram(xx, yy, xy, True))
        for name, value in drawn.items():
            draws.setdefault(name, []).append(value)
    x, y = (rng.standard_normal((sample.size, dim)) for _ in range(2))
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y))
    nulls = {name: float(np.mean(values)) for name, values in draws.items()}
    nulls |= dict.fromkeys(("uniformity_x", "uniformity_y"), shape.sphere_uniformity(dim))
    return nulls | _hubs(x @ y.T, sample.k)


def _split_half_frechet(sides, rng) -> float:
    """Fréchet distance between random halves of one modality, the mean of both modalities."""
    values = []
    for side in sides:
        order = rng.permutation(len(side))
        half = len(side) // 2
        values.append(shape.frechet(side[order[:half]], side[order[half : 2 * half]]))
    return float(np.mean(values))


def _separability(x, y, paired, seed) -> tuple[float, float]:
    """Balanced held-out accuracy and its standard error over pairs, or over items."""
    folds = 5 if x.dtype == np.float64 else 2  # large collections need no fifth of themselves
    hits = shape.held_out_hits(x, y, paired, folds, seed)
    hits_x, hits_y = hits[: len(x)], hits[len(x) :]
    if paired:
        variance = np.var((hits_x + hits_y) / 2, ddof=1) / len(x)
    else:
        variance = (np.var(hits_x, ddof=1) / len(x) + np.var(hits_y, ddof=1) / len(y)) / 4
    # where nothing failed the interval is that of the rule of three
    spread = max(float(variance) ** 0.5, 1 / len(hits))
    return float((hits_x.mean() + hits_y.mean()) / 2), spread


def _interval(name: str, value: float, width: float) -> tuple[float, float]:
    low = max(value - width, 0 if name in _SHARES else _LOWEST.get(name, -np.inf))
    high = min(value + width, 1 if name in _SHARES else _HIGHEST.get(name, np.inf))
    return float(min(low, value)), float(max(high, value))


def _root(squared: Measure) -> Measure:
    """The gap from its square, which is below 0 by chance where there is none."""
    value, low, high = (max(v, 0.0) ** 0.5 for v in (squared.value, *squared.interval))
    return Measure(value, (low, high), 0.0, squared.n)
