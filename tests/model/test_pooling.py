"""Pooling sees the tokens of an item and nothing of the padding, on either side."""

import pytest
import torch

from unite_core.model.pooling import pool


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_padding_counts_for_nothing(pooling):
    torch.manual_seed(0)
    rows = [torch.randn(length, 8, dtype=torch.bfloat16) for length in (3, 5, 1)]
    expected = torch.stack(
        [row[-1].float() if pooling == "last" else row.float().mean(0) for row in rows]
    )
    for left in (True, False):
        states = torch.full((3, 6, 8), torch.nan, dtype=torch.bfloat16)
        mask = torch.zeros(3, 6, dtype=torch.long)
        for number, row in enumerate(rows):
            places = slice(6 - len(row), 6) if left else slice(0, len(row))
            states[number, places], mask[number, places] = row, 1
        found = pool(states, mask, pooling)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected)
