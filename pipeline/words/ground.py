"""Grounding: what captions and vocabularies speak of, found as boxes and made masks.

Boxes of all queries of an image compete by NMS; each left one becomes a mask by the segmenter, on the
embedding that the grid's masks came from. Where a grid mask agrees with it (IoU of at least `link_iou`), the
label goes to that mask; else the box's own mask is kept beside the grid's, if it passes the filters that the
grid's had to pass. A box without a mask keeps its label.

It doesn't know how detectors read texts (detectors/), nor whether a label is true.

Source: Ren et al., Grounded SAM (2024), and its demo (grounded_sam_demo.py, NMS 0.5 over all classes).

Shape suffixes: N boxes, G grid masks.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco
from torchvision.ops import batched_nms, nms

from maskmill.pipeline.annotation import (
    ANNOTATION_IDS_PER_IMAGE,
    AnnotatedImage,
    Annotation,
    annotation_from_sa1b,
    annotation_to_sa1b,
    to_xywh,
    to_xyxy,
)
from maskmill.pipeline.machine.batches import Batches
from maskmill.pipeline.masks.boxes import masks_of_boxes
from maskmill.pipeline.pixels import check_rgb
from maskmill.pipeline.words.text import clean_text

if TYPE_CHECKING:
    from maskmill.pipeline.pixels import Pixels
    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.pipeline.settings.words import LabelSettings
    from maskmill.pipeline.words.detectors.base import Detections, Detector, Query

MAX_LABEL_CHARS = 200


@dataclasses.dataclass(frozen=True)
class Label:
    """A box and what it is called.

    Args:
        label: a phrase of the vocabulary, or the words that the detector marked in the caption.
        phrase: the words it marked.
        score: the detector's, in [0, 1].
        box_xyxy: left, top, right, bottom in px of the image.
        mask: place of its mask: in the grid's if `link_iou` is given, else in `ImageLabels.annotations`;
            None where the segmenter saw nothing in the box, or its mask failed a filter.
        link_iou: IoU of the box's mask with the grid mask that took the label.
    """

    label: str
    phrase: str
    score: float
    box_xyxy: tuple[float, float, float, float]
    mask: int | None
    link_iou: float | None = None


@dataclasses.dataclass(frozen=True)
class ImageLabels:
    """What was found in an image.

    Args:
        width, height: of the image in px.
        num_grid_masks: that labels could link to.
        labels: best score first.
        annotations: masks of boxes that no grid mask agrees with.
        num_queries: texts the detector read.
        dropped: reason -> boxes: "no_extent" (nothing of it in the image), "no_phrase" (no word marked),
            "too_many" (beyond max_boxes); and masks of boxes that failed a filter (`failed_filter`).
        seconds_by_step: never part of the data.
    """

    width: int
    height: int
    num_grid_masks: int
    labels: tuple[Label, ...]
    annotations: tuple[Annotation, ...]
    num_queries: int
    dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
    seconds_by_step: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)


@dataclasses.dataclass(frozen=True, eq=False)
class GroundInput:
    """An image with what is known of it.

    Args:
        pixels_HWC: uint8 RGB.
        masks: the grid's.
        caption: whose things are looked for; None looks for the vocabulary alone.
    """

    pixels_HWC: Pixels
    masks: AnnotatedImage
    caption: str | None = None


class Grounder:
    """Finds and masks; batches of the detector shrink where memory runs out.

    Args:
        detector: finds boxes.
        segmenter: makes masks of them; shared embeddings make an image's own embedding serve.
        phrases: of the vocabulary, perhaps none.
        settings: thresholds and sizes.

    Raises:
        ValueError: a phrase longer than the detector reads.
    """

    def __init__(
        self, detector: Detector, segmenter: Segmenter, phrases: Sequence[str], settings: LabelSettings
    ) -> None:
        self._detector = detector
        self._segmenter = segmenter
        self._settings = settings
        self._vocabulary = detector.phrase_queries(phrases) if phrases else ()
        self._batches = Batches(settings.batch_size, "detector")

    def __call__(self, inputs: Sequence[GroundInput]) -> list[ImageLabels]:
        """What is found in each image.

        Raises:
            ValueError: pixels that are not uint8 RGB.
            torch.OutOfMemoryError, RuntimeError: memory runs out even for one image.
        """
        for image in inputs:
            check_rgb(image.pixels_HWC)
        began = time.perf_counter()
        queries = [self._queries(image) for image in inputs]
        jobs = [
            (image.pixels_HWC, query) for image, own in zip(inputs, queries, strict=True) for query in own
        ]
        found = iter(self._batches.run(jobs, self._detector.detect))
        by_image = [[next(found) for _ in own] for own in queries]
        detect_s = (time.perf_counter() - began) / max(1, len(inputs))
        return [self._label(image, own, detect_s) for image, own in zip(inputs, by_image, strict=True)]

    def _queries(self, image: GroundInput) -> tuple[Query, ...]:
        from_caption = self._detector.caption_queries(image.caption) if image.caption else ()
        return (*from_caption, *self._vocabulary)

    def _label(self, image: GroundInput, found: Sequence[Detections], detect_s: float) -> ImageLabels:
        """Boxes that last, their masks, and the grid masks that agree."""
        began = time.perf_counter()
        height, width = image.pixels_HWC.shape[:2]
        boxes, dropped = kept_boxes(found, self._settings, width=width, height=height)

        made = self._masks(image, boxes)
        links = link(made, image.masks.annotations, self._settings.link_iou)

        # A grid mask takes the label, or the box keeps its own
        labels: list[Label] = []
        own: list[Annotation] = []
        for box, annotation, linked in zip(boxes, made, links, strict=True):
            place: int | None
            place, iou = linked if linked is not None else (None, None)
            if linked is None and annotation.area_px > 0:
                failed = failed_filter(annotation, self._settings)
                if failed is None:
                    place = len(own)
                    own.append(annotation)
                else:
                    dropped[failed] += 1
            labels.append(dataclasses.replace(box, mask=place, link_iou=iou))

        return ImageLabels(
            width=width,
            height=height,
            num_grid_masks=len(image.masks.annotations),
            labels=tuple(labels),
            annotations=tuple(own),
            num_queries=len(found),
            dropped=dict(dropped),
            seconds_by_step={"detect": detect_s, "masks": time.perf_counter() - began},
        )

    def _masks(self, image: GroundInput, boxes: Sequence[Label]) -> tuple[Annotation, ...]:
        if not boxes:
            return ()
        (embedding,) = self._segmenter.embed([image.pixels_HWC])
        return masks_of_boxes(
            self._segmenter.prompt(embedding),
            np.array([box.box_xyxy for box in boxes]),
            mask_threshold=self._segmenter.mask_threshold,
        )


def kept_boxes(
    found: Sequence[Detections], settings: LabelSettings, *, width: int, height: int
) -> tuple[tuple[Label, ...], Counter[str]]:
    """The boxes of an image's queries that last: within the image, named, not suppressed, best score first.

    Args:
        found: of each query.
        settings: NMS and max_boxes.
        width, height: of the image in px; boxes are clipped to it.

    Returns:
        Labels without masks, and reason -> boxes that were dropped, suppressed ones left out.
    """
    dropped: Counter[str] = Counter()
    boxes: list[Label] = []
    for detections in found:
        clipped_N4 = np.clip(detections.boxes_xyxy_N4, 0.0, [width, height, width, height])
        columns = zip(clipped_N4, detections.scores_N, detections.labels, detections.phrases, strict=True)
        for box, score, label, phrase in columns:
            name = clean_text(label, max_chars=MAX_LABEL_CHARS)
            if box[2] <= box[0] or box[3] <= box[1]:
                dropped["no_extent"] += 1
            elif not name:
                dropped["no_phrase"] += 1
            else:
                left, top, right, bottom = (float(value) for value in box)
                spoken = clean_text(phrase, max_chars=MAX_LABEL_CHARS) or name
                boxes.append(Label(name, spoken, float(score), (left, top, right, bottom), None))
    kept = [boxes[place] for place in _nms(boxes, settings)]
    if len(kept) > settings.max_boxes:
        dropped["too_many"] += len(kept) - settings.max_boxes
    return tuple(kept[: settings.max_boxes]), dropped


def failed_filter(mask: Annotation, settings: LabelSettings) -> str | None:
    """Why a box's own mask is not kept, by the rules of the grid's masks; None for one that passes.

    Thresholds that are None keep all: workers have the values in force.
    """
    if settings.predicted_iou and mask.predicted_iou <= settings.predicted_iou:
        return "low_predicted_iou"
    if settings.stability and mask.stability_score < settings.stability:
        return "low_stability"
    if settings.min_area_px and mask.area_px < settings.min_area_px:
        return "small_mask"
    return None


def _nms(boxes: Sequence[Label], settings: LabelSettings) -> list[int]:
    """Places of the boxes that no better one suppresses, best first."""
    if not boxes:
        return []
    boxes_N4 = torch.tensor([box.box_xyxy for box in boxes], dtype=torch.float64)
    scores_N = torch.tensor([box.score for box in boxes], dtype=torch.float64)
    if not settings.per_class:
        kept: list[int] = nms(boxes_N4, scores_N, settings.box_nms).tolist()
        return kept
    classes = {label: number for number, label in enumerate(dict.fromkeys(box.label for box in boxes))}
    classes_N = torch.tensor([classes[box.label] for box in boxes])
    best: list[int] = batched_nms(boxes_N4, scores_N, classes_N, settings.box_nms).tolist()
    return best


def link(
    made: Sequence[Annotation], grid: Sequence[Annotation], min_iou: float
) -> list[tuple[int, float] | None]:
    """For each mask the grid mask of the highest IoU, by place, and that IoU, if it reaches `min_iou`."""
    if not made or not grid:
        return [None] * len(made)
    iou_NG: npt.NDArray[np.float64] = coco.iou(
        [_coco(annotation) for annotation in made],
        [_coco(annotation) for annotation in grid],
        [0] * len(grid),
    )
    best_N = iou_NG.argmax(axis=1)
    return [
        (int(best), float(iou_NG[row, best])) if iou_NG[row, best] >= min_iou else None
        for row, best in enumerate(best_N)
    ]


def _coco(annotation: Annotation) -> dict[str, Any]:
    return {
        "size": [annotation.segmentation.height, annotation.segmentation.width],
        "counts": annotation.segmentation.counts,
    }


def labels_to_record(labels: ImageLabels, *, image_id: int, file_name: str) -> dict[str, Any]:
    """What the labels column stores of an image, ready for `json.dumps`.

    Masks of its own go on with the ids after the grid's, so that `mask` names one mask of the image.

    Raises:
        ValueError: more masks than an image has ids for.
    """
    first_id = image_id * ANNOTATION_IDS_PER_IMAGE
    first_own = first_id + labels.num_grid_masks
    if labels.num_grid_masks + len(labels.annotations) > ANNOTATION_IDS_PER_IMAGE:
        raise ValueError(f"{file_name}: more than {ANNOTATION_IDS_PER_IMAGE} masks")

    def mask_id(label: Label) -> int | None:
        """The grid's mask, or one of these labels' own."""
        if label.mask is None:
            return None
        return label.mask + (first_own if label.link_iou is None else first_id)

    return {
        "image": {
            "image_id": image_id,
            "width": labels.width,
            "height": labels.height,
            "file_name": file_name,
        },
        "labels": [
            {
                "label": label.label,
                "phrase": label.phrase,
                "score": label.score,
                "box": list(to_xywh(label.box_xyxy)),
                "mask": mask_id(label),
                "link_iou": label.link_iou,
            }
            for label in labels.labels
        ],
        "annotations": [
            annotation_to_sa1b(annotation, first_own, place)
            for place, annotation in enumerate(labels.annotations)
        ],
        "num_grid_masks": labels.num_grid_masks,
        "num_queries": labels.num_queries,
        "dropped": dict(labels.dropped),
    }


def labels_from_record(record: Mapping[str, Any]) -> ImageLabels:
    """The inverse of `labels_to_record`; boxes come back within rounding.

    Raises:
        ValueError: a field that lacks or has another form.
    """
    try:
        info, num_grid = record["image"], int(record["num_grid_masks"])
        first_id = int(info["image_id"]) * ANNOTATION_IDS_PER_IMAGE
        return ImageLabels(
            width=int(info["width"]),
            height=int(info["height"]),
            num_grid_masks=num_grid,
            labels=tuple(_label_from_record(row, first_id, num_grid) for row in record["labels"]),
            annotations=tuple(annotation_from_sa1b(row, {}) for row in record["annotations"]),
            num_queries=int(record["num_queries"]),
            dropped=dict(record["dropped"]),
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a labels record: {error!r}") from error


def _label_from_record(row: Mapping[str, Any], first_id: int, num_grid: int) -> Label:
    first = first_id if row["link_iou"] is not None else first_id + num_grid
    return Label(
        label=row["label"],
        phrase=row["phrase"],
        score=float(row["score"]),
        box_xyxy=to_xyxy([float(value) for value in row["box"]]),
        mask=None if row["mask"] is None else int(row["mask"]) - first,
        link_iou=row["link_iou"],
    )
