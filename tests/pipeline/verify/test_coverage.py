"""Cells that masks touch, against pixels and against all masks' cells as one matrix."""

from __future__ import annotations

import numpy as np
import pytest

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.verify.coverage import CellGrid, Cover
from maskmill.pipeline.verify.runs import Runs
from tests.pipeline.verify.test_features import annotation

HEIGHT, WIDTH = 61, 83


def discs(count: int) -> AnnotatedImage:
    """Masks of all sizes that lie over each other; the last one is the whole picture."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = [
        (y - rng.uniform(0, HEIGHT)) ** 2 + (x - rng.uniform(0, WIDTH)) ** 2 < rng.uniform(2, 30) ** 2
        for _ in range(count - 1)
    ]
    return AnnotatedImage(WIDTH, HEIGHT, tuple(annotation(one) for one in [*masks, np.ones_like(masks[0])]))


def test_a_cell_holds_the_share_of_its_pixels() -> None:
    mask_HW = np.random.default_rng(0).random((37, 53)) > 0.6
    cover = Cover.of(Runs.of(AnnotatedImage(53, 37, (annotation(mask_HW),))), 10)
    grid, (found_RC,) = cover.grid, cover.dense()
    assert (grid.rows, grid.columns) == (7, 10)
    for row in range(grid.rows):
        for column in range(grid.columns):
            cell = mask_HW[
                grid.row_edges[row] : grid.row_edges[row + 1],
                grid.column_edges[column] : grid.column_edges[column + 1],
            ]
            assert found_RC[row, column] == pytest.approx(cell.mean(), abs=1e-6)


def test_a_mask_of_another_picture_is_refused() -> None:
    mask_HW = np.ones((36, 53), np.bool_)
    with pytest.raises(ValueError, match="its own picture's"):
        Runs.of(AnnotatedImage(53, 37, (annotation(mask_HW),)))


def test_company_and_what_is_explained_are_those_of_whole_matrices() -> None:
    image = discs(12)
    cover = Cover.of(Runs.of(image), 40)
    share_NRC = cover.dense()
    share_NC = share_NRC.reshape(len(share_NRC), -1).astype(np.float64)
    right_N = np.linspace(0.05, 1, len(share_NC)).astype(np.float32)

    common_NN = share_NC @ share_NC.T
    area_N = common_NN.diagonal()
    iou_NN = common_NN / (area_N[:, None] + area_N - common_NN) * (1 - np.eye(len(area_N)))
    others_NC = np.minimum(share_NC.sum(axis=0) - share_NC, 1)
    overlap_N, alike_N = cover.company()
    np.testing.assert_allclose(overlap_N, (share_NC * others_NC).sum(1) / share_NC.sum(1), rtol=1e-5)
    np.testing.assert_allclose(alike_N, iou_NN.max(axis=1), rtol=1e-5)

    open_RC, outline_RC = cover.explained(right_N)
    believed_NRC = share_NRC * right_N[:, None, None]
    np.testing.assert_allclose(open_RC, (1 - believed_NRC).prod(axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(outline_RC, (4 * believed_NRC * (1 - share_NRC)).max(axis=0), rtol=1e-5)


def test_no_masks_and_one_have_no_company() -> None:
    none = Cover.of(Runs.of(AnnotatedImage(WIDTH, HEIGHT, ())))
    assert none.grid == CellGrid.of(HEIGHT, WIDTH) and none.dense().shape == (0, HEIGHT, WIDTH)
    assert all(len(one) == 0 for one in none.company())
    open_RC, outline_RC = none.explained(np.zeros(0, np.float32))
    assert (open_RC == 1).all() and not outline_RC.any()
    alone = Cover.of(Runs.of(discs(1 + 1)))
    assert Cover.of(Runs.of(AnnotatedImage(WIDTH, HEIGHT, discs(2).annotations[:1]))).company()[1][0] == 0
    assert alone.company()[0][0] == pytest.approx(1, rel=1e-5)
