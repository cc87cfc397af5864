"""Regions of a photograph: where its edges are, at three scales, windows and masks together."""

from __future__ import annotations

import numpy as np
import pytest

from maskmill.pipeline.scenes.photo_regions import RegionPhoto, photo_regions
from maskmill.pipeline.scenes.textures import photo


def squares() -> RegionPhoto:
    """Two bright squares on grey: the coarse scale should find both, whole."""
    image = np.full((96, 96, 3), 90, np.uint8)
    image[12:44, 12:44] = (240, 60, 40)
    image[56:88, 50:90] = (40, 80, 230)
    return photo_regions(image)


def test_flat_squares_are_found_at_the_coarse_scale() -> None:
    labels_HW = squares().labels_LHW[0]
    for rows, cols in ((slice(14, 42), slice(14, 42)), (slice(58, 86), slice(52, 88))):
        inside = labels_HW[rows, cols]
        assert len(np.unique(inside)) == 1
        assert inside[0, 0] > 0
    assert len({labels_HW[28, 28], labels_HW[70, 70], labels_HW[0, 0]}) == 3


def test_regions_without_an_edge_are_dropped() -> None:
    ramp = np.linspace(100, 112, 96, dtype=np.float32)[None, :, None] * np.ones((96, 1, 3), np.float32)
    assert (photo_regions(ramp.astype(np.uint8)).labels_LHW == 0).all()


def test_an_unknown_photograph_is_named() -> None:
    with pytest.raises(ValueError, match=r"no_such\.png"):
        photo("no_such.png")
