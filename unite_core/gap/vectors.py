"""Vectors for the measures: read from files, checked, of unit norm, without duplicates."""

# Shapes: N items, D embedding size.

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np

__all__ = ["MINIMUM", "check_sides", "distinct_rows", "load_vectors", "unit_vectors"]


MINIMUM = 50
"""Fewest items per modality; below it nearly every measure is dominated by its bias."""
_WIDE = 2**24  # values per side up to which everything is float64


def check_sides(x: np.ndarray, y: np.ndarray, paired: bool) -> tuple[tuple, tuple]:
    """Check both modalities; returns unit vectors of one size, each vector once, and which rows.

    Args
        x, y    [N, D] and [M, D]; with `paired` row i of both is the same thing, N = M
    Returns
        (x, y)   unit vectors, float64 (float32 above 16.8 million values a side)
        (kept_x [N], kept_y [M])   whether each given row is among them
    Raises ValueError on vectors that are not finite, zero or all equal, on sizes that disagree, and
    below 50 items. Norms other than 1 are normalised and repeated vectors removed, with a warning;
    a repeated vector, which would be its own nearest neighbour, is removed with its pair.
    """
    together = ("x", "y") if paired else ()
    sides, kept = distinct_rows({"x": x, "y": y}, together)
    return tuple(sides.values()), tuple(kept.values())


def distinct_rows(
    sides: Mapping[str, np.ndarray], together: Collection[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Unit vectors [N, D] of every side without repeats, with the checks of `check_sides`.

    Returns {side: vectors} and {side: [N] whether each given row is kept}. `together` names the
    sides whose row i is the same thing; a repeat in one leaves all of them.
    """
    sides = {name: unit_vectors(side, name) for name, side in sides.items()}
    first, *others = sides
    for name in others:
        if sides[first].shape[1] != sides[name].shape[1]:
            raise ValueError(
                f"{first} has {sides[first].shape[1]} dimensions and {name} "
                f"{sides[name].shape[1]}: embed both with one model, or cut both to the same "
                "Matryoshka size"
            )
    lengths = {len(sides[name]) for name in together}
    if len(lengths) > 1:
        words = " and ".join(f"{name} {len(sides[name])} rows" for name in together)
        raise ValueError(
            f"{words} are no pairs: give the same items in the same order, or paired=False"
        )
    sides, kept = _without_repeats(sides, together)
    for name, side in sides.items():
        if len(side) < MINIMUM:
            raise ValueError(
                f"{name} has {len(side)} different vectors: below {MINIMUM} the measures show "
                "their bias and not the gap; embed more items"
            )
    return sides, kept


def unit_vectors(vectors: np.ndarray, name: str = "vectors") -> np.ndarray:
    """Normalise vectors [N, D] to norm 1, in float64 (float32 above 16.8 million values).

    Raises ValueError naming the first row that is not finite or zero. Norms that are off by more
    than 0.1 % cause a warning; rounding to bfloat16 stays below that.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError(f"{name} must be [N, D], not {list(vectors.shape)}")
    vectors = vectors.astype(np.float64 if vectors.size <= _WIDE else np.float32)  # a copy
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    if len(bad := np.flatnonzero(~np.isfinite(norms))):
        raise ValueError(
            f"{name} row {bad[0]} is not finite ({len(bad)} such rows): the model that embedded "
            "them has diverged or was read wrongly"
        )
    if len(bad := np.flatnonzero(norms == 0)):
        raise ValueError(f"{name} row {bad[0]} is zero ({len(bad)} such rows): drop these items")
    if len(off := np.flatnonzero(np.abs(norms - 1) > 1e-3)):
        warnings.warn(
            f"{name}: {len(off)} of {len(norms)} rows have a norm other than 1 (the first "
            f"{norms[off[0]]:.3g}); all are normalised, before any average is taken",
            stacklevel=3,
        )
    vectors /= norms[:, None]
    return vectors


def load_vectors(path: str | Path, column: str = "") -> np.ndarray:
    """Read vectors [N, D] from .npy, .safetensors or .parquet, unchanged.

    `column` names a tensor of a safetensors file or a list column of a Parquet file. It may be
    empty where there is only one (Parquet: one list column, else all float columns).
    Raises ValueError on another ending, an unknown column, or anything but two dimensions.
    """
    path = Path(path)
    readers = {".npy": _read_npy, ".safetensors": _read_safetensors, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ValueError(f"{path}: vectors come as {', '.join(readers)}, not {path.suffix!r}")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    vectors = readers[path.suffix](path, column)
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise ValueError(
            f"{path}: vectors are floats [N, D], not {vectors.dtype} {list(vectors.shape)}"
        )
    return vectors


def _without_repeats(sides, together):
    """First occurrences of every row, and which these are.

    Of the sides in `together` rows that are distinct in all.
    """
    masks = {name: _first_occurrences(side) for name, side in sides.items()}
    for name, mask in masks.items():
        if mask.sum() == 1 < len(mask):
            raise ValueError(
                f"all {len(mask)} vectors of {name} are the same: the model has collapsed, or one "
                "item was embedded again and again"
            )
    if all(mask.all() for mask in masks.values()):
        return sides, masks
    if together:
        common = np.logical_and.reduce([masks[name] for name in together])
        masks |= dict.fromkeys(together, common)
    left_out = ", ".join(f"{(~m).sum()} of {len(m)} rows of {name}" for name, m in masks.items())
    warnings.warn(f"repeated vectors are left out: {left_out}", stacklevel=5)
    return {name: side[masks[name]] for name, side in sides.items()}, masks


def _first_occurrences(vectors) -> np.ndarray:
    """[N] whether no earlier row is the same."""
    seen: set[bytes] = set()
    mask = np.ones(len(vectors), dtype=bool)
    for row, vector in enumerate(np.ascontiguousarray(vectors)):
        digest = blake2b(vector.data, digest_size=16).digest()
        mask[row] = digest not in seen
        seen.add(digest)
    return mask


def _read_npy(path: Path, column: str) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _read_safetensors(path: Path, column: str) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return file.get_tensor(_chosen(path, column, list(file.keys())))


def _read_parquet(path: Path, column: str) -> np.ndarray:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ImportError(f"{path}: Parquet needs pyarrow: pip install pyarrow") from error
    schema = pq.read_schema(path)
    lists = [f.name for f in schema if pa.types.is_nested(f.type) and f.type.num_fields == 1]
    if column or lists:
        name = _chosen(path, column, lists)
        rows = pq.read_table(path, columns=[name])[name].combine_chunks()
        if rows.null_count:
            raise ValueError(f"{path}, column {name}: {rows.null_count} rows have no vector")
        return np.stack(rows.to_numpy(zero_copy_only=False))
    floats = [f.name for f in schema if pa.types.is_floating(f.type)]
    table = pq.read_table(path, columns=floats)
    return np.stack([table[name].to_numpy() for name in floats], axis=1)


def _chosen(path: Path, column: str, known: list[str]) -> str:
    if column and column not in known:
        raise ValueError(f"{path} has no vectors {column!r}; it has {', '.join(known)}")
    if not column and len(known) != 1:
        raise ValueError(f"{path} holds {', '.join(known)}: name one of them as column")
    return column or known[0]
