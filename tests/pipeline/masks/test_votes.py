"""Votes of suppressed candidates, counted by hand, and what survives a record."""

from __future__ import annotations

import numpy as np

from maskmill.pipeline.annotation import AnnotatedImage, from_sa1b, to_sa1b
from maskmill.pipeline.masks.measure import MaskBatch
from maskmill.pipeline.masks.votes import neighbours_of, with_votes
from tests.pipeline.verify.test_features import annotation


def candidates() -> MaskBatch:
    """Four on one box (one of them a sibling of the mask's prompt), one near, one elsewhere."""
    boxes = [(5, 5, 20, 20), (5, 5, 20, 20), (5, 5, 20, 21), (5, 5, 20, 20), (5, 5, 20, 29), (30, 30, 38, 38)]
    points = [(1, 1), (10, 10), (12, 10), (1, 1), (10, 10), (34, 34)]
    return MaskBatch(
        predicted_iou_N=np.array([0.8, 0.5, 0.5, 0.7, 0.6, 0.4], np.float32),
        stability_N=np.zeros(6, np.float32),
        area_px_N=np.zeros(6, np.int64),
        box_xyxy_N4=np.array(boxes, np.int64),
        point_xy_N2=np.array(points, np.float64),
        output_token_N=np.array([1, 1, 1, 2, 0, 1]),
        crop_N=np.zeros(6, np.int64),
        mask_N=np.empty(6, object),
    )


def test_votes_are_counted_and_survive_a_record() -> None:
    mask_HW = np.zeros((40, 40), bool)
    mask_HW[5:21, 5:21] = True
    prompts = np.array([(10.0, 10.0), (12.0, 10.0), (34.0, 34.0), (1.0, 1.0)])
    image = with_votes(
        AnnotatedImage(40, 40, (annotation(mask_HW),)), neighbours_of([candidates()], [prompts])
    )
    votes = image.annotations[0].votes
    assert votes is not None
    assert (votes.count, votes.near, votes.prompts) == (4, 5, 3)
    assert (votes.inside, votes.asked, votes.iou_sum, votes.own_outputs) == (3, 2, 2.5, 1.0)
    assert image.passed_over is not None
    assert [(one.bbox_xywh, one.count) for one in image.passed_over] == [((30.0, 30.0, 8.0, 8.0), 1)]

    read = from_sa1b(to_sa1b(image, image_id=0, file_name="a.jpg"))
    assert read.annotations[0].votes == votes and read.passed_over == image.passed_over
