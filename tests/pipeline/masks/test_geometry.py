from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_anything.utils import amg

from maskmill.pipeline.masks.geometry import Crop, crop_boxes, cut_by_crop, layer_grids, point_grid
from maskmill.pipeline.settings.masks import SA1B


@pytest.mark.parametrize("points_per_side", [1, 2, 7, 32])
def test_grids_equal_the_references(points_per_side: int) -> None:
    assert np.array_equal(point_grid(points_per_side), amg.build_point_grid(points_per_side))


def test_layer_grids_equal_the_references() -> None:
    ours, theirs = layer_grids(SA1B), amg.build_all_layer_point_grids(32, 2, 2)
    assert [len(grid) for grid in ours] == [1024, 256, 64]
    assert all(np.array_equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("size", [(480, 640), (1500, 2250), (3300, 4950), (37, 41)])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_crops_equal_the_references(size: tuple[int, int], layers: int) -> None:
    boxes, layer_of_box = amg.generate_crop_boxes(size, layers, 512 / 1500)
    ours = crop_boxes(*size, layers, 512 / 1500)
    assert [list(crop.box_xyxy) for crop in ours] == boxes
    assert [crop.layer for crop in ours] == layer_of_box


def test_crops_of_a_tiny_image_are_never_empty() -> None:
    crops = crop_boxes(17, 3, 4, 0.34)
    assert all(crop.width > 0 and crop.height > 0 for crop in crops)
    assert len(crops) < 1 + 4 + 16 + 64 + 256


def test_boxes_cut_by_a_crop_equal_the_references() -> None:
    random = np.random.default_rng(0)
    height, width, crop = 300, 400, Crop((100, 0, 260, 180), 1)
    corners = np.sort(random.integers(0, 160, (500, 2, 2)), axis=1)
    box_xyxy_N4 = np.concatenate([corners[:, 0], corners[:, 1]], axis=1)
    theirs = amg.is_box_near_crop_edge(
        torch.from_numpy(box_xyxy_N4), list(crop.box_xyxy), [0, 0, width, height]
    ).numpy()
    offset = np.array([100, 0, 100, 0])
    assert np.array_equal(cut_by_crop(box_xyxy_N4 + offset, crop, height=height, width=width), theirs)
    assert 0 < theirs.sum() < len(theirs)


def test_the_image_border_cuts_nothing() -> None:
    whole = Crop((0, 0, 400, 300), 0)
    box_xyxy_N4 = np.array([[0, 0, 399, 299], [0, 10, 5, 20]])
    assert not cut_by_crop(box_xyxy_N4, whole, height=300, width=400).any()
