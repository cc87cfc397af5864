"""Generated scenes: repeatable, within their own stated limits, nested as they say, and not all alike."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from maskmill.pipeline.scenes.scenes import Scene, generate_scene


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [generate_scene(seed, 128) for seed in range(30)]


def test_a_seed_gives_the_same_scene_and_another_seed_another() -> None:
    first, again, other = generate_scene(7, 96), generate_scene(7, 96), generate_scene(8, 96)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.masks_NHW, again.masks_NHW)
    assert np.array_equal(first.parent_N, again.parent_N)
    assert not np.array_equal(first.image, other.image)


def test_a_scene_is_as_large_as_asked_for() -> None:
    scene = generate_scene(3, (96, 160))
    assert scene.image.shape == (96, 160, 3)
    assert scene.image.dtype == np.uint8
    assert scene.masks_NHW.shape[1:] == (96, 160)
    assert scene.masks_NHW.dtype == np.bool_


def test_masks_keep_to_the_stated_limits(scenes: list[Scene]) -> None:
    for scene in scenes:
        share_N = scene.masks_NHW.mean(axis=(1, 2))
        assert (share_N >= 0.002).all()
        assert (share_N <= 0.9).all()
        for mask_HW in scene.masks_NHW:  # no slivers: some pixel is at least two deep
            assert ndimage.distance_transform_edt(np.pad(mask_HW, 1)).max() >= 2


def test_pieces_lie_in_their_parents_and_wholes_do_not_overlap(scenes: list[Scene]) -> None:
    for scene in scenes:
        for i, parent in enumerate(scene.parent_N):
            if parent >= 0:
                assert not (scene.masks_NHW[i] & ~scene.masks_NHW[parent]).any()
                assert scene.level_N[i] > scene.level_N[parent]
        wholes = scene.masks_NHW[scene.level_N == 0]
        assert (wholes.sum(axis=0) <= 1).all()


def test_a_piece_is_clearly_smaller_than_its_parent(scenes: list[Scene]) -> None:
    for scene in scenes:
        area_N = scene.masks_NHW.sum(axis=(1, 2))
        for i in np.flatnonzero(scene.parent_N >= 0):
            assert area_N[i] < 0.9 * area_N[scene.parent_N[i]]


def test_scenes_have_all_three_levels_and_differ_in_number(scenes: list[Scene]) -> None:
    counts = np.bincount(np.concatenate([scene.level_N for scene in scenes]), minlength=3)
    assert (counts >= 5).all(), counts
    assert len({len(scene.masks_NHW) for scene in scenes}) > 8


def test_masks_follow_edges_of_the_picture(scenes: list[Scene]) -> None:
    """Lightness changes more across the masks' borders than elsewhere: image and masks show the same
    thing."""
    on_border, elsewhere = [], []
    for scene in scenes:
        grey = scene.image.mean(axis=2)
        change = ndimage.gaussian_gradient_magnitude(grey, 1.0)
        border = np.zeros(grey.shape, bool)
        for mask_HW in scene.masks_NHW:
            border |= mask_HW & ~ndimage.binary_erosion(mask_HW, border_value=1)
        if border.any():
            on_border.append(change[border].mean())
            elsewhere.append(change[~border].mean())
    assert np.mean(on_border) > 1.5 * np.mean(elsewhere)


@pytest.mark.parametrize(
    ("seed", "size", "min_area", "says"),
    [
        (-1, 64, 0.002, "seed -1"),
        (0, 16, 0.002, "at least 32 px"),
        (0, (64, 8), 0.002, "64 x 8"),
        (0, 64, 0.0, "min_area 0.0"),
        (0, 64, 0.7, "min_area 0.7"),
    ],
)
def test_bad_settings_are_named(seed: int, size: int | tuple[int, int], min_area: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        generate_scene(seed, size, min_area=min_area)
