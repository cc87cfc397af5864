"""How much of each cell of a coarse grid a mask covers, straight from its run lengths.

What a verifier looks at are dozens of masks against a few maps of one picture. At the picture's size that
would cost more than the masks did; on a grid of about `CELLS` along the longer side a mask is a few numbers.
Most masks touch a small part of the cells: only those that a mask touches are kept, mask after mask.

Shape suffixes: N masks, M touched cells of all masks, H x W pixels, R x C cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.machine.compiled import kernel
from maskmill.pipeline.rle import Ints
from maskmill.pipeline.verify.runs import Runs

CELLS = 96

Floats32 = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]


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


@dataclass(frozen=True, eq=False)
class Cover:
    """The cells that a picture's masks touch.

    Attributes:
        runs: of the masks.
        grid: the cells.
        first_N1: int64[N + 1], where each mask's cells begin in the others; the last is M.
        cell_M: int64, row * columns + column, rising within a mask.
        share_M: float32, the share of the cell's pixels that is mask, above 0.
    """

    runs: Runs
    grid: CellGrid
    first_N1: Ints
    cell_M: Ints
    share_M: Floats32

    @classmethod
    def of(cls, runs: Runs, cells: int = CELLS) -> Cover:
        """Of the masks of a picture, on a grid of its own."""
        grid = CellGrid.of(runs.height, runs.width, cells)
        row_of_H = np.repeat(np.arange(grid.rows), np.diff(grid.row_edges))
        column_of_W = np.repeat(np.arange(grid.columns), np.diff(grid.column_edges))
        found = _touched(runs.end_R, runs.first_N1, row_of_H, grid.row_edges, column_of_W, grid.column_edges)
        return cls(runs, grid, *found)

    def company(self) -> tuple[Floats32, Floats32]:
        """Float32[N] each: the share of a mask that lies under others, and its IoU with the one most like it.

        In cells that two masks touch, each is taken to lie under the other in proportion.
        """
        overlap_N, alike_N = np.zeros((2, len(self.first_N1) - 1), np.float32)
        cells = self.grid.rows * self.grid.columns
        smallest_first_N = np.argsort(np.diff(self.first_N1), kind="stable")
        _company(
            self.first_N1, self.cell_M, self.share_M, smallest_first_N, np.zeros(cells), overlap_N, alike_N
        )
        return overlap_N, alike_N

    def explained(self, right_N: Floats32) -> tuple[Floats32, Floats32]:
        """Float32[R, C] each: the chance that no mask explains a cell, and that an outline crosses it.

        Args:
            right_N: probability that each mask is right.
        """
        open_RC = np.ones((self.grid.rows, self.grid.columns), np.float32)
        outline_RC = np.zeros_like(open_RC)
        flat = open_RC.reshape(-1), outline_RC.reshape(-1)
        _explain(self.first_N1, self.cell_M, self.share_M, right_N, *flat)
        return open_RC, outline_RC

    def dense(self) -> Floats32:
        """float32[N, R, C]: the share of each cell's pixels that is mask."""
        masks, cells = len(self.first_N1) - 1, self.grid.rows * self.grid.columns
        share_NC = np.zeros((masks, cells), np.float32)
        share_NC[np.repeat(np.arange(masks), np.diff(self.first_N1)), self.cell_M] = self.share_M
        return share_NC.reshape(masks, self.grid.rows, self.grid.columns)


@kernel
def _touched(
    end_R: Ints, first_N1: Ints, row_of_H: Ints, row_edges: Ints, column_of_W: Ints, column_edges: Ints
) -> tuple[Ints, Ints, Floats32]:
    """The pixels of each run of ones, added to the cells that it passes, column by column."""
    height, rows, columns = len(row_of_H), len(row_edges) - 1, len(column_edges) - 1
    count_RC = np.zeros((rows, columns), np.int64)
    starts_N1 = np.zeros(len(first_N1), np.int64)
    cell_M, share_M = np.empty(1024, np.int64), np.empty(1024, np.float32)
    used = 0
    for n in range(len(first_N1) - 1):
        top, bottom, left, right = rows, -1, columns, -1
        for place in range(first_N1[n] + 1, first_N1[n + 1], 2):
            start, stop = end_R[place - 1], end_R[place]
            while start < stop:
                x, y = start // height, start % height
                end_y = min(height, y + stop - start)
                start += end_y - y
                column = column_of_W[x]
                left, right = min(left, column), max(right, column)
                top = min(top, row_of_H[y])
                while y < end_y:
                    row = row_of_H[y]
                    below = min(end_y, row_edges[row + 1])
                    count_RC[row, column] += below - y
                    y = below
                    bottom = max(bottom, row)

        # Kept, and cleared for the next mask
        most = used + max(0, bottom + 1 - top) * max(0, right + 1 - left)
        if most > len(cell_M):
            wider_cell, wider_share = np.empty(2 * most, np.int64), np.empty(2 * most, np.float32)
            wider_cell[:used], wider_share[:used] = cell_M[:used], share_M[:used]
            cell_M, share_M = wider_cell, wider_share
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                if count_RC[row, column]:
                    area = (row_edges[row + 1] - row_edges[row]) * (
                        column_edges[column + 1] - column_edges[column]
                    )
                    cell_M[used], share_M[used] = row * columns + column, count_RC[row, column] / area
                    count_RC[row, column] = 0
                    used += 1
        starts_N1[n + 1] = used
    return starts_N1, cell_M[:used].copy(), share_M[:used].copy()


@kernel
def _company(
    first_N1: Ints,
    cell_M: Ints,
    share_M: Floats32,
    smallest_first_N: Ints,
    scratch_C: Floats64,
    overlap_N: Floats32,
    alike_N: Floats32,
) -> None:
    """See `Cover.company`; a pair costs the cells of the smaller one."""
    masks = len(first_N1) - 1
    for place in range(len(cell_M)):
        scratch_C[cell_M[place]] += share_M[place]
    square_N = np.zeros(masks)
    for n in range(masks):
        under = whole = 0.0
        for place in range(first_N1[n], first_N1[n + 1]):
            share = share_M[place]
            under += share * min(1.0, scratch_C[cell_M[place]] - share)
            whole += share
            square_N[n] += share * share
        overlap_N[n] = under / max(whole, 1e-6)

    scratch_C[:] = 0
    for later in range(masks):
        n = smallest_first_N[later]
        for place in range(first_N1[n], first_N1[n + 1]):
            scratch_C[cell_M[place]] = share_M[place]
        for earlier in range(later):
            m = smallest_first_N[earlier]
            common = 0.0
            for place in range(first_N1[m], first_N1[m + 1]):
                common += share_M[place] * scratch_C[cell_M[place]]
            iou = np.float32(common / max(square_N[n] + square_N[m] - common, 1e-6))
            alike_N[n], alike_N[m] = max(alike_N[n], iou), max(alike_N[m], iou)
        for place in range(first_N1[n], first_N1[n + 1]):
            scratch_C[cell_M[place]] = 0


@kernel
def _explain(
    first_N1: Ints,
    cell_M: Ints,
    share_M: Floats32,
    right_N: Floats32,
    open_C: Floats32,
    outline_C: Floats32,
) -> None:
    one, four = np.float32(1), np.float32(4)
    for n in range(len(first_N1) - 1):
        for place in range(first_N1[n], first_N1[n + 1]):
            cell, share = cell_M[place], share_M[place]
            open_C[cell] *= one - share * right_N[n]
            outline_C[cell] = max(outline_C[cell], four * share * (one - share) * right_N[n])
