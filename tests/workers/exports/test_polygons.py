"""Polygons of masks, judged by OpenCV's fillPoly: what readers of YOLO data fill them with."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from maskmill.workers.exports.polygons import joined, rings_of

Mask = npt.NDArray[np.bool_]


def filled(rings: list[npt.NDArray[np.float64]], shape: tuple[int, int]) -> Mask:
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [ring.astype(np.int32) for ring in rings], 1)
    return canvas.astype(bool)


def disc(height: int, width: int, y: float, x: float, radius: float) -> Mask:
    rows, columns = np.mgrid[:height, :width]
    return np.hypot(rows - y, columns - x) <= radius


def ring() -> Mask:
    return disc(60, 80, 30, 40, 25) & ~disc(60, 80, 28, 42, 9)


def islands() -> Mask:
    return disc(60, 80, 15, 15, 9) | disc(60, 80, 45, 60, 12)


def whole() -> Mask:
    return np.ones((7, 9), bool)


def edges() -> Mask:
    mask = np.zeros((20, 30), bool)
    mask[0, :], mask[:, 29], mask[10:14, 0:3] = True, True, True
    return mask


def pixel() -> Mask:
    mask = np.zeros((5, 5), bool)
    mask[2, 3] = True
    return mask


def diagonal() -> Mask:
    return np.eye(8, dtype=bool)


CASES = [ring, islands, whole, edges, pixel, diagonal]


@pytest.mark.parametrize("make", CASES)
def test_rings_fill_to_the_mask_again(make: type[Mask]) -> None:
    mask = make()
    assert (filled(rings_of(mask), mask.shape) == mask).all()


@pytest.mark.parametrize("seed", range(8))
def test_random_masks_come_back_exactly(seed: int) -> None:
    draw = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(draw.random((50, 70), dtype=np.float32), (0, 0), 2.5)
    mask = noise > np.median(noise)
    assert (filled(rings_of(mask), mask.shape) == mask).all()


@pytest.mark.parametrize("make", CASES)
def test_one_joined_polygon_is_the_mask_but_for_thin_bridges(make: type[Mask]) -> None:
    mask = make()
    back = filled([joined(rings_of(mask))], mask.shape)
    assert (back & mask).sum() == mask.sum(), "nothing of the mask is lost"
    assert (back & ~mask).sum() <= 50  # bridges between islands


def test_simplified_polygons_have_few_points_and_little_error() -> None:
    mask = disc(400, 400, 200, 200, 150)
    exact, simple = rings_of(mask), rings_of(mask, tolerance_px=0.7)
    assert len(simple[0]) < len(exact[0]) / 2
    back = filled(simple, mask.shape)
    assert (back & mask).sum() / (back | mask).sum() > 0.985


def test_an_empty_mask_has_no_ring() -> None:
    assert rings_of(np.zeros((4, 4), bool)) == []
    assert joined([]).shape == (0, 2)
