"""Where masks change down their columns: counted for each column, then written where the sums say.

Each column starts with 0s above its first row and is closed with 0s below its last, so it has an even number
of changes. A change's place is the number of pixels before it in the whole image, column by column: COCO's
run lengths are the differences (rle.py).

Two launches of one kernel: one counts, one writes. A program takes a mask's tile of columns from top to
bottom.

Shapes: Y rows and X columns of a tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from maskmill.pipeline.gpu.kernels.measure import SIZES
from maskmill.pipeline.gpu.kernels.taps import patch_extremes, tile_values


@triton.jit(do_not_specialize=[*SIZES, "corner", "image_height", "capacity"])
def runs_kernel(
    logits: tl.tensor,
    slots: tl.tensor,
    num_slots: tl.tensor,
    rows: tl.tensor,
    row_weights: tl.tensor,
    row_bounds: tl.tensor,
    columns: tl.tensor,
    column_weights: tl.tensor,
    column_bounds: tl.tensor,
    counts: tl.tensor,
    ends: tl.tensor,
    places: tl.tensor,
    low_height: tl.tensor,
    low: tl.tensor,
    num_rows: tl.tensor,
    num_columns: tl.tensor,
    row_tiles: tl.tensor,
    column_tiles: tl.tensor,
    level: tl.tensor,
    below: tl.tensor,
    above: tl.tensor,
    corner: tl.tensor,
    image_height: tl.tensor,
    capacity: tl.tensor,
    WRITE: tl.constexpr,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    PATCH_Y: tl.constexpr,
    PATCH_X: tl.constexpr,
) -> None:
    """Grid: slots, column tiles. counts int32[slots, num_columns]; ends int32 the same, summed up; places
    int32[capacity]. `slots` names the mask of each slot, `num_slots` (one number on the device) how many.
    """
    slot, tile_x = tl.program_id(0), tl.program_id(1)
    if slot < tl.load(num_slots):
        at = logits + tl.load(slots + slot).to(tl.int64) * low_height * low
        left, right = tl.load(column_bounds + tile_x), tl.load(column_bounds + column_tiles + tile_x)
        x_all = tile_x * TILE_X + tl.arange(0, TILE_X)
        seen_X = x_all < num_columns
        x = tl.minimum(x_all, num_columns - 1)
        column_X = slot * num_columns + x_all
        used_X = tl.zeros([TILE_X], tl.int32)
        if WRITE:
            used_X = tl.load(ends + column_X, mask=seen_X, other=0) - tl.load(
                counts + column_X, mask=seen_X, other=0
            )
        state_X = tl.zeros([TILE_X], tl.int32)  # the mask's last row so far
        origin_X = corner + x_all * image_height

        for tile_y in range(row_tiles):
            top, bottom = tl.load(row_bounds + tile_y), tl.load(row_bounds + row_tiles + tile_y)
            least, most = patch_extremes(at, low, top, bottom, left, right, PATCH_Y, PATCH_X)
            start = tile_y * TILE_Y
            if (most > below) & (least <= above):
                y_all = start + tl.arange(0, TILE_Y)
                y = tl.minimum(y_all, num_rows - 1)
                values_YX = tile_values(
                    at, low, rows, row_weights, num_rows, y, columns, column_weights, num_columns, x
                )
                mask_YX = (values_YX > level).to(tl.int32)

                # Each row beside the row before it; the tile's first beside the last tile's last
                before = tl.maximum(y - 1, 0)
                before_YX = tile_values(
                    at, low, rows, row_weights, num_rows, before, columns, column_weights, num_columns, x
                )
                before_YX = tl.where(
                    (y_all == start)[:, None], state_X[None, :], (before_YX > level).to(tl.int32)
                )
                changed_YX = tl.where((y_all < num_rows)[:, None] & (mask_YX != before_YX), 1, 0)
                if WRITE:
                    order_YX = used_X[None, :] + tl.cumsum(changed_YX, axis=0) - 1
                    fits_YX = (changed_YX != 0) & seen_X[None, :] & (order_YX < capacity)
                    tl.store(places + order_YX, origin_X[None, :] + y_all[:, None], mask=fits_YX)
                used_X += tl.sum(changed_YX, axis=0)
                last = tl.minimum(start + TILE_Y, num_rows) - 1
                state_X = tl.sum(tl.where((y_all == last)[:, None], mask_YX, 0), axis=0)
            else:
                side = (least > above).to(tl.int32)
                changed_X = tl.where(state_X != side, 1, 0)
                if WRITE:
                    fits_X = (changed_X != 0) & seen_X & (used_X < capacity)
                    tl.store(places + used_X, origin_X + start, mask=fits_X)
                used_X += changed_X
                state_X = tl.zeros([TILE_X], tl.int32) + side

        # Closed below the last row
        if WRITE:
            tl.store(places + used_X, origin_X + num_rows, mask=(state_X != 0) & seen_X & (used_X < capacity))
        else:
            tl.store(counts + column_X, used_X + state_X, mask=seen_X)
