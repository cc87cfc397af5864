"""From candidates to annotations: thresholds, suppression, run lengths, clean-up, parents.

No model is needed: a grid's masks go through here when a stage has just made them (automask.py), and again
when stored candidates are asked what other settings would have given.

Order of the steps:
    in each crop: the three thresholds, box NMS by predicted IoU
    across crops: box NMS that prefers smaller crops; run lengths; clean-up and its NMS; parents

Shape suffixes: N masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from maskmill.pipeline.annotation import AnnotatedImage, Annotation, to_xywh
from maskmill.pipeline.machine.clock import StepClock
from maskmill.pipeline.masks import measure as masks
from maskmill.pipeline.masks import regions
from maskmill.pipeline.masks.geometry import Crop, crop_boxes
from maskmill.pipeline.masks.measure import MaskBatch
from maskmill.pipeline.masks.votes import neighbours_of, prompts_of, with_votes
from maskmill.pipeline.settings.masks import MaskSettings

PARENT_CONTAINMENT = 0.95
"""A mask's parent is the smallest larger mask that holds at least this share of its area."""


def select_masks(candidates: MaskBatch, settings: MaskSettings, *, height: int, width: int) -> AnnotatedImage:
    """What the stage gives of these candidates; no model is needed.

    Args:
        candidates: of an image of this size, as `AutomaticMasks.candidates` gave them, with or without run
            lengths; of thresholds no higher than the settings'.
        settings: thresholds, NMS, coverage and clean-up to apply. Grid, crops and stability offset must be
            those that the candidates were made with.
        height, width: of that image in px.
    """
    batches = []
    crops = crop_boxes(height, width, settings.crop_layers, settings.crop_overlap)
    for crop_index in range(len(crops)):
        batch = candidates[candidates.crop_N == crop_index]
        batch = batch[passes(batch, settings, height * width)]
        batches.append(suppress_crop(batch, settings))
    image = finish(batches, height, width, settings, StepClock())
    return voted(image, candidates, settings)


def voted(image: AnnotatedImage, candidates: MaskBatch, settings: MaskSettings) -> AnnotatedImage:
    """The image with the votes of those candidates whose predicted IoU passed, as in the grid stage.

    Args:
        image: masks selected from them.
        candidates: all of them, also those that suppression drops.
        settings: that selected them.
    """
    asked = candidates[masks.passes_thresholds(candidates, predicted_iou=settings.predicted_iou, stability=0)]
    return with_votes(image, neighbours_of([asked], prompts_of(settings, image.height, image.width)))


def finish(
    batches: Sequence[MaskBatch],
    height: int,
    width: int,
    settings: MaskSettings,
    clock: StepClock,
) -> AnnotatedImage:
    """From each crop's survivors to annotations: NMS across crops, run lengths, clean-up, parents.

    Args:
        batches: of each crop, in the order of `geometry.crop_boxes`; of the same crops as the settings'.
        height, width: of the image in px.
        settings: NMS and clean-up to apply.
        clock: its seconds become the image's.
    """
    batch = masks.concatenate(batches)
    crops = crop_boxes(height, width, settings.crop_layers, settings.crop_overlap)

    # Across crops, smaller ones preferred
    if len(crops) > 1:
        with clock.step("suppress"):
            crop_area_px = np.array([crop.width * crop.height for crop in crops], np.float32)
            score_N = np.float32(1) / crop_area_px[batch.crop_N]
            batch = batch[masks.suppress(batch.box_xyxy_N4, score_N, max_iou=settings.crop_nms)]

    with clock.step("encode"):
        batch = masks.encode_pending(batch, threads=torch.get_num_threads())
    if settings.min_area_px > 0:
        with clock.step("clean_up"):
            batch = _clean_up(batch, settings)

    with clock.step("parents"):
        parents = regions.parents(masks.run_lengths_of(batch), containment=PARENT_CONTAINMENT)
    annotations = [
        _annotation(batch, row, crops[batch.crop_N[row]], parents[row]) for row in range(len(batch))
    ]
    return AnnotatedImage(width, height, tuple(annotations), clock.seconds)


def passes(batch: MaskBatch, settings: MaskSettings, image_area_px: int) -> masks.Bools:
    """Which masks pass the three thresholds and have a pixel at all: bool[N].

    Args:
        batch: N masks of an image.
        settings: predicted IoU, stability and coverage.
        image_area_px: of that image.
    """
    keep = masks.passes_thresholds(batch, predicted_iou=settings.predicted_iou, stability=settings.stability)
    keep &= batch.area_px_N > 0
    if settings.max_coverage is not None:
        keep &= batch.area_px_N < settings.max_coverage * image_area_px
    return keep


def suppress_crop(batch: MaskBatch, settings: MaskSettings) -> MaskBatch:
    """Box NMS by predicted IoU within a crop."""
    return batch[masks.suppress(batch.box_xyxy_N4, batch.predicted_iou_N, max_iou=settings.box_nms)]


def _clean_up(batch: MaskBatch, settings: MaskSettings) -> MaskBatch:
    """Small holes filled and small islands removed, then NMS that prefers masks it left alone.

    Changed masks keep their stability and predicted IoU, as in the reference.
    """
    cleaned = regions.clean(
        masks.run_lengths_of(batch), settings.min_area_px, threads=torch.get_num_threads()
    )
    batch = batch.replace(
        mask_N=masks.object_column([mask.rle for mask in cleaned]),
        area_px_N=np.array([mask.area_px for mask in cleaned], np.int64),
        box_xyxy_N4=np.array([mask.box_xyxy for mask in cleaned], np.int64).reshape(-1, 4),
    )

    # Masks too small to stay, and who wins where cleaning made two alike
    unchanged_N = np.array([not mask.changed for mask in cleaned], np.float32)
    if settings.drop_small:
        large_N = np.array([mask.largest_island_px >= settings.min_area_px for mask in cleaned], bool)
        batch, unchanged_N = batch[large_N], unchanged_N[large_N]
    return batch[
        masks.suppress(batch.box_xyxy_N4, unchanged_N, max_iou=max(settings.box_nms, settings.crop_nms))
    ]


def _annotation(batch: MaskBatch, row: int, crop: Crop, parent: int | None) -> Annotation:
    x, y = batch.point_xy_N2[row].tolist()
    return Annotation(
        segmentation=batch.mask_N[row],
        bbox_xywh=to_xywh(batch.box_xyxy_N4[row].astype(float).tolist()),
        area_px=int(batch.area_px_N[row]),
        predicted_iou=float(batch.predicted_iou_N[row]),
        stability_score=float(batch.stability_N[row]),
        crop_box_xywh=to_xywh([float(side) for side in crop.box_xyxy]),
        point_xy=((x, y),),
        output_token=int(batch.output_token_N[row]),
        parent=parent,
    )
