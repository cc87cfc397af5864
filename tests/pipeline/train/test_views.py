"""The student's view: what of a picture is shown, and in which look."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train.images import Labelled, train_image
from maskmill.pipeline.train.views import LEAST_SIDE, other_look, part_of

PLAIN = TrainSettings(min_area_px=9, flips=False)


def labelled(*, people: bool = False) -> Labelled:
    """A picture whose red channel is its mask."""
    masks = np.zeros((2, 60, 80), np.bool_)
    masks[0, 10:40, 20:60] = masks[1, 0:6, 30:50] = True
    image = np.zeros((60, 80, 3), np.uint8)
    image[masks[0], 0] = 255
    quality = np.array([0.8, 0.6], np.float32)
    return Labelled("a", image, masks, quality, np.full(2, people), right_N=quality / 2)


@pytest.mark.parametrize("seed", range(8))
def test_a_part_lies_within_and_is_half_of_each_side_at_least(seed: int) -> None:
    rows, columns = part_of(np.random.default_rng(seed), (61, 1))
    assert 0 <= rows.start < rows.stop <= 61 and rows.stop - rows.start >= int(LEAST_SIDE * 61)
    assert (columns.start, columns.stop) == (0, 1)


def test_a_look_changes_colours_and_neither_size_nor_draws() -> None:
    image = labelled().image
    looks = [other_look(np.random.default_rng(seed), image) for seed in range(6)]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in looks)
    assert sum(np.abs(one.astype(int) - image).mean() > 3 for one in looks) >= 4
    assert np.array_equal(looks[0], other_look(np.random.default_rng(0), image))


@pytest.mark.parametrize("number", range(6))
def test_masks_follow_the_part_that_is_shown(number: int) -> None:
    settings = TrainSettings(min_area_px=9, crops=1.0)
    made = train_image(labelled(), number, 80, settings)
    assert made is not None
    shown = made.image_3SS[0] > 1  # the padding is 0, black is below it
    assert (shown & made.masks_NSS[0]).sum() > 0.9 * max(shown.sum(), made.masks_NSS[0].sum())


def test_a_mask_out_of_view_is_not_counted_as_left_out() -> None:
    settings = TrainSettings(min_area_px=9, crops=1.0, flips=False)
    counted = Counter[str]()
    seen = [train_image(labelled(), number, 80, settings, counted) for number in range(30)]
    assert {len(one.masks_NSS) for one in seen if one is not None} == {1, 2}
    assert not +counted


def test_without_views_an_image_is_as_it_was() -> None:
    plain, off = (
        train_image(labelled(), 3, 80, settings)
        for settings in (PLAIN, TrainSettings(min_area_px=9, flips=False, looks=0.0, crops=0.0))
    )
    assert plain is not None and off is not None and np.array_equal(plain.image_3SS, off.image_3SS)
    looked = train_image(labelled(), 3, 80, TrainSettings(min_area_px=9, flips=False, looks=1.0))
    assert looked is not None and not np.array_equal(plain.image_3SS, looked.image_3SS)
    assert np.array_equal(plain.masks_NSS, looked.masks_NSS)


def test_a_person_s_mask_is_right_and_weighs_in_full() -> None:
    automatic, by_hand = (train_image(labelled(people=people), 0, 80, PLAIN) for people in (False, True))
    assert automatic is not None and by_hand is not None
    assert automatic.right_N is not None and by_hand.right_N is not None
    assert automatic.right_N.tolist() == pytest.approx([0.4, 0.3])
    assert automatic.weight_N.tolist() == pytest.approx([0.4, 0.3])  # automatic_weight 0.5
    assert by_hand.right_N.tolist() == by_hand.weight_N.tolist() == [1, 1]
