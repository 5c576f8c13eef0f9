"""What the offset between modalities consists of: direction, dimensions, prompt."""

# Shapes: N, M items of the two modalities, D embedding size.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .families import Families
from .moments import Moments, debiased_gap_squared
from .vectors import check_sides, distinct_rows

__all__ = ["first_axis", "offset_direction", "prompt_offset"]


def offset_direction(x: np.ndarray, y: np.ndarray) -> dict[str, float | np.ndarray]:
    """The difference of means relative to the spread of both modalities together.

    Args: x [N, D], y [M, D] vectors.
    Returns
        difference      [D]  mean x - mean y
        pc1_cosine      |cosine| of it with the first principal axis of all items; near 1 where
                        the offset dominates the variance
        variance_share  share of the total variance between the means, at equal weights
        dimension_share [D]  share of its square in the 1, 2, ... D largest dimensions; depends on
                        the basis, a rotation of the space spreads it out
    """
    (x, y), _ = check_sides(x, y, paired=False)
    mean_x, mean_y = x.mean(0, dtype=np.float64), y.mean(0, dtype=np.float64)
    difference = mean_x - mean_y
    pooled, weights = np.concatenate([x, y]), np.repeat([1 / len(x), 1 / len(y)], [len(x), len(y)])
    centred = (pooled - (mean_x + mean_y) / 2) * np.sqrt(weights / 2)[:, None]
    first = first_axis(centred)
    squares = np.sort(difference**2)[::-1]
    return {
        "difference": difference,
        "pc1_cosine": float(abs(first @ difference) / np.linalg.norm(difference)),
        "variance_share": float(difference @ difference / 4 / np.square(centred).sum()),
        "dimension_share": np.cumsum(squares) / squares.sum(),
    }


def prompt_offset(
    text: np.ndarray, text_as_other: np.ndarray, other: np.ndarray, paired: bool = True,
    groups: Sequence | None = None,
) -> dict[str, float]:  # fmt: skip
    """How much of a gap is due to the prompt, from the same texts under both modalities' prompts.

    UNITE's prompts name "sentence", "image" or "video", so a text and an image differ in words
    before they differ in content.

    Args
        text           [N, D]  texts under the prompt of texts
        text_as_other  [N, D]  the same texts, row by row, under the other modality's prompt
        other          [N, D]  the other modality under its prompt; with `paired` the same things
        groups         [N] families of pairs, as in `measure`; no mean compares two of one
    Returns debiased gaps, signed squares where the name says so:
        total    text to other, the gap that is usually reported
        prompt   text to text_as_other: the words alone
        without  text_as_other to other: both under one prompt
        prompt_share  prompt^2 / total^2; above 1 where the two offsets point against each other
        cosine   of the prompt's offset with the rest, text_as_other to other; both are estimated
                 on the same texts, so it is uncertain near 0
    """
    if groups is not None and not paired:
        raise ValueError("groups are those of pairs: leave them out, or give pairs")
    sides, kept = distinct_rows(
        {"text": text, "text_as_other": text_as_other, "other": other},
        together=("text", "text_as_other", "other") if paired else ("text", "text_as_other"),
    )
    text, text_as_other, other = sides.values()
    families = None if groups is None else Families.of(groups, (kept["text"], kept["other"]), True)
    pairs = {"total": (text, other, paired), "prompt": (text, text_as_other, True),
             "without": (text_as_other, other, paired)}  # fmt: skip
    squares = {
        name: debiased_gap_squared(Moments.of_vectors(*pair, families))
        for name, pair in pairs.items()
    }
    gaps = {name: max(square, 0.0) ** 0.5 for name, square in squares.items()}
    product = gaps["prompt"] * gaps["without"]
    # |a + b|^2 = |a|^2 + |b|^2 + 2 a.b with a, b the two parts of the way from text to other
    inner = (squares["total"] - squares["prompt"] - squares["without"]) / 2
    return gaps | {
        "prompt_share": squares["prompt"] / squares["total"] if squares["total"] > 0 else 0.0,
        "cosine": float(np.clip(inner / product, -1, 1)) if product > 1e-12 else 0.0,
    }


def first_axis(rows: np.ndarray, steps: int = 200) -> np.ndarray:
    """First right singular vector [D], by power iteration from the longest row."""
    axis = rows[np.argmax(np.einsum("nd,nd->n", rows, rows))].astype(np.float64)
    for _ in range(steps):
        new = rows.T @ (rows @ axis)
        new /= np.linalg.norm(new)
        done, axis = abs(new @ axis) > 1 - 1e-14, new
        if done:
            break
    return axis
