"""Scenes as training pictures: a number is a picture, targets are the masks, neighbours share a scene,
measuring seeds are left alone."""

from __future__ import annotations

import pytest
import torch

from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED
from maskmill.pipeline.train.nano.pictures import samples
from maskmill.pipeline.train.nano.pictures.samples import SceneConfig, scene_sample

SMALL = SceneConfig(side=64)


def test_a_number_gives_the_same_picture_always() -> None:
    first, again = scene_sample(12, SMALL), scene_sample(12, SMALL)
    assert torch.equal(first.image_B3SS, again.image_B3SS)
    assert torch.equal(first.cells_BNss, again.cells_BNss)


def test_shapes_and_padding() -> None:
    for number in range(8):
        made = scene_sample(number, SMALL)
        height, width = made.size_B2[0].tolist()
        assert max(height, width) == 64
        assert made.image_B3SS.shape == (1, 3, 64, 64)
        assert made.image_B3SS.dtype == made.cells_BNss.dtype == torch.uint8
        assert made.cells_BNss.shape[1] >= 1
        assert made.solid_BNss().flatten(2).any(2).all()
        outside = ~made.inside_BSS()[0]
        assert not made.image_B3SS[0, :, outside].any()
        assert not made.cells_BNss[0, :, outside[::2, ::2] & outside[1::2, 1::2]].any()


def test_neighbours_share_a_scene_and_are_turned() -> None:
    pairs = [(scene_sample(2 * i, SMALL), scene_sample(2 * i + 1, SMALL)) for i in range(4)]
    for one, two in pairs:
        areas = [sorted(p.cells_BNss[0].sum((1, 2), dtype=torch.int64).tolist()) for p in (one, two)]
        assert areas[0] == pytest.approx(areas[1], rel=0.1)
    assert any(not torch.equal(one.image_B3SS, two.image_B3SS) for one, two in pairs)


def test_seeds_kept_for_measuring_are_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, original = [], samples._generated

    def remember(seed: int, height: int, width: int, min_area: float) -> object:
        seeds.append(seed)
        return original(seed, height, width, min_area)

    monkeypatch.setattr(samples, "_generated", remember)
    for number in range(0, 60, 2):
        scene_sample(number, SMALL)
    assert len(set(seeds)) >= 30
    assert max(seeds) < HELD_BACK_SEED


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="side 100"):
        SceneConfig(side=100)
