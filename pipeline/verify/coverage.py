"""How much of each cell of a coarse grid a mask covers, straight from its run lengths.

What a verifier looks at are dozens of masks against a few maps of one picture. At the picture's size that
would cost more than the masks did; on a grid of about `CELLS` along the longer side a mask is a row of
numbers, and all of a picture's masks one matrix.

Shape suffixes: N masks, H x W pixels, R x C cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.machine.compiled import kernel
from maskmill.pipeline.rle import Ints, Rle, run_lengths

CELLS = 96

Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CellGrid:
    """Cells over a picture of height x width px; rows x columns of them, of whole pixels."""

    height: int
    width: int
    rows: int
    columns: int

    @classmethod
    def of(cls, height: int, width: int, cells: int = CELLS) -> CellGrid:
        """With at most `cells` along the longer side, and none smaller than a pixel."""
        scale = min(1.0, cells / max(height, width))
        return cls(height, width, max(1, round(height * scale)), max(1, round(width * scale)))

    @cached_property
    def row_edges(self) -> Ints:
        """int64[R + 1], px."""
        return np.linspace(0, self.height, self.rows + 1).round().astype(np.int64)

    @cached_property
    def column_edges(self) -> Ints:
        """int64[C + 1], px."""
        return np.linspace(0, self.width, self.columns + 1).round().astype(np.int64)


def coverage(rles: Sequence[Rle], grid: CellGrid) -> Floats32:
    """float32[N, R, C]: the share of each cell's pixels that is mask.

    Args:
        rles: of the grid's picture.
        grid: the cells.

    Raises:
        ValueError: a mask of another size, or damaged run lengths.
    """
    row_edges, column_edges = grid.row_edges, grid.column_edges
    row_of_H = np.repeat(np.arange(grid.rows), np.diff(row_edges))
    column_of_W = np.repeat(np.arange(grid.columns), np.diff(column_edges))
    count_NRC = np.zeros((len(rles), grid.rows, grid.columns), np.int64)
    for rle, count_RC in zip(rles, count_NRC, strict=True):
        if (rle.height, rle.width) != (grid.height, grid.width):
            raise ValueError(
                f"a mask of {rle.height} x {rle.width} px on cells of {grid}: give its own picture's"
            )
        _count(run_lengths(rle), grid.height, row_of_H, row_edges, column_of_W, count_RC)
    area_RC = np.diff(row_edges)[:, None] * np.diff(column_edges)[None, :]
    share: Floats32 = (count_NRC / area_RC).astype(np.float32)
    return share


@kernel
def _count(
    lengths: Ints, height: int, row_of_H: Ints, row_edges: Ints, column_of_W: Ints, out_RC: Ints
) -> None:
    """Adds the pixels of each run of ones to the cells that it passes, column by column."""
    start = 0
    for place in range(len(lengths)):
        stop = start + lengths[place]
        if place % 2 == 1:
            while start < stop:
                x, y = start // height, start % height
                end_y = min(height, y + stop - start)
                start += end_y - y
                column = column_of_W[x]
                while y < end_y:
                    row = row_of_H[y]
                    below = min(end_y, row_edges[row + 1])
                    out_RC[row, column] += below - y
                    y = below
        start = stop
