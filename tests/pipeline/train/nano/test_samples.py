"""Training samples: a number is a sample, targets are the masks, neighbours share a scene, measuring seeds
are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED
from maskmill.pipeline.train import samples
from maskmill.pipeline.train.nano.samples import SampleConfig, sample

SMALL = SampleConfig(size=64, prompts=6, photo_share=0.0)


def test_a_number_gives_the_same_sample_always() -> None:
    first, again = sample(12, SMALL), sample(12, SMALL)
    assert np.array_equal(first.image_3SS, again.image_3SS)
    assert np.array_equal(first.targets_Nss, again.targets_Nss)
    assert np.array_equal(first.prompts.coords_PT2, again.prompts.coords_PT2)


def test_shapes_and_ranges() -> None:
    for number in range(8):
        made = sample(number, SMALL)
        assert made.image_3SS.shape == (3, 64, 64)
        assert made.image_3SS.dtype == np.float32
        assert made.targets_Nss.shape[1:] == (32, 32)
        assert len(made.targets_Nss) >= 1
        assert made.targets_Nss.min() >= 0
        assert made.targets_Nss.max() <= 1
        assert made.under_PN.shape == (6, len(made.targets_Nss))


def test_the_target_of_a_point_is_under_it_and_boxes_mark_nothing() -> None:
    for number in range(8):
        made = sample(number, SMALL)
        own = made.under_PN[np.arange(6), made.prompts.target_P]
        assert (own == ~made.prompts.is_box_P).all()
        assert not made.under_PN[made.prompts.is_box_P].any()


def test_points_fall_on_cells_that_their_masks_cover() -> None:
    for number in range(8):
        made = sample(number, SMALL)
        for i in np.flatnonzero(~made.prompts.is_box_P):
            x, y = made.prompts.coords_PT2[i, 0].astype(int) // 2
            assert made.targets_Nss[made.prompts.target_P[i], y, x] > 0


def test_neighbours_share_a_scene_and_differ_in_prompts() -> None:
    one, two = sample(6, SMALL), sample(7, SMALL)
    assert sorted(one.targets_Nss.sum((1, 2))) == pytest.approx(sorted(two.targets_Nss.sum((1, 2))), rel=0.2)
    assert not np.array_equal(one.prompts.coords_PT2, two.prompts.coords_PT2)


def test_seeds_kept_for_measuring_are_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, original = [], samples._generated

    def remember(seed: int, height: int, width: int, min_area: float) -> object:
        seeds.append(seed)
        return original(seed, height, width, min_area)

    monkeypatch.setattr(samples, "_generated", remember)
    for number in range(0, 60, 2):
        sample(number, SMALL)
    assert len(set(seeds)) >= 30
    assert max(seeds) < HELD_BACK_SEED


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="size 100"):
        SampleConfig(size=100)
    with pytest.raises(ValueError, match="photo_share 2"):
        SampleConfig(photo_share=2)
