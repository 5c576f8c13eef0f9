"""`measure`: every measure of two modalities with its interval, its null, n and families.

What each measure is stands in `measures.MEASURES`. Measures that are sums (gap, alignment, RMG,
CKA, participation), Fréchet distance and separability are of all items. Those of all pairs of items
are of at most `pairwise` random ones. An interval is value +- t s, with s the standard deviation
over `resamples` random halves, scaled to n. It is about the measure at this n: mutual neighbours,
Fréchet distance, hubness and participation ratio have other values at other n.

Items that vary together (captions of one image, one drawing in five colours) are no independent
draws: give their families as `groups`, or the intervals are too narrow.
"""

# Shapes: N, M items of the two modalities, D embedding size.

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from . import distribution, moments, uncertainty
from .families import FEWEST, Families
from .measures import MEASURES, Measure
from .values import Sample, linear_values, pairwise_values
from .vectors import check_sides

__all__ = ["format_table", "matrix", "measure"]


def measure(
    x: np.ndarray,
    y: np.ndarray,
    paired: bool = True,
    k: int = 10,
    *,
    groups: Sequence | tuple[Sequence, Sequence] | None = None,
    pairwise: int = 2000,
    resamples: int = 30,
    level: float = 0.99,
    seed: int = 0,
) -> dict[str, Measure]:
    """Measure the gap between two modalities in every way.

    Args
        x, y       [N, D], [M, D]  vectors, normalised with a warning where they are not unit
        paired     row i of both is the same thing; without pairs the measures of pairs are absent
        k          >= 1            neighbours of neighbour_share, mutual_knn and hubs
        groups     [N]             family of each pair; without pairs (those of x [N], of y [M]).
                                   Families, not items, are then drawn again for intervals,
                                   exchanged for nulls and held out, and no mean compares two of one
        pairwise   >= 50           items of each modality in measures of all pairs of items
        resamples  >= 2            halves behind the intervals
        level      in (0, 1)       of the intervals
        seed       of all draws
    Returns {name: Measure} for the names of `MEASURES`, those of `PAIRED` only with pairs; without
    intervals below 10 effective families, with a warning below 15.
    Raises ValueError on what `check_sides` refuses, on groups that do not label every row, and if k
    is not smaller than half the sample.

    >>> from unite_core import gap
    >>> population = gap.SyntheticGap({"text": (0.3,), "image": (-0.3,)})  # a gap of 0.6
    >>> drawn = population.draw(300, seed=0)
    >>> table = gap.measure(drawn["text"], drawn["image"])
    >>> round(table["gap"].value, 1), table["gap"].null, table["gap"].n
    (0.6, 0.0, 300)
    >>> low, high = table["gap"].interval
    >>> low < 0.6 < high
    True
    """
    (x, y), kept = check_sides(x, y, paired)
    families = Families.of(groups, kept, paired)
    rng = np.random.default_rng(seed)
    sample = Sample.draw(x, y, families, k, pairwise, rng)
    _check_options(sample, resamples, level)
    whole = moments.Moments.of_vectors(x, y, paired, families)
    values = linear_values(whole) | pairwise_values(sample, *sample.all())
    values["frechet"] = distribution.frechet(x, y)
    values["separability"], error = uncertainty.separability(x, y, families, seed)
    errors = {}
    if sample.families.effective >= FEWEST:
        errors = uncertainty.standard_errors(sample, families, resamples, rng)
        errors["separability"] = error
    nulls = uncertainty.linear_nulls(whole) | uncertainty.drawn_nulls(sample, x.shape[1], rng)
    nulls |= uncertainty.exchanged_nulls(x, y, families, rng) | {"separability": 0.5}
    sphere = uncertainty.sphere_values(sample, x, y, rng)
    width = float(stdtrit(uncertainty.freedom(families, resamples), (1 + level) / 2))
    ends = {name: uncertainty.cut_interval(name, values[name], width * error)
            for name, error in errors.items()}  # fmt: skip
    return _rows(values, ends, nulls, sphere, sample, families)


def matrix(
    vectors: Mapping[str, np.ndarray],
    paired: bool | Collection[tuple[str, str]] = True,
    groups: Mapping[str, Sequence] | None = None,
    **options,
) -> dict[str, np.ndarray]:
    """Measure every two of M modalities: {measure: [M, M]}.

    Args
        vectors  {modality: [N, D]}
        paired   whether all rows are pairs, or the pairs of modalities whose rows are
        groups   {modality: family of each row [N]}; of modalities with pairs the first one's count
        options  of `measure`
    Entry [i, j] is of modalities i and j in the order of `vectors`; hubs are those of j among
    queries of i. Entries are NaN where a measure is of a single modality or needs pairs that do not
    exist. `similarity` holds the mean cosines, diagonal included; a squared gap is
    S_ii + S_jj - 2 S_ij of it. `uniformity` and `participation` are on the diagonal.
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
            tables[i, j] = measure(
                vectors[both[0]], vectors[both[1]], has_pairs,
                groups=_of_both(groups, both, has_pairs), **options,
            )  # fmt: skip
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
    """Format measures as plain text, a row each; `names` chooses and orders.

    >>> from unite_core.gap import Measure, format_table
    >>> print(format_table({"gap": Measure(0.8502, (0.846, 0.854), 0.0, 500, families=120.5)}))
    measure   value        interval  null  sphere    n  families
    ------------------------------------------------------------
    gap      0.8502  [0.846, 0.854]     0          500     120.5
    """
    rows = [("measure", "value", "interval", "null", "sphere", "n", "families")]
    for name in names or table:
        row = table[name]
        interval = "too few families"
        if row.interval is not None:
            interval = "[{:.4g}, {:.4g}]".format(*row.interval)
        sphere = "" if row.sphere is None else f"{row.sphere:.4g}"
        numbers = (f"{row.value:.4g}", interval, f"{row.null:.4g}", sphere, str(row.n))
        rows.append((name, *numbers, f"{row.families:.4g}"))
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([name.ljust(first), *map(str.rjust, cells, widths)]) for name, *cells in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _rows(values, ends, nulls, sphere, sample: Sample, families: Families) -> dict[str, Measure]:
    """The table, in the order of `MEASURES`, from its columns by name."""
    table = {}
    for name, value in values.items():
        part = sample.families if uncertainty.of_sample(name, families) else families
        about = (nulls[name], part.size, part.effective, sphere.get(name))
        table[name] = Measure(value, ends.get(name), *about)
    table["gap"] = uncertainty.root(table["gap_squared"])
    return {name: table[name] for name in MEASURES if name in table}


def _of_both(groups: Mapping[str, Sequence] | None, both: tuple[str, str], has_pairs: bool):
    """The groups of two modalities as `measure` takes them."""
    if groups is None:
        return None
    if missing := [name for name in both if name not in groups]:
        raise ValueError(f"groups have no {missing[0]!r}; they have {', '.join(groups)}")
    return groups[both[0]] if has_pairs else tuple(groups[name] for name in both)


def _check_options(sample: Sample, resamples: int, level: float) -> None:
    if not 1 <= sample.k < (least := sample.families.least_half):
        raise ValueError(
            f"k = {sample.k} neighbours need halves of more than {sample.k} items, "
            f"not {least}: lower k, or give more items"
        )
    if resamples < 2 or not 0 < level < 1:
        raise ValueError(f"resamples {resamples} must be 2 or more and level {level} in (0, 1)")
    if sample.bandwidth <= 1e-12:
        raise ValueError("half of all distances are 0: the vectors have collapsed to a point")
