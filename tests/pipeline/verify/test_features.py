"""What a verifier sees: against pixels, and that a part that isn't there is told by its flag."""

from __future__ import annotations

import numpy as np
import pytest

from maskmill.pipeline.annotation import AnnotatedImage, Annotation, Votes
from maskmill.pipeline.rle import encode_mask
from maskmill.pipeline.verify.features import FEATURES, features
from maskmill.pipeline.verify.runs import Runs
from maskmill.pipeline.verify.windows import windows


def annotation(mask_HW: np.ndarray, votes: Votes | None = None) -> Annotation:  # type: ignore[type-arg]
    rows, columns = np.nonzero(mask_HW)
    box = (columns.min(), rows.min(), columns.max() - columns.min(), rows.max() - rows.min())
    return Annotation(
        segmentation=encode_mask(mask_HW),
        bbox_xywh=tuple(float(side) for side in box),  # type: ignore[arg-type]
        area_px=int(mask_HW.sum()),
        predicted_iou=0.8,
        stability_score=0.9,
        crop_box_xywh=(0.0, 0.0, float(mask_HW.shape[1]), float(mask_HW.shape[0])),
        point_xy=((1.0, 1.0),),
        output_token=1,
        votes=votes,
    )


def test_a_windows_samples_are_the_masks_pixels() -> None:
    mask_HW = np.zeros((40, 60), bool)
    mask_HW[10:30, 0:25] = np.random.default_rng(1).random((20, 25)) > 0.3
    mask_HW[10, 0] = mask_HW[29, 24] = True
    image = AnnotatedImage(60, 40, (annotation(mask_HW),))
    found = windows(image, Runs.of(image))
    for y, row in zip(found.y_NS[0], found.mask_NSS[0], strict=True):
        for x, is_mask in zip(found.x_NS[0], row, strict=True):
            inside = 0 <= x < 60 and 0 <= y < 40
            assert is_mask == (inside and bool(mask_HW[int(y), int(x)]))
    assert not found.within_NSS.all()  # its margin reaches beyond the left border


def test_a_mask_on_its_objects_outline_is_told_from_one_beside_it() -> None:
    pixels = np.full((80, 80, 3), 40, np.uint8)
    pixels[20:60, 20:60] = (200, 180, 60)
    pixels += np.random.default_rng(2).integers(0, 8, pixels.shape, dtype=np.uint8)
    right, beside = np.zeros((80, 80), bool), np.zeros((80, 80), bool)
    right[20:60, 20:60] = True
    beside[32:72, 32:72] = True
    found = features(AnnotatedImage(80, 80, (annotation(right), annotation(beside))), pixels_HWC=pixels)
    for name in ("colour_refit", "colour_fisher", "edge_ratio"):
        good, bad = found[:, FEATURES.index(name)]
        assert good > bad + 0.1, name


def test_what_is_unknown_is_zero_and_its_flag_says_so() -> None:
    mask_HW = np.zeros((30, 30), bool)
    mask_HW[5:20, 5:20] = True
    votes = Votes(count=4, iou_sum=2.0, near=5, prompts=3, inside=6, asked=9, own_outputs=0.5)
    known = features(AnnotatedImage(30, 30, (annotation(mask_HW, votes),)))[0]
    unknown = features(AnnotatedImage(30, 30, (annotation(mask_HW),)))[0]
    place = FEATURES.index("has_votes")
    assert known[place] == 1 and known[FEATURES.index("votes_iou")] == pytest.approx(0.5)
    assert not unknown[place:].any()
    assert features(AnnotatedImage(30, 30, ())).shape == (0, len(FEATURES))
