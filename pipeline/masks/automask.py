"""The grid-mask stage: embed, prompt, filter, suppress, encode, clean up.

The masks are the public `SamAutomaticMaskGenerator`'s for the same weights and settings (`reference.py`
is the oracle), at a fraction of its work: predicted IoU is known before the mask head runs, masks are
measured from the decoder's low-resolution logits, those that suppression drops not even that, and only its
survivors get run lengths.
Nothing here holds an array of the photo's size per mask, so memory does not grow with the photo.

Order of the steps for each image:
    for each crop (the whole image is the first):
        embed; for each batch of points: predict IoU, drop; make logits, find boxes
        box NMS, best first, which measures what it may keep and drops it where it fails (in_turn.py)
    the rest, which needs no model: select.py

On a GPU the same stage is pipeline/gpu/engine.py's, where that serves the model.

What it does not do: choose thresholds for a model (see `candidates`).

Shape suffixes: P prompts, M = 3 outputs of a prompt, N masks, H x W a low-resolution map.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.decoder.fused import attention, head
from maskmill.pipeline.frame import Frame
from maskmill.pipeline.machine.batches import Batches
from maskmill.pipeline.machine.clock import StepClock
from maskmill.pipeline.masks import measure as masks
from maskmill.pipeline.masks import regions
from maskmill.pipeline.masks.geometry import Crop, crop_boxes, cut_by_crop, layer_grids
from maskmill.pipeline.masks.in_turn import suppress_in_turn
from maskmill.pipeline.masks.measure import MaskBatch
from maskmill.pipeline.masks.select import PARENT_CONTAINMENT, finish, passes, select_masks
from maskmill.pipeline.masks.upsample import boxes, measure, runs_batch
from maskmill.pipeline.masks.votes import neighbours_of, prompts_of, with_votes, without_masks
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.segmenters.base import (
    ImageEmbedding,
    PromptableImage,
    Segmenter,
    grid_parts_of,
    point_prompts,
)
from maskmill.pipeline.settings import MASKS_REVISION, MaskSettings

if TYPE_CHECKING:
    from maskmill.pipeline.gpu.engine import DeviceMasks

REVISION = MASKS_REVISION
"""Of this stage; see there."""

PENDING_LIMIT_BYTES = 2**30
"""Low-resolution logits kept at once: all of a 32x32 grid at 288 px (SAM 3). Beyond it masks are measured and
encoded before suppression."""

UNMEASURED = -1
"""The area of a mask that is not measured yet."""


@dataclasses.dataclass(frozen=True)
class _CropJob:
    """One crop of one of the images."""

    image_index: int
    crop_index: int
    crop: Crop
    height: int
    width: int


class AutomaticMasks:
    """The stage: images in, annotated images out.

    Args:
        segmenter: with its weights, on its device.
        settings: of the stage.
    """

    def __init__(self, segmenter: Segmenter, settings: MaskSettings) -> None:
        self._segmenter = segmenter
        self._settings = settings
        self._grids = layer_grids(settings)
        self._prompts = Batches(settings.points_per_batch, "segmenter")

    @property
    def points_per_batch(self) -> int:
        """Prompts decoded at once: the setting, halved whenever memory ran out."""
        return self._prompts.size

    @torch.inference_mode()
    def __call__(self, images: Sequence[Pixels]) -> list[AnnotatedImage]:
        """Annotates images; crops and images share encoder batches, never decoder batches.

        Args:
            images: uint8[H, W, 3] RGB each, of any size.

        Returns:
            One annotated image each, masks in the reference's order.

        Raises:
            ValueError: an image of another form.
            torch.OutOfMemoryError, RuntimeError: memory runs out even for a single prompt.
        """
        engine = self._device_engine
        return self._by_crop(images) if engine is None else engine(images)

    @cached_property
    def _device_engine(self) -> DeviceMasks | None:
        """The same stage on a device, where there is one that it serves."""
        parts = grid_parts_of(self._segmenter)
        if parts is None:
            return None
        from maskmill.pipeline.gpu.engine import DeviceMasks  # not needed on a CPU

        return DeviceMasks.of(self._segmenter, parts, self._settings, lambda image: self._by_crop([image])[0])

    @torch.inference_mode()
    def _by_crop(self, images: Sequence[Pixels]) -> list[AnnotatedImage]:
        """Crop by crop, prompts in batches; see the header."""
        clocks = [StepClock() for _ in images]
        batches: list[list[MaskBatch]] = [[] for _ in images]
        asked: list[list[MaskBatch]] = [[] for _ in images]
        annotated: list[AnnotatedImage] = []
        for job, embedding in self._embedded(images, clocks):
            clock = clocks[job.image_index]
            batch = self._masks_of_crop(job, embedding, clock, self._settings)
            asked[job.image_index].append(without_masks(batch))
            batch = self._kept(batch, job, clock, self._settings)
            batches[job.image_index].append(batch)
            if job.crop_index == len(self._crops(job.height, job.width)) - 1:
                found = finish(batches[job.image_index], job.height, job.width, self._settings, clock)
                with clock.step("votes"):
                    neighbours = neighbours_of(
                        asked[job.image_index], prompts_of(self._settings, job.height, job.width)
                    )
                    annotated.append(with_votes(found, neighbours))
                batches[job.image_index].clear()
                asked[job.image_index].clear()
        return annotated

    @torch.inference_mode()
    def candidates(
        self,
        image: Pixels,
        *,
        predicted_iou: float = 0.0,
        stability: float = 0.0,
        clock: StepClock | None = None,
    ) -> MaskBatch:
        """Every mask of every prompt above two low thresholds, before the settings' own, coverage and NMS.

        Masks without a pixel and masks cut by their crop are left out. `select_masks` goes on from here.

        Args:
            image: uint8[H, W, 3] RGB.
            predicted_iou, stability: as in MaskSettings; 0 lets all pass.
            clock: gets the steps' seconds.

        Raises:
            ValueError, torch.OutOfMemoryError, RuntimeError: as of a call.
        """
        clock = clock or StepClock()
        lenient = dataclasses.replace(
            self._settings, predicted_iou=predicted_iou, stability=stability, max_coverage=None
        )
        found = []
        for job, embedding in self._embedded([image], [clock]):
            batch = self._measured(self._masks_of_crop(job, embedding, clock, lenient), clock, lenient)
            found.append(batch[passes(batch, lenient, job.height * job.width)])
        return masks.concatenate(found)

    def select(
        self, candidates: MaskBatch, *, height: int, width: int, settings: MaskSettings | None = None
    ) -> AnnotatedImage:
        """What the stage would give with these thresholds: the rest of the work after `candidates`.

        Args:
            candidates: of an image of this size.
            height, width: of that image in px.
            settings: thresholds, NMS, coverage and clean-up to apply; the stage's own if left out. Grid,
                crops and stability offset are those that `candidates` ran with.
        """
        return select_masks(candidates, settings or self._settings, height=height, width=width)

    def _crops(self, height: int, width: int) -> list[Crop]:
        return crop_boxes(height, width, self._settings.crop_layers, self._settings.crop_overlap)

    def _embedded(
        self, images: Sequence[Pixels], clocks: Sequence[StepClock]
    ) -> Iterator[tuple[_CropJob, ImageEmbedding]]:
        """Every crop of every image with its embedding, in order, embedded in batches."""
        jobs = [
            _CropJob(image_index, crop_index, crop, image.shape[0], image.shape[1])
            for image_index, image in enumerate(images)
            for crop_index, crop in enumerate(self._crops(image.shape[0], image.shape[1]))
        ]
        for start in range(0, len(jobs), self._segmenter.images_per_batch):
            batch = jobs[start : start + self._segmenter.images_per_batch]
            start_s = time.perf_counter()
            embeddings = self._segmenter.embed([_cut(images[job.image_index], job.crop) for job in batch])
            seconds_each = (time.perf_counter() - start_s) / len(batch)
            for job, embedding in zip(batch, embeddings, strict=True):
                clocks[job.image_index].add("embed", seconds_each)
                yield job, embedding

    def _masks_of_crop(
        self, job: _CropJob, embedding: ImageEmbedding, clock: StepClock, settings: MaskSettings
    ) -> MaskBatch:
        """The crop's masks whose predicted IoU passes, before NMS; measured where there are too many."""
        with clock.step("decode"):
            image = self._segmenter.prompt(embedding)

        # Points in the crop's frame, masks in the image's
        points_xy_P2 = self._grids[job.crop.layer] * np.array([job.crop.width, job.crop.height])
        frame = dataclasses.replace(
            embedding.frame, crop_xyxy=job.crop.box_xyxy, height=job.height, width=job.width
        )

        def decode(rows: Sequence[int]) -> MaskBatch:
            """Neighbouring points of the grid together."""
            points_xy = points_xy_P2[rows[0] : rows[-1] + 1]
            return self._masks_of_points(job, image, frame, points_xy, clock, settings)

        # Batch by batch; logits are encoded early where too many wait
        found: list[MaskBatch] = []
        for batch in self._prompts.each(range(len(points_xy_P2)), decode):
            found.append(batch)
            if sum(masks.pending_bytes(one) for one in found) > PENDING_LIMIT_BYTES:
                early = self._measured(masks.concatenate(found), clock, settings)
                early = early[passes(early, settings, job.height * job.width)]
                with clock.step("encode"):
                    found = [masks.encode_pending(early, threads=torch.get_num_threads())]
        return masks.concatenate(found)

    def _masks_of_points(
        self,
        job: _CropJob,
        image: PromptableImage,
        frame: Frame,
        points_xy: npt.NDArray[np.float64],
        clock: StepClock,
        settings: MaskSettings,
    ) -> MaskBatch:
        """Decodes one batch of points and keeps the masks whose predicted IoU passes and no crop cuts."""
        # Predicted IoU first: what fails it needs no mask
        with clock.step("decode"):
            prediction = image.predict(point_prompts(points_xy), multimask=True)
            iou_PM = prediction.predicted_iou_PM
            keep_PM = torch.ones_like(iou_PM, dtype=torch.bool)
            if settings.predicted_iou > 0:
                keep_PM = iou_PM > settings.predicted_iou
            if settings.outputs == "best":
                best_P1 = iou_PM.argmax(dim=1, keepdim=True)
                keep_PM &= torch.zeros_like(keep_PM).scatter_(1, best_P1, True)

        with clock.step("mask_head"):
            logits_NHW = prediction.masks(keep_PM).float().cpu().numpy()

        # Boxes of all; the rest of what is measured in its turn
        with clock.step("measure"):
            threads, threshold = torch.get_num_threads(), self._segmenter.mask_threshold
            box_xyxy_N4 = boxes(logits_NHW, frame, threshold=threshold, threads=threads)
            prompt_N, token_N = keep_PM.nonzero().cpu().numpy().T
            iou_N = iou_PM[keep_PM].float().cpu().numpy()
            batch = _unmeasured(job, box_xyxy_N4, iou_N, token_N)
            batch = batch.replace(point_xy_N2=points_xy[prompt_N] + np.array(job.crop.box_xyxy[:2]))
            keep_N = ~cut_by_crop(batch.box_xyxy_N4, job.crop, height=job.height, width=job.width)
            pending = [masks.PendingMask(map_HW, frame, threshold) for map_HW in logits_NHW[keep_N]]
            return batch[keep_N].replace(mask_N=masks.object_column(pending))

    def _kept(self, batch: MaskBatch, job: _CropJob, clock: StepClock, settings: MaskSettings) -> MaskBatch:
        """A crop's masks after suppression; only those that it may keep are measured."""
        suppress_s = clock.seconds.get("measure", 0.0)
        start_s = time.perf_counter()
        kept = suppress_in_turn(
            batch,
            max_iou=settings.box_nms,
            measured=lambda some: self._measured(some, clock, settings),
            passes=lambda some: passes(some, settings, job.height * job.width),
        )
        measure_s = clock.seconds.get("measure", 0.0) - suppress_s
        clock.add("suppress", time.perf_counter() - start_s - measure_s)
        return kept

    def _measured(self, batch: MaskBatch, clock: StepClock, settings: MaskSettings) -> MaskBatch:
        """The same rows with areas and stability; rows that have them already stay as they are."""
        rows = np.flatnonzero(batch.area_px_N == UNMEASURED)
        if not len(rows):
            return batch
        with clock.step("measure"):
            pending = [batch.mask_N[row] for row in rows]
            measures = measure(
                np.stack([one.logits_HW for one in pending]),
                pending[0].frame,
                offset=settings.stability_offset,
                threshold=pending[0].threshold,
                threads=torch.get_num_threads(),
            )
            area_px_N, stability_N = batch.area_px_N.copy(), batch.stability_N.copy()
            area_px_N[rows], stability_N[rows] = measures.area_px, measures.stability_score
            return batch.replace(area_px_N=area_px_N, stability_N=stability_N)


def warm_up() -> None:
    """Has every compiled kernel of the stage ready, so that the first image doesn't wait for the compiler.

    Loads machine code from numba's cache, or compiles it (once a machine where the cache can be written).
    """
    frame = Frame.of_image(16, height=24, width=20)
    logits_NHW = np.full((2, 8, 8), -5.0, np.float32)
    logits_NHW[:, 2:6, 2:6] = 5.0
    logits_NHW[0, 0, 0] = 5.0
    measure(logits_NHW, frame, threads=1)
    rles = runs_batch(logits_NHW, frame, threads=1)
    cleaned = regions.clean(rles, 5.0, threads=1)
    regions.parents([mask.rle for mask in cleaned], containment=PARENT_CONTAINMENT)
    attention.warm_up()
    head.warm_up()


def _cut(image: Pixels, crop: Crop) -> Pixels:
    x0, y0, x1, y1 = crop.box_xyxy
    return image[y0:y1, x0:x1]


def _unmeasured(
    job: _CropJob, box_xyxy_N4: masks.Ints, predicted_iou_N: masks.Floats32, token_N: masks.Ints
) -> MaskBatch:
    """Masks of a crop of which only boxes and predicted IoU are known."""
    x0, y0 = job.crop.box_xyxy[:2]
    num_masks = len(box_xyxy_N4)
    return MaskBatch(
        predicted_iou_N=predicted_iou_N,
        stability_N=np.zeros(num_masks, np.float32),
        area_px_N=np.full(num_masks, UNMEASURED),
        box_xyxy_N4=box_xyxy_N4 + np.array([x0, y0, x0, y0]),
        point_xy_N2=np.zeros((num_masks, 2)),
        output_token_N=token_N,
        crop_N=np.full(num_masks, job.crop_index),
        mask_N=np.empty(num_masks, object),
    )
