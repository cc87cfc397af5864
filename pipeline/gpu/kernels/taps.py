"""A tile of upsampled logits from the low-resolution ones, by both interpolations composed.

An output pixel has two rows and two columns of the middle grid, each of which has two of the logits (tables
of axis_tables.py). Each blend is torch's: products of weights, fused multiply-adds in its order

    (1)  blend(a b; c d) = d (lower right) + (c (lower left) + (a (upper left) + b (upper right)))

so a value equals masks/upsample.py's wherever the device fuses.

Shapes: Y rows and X columns of a tile; low is the width of the logits.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _blend(
    a: tl.tensor,
    b: tl.tensor,
    c: tl.tensor,
    d: tl.tensor,
    upper: tl.tensor,
    lower: tl.tensor,
    left: tl.tensor,
    right: tl.tensor,
) -> tl.tensor:
    value = tl.fma(a, upper * left, b * (upper * right))
    return tl.fma(d, lower * right, tl.fma(c, lower * left, value))


@triton.jit
def _middle(
    logits: tl.tensor,
    low: tl.tensor,
    rows: tl.tensor,
    row_weights: tl.tensor,
    num_rows: tl.tensor,
    y: tl.tensor,
    columns: tl.tensor,
    column_weights: tl.tensor,
    num_columns: tl.tensor,
    x: tl.tensor,
    which_row: tl.constexpr,
    which_column: tl.constexpr,
) -> tl.tensor:
    """[Y, X]: the middle grid at each output's first or second row and column."""
    upper_Y = tl.load(rows + 2 * which_row * num_rows + y)[:, None] * low
    lower_Y = tl.load(rows + (2 * which_row + 1) * num_rows + y)[:, None] * low
    left_X = tl.load(columns + 2 * which_column * num_columns + x)[None, :]
    right_X = tl.load(columns + (2 * which_column + 1) * num_columns + x)[None, :]
    return _blend(
        tl.load(logits + upper_Y + left_X),
        tl.load(logits + upper_Y + right_X),
        tl.load(logits + lower_Y + left_X),
        tl.load(logits + lower_Y + right_X),
        tl.load(row_weights + 2 * which_row * num_rows + y)[:, None],
        tl.load(row_weights + (2 * which_row + 1) * num_rows + y)[:, None],
        tl.load(column_weights + 2 * which_column * num_columns + x)[None, :],
        tl.load(column_weights + (2 * which_column + 1) * num_columns + x)[None, :],
    )


@triton.jit
def tile_values(
    logits: tl.tensor,
    low: tl.tensor,
    rows: tl.tensor,
    row_weights: tl.tensor,
    num_rows: tl.tensor,
    y: tl.tensor,
    columns: tl.tensor,
    column_weights: tl.tensor,
    num_columns: tl.tensor,
    x: tl.tensor,
) -> tl.tensor:
    """float32[Y, X]: the upsampled logits at rows y and columns x, which lie within the output."""
    a = _middle(logits, low, rows, row_weights, num_rows, y, columns, column_weights, num_columns, x, 0, 0)
    b = _middle(logits, low, rows, row_weights, num_rows, y, columns, column_weights, num_columns, x, 0, 1)
    c = _middle(logits, low, rows, row_weights, num_rows, y, columns, column_weights, num_columns, x, 1, 0)
    d = _middle(logits, low, rows, row_weights, num_rows, y, columns, column_weights, num_columns, x, 1, 1)
    return _blend(
        a,
        b,
        c,
        d,
        tl.load(row_weights + 4 * num_rows + y)[:, None],
        tl.load(row_weights + 5 * num_rows + y)[:, None],
        tl.load(column_weights + 4 * num_columns + x)[None, :],
        tl.load(column_weights + 5 * num_columns + x)[None, :],
    )


@triton.jit
def patch_extremes(
    logits: tl.tensor,
    low: tl.tensor,
    top: tl.tensor,
    bottom: tl.tensor,
    left: tl.tensor,
    right: tl.tensor,
    PATCH_Y: tl.constexpr,
    PATCH_X: tl.constexpr,
) -> tl.tensor:
    """The least and the greatest of the logits that a tile's taps reach; bounds are inclusive.

    An upsampled logit never lies beyond its taps, so a tile all on one side of a level needs no values.
    """
    y = tl.minimum(top + tl.arange(0, PATCH_Y), bottom)
    x = tl.minimum(left + tl.arange(0, PATCH_X), right)
    patch_YX = tl.load(logits + y[:, None] * low + x[None, :])
    return tl.min(patch_YX), tl.max(patch_YX)
