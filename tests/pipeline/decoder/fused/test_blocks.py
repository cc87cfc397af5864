"""Rows in blocks: every number in its place, zeros behind the last token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskmill.pipeline.decoder.fused.blocks import BLOCK, array, in_blocks


@pytest.mark.parametrize("num_tokens", [1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_blocks_hold_the_rows(num_tokens: int) -> None:
    values = torch.randn(3, num_tokens)
    blocks = in_blocks(values)
    assert blocks.shape == (-(-num_tokens // BLOCK), 3, BLOCK) and blocks.flags.c_contiguous
    rows = blocks.transpose(1, 0, 2).reshape(3, -1)
    assert np.array_equal(rows[:, :num_tokens], values.numpy())
    assert not rows[:, num_tokens:].any()


def test_array_copies_only_to_bring_in_order() -> None:
    values = torch.randn(2, 3)
    assert np.shares_memory(array(values), values.numpy())
    assert array(values.T).flags.c_contiguous
