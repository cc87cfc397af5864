"""Shapes of annotations: right ones equal pycocotools', wrong ones are named before it sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from maskmill.pipeline.rle import Rle, area_px, decode, encode_mask
from maskmill.workers.foreign.annotations import BadAnnotation
from maskmill.workers.foreign.shapes import box_xywh, fitted, points_K2, shape_of

H, W = 40, 60
TRIANGLE = [4.5, 4.0, 50.0, 6.25, 20.0, 35.0]
SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]
NAN, INF = float("nan"), float("inf")


def reason_of(words: dict[str, Any], **options: bool) -> str:
    with pytest.raises(BadAnnotation) as caught:
        shape_of(words, H, W, **options)
    return caught.value.reason


def test_good_shapes_are_pycocotools_own() -> None:
    rings = [TRIANGLE, SQUARE]
    theirs = coco_mask.merge(coco_mask.frPyObjects(rings, H, W))
    ours = shape_of({"segmentation": rings}, H, W)
    assert (ours.rle.counts, ours.area_px, ours.bad_rings) == (theirs["counts"], coco_mask.area(theirs), 0)
    runs = {"size": [H, W], "counts": theirs["counts"].decode()}
    assert shape_of({"segmentation": runs}, H, W).rle == ours.rle
    plain = {"size": [H, W], "counts": [40, 40, 2320]}
    assert shape_of({"segmentation": plain}, H, W).area_px == 40
    whole_floats = {"size": [40.0, 60.0], "counts": [40.0, 40.0, 2320.0]}
    assert shape_of({"segmentation": whole_floats}, H, W).area_px == 40


@pytest.mark.parametrize("nothing", [{}, {"segmentation": None}, {"segmentation": []}])
def test_a_box_alone_is_its_box_but_no_true_mask(nothing: dict[str, Any]) -> None:
    words = {**nothing, "bbox": [5, 8, 30, 20]}
    shape = shape_of(words, H, W)
    assert shape.area_px == 600 and decode(shape.rle)[8:28, 5:35].all()
    assert reason_of(words, boxes=False) == "box_alone"
    assert reason_of(nothing) == "no_shape"


@pytest.mark.parametrize(
    "ring",
    [
        [],
        [10, 20],
        [10, 20, 30, 40],  # pycocotools takes it for a box
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5, None],
        [1, 2, 3, 4, 5, "6"],
        [1, 2, 3, 4, 5, True],
        [0, 0, 10, 0, NAN, 9],
        [0, 0, 10, 0, INF, 9],
        [0, 0, 10, 0, 10, 10**400],
        [0, 0, 1e9, 0, 1e9, 1e9],
        [0, 0, -1e5, 0, 9, 9],
        [[1, 2], [3, 4], [5, 6]],
        [[[[1]]]],
        {"x": 1},
        "ring",
        7,
        None,
    ],
)
def test_a_bad_ring_is_left_out_and_the_others_stand(ring: object) -> None:
    assert reason_of({"segmentation": [ring]}) == "bad_polygon"
    shape = shape_of({"segmentation": [ring, SQUARE]}, H, W)
    assert shape.bad_rings == 1 and shape.rle == shape_of({"segmentation": [SQUARE]}, H, W).rle


def test_an_outline_that_would_fill_memory_is_no_ring() -> None:
    there_and_back = [0, 0, 200, 0] * 20_000
    assert reason_of({"segmentation": [there_and_back]}) == "bad_polygon"


def test_a_ring_may_reach_out_of_the_image_but_must_meet_it() -> None:
    assert shape_of({"segmentation": [[-30, -30, 90, -30, 90, 90, -30, 90]]}, H, W).area_px == H * W
    assert reason_of({"segmentation": [[100, 100, 120, 100, 120, 120]]}) == "empty_mask"


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [H, W], "counts": "z" * 43}, "bad_run_lengths"),
        ({"size": [H, W], "counts": "ü"}, "bad_run_lengths"),
        ({"size": [H, W], "counts": "0"}, "bad_run_lengths"),
        ({"size": [H, W], "counts": None}, "bad_run_lengths"),
        ({"size": [H, W]}, "bad_run_lengths"),
        ({"size": [H, W], "counts": [1, 2]}, "bad_run_lengths"),
        ({"size": [H, W], "counts": [-1, 2401]}, "bad_run_lengths"),
        ({"size": [H, W], "counts": [0.5, 2399.5]}, "bad_run_lengths"),
        ({"size": [H, W], "counts": [NAN, 2400]}, "bad_run_lengths"),
        ({"size": [H, W], "counts": [1e300, 2400]}, "bad_run_lengths"),
        ({"size": [H, W], "counts": [2**64, 2400]}, "bad_run_lengths"),
        ({"size": [H, W], "counts": [2**62, 2**62, 2**62, 2**62, 2400]}, "bad_run_lengths"),
        ({"size": [H, W], "counts": ["1", 2399]}, "bad_run_lengths"),
        ({"size": [H, W], "counts": [[1], [2]]}, "bad_run_lengths"),
        ({"size": [H, W], "counts": [[1], 2]}, "bad_run_lengths"),
        ({"size": [W, H], "counts": [2400]}, "mask_of_another_size"),
        ({"size": [NAN, W], "counts": [2400]}, "mask_of_another_size"),
        ({"size": "40x60", "counts": [2400]}, "mask_of_another_size"),
        ({}, "mask_of_another_size"),
        ({"size": [H, W], "counts": [2400]}, "empty_mask"),
        ("polygon", "bad_polygon"),
        (True, "bad_polygon"),
    ],
)
def test_bad_runs_are_named(segmentation: object, reason: str) -> None:
    assert reason_of({"segmentation": segmentation, "bbox": [1, 1, 5, 5]}) == reason


@pytest.mark.parametrize(
    "box",
    [[1, 2, 3], [1, 2, 3, None], [1, 2, NAN, 4], [1, 2, 3, INF], [1, 2, 0, 4], [1, 2, 3, -4], [1e9, 0, 5, 5],
     "1234", {"x": 1}, [[1, 2, 3, 4]], 5],
)  # fmt: skip
def test_bad_boxes_are_named(box: object) -> None:
    assert reason_of({"bbox": box}) == "bad_box"
    with pytest.raises(BadAnnotation, match="bad_box"):
        box_xywh(box, H, W)


def test_points_are_pairs_and_may_lie_flat() -> None:
    assert points_K2([[1, 2], [3, 4]]).tolist() == points_K2([1, 2, 3, 4]).tolist() == [[1, 2], [3, 4]]
    for bad in ([], [1], [[1, 2, 3]], [[1, None]], [[1, NAN]], "ab", None, [[1, 2], 3]):
        with pytest.raises(BadAnnotation, match="bad_points"):
            points_K2(bad)


def test_a_mask_that_fits_is_itself() -> None:
    rle = encode_mask(np.ones((3, 4), np.bool_))
    assert fitted(rle, 3, 4) is rle


def test_masks_are_fitted_by_nearest_pixels() -> None:
    draw = np.random.default_rng(5)
    for _ in range(40):
        height, width, to_height, to_width = (int(side) for side in draw.integers(1, 30, 4))
        mask_HW = draw.random((height, width)) < draw.random()
        rows = ((np.arange(to_height) + 0.5) * height / to_height).astype(int)
        cols = ((np.arange(to_width) + 0.5) * width / to_width).astype(int)
        found = fitted(encode_mask(mask_HW), to_height, to_width)
        np.testing.assert_array_equal(decode(found), mask_HW[np.ix_(rows, cols)])
    huge = Rle(30_000, 40_000, encode_mask(np.ones((1, 1), bool)).counts)
    full = shape_of(
        {"segmentation": {"size": [30_000, 40_000], "counts": [0, 1_200_000_000]}}, 30_000, 40_000
    )
    assert huge.height == full.rle.height and area_px(fitted(full.rle, 30, 40)) == 1200
