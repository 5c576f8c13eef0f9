"""Figures of training data show what the loss and the records say."""

import numpy as np
import pytest

from unite_core.loss.contrastive import surviving_share
from unite_core.plots.loss import plot_mask, plot_pairs


def test_the_mask_leaves_exactly_the_surviving_pairs(ax):
    codes = np.array([1, 1, 2, 4, 2, 1, 3])
    assert plot_mask(codes, ax, "mask") is ax
    picture = ax.images[0].get_array()
    coloured = (np.asarray(picture) < 1).any(-1)
    assert coloured.mean() == pytest.approx(surviving_share(codes))
    assert (coloured == coloured.T).all() and coloured.diagonal().all()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["text (3)", "image (2)", "text+image (1)", "video (1)"]


def test_pairs_stand_side_by_side_under_their_names(ax):
    pairs = [({"text": "a"}, {"text": "b"}), ({"text": "c"}, {"text": "d"})]
    assert plot_pairs(pairs, ax, names=("reads", "writes")) is ax
    assert [label.get_text() for label in ax.get_xticklabels()] == ["reads", "writes"]
    assert {text.get_text() for text in ax.texts} == set("abcd")
