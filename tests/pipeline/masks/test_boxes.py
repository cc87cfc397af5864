from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from maskmill.pipeline.masks.boxes import check_prompts, masks_of_boxes, masks_of_prompts
from maskmill.pipeline.rle import decode
from maskmill.pipeline.segmenters.base import Prompts
from maskmill.pipeline.segmenters.sam import SamSegmenter


@pytest.fixture(scope="module")
def segmenter(tiny_sam: Any) -> SamSegmenter:
    return SamSegmenter(tiny_sam, device="cpu")


@pytest.fixture(scope="module")
def image(segmenter: SamSegmenter, photo: Any) -> Any:
    cut = np.ascontiguousarray(photo[:200])
    return segmenter.prompt(segmenter.embed([cut])[0])


BOXES = np.array([[10.0, 20.0, 90.5, 80.0], [100.0, 5.0, 250.0, 190.0], [0.0, 0.0, 256.0, 200.0]])


def test_masks_are_the_predictors(image: Any, tiny_sam: Any, photo: Any) -> None:
    predictor = SamPredictor(tiny_sam)
    predictor.set_image(np.ascontiguousarray(photo[:200]))
    found = masks_of_boxes(image, BOXES, mask_threshold=0.0, batch=2)
    assert len(found) == 3
    for box, annotation in zip(BOXES, found, strict=True):
        masks, scores, _ = predictor.predict(box=box, multimask_output=False)
        assert np.mean(decode(annotation.segmentation) != masks[0]) < 1e-4
        assert annotation.area_px == decode(annotation.segmentation).sum()
        assert annotation.predicted_iou == pytest.approx(float(scores[0]), abs=1e-4)
        assert (annotation.point_xy, annotation.output_token) == ((), -1)


def test_points_and_boxes_together(image: Any, tiny_sam: Any, photo: Any) -> None:
    predictor = SamPredictor(tiny_sam)
    predictor.set_image(np.ascontiguousarray(photo[:200]))
    points, labels = np.array([[50.0, 50.0], [120.0, 90.0]]), np.array([1, 0])
    masks, _, _ = predictor.predict(points, labels, box=BOXES[0], multimask_output=False)
    prompts = Prompts(points_PK2=points[None], labels_PK=labels[None], boxes_P4=BOXES[:1])
    (found,) = masks_of_prompts(image, prompts, mask_threshold=0.0)
    assert np.mean(decode(found.segmentation) != masks[0]) < 1e-4
    assert found.point_xy == ((50.0, 50.0),)


def test_no_boxes_give_no_masks(image: Any) -> None:
    assert masks_of_boxes(image, np.zeros((0, 4)), mask_threshold=0.0) == ()


@pytest.mark.parametrize(
    "box", [[5, 5, 1, 9], [300, 5, 310, 9], [-9, -9, -1, -1], [0, 0, np.nan, 5], [0, 0, np.inf, 5]]
)
def test_a_box_of_nothing_is_named(image: Any, box: list[float]) -> None:
    with pytest.raises(ValueError, match=r"box 1, .* has no part in an image of 256x200"):
        masks_of_boxes(image, np.array([BOXES[0], box]), mask_threshold=0.0)


def test_a_point_outside_is_named_but_padding_is_not() -> None:
    points = np.array([[[1.0, 1.0], [-1.0, -1.0]], [[1.0, 1.0], [9.0, 99.0]]])
    check_prompts(Prompts(points_PK2=points[:1], labels_PK=np.array([[1, -1]])), width=10, height=10)
    with pytest.raises(ValueError, match=r"point \[9.0, 99.0\] of prompt 1 lies outside"):
        check_prompts(Prompts(points_PK2=points, labels_PK=np.array([[1, -1], [1, 1]])), width=10, height=10)


def test_a_batch_that_does_not_fit_is_halved(image: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Short:
        embedding = image.embedding

        def predict(self, prompts: Any, *, multimask: bool = True) -> Any:
            if len(prompts) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return image.predict(prompts, multimask=multimask)

    found = masks_of_boxes(Short(), BOXES, mask_threshold=0.0, batch=4)
    assert [a.area_px for a in found] == [a.area_px for a in masks_of_boxes(image, BOXES, mask_threshold=0.0)]
    assert "going on with 1" in caplog.text
