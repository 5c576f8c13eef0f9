"""Packed rows come back as they were, and equal rows have equal bytes where that is asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unite_core.data.packed import PackedRows

VALUES = st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=5))


@given(st.lists(VALUES, max_size=6))
def test_rows_come_back_in_order(values):
    rows = PackedRows()
    for value in values:
        rows.append(value)
    assert list(rows) == values and len(rows) == len(values)
    for row, value in enumerate(values):
        assert list(rows[row]) == list(value), "the order of keys is kept"
        assert rows[row - len(values)] == value
    with pytest.raises(IndexError):
        rows[len(values)]


@given(VALUES)
def test_sorted_keys_make_equal_values_equal_bytes(value):
    rows = PackedRows(sort_keys=True)
    rows.append(value)
    rows.append(dict(reversed(value.items())))
    assert rows.packed(0) == rows.packed(1)
