"""Prompts drawn from tensors: in their masks, deep where asked, boxes near them, corrections in the error."""

from __future__ import annotations

import torch

from maskmill.pipeline.train.nano.draw_prompts import PromptConfig, correct, deepest, draw_prompts, points_in
from maskmill.pipeline.train.nano.pictures.samples import SceneConfig, scene_sample
from maskmill.pipeline.train.pictures import Pictures, cells_of, together
from maskmill.pipeline.train.prompts import BACKGROUND, BOX_END, BOX_START, FOREGROUND, PAD


def _disc(side: int, x: int, y: int, radius: int) -> torch.Tensor:
    rows, cols = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (rows - y) ** 2 + (cols - x) ** 2 <= radius**2


def _discs(known: bool = True) -> Pictures:
    masks = torch.stack([_disc(64, 16, 16, 9), _disc(64, 44, 40, 6), _disc(64, 20, 50, 4)])
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    return Pictures(image, torch.tensor([[60, 64]]), cells_of(masks)[None], torch.tensor([known]))


def test_points_lie_in_their_masks_and_every_mask_has_its_turn() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = together([_discs(), scene_sample(0, SceneConfig(64))])
    prompts = draw_prompts(pictures, PromptConfig(count=24, void_share=0.0), generator)
    assert torch.bincount(prompts.target_BP[0]).tolist() == [8, 8, 8]
    solid = pictures.solid_BNss()
    for b in range(2):
        for p in range(24):
            target = int(prompts.target_BP[b, p])
            if prompts.is_box_BP[b, p]:
                assert prompts.labels_BPT[b, p].tolist() == [BOX_START, BOX_END]
                assert not prompts.under_BPN[b, p].any()
                continue
            assert prompts.labels_BPT[b, p].tolist() == [FOREGROUND, PAD]
            x, y = (prompts.coords_BPT2[b, p, 0].long() // 2).tolist()
            assert torch.equal(prompts.under_BPN[b, p], solid[b, :, y, x])
            assert prompts.under_BPN[b, p, target]
    assert 0 < prompts.is_box_BP.sum() < 40


def test_points_outside_all_masks_are_void_where_it_is_known_that_nothing_is_there() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = together([_discs(known=True), _discs(known=False)])
    prompts = draw_prompts(pictures, PromptConfig(count=60, void_share=0.3), generator)
    assert 8 < prompts.is_void_BP[0].sum() < 30
    assert not prompts.is_void_BP[1].any()
    assert not (prompts.is_void_BP & prompts.is_box_BP).any()
    assert not prompts.under_BPN[prompts.is_void_BP].any()
    assert (prompts.coords_BPT2[prompts.is_void_BP][:, 0, 1] < 60).all()  # not in the padding


def test_boxes_hold_their_masks_but_for_their_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    prompts = draw_prompts(_discs(), PromptConfig(count=300, box_share=1.0, void_share=0.0), generator)
    discs = torch.tensor([[7.0, 7, 25, 25], [38, 34, 50, 46], [16, 46, 24, 54]])
    box = prompts.coords_BPT2[0].flatten(1)
    noise = box - discs[prompts.target_BP[0]]
    side = (discs[:, 2] - discs[:, 0] + 1)[prompts.target_BP[0]]
    share = noise / side[:, None]
    assert 0.05 < share.std() < 0.12
    assert share.mean(0).abs().max() < 0.08  # cells, not pixels
    assert (box >= 0).all()
    assert (box[:, 3] <= 59).all()


def test_the_deepest_cell_is_a_discs_middle_and_lies_in_a_ring() -> None:
    ring = _disc(40, 20, 20, 16) & ~_disc(40, 20, 20, 9)
    half = torch.zeros(40, 40, dtype=torch.bool)
    half[:, :11] = True
    found = deepest(torch.stack([_disc(40, 13, 22, 7), ring, half]))
    assert divmod(int(found[0]), 40) == (22, 13)
    assert ring.flatten()[found[1]]
    assert 3 <= int(found[2]) % 40 <= 7  # the picture's border counts as outside


def test_any_cell_of_a_region_may_be_drawn() -> None:
    region = torch.zeros(1, 8, 8, dtype=torch.bool)
    region[0, 2, 1:4] = True
    generator = torch.Generator().manual_seed(0)
    drawn = {int(points_in(region, torch.zeros(1, dtype=torch.bool), generator)) for _ in range(60)}
    assert drawn == {17, 18, 19}


def test_corrections_fall_in_the_error_and_say_what_is_missing() -> None:
    truth = torch.zeros(1, 3, 16, 16, dtype=torch.bool)
    truth[0, :, 4:12, 4:12] = True
    logits = torch.where(truth, 1.0, -1.0)
    logits[0, 0, 4:12, 8:12] = -1.0  # misses the right half
    logits[0, 1, 0:3, 0:16] = 1.0  # spills above
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        point, label = correct(logits, truth, generator)
        x, y = (point[0].long() // 2).unbind(1)
        assert label[0].tolist() == [FOREGROUND, BACKGROUND, FOREGROUND]
        assert 8 <= x[0] < 12
        assert y[1] < 3
        assert truth[0, 2, y[2], x[2]]  # nothing is wrong there: a point of the truth
