"""Close or open the gap between two modalities by hand, and see what it is worth."""

# Shapes: N pairs, D embedding size.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...gap.mixed_pool import consequences
from ...gap.projections import Projection, blend, cosine_samples, to_scale
from .controls import Slider, follow

__all__ = ["closing_controls", "draw_closed"]


_SHARES = tuple(np.arange(-1, 1.51, 0.25).tolist())


def draw_closed(
    x: np.ndarray, y: np.ndarray, names: tuple[str, str], share: float,
    k: int = 10, seed: int = 0, like: Projection | None = None,
):  # fmt: skip
    """Draw two modalities after `share` of the gap is closed, and return (figure, words).

    Args
        x, y   [N, D] unit vectors of pairs
        share  as in `gap.projections.blend`
        like   the projection of the first picture, so that others are drawn to its scale
    The words have the gap that is left beyond chance, and what it does in retrieval.
    """
    import matplotlib.pyplot as plt

    from ...plots.gap import plot_cosine_histograms, plot_projection

    like = like or to_scale(dict(zip(names, (x, y), strict=True)))
    reach = 1.6 * max(np.abs(points).max() for points in like.points.values())
    moved = blend(x, y, share)
    values = consequences(*moved, names, k, seed)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    title = (
        f"{share:.0%} of the means' difference taken away: gap {values['gap']:.3f} beyond chance"
    )
    at = to_scale(dict(zip(names, moved, strict=True)), like=like)
    plot_projection(at, axes[0], title=title, reach=reach)
    plot_cosine_histograms(cosine_samples(*moved, 5000), names, axes[1])
    shown = {name: value for name, value in values.items() if name != "gap"}
    return figure, f"{title}. " + ", ".join(f"{name} {each:.3g}" for name, each in shown.items())


def closing_controls(
    x: np.ndarray, y: np.ndarray, names: Sequence[str], k: int = 10, seed: int = 0
):
    """A slider that moves both modalities along the gap; returns an ipywidgets box.

    A line says what 1 means: the means meet, but only until the vectors get length 1 again.
    """
    import ipywidgets

    names = tuple(names)
    start = to_scale(dict(zip(names, (x, y), strict=True)))
    left = consequences(*blend(x, y, 1.0), names, k, seed)["gap"]
    words = [f"{share:g}" for share in _SHARES]
    words[_SHARES.index(0)] = "0, as they are"
    words[_SHARES.index(1)] = "1, means equal"
    slider = Slider("share of the gap that is closed", _SHARES, 0.5, words)
    meaning = ipywidgets.HTML(
        "0 leaves the vectors alone and a negative share opens the gap. At 1 both means are equal "
        "for a moment; then every vector gets length 1 again, which leaves a gap of "
        f"{left:.3f} beyond chance."
    )

    def draw(share: float):
        return draw_closed(x, y, names, share, k, seed, start)

    box = follow(draw, {"share": slider})
    box.children = (box.children[0], meaning, *box.children[1:])
    return box
