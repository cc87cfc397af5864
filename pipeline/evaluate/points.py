"""How well a segmenter answers one point: the mask's deepest pixel goes in, three masks come out.

Two figures a mask: the IoU of the best of the three outputs (can it?), and of the one with the highest
predicted IoU (does it know?). Masks are compared at the picture's own resolution. Any iterable of pictures
with masks will do: held-back generated scenes, or COCO ground truth.

Shapes: N masks, H x W pixels, M outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED, Scene, generate_scene
from maskmill.pipeline.train.prompts import centre_point


class Pictured(Protocol):
    """A picture and its true masks; a `Scene` is one."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """uint8[H, W, 3] RGB."""
        ...

    @property
    def masks_NHW(self) -> NDArray[np.bool_]:
        """bool[N, H, W], none empty."""
        ...


@dataclass(frozen=True)
class PointFigures:
    """Means over masks.

    Attributes:
        pictures: how many held at least one mask.
        masks: how many were asked for.
        best_miou: mean IoU of the best of three outputs.
        chosen_miou: mean IoU of the output of the highest predicted IoU.
        predicted_iou: mean predicted IoU of that output.
        iou_error: mean absolute difference between that prediction and its output's IoU.
    """

    pictures: int
    masks: int
    best_miou: float
    chosen_miou: float
    predicted_iou: float
    iou_error: float


def held_back_scenes(count: int, size_px: int | tuple[int, int] = 256) -> Iterator[Scene]:
    """Scenes of seeds that training never draws."""
    for i in range(count):
        yield generate_scene(HELD_BACK_SEED + i, size_px)


def point_ious(
    sam: Sam, picture: Pictured, batch: int = 64
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """IoU and predicted IoU of the three answers to each mask's deepest point.

    Args:
        sam: the segmenter.
        picture: uint8[H, W, 3] and bool[N, H, W]; empty masks are an error.
        batch: prompts at a time.

    Returns:
        float[N, 3] IoU with the mask, float[N, 3] predicted IoU.
    """
    predictor = SamPredictor(sam)
    predictor.set_image(picture.image)
    shape = picture.image.shape[:2]
    centres = np.array([centre_point(mask) for mask in picture.masks_NHW], dtype=np.float64)
    points = (
        torch.from_numpy(predictor.transform.apply_coords(centres, shape)).float().to(sam.device)[:, None]
    )
    ious, predicted = [], []
    for start in range(0, len(points), batch):
        some = points[start : start + batch]
        labels = torch.ones(some.shape[:2], dtype=torch.int64, device=sam.device)
        masks, scores, _ = predictor.predict_torch(some, labels, multimask_output=True)
        truth = torch.from_numpy(picture.masks_NHW[start : start + batch]).to(masks.device)[:, None]
        common = (masks & truth).sum((-1, -2)).double()
        union = (masks | truth).sum((-1, -2)).double()
        ious.append((common / union).cpu().numpy())
        predicted.append(scores.double().cpu().numpy())
    return np.concatenate(ious), np.concatenate(predicted)


def measure_points(sam: Sam, pictures: Iterable[Pictured]) -> PointFigures:
    """Centre-point figures over pictures.

    Args:
        sam: the segmenter, in evaluation mode.
        pictures: those without masks are passed over.

    Returns:
        Means over all masks (not over pictures).

    Raises:
        ValueError: no picture has a mask.
    """
    ious, predicted, count = [], [], 0
    for picture in pictures:
        if len(picture.masks_NHW) == 0:
            continue
        iou_NM, predicted_NM = point_ious(sam, picture)
        ious.append(iou_NM)
        predicted.append(predicted_NM)
        count += 1

    if not ious:
        raise ValueError("no picture with a mask was given; there is nothing to measure")
    iou_NM, predicted_NM = np.concatenate(ious), np.concatenate(predicted)

    # The answer that the model would give
    rows, chosen = np.arange(len(iou_NM)), predicted_NM.argmax(axis=1)
    error = np.abs(predicted_NM[rows, chosen] - iou_NM[rows, chosen])

    return PointFigures(
        pictures=count,
        masks=len(iou_NM),
        best_miou=float(iou_NM.max(axis=1).mean()),
        chosen_miou=float(iou_NM[rows, chosen].mean()),
        predicted_iou=float(predicted_NM[rows, chosen].mean()),
        iou_error=float(error.mean()),
    )
