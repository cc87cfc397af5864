"""Given boxes and points become masks: one mask a prompt, by the segmenter on an embedding made before.

The model's single-mask output is taken, as segment_anything advises for boxes and several points. Masks are
measured and encoded from low-resolution logits as in automask.py; nothing is filtered and nothing suppressed:
whoever gave a box gets its mask, empty ones included (area 0), with predicted IoU and stability to judge by.

What it doesn't know: where prompts come from (workers/foreign/boxes.py, pipeline/words/ground.py).

Shape suffixes: N prompts and masks, K points of a prompt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from maskmill.pipeline.annotation import SINGLE_OUTPUT, Annotation, to_xywh
from maskmill.pipeline.machine.batches import Batches
from maskmill.pipeline.masks.upsample import measure, runs_batch
from maskmill.pipeline.segmenters.base import PromptableImage, Prompts

STABILITY_OFFSET = 1.0


def masks_of_boxes(
    image: PromptableImage,
    boxes_xyxy_N4: npt.NDArray[np.float64],
    *,
    mask_threshold: float,
    batch: int = 64,
) -> tuple[Annotation, ...]:
    """The mask of each box, in order.

    Args:
        image: embedded, ready for prompts.
        boxes_xyxy_N4: float64[N, 4] left, top, right, bottom in px of the image; N may be 0.
        mask_threshold: the segmenter's.
        batch: boxes decoded together; halved where memory runs out.

    Returns:
        N annotations; one whose mask is empty has area 0.

    Raises:
        ValueError: boxes of another shape, or a box that is not finite, turned over or outside the image.
        torch.OutOfMemoryError, RuntimeError: memory runs out even for one box.
    """
    boxes_xyxy_N4 = np.asarray(boxes_xyxy_N4, np.float64).reshape(-1, 4)
    if len(boxes_xyxy_N4) == 0:
        return ()
    return masks_of_prompts(
        image, Prompts(boxes_P4=boxes_xyxy_N4), mask_threshold=mask_threshold, batch=batch
    )


def masks_of_prompts(
    image: PromptableImage, prompts: Prompts, *, mask_threshold: float, batch: int = 64
) -> tuple[Annotation, ...]:
    """The mask of each prompt, in order; see `masks_of_boxes`.

    Args:
        prompts: boxes, points or both, in px of the image; at least one.
    """
    check_prompts(prompts, width=image.embedding.width, height=image.embedding.height)
    batches = Batches(batch, "segmenter")
    return tuple(
        batches.run(
            range(len(prompts)),
            lambda rows: _masks_of_batch(image, _rows(prompts, rows), mask_threshold),
        )
    )


def check_prompts(prompts: Prompts, *, width: int, height: int) -> None:
    """Raises ValueError for a box or point that no mask can come of; the first is named."""
    boxes, points, labels = prompts.boxes_P4, prompts.points_PK2, prompts.labels_PK
    if boxes is not None:
        left, top, right, bottom = boxes.T
        with np.errstate(invalid="ignore"):
            good = np.isfinite(boxes).all(axis=1) & (right >= left) & (bottom >= top)
            good &= (right > 0) & (bottom > 0) & (left < width) & (top < height)
        if not good.all():
            row = int(np.flatnonzero(~good)[0])
            raise ValueError(
                f"box {row}, {boxes[row].tolist()} (left, top, right, bottom), has no part in an image of "
                f"{width}x{height} px"
            )

    if points is not None and labels is not None:
        outside = ~((points >= 0) & (points <= [width, height])).all(axis=2) & (labels >= 0)
        if outside.any():
            row, column = (int(place[0]) for place in np.nonzero(outside))
            raise ValueError(
                f"point {points[row, column].tolist()} of prompt {row} lies outside an image of "
                f"{width}x{height} px"
            )


def _masks_of_batch(image: PromptableImage, prompts: Prompts, threshold: float) -> list[Annotation]:
    with torch.inference_mode():
        prediction = image.predict(prompts, multimask=False)
        iou_P1 = prediction.predicted_iou_PM
        logits_NHW = prediction.masks(torch.ones_like(iou_P1, dtype=torch.bool)).float().cpu().numpy()

    frame = image.embedding.frame
    threads = torch.get_num_threads()
    measures = measure(logits_NHW, frame, offset=STABILITY_OFFSET, threshold=threshold, threads=threads)
    rles = runs_batch(logits_NHW, frame, threshold=threshold, threads=threads)

    whole = (0.0, 0.0, float(image.embedding.width), float(image.embedding.height))
    return [
        Annotation(
            segmentation=rle,
            bbox_xywh=to_xywh(measures.box_xyxy[row].astype(float).tolist()),
            area_px=int(measures.area_px[row]),
            predicted_iou=float(iou_P1[row, 0]),
            stability_score=float(measures.stability_score[row]),
            crop_box_xywh=whole,
            point_xy=_foreground(prompts, row),
            output_token=SINGLE_OUTPUT,
        )
        for row, rle in enumerate(rles)
    ]


def _rows(prompts: Prompts, rows: Sequence[int]) -> Prompts:
    columns = {field.name: getattr(prompts, field.name) for field in dataclasses.fields(prompts)}
    return Prompts(
        **{name: None if column is None else column[list(rows)] for name, column in columns.items()}
    )


def _foreground(prompts: Prompts, row: int) -> tuple[tuple[float, float], ...]:
    if prompts.points_PK2 is None or prompts.labels_PK is None:
        return ()
    return tuple((float(x), float(y)) for x, y in prompts.points_PK2[row][prompts.labels_PK[row] == 1])
