"""The grid-mask stage on a device: pictures in, survivors' run lengths out, and one wait an image.

The masks are masks/automask.py's, by its rules and in its order. What differs is who waits: the host
prepares pictures and queues work, image after image, and never looks at a result; a thread beside it waits
for the copy of each image's survivors and makes annotations of them.

    for each batch of crops:  the next one is resized on a thread; embed (region)
    for each crop:            grid (region): predicted IoU, mask head; measure; survivors; runs; copy begun
    beside it, each image:    wait; run lengths, suppression across crops, clean-up, parents (masks/select.py)

Regions are graphs on CUDA (region.py). What had no room or lost digits is told and redone by the caller's
way, one image at a time.

Shapes: P points, M outputs of a point, N = P x M masks.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.gpu.axis_tables import tables_of, to_device
from maskmill.pipeline.gpu.grid_decoder import GridDecoder, GridMasks, serves
from maskmill.pipeline.gpu.ops import MOST_SUPPRESSED, DeviceOps, Levels, Slots, choose_ops
from maskmill.pipeline.gpu.region import Region
from maskmill.pipeline.gpu.survivors import passing, survivors
from maskmill.pipeline.gpu.transfer import GridPlace, Redo, Transfer, send, wait
from maskmill.pipeline.machine.clock import StepClock
from maskmill.pipeline.masks.geometry import Crop, crop_boxes, layer_grids
from maskmill.pipeline.masks.select import finish
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.segmenters.base import GridParts, ImageEmbedding, Segmenter
from maskmill.pipeline.settings.masks import MaskSettings

_log = logging.getLogger(__name__)

SLOTS = 1024
"""Survivors of one grid; SA-1B has 100 masks an image."""

CHANGES = 2**19
"""Changes down columns of one grid's survivors: 100 masks of 300 columns have 60,000 and more."""


@dataclass(frozen=True)
class _Job:
    """One crop of one of the images."""

    image_index: int
    crop_index: int
    crop: Crop


class DeviceMasks:
    """The stage on a device.

    Args:
        segmenter: on the device.
        parts: its decoder's; see `Segmenter`.
        settings: of the stage.
        ops: of the device.
        redo: an image by the way without a device engine.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        parts: GridParts,
        settings: MaskSettings,
        ops: DeviceOps,
        redo: Callable[[Pixels], AnnotatedImage],
    ) -> None:
        self._segmenter = segmenter
        self._device = parts.device
        self._ahead = parts.ahead
        self._settings = settings
        self._ops = ops
        self._redo = redo
        decoder = GridDecoder(
            parts.weights, ops, predicted_iou=settings.predicted_iou, best=settings.outputs == "best"
        )
        self._low_hw = decoder.low_hw
        self._outputs = decoder.outputs
        self.grid: Region[GridMasks] = Region(
            "grid", lambda embedding, points, *maps: decoder(embedding, maps, points)
        )
        self._grids = layer_grids(settings)
        threshold, offset = segmenter.mask_threshold, settings.stability_offset
        self._levels = Levels(threshold - offset, threshold, threshold + offset)

    @classmethod
    def of(
        cls,
        segmenter: Segmenter,
        parts: GridParts,
        settings: MaskSettings,
        redo: Callable[[Pixels], AnnotatedImage],
    ) -> DeviceMasks | None:
        """The stage with the device's own operations; None, which the log says, where it serves no such grid.

        Args: as of the class.
        """
        largest = max(len(grid) for grid in layer_grids(settings)) * (
            parts.weights.mask_decoder.num_mask_tokens - 1
        )
        if not serves(parts.weights) or largest > MOST_SUPPRESSED:
            _log.warning("grids of this decoder and size go prompt by prompt on %s", parts.device)
            return None
        return cls(segmenter, parts, settings, choose_ops(parts.device), redo)

    @torch.inference_mode()
    def __call__(self, images: Sequence[Pixels]) -> list[AnnotatedImage]:
        """See `AutomaticMasks.__call__`; the order of work is the header's."""
        clocks = [StepClock() for _ in images]
        sent: list[list[Transfer]] = [[] for _ in images]
        finished: list[Future[AnnotatedImage]] = []
        with ThreadPoolExecutor(2, "survivors") as beside:
            for job, embedding in self._embedded(images, clocks):
                image = images[job.image_index]
                with clocks[job.image_index].step("decode"):
                    sent[job.image_index].append(self.enqueue(job, embedding, image.shape[:2]))
                if job.crop_index == len(self._crops(image)) - 1:
                    ready, clock = sent[job.image_index], clocks[job.image_index]
                    finished.append(beside.submit(self._finish, image, ready, clock))
            return [self._result(image, one) for image, one in zip(images, finished, strict=True)]

    def _crops(self, image: Pixels) -> list[Crop]:
        height, width = image.shape[:2]
        return crop_boxes(height, width, self._settings.crop_layers, self._settings.crop_overlap)

    def _embedded(
        self, images: Sequence[Pixels], clocks: Sequence[StepClock]
    ) -> Iterator[tuple[_Job, ImageEmbedding]]:
        """Every crop with its embedding, in order; the next batch is cut while this one is queued."""
        jobs = [
            _Job(image_index, crop_index, crop)
            for image_index, image in enumerate(images)
            for crop_index, crop in enumerate(self._crops(image))
        ]
        size = self._segmenter.images_per_batch
        batches = [jobs[first : first + size] for first in range(0, len(jobs), size)]
        with ThreadPoolExecutor(1, "ahead") as ahead:
            for number, batch in enumerate(batches):
                with clocks[batch[0].image_index].step("embed"):
                    cut = [_cut(images[job.image_index], job.crop) for job in batch]
                    embeddings = self._segmenter.embed(cut)
                later = batches[number + 1] if number + 1 < len(batches) else []
                following = [_cut(images[job.image_index], job.crop) for job in later]
                if following and self._ahead is not None:
                    ahead.submit(self._ahead, following)
                yield from zip(batch, embeddings, strict=True)

    def enqueue(self, job: _Job, embedding: ImageEmbedding, size_hw: Sequence[int]) -> Transfer:
        """Queues one crop's grid, from its embedding to the copy of its survivors; waits for nothing."""
        height, width = size_hw
        crop, settings = job.crop, self._settings
        points_xy_P2 = self._grids[crop.layer] * np.array([crop.width, crop.height])
        frame = dataclasses.replace(embedding.frame, crop_xyxy=crop.box_xyxy, height=height, width=width)
        tables = tables_of(frame, self._low_hw, self._device)

        # Predicted IoU and logits
        found = self.grid(
            embedding.features_CHW, self._in_input_frame(points_xy_P2, embedding), *embedding.maps
        )
        iou_N, keep_N = found.iou_PM.flatten(), found.keep_PM.flatten()
        logits_Nhw = found.logits_PMhw.flatten(0, 1)

        # Measures, thresholds, suppression
        measures_N7 = self._ops.measure(logits_Nhw, keep_N.to(torch.uint8), tables, self._levels)
        passes_N = passing(measures_N7, keep_N, settings, crop, height=height, width=width)
        slots = min(SLOTS, len(iou_N))
        kept = survivors(measures_N7, iou_N, passes_N, self._ops, max_iou=settings.box_nms, slots=slots)

        # Run lengths, and what goes to the host
        x0, y0 = crop.box_xyxy[:2]
        wanted = Slots(kept.mask_V, kept.num_1, x0 * height + y0, height, CHANGES)
        runs = self._ops.runs(logits_Nhw, wanted, tables, self._levels.level)
        points_of_image = points_xy_P2 + np.array([x0, y0])
        place = GridPlace((x0, y0), job.crop_index, height, width, points_of_image, self._outputs)
        return send(kept, iou_N, measures_N7, runs, found.cancellation, place)

    def _in_input_frame(self, points_xy_P2: npt.NDArray[np.float64], embedding: ImageEmbedding) -> Tensor:
        """float64[P, 2], in px of the model's input."""
        scale_xy = np.array(
            [embedding.input_width / embedding.width, embedding.input_height / embedding.height]
        )
        return to_device(points_xy_P2 * scale_xy, self._device)

    def _finish(self, image: Pixels, sent: Sequence[Transfer], clock: StepClock) -> AnnotatedImage:
        """One image's annotations, once its copies are there; runs beside the host's queueing."""
        height, width = image.shape[:2]
        with clock.step("wait"):
            wait(sent)
        with clock.step("encode"):
            batches = [one.masks() for one in sent]
        return finish(batches, height, width, self._settings, clock)

    def _result(self, image: Pixels, finished: Future[AnnotatedImage]) -> AnnotatedImage:
        try:
            return finished.result()
        except Redo as error:
            _log.warning("an image is done again, batch by batch: %s", error)
            return self._redo(image)


def _cut(image: Pixels, crop: Crop) -> Pixels:
    x0, y0, x1, y1 = crop.box_xyxy
    return image[y0:y1, x0:x1]
