"""Draw the figures of docs/concepts with the numbers of its pages: `python docs/drawings.py`.

Equal code gives equal files; tests/test_book.py draws them again and compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from unite_core import plots
from unite_core.data import Modality
from unite_core.notebook import FIGURE_2B

__all__ = ["DRAWINGS", "draw_all"]


def embedding() -> Figure:
    """Three unit vectors and their cosines."""
    figure, ax = plt.subplots(figsize=(5.8, 1.75))
    points = {"text": np.array([[0.8, 0.6]]), "image": np.array([[0.6, 0.8], [-0.6, 0.8]])}
    labels = {"text": ['text "a red circle"'], "image": ["its picture: cosine .96", "another: .00"]}
    plots.plot_circle(points, ax, labels=labels)
    ax.set(xlim=(-2.2, 2.6), ylim=(-0.15, 1.2))
    return figure


def recall() -> Figure:
    """The ranks 1, 2, 4 and 8 at k = 3."""
    figure, ax = plt.subplots(figsize=(5.6, 2.5))
    plots.plot_ranks([1, 2, 4, 8], 3, ax, "Recall@3: two of four positives are among the first 3")
    return figure


def info_nce() -> Figure:
    """The powers 4, 1, 1 at three temperatures."""
    figure, ax = plt.subplots(figsize=(5.6, 2.9))
    cosines = np.array([np.log(4) / 2, 0, 0])
    shares = {}
    for temperature in (1, 0.5, 0.25):
        powers = np.exp(cosines / temperature)
        shares[f"temperature {temperature:g}"] = powers / powers.sum()
    plots.plot_pull(shares, ax, "A lower temperature: more for the largest cosine")
    return figure


def mask() -> Figure:
    """The mask on the paper's eight pairs."""
    figure, ax = plt.subplots(figsize=(5.2, 3.0))
    plots.plot_mask(FIGURE_2B, ax, "18 of 64 scores stay")
    names = ["+".join(word[0].upper() for word in Modality(m).label.split("+")) for m in FIGURE_2B]
    ax.set_xticks(range(8), names)
    ax.set_yticks(range(8), names)
    ax.set(xlabel="candidate", ylabel="query, by its target")
    return figure


def chain_rule() -> Figure:
    """The powers 4 and 2 of texts, 3 and 1 of images."""
    figure, ax = plt.subplots(figsize=(5.6, 2.4))
    plots.plot_chain_rule({"text": [4, 2], "image": [3, 1]}, ax, "p(c|q) = p(m|q) · p(c|q,m)")
    return figure


def gap() -> Figure:
    """Two pairs, as they are and after each mean is subtracted."""
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.2))
    texts = np.array([[0.8, 0.6], [0.8, -0.6]])
    images = texts * [-1, 1]
    plots.plot_circle({"text": texts, "image": images}, axes[0], "Gap 1.6", means=True)
    centred = [each - each.mean(0) for each in (texts, images)]
    ends = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in centred]
    plots.plot_circle(dict(zip(("text", "image"), ends, strict=True)), axes[1], "Centred: gap 0",
                      means=True)  # fmt: skip
    axes[0].legend(loc="center", bbox_to_anchor=(0.5, 0.28))
    return figure


def mixed_index() -> Figure:
    """Scores of texts and images, as they are and standardised for each modality."""
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.3), sharey=True)
    scores = {
        "text": np.array([0.70, 0.66, 0.62, 0.58]),
        "image": np.array([0.45, 0.30, 0.30, 0.15]),
    }
    plots.plot_scores_by_modality(scores, ("image", 0), axes[0], "The picture has rank 5")
    same = {name: (values - values.mean()) / values.std() for name, values in scores.items()}
    plots.plot_scores_by_modality(same, ("image", 0), axes[1], "Standardised: rank 1",
                                  "score")  # fmt: skip
    return figure


def curation() -> Figure:
    """Eight records and what the rules leave of them."""
    figure, ax = plt.subplots(figsize=(5.6, 2.2))
    removed = {"boilerplate": 1, "leak": 1, "exact duplicate": 1, "near duplicate": 1}
    plots.plot_remaining(removed, 8, ax)
    return figure


DRAWINGS = {
    each.__name__: each
    for each in (embedding, recall, info_nce, mask, chain_rule, gap, mixed_index, curation)
}
"""Every drawing by the name of its file."""


def draw_all(folder: Path) -> None:
    """Write `concept_<name>.svg` of every drawing into a folder."""
    with plt.rc_context():
        plots.use_style()
        for name, draw in DRAWINGS.items():
            figure = draw()
            figure.savefig(folder / f"concept_{name}.svg", metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "concepts")
