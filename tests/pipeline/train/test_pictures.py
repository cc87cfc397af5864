"""Training pictures as bytes: padding, normalisation as Sam's, cells."""

from __future__ import annotations

import torch

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.train.pictures import Pictures, cells_of, together

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)


def _picture(masks: int = 2, height: int = 40, width: int = 64) -> Pictures:
    generator = torch.Generator().manual_seed(masks)
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    image[..., :height, :width] = torch.randint(0, 256, (1, 3, height, width), generator=generator)
    cells = torch.randint(0, 5, (1, masks, 32, 32), generator=generator, dtype=torch.uint8)
    return Pictures(image, torch.tensor([[height, width]]), cells, torch.tensor([True]))


def test_pictures_are_normalised_and_padded_as_sam_does() -> None:
    picture, sam = _picture(), build_student(TINY)
    wanted = sam.preprocess(picture.image_B3SS[0, :, :40].float())
    torch.testing.assert_close(picture.normalised()[0], wanted, atol=1e-5, rtol=1e-5)


def test_batches_are_padded_to_the_most_masks() -> None:
    batch = together([_picture(1), _picture(3)])
    assert batch.cells_BNss.shape == (2, 3, 32, 32)
    assert not batch.cells_BNss[0, 1:].any()
    assert len(batch.pick([1])) == 1
    assert torch.equal(batch.pick(slice(1, 2)).cells_BNss[0], _picture(3).cells_BNss[0])


def test_cells_count_the_pixels_that_a_mask_covers() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :2, :2], mask[0, 2, 2], mask[0, 0, 3] = True, True, True
    assert cells_of(mask).tolist() == [[[4, 1], [0, 1]]]
    batch = Pictures(
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        torch.tensor([[4, 4]]),
        cells_of(mask)[None],
        torch.ones(1),
    )
    assert batch.solid_BNss().sum() == 1
    assert batch.shares_BNK().tolist() == [[[1.0, 0.25, 0.0, 0.25]]]
