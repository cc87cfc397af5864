"""What a filter by a verifier's expected IoU would keep: the other half of `maskmill tune`.

Thresholds on predicted IoU and stability decide which masks are made; a filter on verdicts decides, without
a model, which of them are used (`--masks-where "expected_iou >= 0.6"`). Each row is such a filter over the
masks of the thresholds in force. `right` and `right_kept` are expectations of the verifier's, no counts: they
are worth what its calibration is worth for these pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.annotation import AnnotatedImage

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import ImageEmbedding
    from maskmill.pipeline.verify.head import Verdicts
    from maskmill.pipeline.verify.verifier import Verifier

EXPECTED_IOUS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class VerdictRow:
    """What masks of at least this expected IoU are.

    Attributes:
        expected_iou: the least.
        masks_per_image: mean.
        right: share of them that is right (IoU of at least 0.75), expected; None of no mask.
        right_kept: share of all right masks that stays, expected; None where none is expected.
    """

    expected_iou: float
    masks_per_image: float
    right: float | None
    right_kept: float | None


class PictureJudge:
    """A verifier at one picture under many thresholds: the same masks are judged once.

    Args:
        verifier: judges.
        image_HW3: uint8, the picture.
        embedding: of it.
    """

    def __init__(self, verifier: Verifier, image_HW3: NDArray[np.uint8], embedding: ImageEmbedding) -> None:
        self._verifier, self._image, self._embedding = verifier, image_HW3, embedding
        self._known: dict[tuple[object, ...], Verdicts] = {}

    def __call__(self, kept: AnnotatedImage) -> Verdicts:
        """Of each mask that some thresholds keep. Raises ValueError for damaged run lengths."""
        name = tuple((one.segmentation, one.votes) for one in kept.annotations)
        if name not in self._known:
            found = self._verifier(kept, pixels_HWC=self._image, embedding=self._embedding)
            self._known[name] = found.masks
        return self._known[name]


def right_share(pictures: Sequence[Verdicts]) -> float | None:
    """Share of the pictures' masks that is right, expected; None of no mask."""
    right_N = np.concatenate([one.right_N for one in pictures])
    return float(right_N.mean()) if len(right_N) else None


def verdict_rows(
    pictures: Sequence[Verdicts], expected_ious: Sequence[float] = EXPECTED_IOUS
) -> tuple[VerdictRow, ...]:
    """A row for each filter, the loosest first.

    Args:
        pictures: of each picture, at least one.
        expected_ious: the least expected IoU of each filter, rising.
    """
    right_N, iou_N = (
        np.concatenate([getattr(one, name) for one in pictures]) for name in ("right_N", "expected_iou_N")
    )
    all_right = float(right_N.sum())
    rows = []
    for least in expected_ious:
        keep_N = iou_N >= least
        rows.append(
            VerdictRow(
                expected_iou=least,
                masks_per_image=float(keep_N.sum()) / len(pictures),
                right=float(right_N[keep_N].mean()) if keep_N.any() else None,
                right_kept=float(right_N[keep_N].sum()) / all_right if all_right else None,
            )
        )
    return tuple(rows)
