"""Counts above three levels and the box of every wanted mask, with no array of the photo's size.

A program takes a band of output rows of one mask and goes along it tile by tile: a tile whose logits all lie
below the lowest level counts nothing, one whose all lie above the highest counts fully, the rest are
computed. Bands meet in the mask's row of the result by atomic sums and extremes.

Shapes: Y rows and X columns of a tile.
"""

from __future__ import annotations

import triton
import triton.language as tl

from maskmill.pipeline.gpu.kernels.taps import patch_extremes, tile_values

FAR = tl.constexpr(2**30)


SIZES = ["low_height", "low", "num_rows", "num_columns", "row_tiles", "column_tiles"]
"""Differ from photo to photo, so code must not be made anew for each."""


@triton.jit(do_not_specialize=SIZES)
def measure_kernel(
    logits: tl.tensor,
    keep: tl.tensor,
    rows: tl.tensor,
    row_weights: tl.tensor,
    row_bounds: tl.tensor,
    columns: tl.tensor,
    column_weights: tl.tensor,
    column_bounds: tl.tensor,
    out: tl.tensor,
    low_height: tl.tensor,
    low: tl.tensor,
    num_rows: tl.tensor,
    num_columns: tl.tensor,
    row_tiles: tl.tensor,
    column_tiles: tl.tensor,
    outer: tl.tensor,
    level: tl.tensor,
    inner: tl.tensor,
    below: tl.tensor,
    above: tl.tensor,
    TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
    PATCH_Y: tl.constexpr,
    PATCH_X: tl.constexpr,
) -> None:
    """Grid: masks, row tiles. out int32[N, 7]: counts above outer, level, inner; left, top, right, bottom.

    `below` and `above` are outer and inner with room for rounding; row_bounds [2, row_tiles] and
    column_bounds [2, column_tiles] the first and last logit that a tile's taps reach.
    """
    mask, tile_y = tl.program_id(0), tl.program_id(1)
    if tl.load(keep + mask) != 0:
        at = logits + mask.to(tl.int64) * low_height * low
        top, bottom = tl.load(row_bounds + tile_y), tl.load(row_bounds + row_tiles + tile_y)
        y_all = tile_y * TILE_Y + tl.arange(0, TILE_Y)
        y = tl.minimum(y_all, num_rows - 1)
        height = tl.minimum(num_rows - tile_y * TILE_Y, TILE_Y)
        num_outer, num_level, num_inner = height * 0, height * 0, height * 0
        x0, y0, x1, y1 = height * 0 + FAR, height * 0 + FAR, height * 0 - 1, height * 0 - 1

        for tile_x in range(column_tiles):
            left, right = tl.load(column_bounds + tile_x), tl.load(column_bounds + column_tiles + tile_x)
            least, most = patch_extremes(at, low, top, bottom, left, right, PATCH_Y, PATCH_X)
            start = tile_x * TILE_X
            width = tl.minimum(num_columns - start, TILE_X)
            if least > above:
                num_outer += height * width
                num_level += height * width
                num_inner += height * width
                x0, y0 = tl.minimum(x0, start), tl.minimum(y0, tile_y * TILE_Y)
                x1, y1 = tl.maximum(x1, start + width - 1), tl.maximum(y1, tile_y * TILE_Y + height - 1)
            elif most > below:
                x_all = start + tl.arange(0, TILE_X)
                x = tl.minimum(x_all, num_columns - 1)
                values_YX = tile_values(
                    at, low, rows, row_weights, num_rows, y, columns, column_weights, num_columns, x
                )
                seen_YX = (y_all < num_rows)[:, None] & (x_all < num_columns)[None, :]
                mask_YX = seen_YX & (values_YX > level)
                num_outer += tl.sum((seen_YX & (values_YX > outer)).to(tl.int32))
                num_level += tl.sum(mask_YX.to(tl.int32))
                num_inner += tl.sum((seen_YX & (values_YX > inner)).to(tl.int32))
                x0 = tl.minimum(x0, tl.min(tl.where(mask_YX, x_all[None, :], FAR)))
                y0 = tl.minimum(y0, tl.min(tl.where(mask_YX, y_all[:, None], FAR)))
                x1 = tl.maximum(x1, tl.max(tl.where(mask_YX, x_all[None, :], -1)))
                y1 = tl.maximum(y1, tl.max(tl.where(mask_YX, y_all[:, None], -1)))

        to = out + mask * 7
        if num_outer > 0:
            tl.atomic_add(to, num_outer)
            tl.atomic_add(to + 1, num_level)
            tl.atomic_add(to + 2, num_inner)
        if num_level > 0:
            tl.atomic_min(to + 3, x0)
            tl.atomic_min(to + 4, y0)
            tl.atomic_max(to + 5, x1)
            tl.atomic_max(to + 6, y1)
