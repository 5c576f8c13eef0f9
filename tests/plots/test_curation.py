"""Figures of curation draw what they are given, once per row, and name n."""

import pytest

from unite_core.curate.profile import mask_consequences
from unite_core.plots import (
    plot_alignment,
    plot_groups,
    plot_pair_types,
    plot_quantity,
    plot_recovery,
    plot_removed,
)


def test_pair_types_have_a_bar_each(ax):
    pairs = [{"query": "text", "candidate": kind, "records": 5, "share": 0.5}
             for kind in ("image", "text")]  # fmt: skip
    assert plot_pair_types({"pairs": pairs, "records": 10}, ax) is ax
    assert len(ax.patches) == 2 and "n = 10" in ax.get_xlabel()


def test_quantities_leave_rows_without_them_out(ax):
    row = {"query": "text", "candidate": "image", "side": "query"}
    spread = {"n": 7, "mean": 3.0, "quantiles": [1, 1, 2, 3, 4, 5, 6]}
    plot_quantity([row | {"characters": spread}, row], "characters", ax)
    (label,) = ax.get_yticklabels()
    assert label.get_text() == "text → image, query  (n 7)"


def test_groups_mark_those_that_are_too_small(ax):
    plot_groups(mask_consequences({"text": 990, "image": 10}, 64), ax)
    assert sum("too small" in text.get_text() for text in ax.texts) == 1


def test_removed_shares_fill_each_bar(ax):
    plot_removed({"text > image": {"": 6, "static": 4}, "text > text": {"": 1}}, ax)
    ends = [p.get_x() + p.get_width() for p in ax.patches]
    assert sorted(ends)[-2:] == pytest.approx([100, 100])


def test_the_cut_is_drawn_where_there_is_one(ax):
    report = {"pair_type": "text > image, a", "pairs": 3, "threshold": 0.2, "dropped": 1,
              "edges": [0, 0.5, 1], "counts": [1, 2], "null_counts": [3, 0]}  # fmt: skip
    plot_alignment(report, ax)
    assert any("1 dropped" in text.get_text() for text in ax.texts)


def test_recovery_has_a_row_per_fault(ax):
    plot_recovery([{"kind": "static", "injected": 4, "recall": 1.0, "precision": 0.9}], ax)
    assert ax.get_yticklabels()[0].get_text() == "static  (n 4)"
