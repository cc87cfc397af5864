"""The grid-mask stage: embed, prompt, filter, suppress, encode, clean up.

The masks are the public `SamAutomaticMaskGenerator`'s for the same weights and settings (`reference.py`
is the oracle), at a fraction of its work: predicted IoU is known before the mask head runs, masks are
measured from the decoder's low-resolution logits, and only survivors of suppression get run lengths.
Nothing here holds an array of the photo's size per mask, so memory does not grow with the photo.

Order of the steps for each image:
    for each crop (the whole image is the first):
        embed; for each batch of points: predict IoU, drop; make logits, measure, drop; then box NMS
    box NMS across crops, preferring smaller crops; run lengths; clean-up and its NMS; parents

What it does not do: choose thresholds for a model (see `candidates`), or use a GPU beyond the model itself.

Shape suffixes: P prompts, M = 3 outputs of a prompt, N masks, H x W a low-resolution map.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from maskmill.pipeline.annotation import AnnotatedImage, Annotation, BoxXywh
from maskmill.pipeline.masks import measure as masks
from maskmill.pipeline.masks import regions
from maskmill.pipeline.masks.geometry import Crop, crop_boxes, cut_by_crop, layer_grids
from maskmill.pipeline.masks.measure import MaskBatch
from maskmill.pipeline.masks.upsample import Frame, MaskMeasures, measure, runs_batch
from maskmill.pipeline.segmenters.base import ImageEmbedding, PromptableImage, Segmenter, point_prompts
from maskmill.pipeline.settings import MASKS_REVISION, MaskSettings

REVISION = MASKS_REVISION
"""Of this stage; see there."""

PARENT_CONTAINMENT = 0.95
"""A mask's parent is the smallest larger mask that holds at least this share of its area."""

PENDING_LIMIT_BYTES = 512 * 2**20
"""Low-resolution logits kept at once; beyond it masks are encoded before suppression."""

log = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]


class StepClock:
    """Seconds by the name of a step, summed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a step."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start_s)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


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

    Attributes:
        points_per_batch: prompts decoded at once: the setting, halved whenever memory ran out.
    """

    def __init__(self, segmenter: Segmenter, settings: MaskSettings) -> None:
        self._segmenter = segmenter
        self._settings = settings
        self._grids = layer_grids(
            settings.points_per_side, settings.crop_layers, settings.crop_points_downscale
        )
        self.points_per_batch = settings.points_per_batch

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image]) -> list[AnnotatedImage]:
        """Annotates images; crops and images share encoder batches, never decoder batches.

        Args:
            images: uint8[H, W, 3] RGB each, of any size.

        Returns:
            One annotated image each, masks in the reference's order.

        Raises:
            ValueError: an image of another form.
            torch.OutOfMemoryError, RuntimeError: memory runs out even for a single prompt.
        """
        clocks = [StepClock() for _ in images]
        batches: list[list[MaskBatch]] = [[] for _ in images]
        annotated: list[AnnotatedImage] = []
        for job, embedding in self._embedded(images, clocks):
            clock = clocks[job.image_index]
            batch = self._masks_of_crop(job, embedding, clock, self._settings)
            with clock.step("suppress"):
                batch = _suppress_crop(batch, self._settings)
            batches[job.image_index].append(batch)
            if job.crop_index == len(self._crops(job.height, job.width)) - 1:
                annotated.append(
                    _finish(batches[job.image_index], job.height, job.width, self._settings, clock)
                )
                batches[job.image_index].clear()
        return annotated

    @torch.inference_mode()
    def candidates(
        self,
        image: Image,
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
        """
        clock = clock or StepClock()
        lenient = dataclasses.replace(
            self._settings, predicted_iou=predicted_iou, stability=stability, max_coverage=None
        )
        found = [
            self._masks_of_crop(job, embedding, clock, lenient)
            for job, embedding in self._embedded([image], [clock])
        ]
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
        self, images: Sequence[Image], clocks: Sequence[StepClock]
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
        """The crop's masks that pass the thresholds, before NMS."""
        with clock.step("decode"):
            image = self._segmenter.prompt(embedding)
        points_xy_P2 = self._grids[job.crop.layer] * np.array([job.crop.width, job.crop.height])
        frame = dataclasses.replace(
            embedding.frame, crop_xyxy=job.crop.box_xyxy, height=job.height, width=job.width
        )
        found: list[MaskBatch] = []
        start = 0
        while start < len(points_xy_P2):
            points_xy = points_xy_P2[start : start + self.points_per_batch]
            try:
                batch = self._masks_of_points(job, image, frame, points_xy, clock, settings)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self._halve_batch(error)
                continue
            start += len(points_xy)
            found.append(batch)
            if sum(masks.pending_bytes(batch) for batch in found) > PENDING_LIMIT_BYTES:
                with clock.step("encode"):
                    found = [masks.encode_pending(masks.concatenate(found), threads=torch.get_num_threads())]
        return masks.concatenate(found)

    def _halve_batch(self, error: RuntimeError) -> None:
        """Goes on with half the prompts where memory ran out; raises anything else."""
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise error
        if self.points_per_batch == 1:
            raise error
        halved = self.points_per_batch // 2
        log.warning("out of memory with %d prompts a batch: going on with %d", self.points_per_batch, halved)
        self.points_per_batch = halved
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _masks_of_points(
        self,
        job: _CropJob,
        image: PromptableImage,
        frame: Frame,
        points_xy: npt.NDArray[np.float64],
        clock: StepClock,
        settings: MaskSettings,
    ) -> MaskBatch:
        """Decodes one batch of points and keeps the masks that pass."""
        with clock.step("decode"):
            prediction = image.predict(point_prompts(points_xy), multimask=True)
            iou_PM = prediction.predicted_iou_PM
            keep_PM = torch.ones_like(iou_PM, dtype=torch.bool)
            if settings.predicted_iou > 0:
                keep_PM = iou_PM > settings.predicted_iou
        with clock.step("mask_head"):
            logits_NHW = prediction.masks(keep_PM).float().cpu().numpy()
        with clock.step("measure"):
            measures = measure(
                logits_NHW,
                frame,
                offset=settings.stability_offset,
                threshold=self._segmenter.mask_threshold,
                threads=torch.get_num_threads(),
            )
            prompt_N, token_N = keep_PM.nonzero().cpu().numpy().T
            batch = _batch_of(job, measures, iou_PM[keep_PM].float().cpu().numpy(), token_N)
            batch = batch.replace(point_xy_N2=points_xy[prompt_N] + np.array(job.crop.box_xyxy[:2]))
            keep_N = _passes(batch, settings, job.height * job.width)
            keep_N &= ~cut_by_crop(batch.box_xyxy_N4, job.crop, height=job.height, width=job.width)
            pending = [
                masks.PendingMask(map_HW, frame, self._segmenter.mask_threshold)
                for map_HW in logits_NHW[keep_N]
            ]
            return batch[keep_N].replace(mask_N=masks.object_column(pending))


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
        batch = batch[_passes(batch, settings, height * width)]
        batches.append(_suppress_crop(batch, settings))
    return _finish(batches, height, width, settings, StepClock())


def _finish(
    batches: Sequence[MaskBatch],
    height: int,
    width: int,
    settings: MaskSettings,
    clock: StepClock,
) -> AnnotatedImage:
    """From each crop's survivors to annotations: NMS across crops, run lengths, clean-up, parents."""
    batch = masks.concatenate(batches)
    crops = crop_boxes(height, width, settings.crop_layers, settings.crop_overlap)
    if len(crops) > 1:
        with clock.step("suppress"):
            crop_area_px = np.array([crop.width * crop.height for crop in crops], np.float32)
            score_N = np.float32(1) / crop_area_px[batch.crop_N]  # prefer masks from smaller crops
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


def _cut(image: Image, crop: Crop) -> Image:
    x0, y0, x1, y1 = crop.box_xyxy
    return image[y0:y1, x0:x1]


def _passes(batch: MaskBatch, settings: MaskSettings, image_area_px: int) -> masks.Bools:
    """Which masks pass the three thresholds and have a pixel at all."""
    keep = masks.passes_thresholds(batch, predicted_iou=settings.predicted_iou, stability=settings.stability)
    keep &= batch.area_px_N > 0
    if settings.max_coverage is not None:
        keep &= batch.area_px_N < settings.max_coverage * image_area_px
    return keep


def _suppress_crop(batch: MaskBatch, settings: MaskSettings) -> MaskBatch:
    """Box NMS by predicted IoU within a crop."""
    return batch[masks.suppress(batch.box_xyxy_N4, batch.predicted_iou_N, max_iou=settings.box_nms)]


def _batch_of(
    job: _CropJob, measures: MaskMeasures, predicted_iou_N: masks.Floats32, token_N: masks.Ints
) -> MaskBatch:
    x0, y0 = job.crop.box_xyxy[:2]
    return MaskBatch(
        predicted_iou_N=predicted_iou_N,
        stability_N=measures.stability_score,
        area_px_N=measures.area_px,
        box_xyxy_N4=measures.box_xyxy + np.array([x0, y0, x0, y0]),
        point_xy_N2=np.zeros((len(measures), 2)),
        output_token_N=token_N,
        crop_N=np.full(len(measures), job.crop_index),
        mask_N=np.empty(len(measures), object),
    )


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
        bbox_xywh=_xywh(batch.box_xyxy_N4[row].tolist()),
        area_px=int(batch.area_px_N[row]),
        predicted_iou=float(batch.predicted_iou_N[row]),
        stability_score=float(batch.stability_N[row]),
        crop_box_xywh=_xywh(crop.box_xyxy),
        point_xy=((x, y),),
        output_token=int(batch.output_token_N[row]),
        parent=parent,
    )


def _xywh(box_xyxy: Sequence[int]) -> BoxXywh:
    x0, y0, x1, y1 = box_xyxy
    return float(x0), float(y0), float(x1 - x0), float(y1 - y0)
