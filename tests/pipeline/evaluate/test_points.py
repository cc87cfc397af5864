"""Centre-point figures of hand-made segmenters whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor, nn

from maskmill.pipeline.evaluate.points import held_back_scenes, measure_points, point_ious
from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED, generate_scene
from maskmill.pipeline.segmenters.student import StudentConfig, build_student

SIZE = 64
TINY = StudentConfig(
    image_size=SIZE, widths=(8, 8, 8, 32), depths=(0, 0, 0, 0), embed_dim=32, decoder_heads=2
)


@dataclass(frozen=True)
class Picture:
    image: NDArray[np.uint8]
    masks_NHW: NDArray[np.bool_]


class KnownAnswers(nn.Module):
    """A mask decoder that gives the left half, the left quarter and nothing, whatever is asked."""

    def forward(self, *, sparse_prompt_embeddings: Tensor, **_: object) -> tuple[Tensor, Tensor]:
        count = len(sparse_prompt_embeddings)
        logits = torch.full((count, 3, SIZE // 2, SIZE // 2), -20.0)
        logits[:, 0, :, : SIZE // 4] = 20
        logits[:, 1, :, : SIZE // 8] = 20
        return logits, torch.tensor([0.3, 0.8, 0.1]).repeat(count, 1)


@pytest.fixture
def known() -> Sam:
    sam = build_student(TINY)
    sam.mask_decoder = KnownAnswers()  # type: ignore[assignment]
    return sam


def picture(*columns: int) -> Picture:
    masks = np.zeros((len(columns), SIZE, SIZE), bool)
    for mask, width in zip(masks, columns, strict=True):
        mask[:, :width] = True
    return Picture(np.zeros((SIZE, SIZE, 3), np.uint8), masks)


def test_best_and_chosen_ious_are_as_worked_out_by_hand(known: Sam) -> None:
    ious, predicted = point_ious(known, picture(32, 8), batch=1)
    assert ious.tolist() == [[1.0, 0.5, 0.0], [0.25, 0.5, 0.0]]
    assert np.allclose(predicted, [[0.3, 0.8, 0.1]] * 2)
    figures = measure_points(known, [picture(32, 8), picture(), picture(16)])
    assert (figures.pictures, figures.masks) == (2, 3)
    assert figures.best_miou == pytest.approx((1 + 0.5 + 1) / 3)
    assert figures.chosen_miou == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert figures.predicted_iou == pytest.approx(0.8)
    assert figures.iou_error == pytest.approx((0.3 + 0.3 + 0.2) / 3)


def test_masks_are_compared_at_the_pictures_own_resolution(known: Sam) -> None:
    large = Picture(np.zeros((96, 192, 3), np.uint8), np.zeros((1, 96, 192), bool))
    large.masks_NHW[:, :, :96] = True
    ious, _ = point_ious(known, large)
    assert ious[0, 0] == 1.0


def test_nothing_to_measure_is_said(known: Sam) -> None:
    with pytest.raises(ValueError, match="no picture with a mask"):
        measure_points(known, [picture()])


def test_held_back_scenes_begin_where_training_seeds_end() -> None:
    first = next(held_back_scenes(1, 64))
    assert np.array_equal(first.image, generate_scene(HELD_BACK_SEED, 64).image)
