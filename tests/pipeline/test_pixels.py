"""What an image is, and masks at another size."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from maskmill.pipeline.pixels import check_rgb, nearest


def test_an_image_is_rgb_in_bytes() -> None:
    check_rgb(np.zeros((1, 1, 3), np.uint8))
    for wrong in (
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match=r"must be uint8\[height, width, 3\] RGB, got"):
            check_rgb(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("old", "new"), [((5, 7), (10, 14)), ((448, 243), (254, 491)), ((9, 9), (1, 4))])
def test_each_pixel_says_what_the_nearest_said_ties_included(
    old: tuple[int, int], new: tuple[int, int]
) -> None:
    mask = np.random.default_rng(0).random(old) < 0.5
    rows, columns = (
        [int(Fraction(2 * i + 1, 2) * old[axis] / new[axis]) for i in range(new[axis])] for axis in (0, 1)
    )
    chosen = np.ix_(nearest(old[0], new[0]), nearest(old[1], new[1]))
    assert np.array_equal(mask[chosen], mask[rows][:, columns])
