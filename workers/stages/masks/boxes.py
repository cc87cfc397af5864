"""The masks column from given boxes and points instead of the grid: the same record, with their labels."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.masks.boxes import check_prompts, masks_of_prompts
from maskmill.pipeline.segmenters.base import PromptableImage, Prompts
from maskmill.storage.shards.index import MASK_INDEX
from maskmill.workers.foreign.boxes import Given, GivenBoxes, GivenImage, read_given_boxes, scaled
from maskmill.workers.foreign.images.codec import DecodeError
from maskmill.workers.foreign.matching import Matching
from maskmill.workers.run.columns import MASKS
from maskmill.workers.stages.base import Picture, Stage, StageResult
from maskmill.workers.stages.masks.records import decode_masks, encode_masks

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.pipeline.settings.words import BoxSettings
    from maskmill.storage.plan.plan import Plan
    from maskmill.workers.stages.base import Bench

EMPTY = "empty_mask"
OUTSIDE = "outside_the_image"


class BoxMasks(Stage):
    """See `Stage`.

    Args:
        segmenter: shared with the other stages.
        load: gives the boxes; called once.
        plan: gives the dataset's plan as it is now; called again for a picture that an earlier one lacks.
        batch_size: prompts decoded together.
        fingerprint, models: of the column version.
    """

    column = MASKS
    index = MASK_INDEX

    def __init__(
        self,
        segmenter: Segmenter,
        load: Callable[[], GivenBoxes],
        plan: Callable[[], Plan],
        *,
        batch_size: int,
        fingerprint: str,
        models: Mapping[str, str],
    ) -> None:
        self._segmenter = segmenter
        self._load, self._plan = load, plan
        self._matching: Matching | None = None
        self._planned = 0
        self._batch_size = batch_size
        self.fingerprint = fingerprint
        self.models = models

    @cached_property
    def _boxes(self) -> GivenBoxes:
        return self._load()

    def prepare(self) -> None:
        """See `Stage.prepare`."""
        _ = self._boxes, self._segmenter.image_size

    def decode(self, files: Mapping[str, bytes]) -> AnnotatedImage:
        """See `Stage.decode`."""
        return decode_masks(files)

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`. Raises DecodeError for boxes of another picture."""
        return [self._run_one(picture) for picture in pictures]

    def _run_one(self, picture: Picture) -> StageResult:
        # What the file has of this picture, in its pixels, less what lies outside
        height, width = picture.pixels_HWC.shape[:2]
        given = self._given(picture)
        objects = () if given is None else scaled(given, width=width, height=height)
        dropped = Counter() if given is None else Counter(given.dropped)
        inside = [one for one in objects if _lies_inside(one, width, height)]
        if len(inside) < len(objects):
            dropped[OUTSIDE] += len(objects) - len(inside)

        # Masks of these prompts
        start_s = time.perf_counter()
        annotations: list[Annotation] = []
        embed_s = 0.0
        if inside:
            (embedding,) = self._segmenter.embed([picture.pixels_HWC])
            embed_s = time.perf_counter() - start_s
            image = self._segmenter.prompt(embedding)
            annotations = self._masks(image, inside)
        seconds = {"embed": embed_s, "boxes": time.perf_counter() - start_s - embed_s}

        # The record says what was left out, and why
        dropped[EMPTY] += sum(not one.area_px for one in annotations)
        made = AnnotatedImage(
            width,
            height,
            tuple(one for one in annotations if one.area_px),
            seconds,
            dropped={reason: count for reason, count in sorted(dropped.items()) if count},
        )
        return StageResult(partial(encode_masks, picture, made), seconds, made)

    def _given(self, picture: Picture) -> GivenImage | None:
        """What the file has of a picture; None for nothing. Raises DecodeError where nobody can say."""
        boxes = self._boxes
        if self._matching is None or picture.image_id > self._planned:
            plan = self._plan()
            self._planned = plan.num_images
            self._matching = boxes.matched(plan)
        could_be = self._matching.ambiguous.get(picture.key)
        if could_be is not None:
            raise DecodeError(
                "ambiguous",
                f"{picture.source}: {', '.join(could_be)} could be it or another; say the folders",
            )
        place = self._matching.entry_of.get(picture.key)
        return None if place is None else boxes.images[place]

    def _masks(self, image: PromptableImage, objects: Sequence[Given]) -> list[Annotation]:
        """In the file's order; objects of one shape of prompt are decoded together."""
        alike: dict[tuple[bool, int], list[int]] = {}
        for place, one in enumerate(objects):
            num_points = 0 if one.points_K2 is None else len(one.points_K2)
            alike.setdefault((one.box_xyxy is not None, num_points), []).append(place)
        found: dict[int, Annotation] = {}
        for places in alike.values():
            prompts = _prompts([objects[place] for place in places])
            masks = masks_of_prompts(
                image, prompts, mask_threshold=self._segmenter.mask_threshold, batch=self._batch_size
            )
            found.update(zip(places, masks, strict=True))
        return [_described(found[place], one) for place, one in enumerate(objects)]


def box_stage(bench: Bench, boxes: BoxSettings, models: Mapping[str, str]) -> BoxMasks:
    """The stage of a worker, over its segmenter; `boxes.file` is read when first asked for."""
    assert boxes.file is not None, "without a file masks come from the grid"
    return BoxMasks(
        bench.segmenter,
        partial(read_given_boxes, boxes.file, min_score=boxes.min_score),
        bench.plan,
        batch_size=boxes.batch_size,
        fingerprint=bench.fingerprint,
        models=models,
    )


def _lies_inside(one: Given, width: int, height: int) -> bool:
    try:
        check_prompts(_prompts([one]), width=width, height=height)
    except ValueError:
        return False
    return True


def _prompts(objects: Sequence[Given]) -> Prompts:
    """Objects with the same kinds and numbers of prompts."""
    boxes = [one.box_xyxy for one in objects if one.box_xyxy is not None]
    points = [one.points_K2 for one in objects if one.points_K2 is not None]
    labels = [one.labels_K for one in objects if one.labels_K is not None]
    return Prompts(
        boxes_P4=np.stack(boxes) if boxes else None,
        points_PK2=np.stack(points) if points else None,
        labels_PK=np.stack(labels) if labels else None,
    )


def _described(annotation: Annotation, one: Given) -> Annotation:
    box = one.box_xyxy
    return dataclasses.replace(
        annotation,
        label=one.label,
        given_id=one.id,
        given_box_xywh=None
        if box is None
        else (float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])),
    )
