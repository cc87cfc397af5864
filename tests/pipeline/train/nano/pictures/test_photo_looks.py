"""Looks change pixels and nothing else, and padding stays padding."""

from __future__ import annotations

import torch

from maskmill.pipeline.train.nano.pictures.photo_looks import changed_looks
from maskmill.pipeline.train.nano.pictures.samples import SceneConfig, scene_sample
from maskmill.pipeline.train.pictures import together


def test_looks_differ_and_masks_and_padding_stay() -> None:
    pictures = together([scene_sample(number, SceneConfig(64)) for number in range(12)])
    changed = changed_looks(pictures, torch.Generator().manual_seed(0))
    assert changed.image_B3SS.dtype == torch.uint8
    assert torch.equal(changed.cells_BNss, pictures.cells_BNss)
    outside = ~pictures.inside_BSS()[:, None].expand(-1, 3, -1, -1)
    assert outside.any()
    assert not changed.image_B3SS[outside].any()
    differs = (changed.image_B3SS != pictures.image_B3SS).flatten(1).float().mean(1)
    assert (differs > 0.3).all()


def test_a_generator_gives_the_same_looks() -> None:
    pictures = together([scene_sample(number, SceneConfig(64)) for number in range(4)])
    one, two = (changed_looks(pictures, torch.Generator().manual_seed(5)).image_B3SS for _ in range(2))
    assert torch.equal(one, two)
