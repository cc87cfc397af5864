"""A batch of masks as columns, and what drops rows of it: thresholds and box NMS.

A mask is kept as its decoder's low-resolution logits until it has survived suppression; only then is it worth
run lengths. `encode_pending` makes them, for survivors or to bound memory.

Shape suffixes: N masks, H x W a low-resolution map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.frame import Frame
from maskmill.pipeline.masks.upsample import runs_batch
from maskmill.pipeline.rle import Rle

_ENCODED_TOGETHER = 64

Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class PendingMask:
    """A mask that has no run lengths yet.

    Args:
        logits_HW: float32 over the square model input.
        frame: where they lie in the image.
        threshold: logits above it are mask.
    """

    logits_HW: Floats32
    frame: Frame
    threshold: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class MaskBatch:
    """N masks of one image; `batch[keep]` takes rows of every column, by a bool mask or by indices.

    Args:
        predicted_iou_N: the model's own estimate.
        stability_N: IoU of the mask at threshold + offset and threshold - offset; 0 where both are empty.
        area_px_N: pixels.
        box_xyxy_N4: in px of the image, inclusive corners.
        point_xy_N2: float64, the prompt, in px of the image.
        output_token_N: which of the model's three outputs, 0 to 2.
        crop_N: place of the mask's crop in the image's list of crops (`geometry.crop_boxes`).
        mask_N: objects, each an `Rle` of the image or a `PendingMask`.
    """

    predicted_iou_N: Floats32
    stability_N: Floats32
    area_px_N: Ints
    box_xyxy_N4: Ints
    point_xy_N2: npt.NDArray[np.float64]
    output_token_N: Ints
    crop_N: Ints
    mask_N: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.mask_N)

    def __getitem__(self, keep: Bools | Ints) -> MaskBatch:
        return MaskBatch(**{field.name: getattr(self, field.name)[keep] for field in _FIELDS})

    def replace(self, **columns: Any) -> MaskBatch:
        """The same rows with some columns exchanged."""
        return dataclasses.replace(self, **columns)


_FIELDS = dataclasses.fields(MaskBatch)


def empty_batch() -> MaskBatch:
    """No masks."""
    return MaskBatch(
        predicted_iou_N=np.zeros(0, np.float32),
        stability_N=np.zeros(0, np.float32),
        area_px_N=np.zeros(0, np.int64),
        box_xyxy_N4=np.zeros((0, 4), np.int64),
        point_xy_N2=np.zeros((0, 2), np.float64),
        output_token_N=np.zeros(0, np.int64),
        crop_N=np.zeros(0, np.int64),
        mask_N=np.empty(0, object),
    )


def concatenate(batches: Sequence[MaskBatch]) -> MaskBatch:
    """All rows of the batches, in order; none gives an empty batch."""
    if not batches:
        return empty_batch()
    names = [field.name for field in _FIELDS]
    return MaskBatch(**{name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names})


def object_column(values: Sequence[object]) -> npt.NDArray[np.object_]:
    """A column of objects that numpy must not take apart."""
    column = np.empty(len(values), object)
    for row, value in enumerate(values):
        column[row] = value
    return column


def passes_thresholds(batch: MaskBatch, *, predicted_iou: float, stability: float) -> Bools:
    """Which masks are confident and stable: bool[N].

    Compared in float32 as the reference does; predicted IoU must exceed its threshold, stability may
    equal it, and a threshold of 0 lets all pass.
    """
    keep = np.ones(len(batch), bool)
    if predicted_iou > 0:
        keep &= batch.predicted_iou_N > np.float32(predicted_iou)
    if stability > 0:
        keep &= batch.stability_N >= np.float32(stability)
    return keep


def suppress(box_xyxy_N4: Ints, score_N: Floats32, *, max_iou: float) -> Ints:
    """Greedy box NMS: the rows to keep, best score first.

    Args:
        box_xyxy_N4: inclusive corners, taken as continuous ones (the reference does, so a box of one pixel
            has no area and is never suppressed).
        score_N: a higher score wins; ties go to the earlier row.
        max_iou: a box above this IoU with a kept one is dropped.

    Source: `batched_nms` of torchvision, called as segment_anything 1.0 does.
    """
    import torch
    from torchvision.ops.boxes import batched_nms

    kept: Ints = batched_nms(
        torch.from_numpy(box_xyxy_N4).float(),
        torch.from_numpy(score_N),
        torch.zeros(len(box_xyxy_N4)),
        iou_threshold=max_iou,
    ).numpy()
    return kept


def pending_bytes(batch: MaskBatch) -> int:
    """Bytes held by masks without run lengths."""
    return sum(mask.logits_HW.nbytes for mask in batch.mask_N if isinstance(mask, PendingMask))


def encode_pending(batch: MaskBatch, *, threads: int | None = None) -> MaskBatch:
    """Gives every mask run lengths of the whole image.

    Args:
        batch: with or without pending masks; masks of one crop share their frame.
        threads: for the run lengths; None is all of them.
    """
    masks = batch.mask_N.copy()
    rows_of_frame: dict[tuple[Frame, float], list[int]] = {}
    for row, mask in enumerate(masks):
        if isinstance(mask, PendingMask):
            rows_of_frame.setdefault((mask.frame, mask.threshold), []).append(row)
    for (frame, threshold), rows in rows_of_frame.items():
        for first in range(0, len(rows), _ENCODED_TOGETHER):  # a stack of them all would be a second copy
            some = rows[first : first + _ENCODED_TOGETHER]
            logits_NHW = np.stack([masks[row].logits_HW for row in some])
            encoded = runs_batch(logits_NHW, frame, threshold=threshold, threads=threads)
            for row, rle in zip(some, encoded, strict=True):
                masks[row] = rle
    return batch.replace(mask_N=masks)


def run_lengths_of(batch: MaskBatch) -> list[Rle]:
    """The masks of a batch whose rows are all encoded."""
    rles = [mask for mask in batch.mask_N if isinstance(mask, Rle)]
    assert len(rles) == len(batch), "encode_pending comes first"
    return rles
