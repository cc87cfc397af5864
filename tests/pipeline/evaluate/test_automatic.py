"""Automatic masks against incomplete labels: a label, a union, a piece, a slip, and what can't be judged."""

from __future__ import annotations

import numpy as np
import pytest

from maskmill.pipeline.evaluate.automatic import automatic_figures
from maskmill.pipeline.evaluate.truth import Truth


def _mask(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((40, 60), np.bool_)
    for y0, y1, x0, x1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


LABELS = np.stack([_mask((0, 10, 0, 10)), _mask((0, 10, 10, 20)), _mask((20, 30, 0, 10), (20, 30, 30, 50))])
PICTURE = Truth("one", np.zeros((40, 60, 3), np.uint8), LABELS)


@pytest.mark.parametrize(
    ("mask", "judged", "right", "label"),
    [
        (_mask((0, 10, 0, 9)), 1, 1, 1),
        (_mask((0, 10, 0, 20)), 1, 1, 1),  # half of it is a label, which is enough
        (_mask((0, 10, 1, 19)), 1, 1, 0),  # two labels together, neither of them by itself
        (_mask((20, 30, 0, 9)), 1, 1, 0),  # a piece of a label in two
        (_mask((0, 4, 0, 4)), 1, 0, 0),  # a corner of a label
        (_mask((32, 39, 0, 60)), 0, 0, 0),  # nothing is labelled there
    ],
)
def test_a_mask_meets_a_label_a_union_or_a_piece(
    mask: np.ndarray, judged: int, right: int, label: int
) -> None:
    figures = automatic_figures([mask[None]], [PICTURE])
    assert (figures.judged, figures.right_share, figures.label_share) == (judged, right, label)


def test_figures_are_pooled_over_pictures() -> None:
    bare = Truth("two", PICTURE.image, np.zeros((0, 40, 60), np.bool_))
    masks = np.stack([LABELS[0], LABELS[2], _mask((0, 4, 0, 4))])
    figures = automatic_figures([masks, masks[:0]], [PICTURE, bare])
    assert figures.masks_per_picture == 1.5
    assert figures.fewest == 0
    assert figures.judged == 3
    assert figures.right_share == figures.found_share == pytest.approx(2 / 3)


def test_masks_of_other_pictures_are_named() -> None:
    with pytest.raises(ValueError, match="masks of 0 pictures for 1"):
        automatic_figures([], [PICTURE])
