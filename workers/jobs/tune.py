"""What other thresholds would keep: a few images run once, judged under every pair of thresholds.

How it works: the mask stage makes all candidates of an image once, without thresholds; each pair of predicted
IoU and stability is then applied to them with the stage's own NMS and clean-up, so a row of the table is what
`generate` would give with that pair. Coverage is counted on a coarse grid of about 160 cells a side.

What it does not know: the truth. No human mask is involved; the suggestion keeps what the image is covered by
and drops what only repeats it. Look at the picture before believing a number, and at more images before a
large run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.masks import measure as mask_columns
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.masks.measure import MaskBatch
from maskmill.pipeline.masks.select import voted
from maskmill.pipeline.rle import Rle, decode
from maskmill.pipeline.segmenters import load_segmenter
from maskmill.pipeline.segmenters.base import Segmenter
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.pipeline.settings.verdicts import VerdictSettings
from maskmill.pipeline.unfit import UnfitPicture
from maskmill.storage.errors import InputError
from maskmill.workers.foreign.images.codec import DecodeError, normalise
from maskmill.workers.jobs.draw_inputs import InputSample, sample_inputs
from maskmill.workers.jobs.tune_verdicts import PictureJudge, VerdictRow, right_share, verdict_rows
from maskmill.workers.pictures.render import Cell, draw_sheet, png_bytes, thumbnail
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.stages.guarded import GuardedSegmenter
from maskmill.workers.stages.shared import SharedEmbeddings
from maskmill.workers.stages.verdicts.column import verifier_of

if TYPE_CHECKING:
    from maskmill.pipeline.verify.head import Verdicts

PREDICTED_IOUS = (0.70, 0.80, 0.85, 0.88, 0.90, 0.92, 0.95)
STABILITIES = (0.80, 0.85, 0.90, 0.92, 0.95, 0.97)
ENOUGH_THRESHOLDS = 4
UPPER_QUANTILES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
GRID_CELLS = 160
KEPT_COVERAGE = 0.95
"""The suggestion keeps this share of the largest coverage that any pair reaches."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class TuneRow:
    """What one pair of thresholds keeps.

    Attributes:
        predicted_iou: masks must exceed it.
        stability: masks must reach it.
        masks_per_image: mean after NMS and clean-up.
        masks_min, masks_max: over the images.
        coverage: mean share of an image's area that is under at least one mask, 0 to 1.
        right: share of the masks that is right by a verifier's word; None where none was asked.
    """

    predicted_iou: float
    stability: float
    masks_per_image: float
    masks_min: int
    masks_max: int
    coverage: float
    right: float | None = None


@dataclass(frozen=True, kw_only=True)
class TuneSuggestion:
    """A pair worth trying, and the reasoning with its numbers."""

    predicted_iou: float
    stability: float
    why: str


@dataclass(frozen=True, kw_only=True)
class TuneReport:
    """Attributes:
    rows: one for every pair, loosest first: by predicted IoU, then stability.
    suggestion: one of the rows.
    current: the row of the settings given.
    picture_png: one image under several pairs.
    sources: the images that were run.
    skipped: inputs of the sample that could not be decoded: (source, reason) as "source: reason".
    verdicts: what filters by expected IoU keep of the current row's masks; empty where no verifier was asked.
    is_calibrated: whether the verifier was calibrated for this model; None where none was asked.
    """

    rows: tuple[TuneRow, ...]
    suggestion: TuneSuggestion
    current: TuneRow
    picture_png: bytes
    sources: tuple[str, ...]
    skipped: tuple[str, ...]
    verdicts: tuple[VerdictRow, ...] = ()
    is_calibrated: bool | None = None

    @property
    def num_images(self) -> int:
        """Images that the rows are means of."""
        return len(self.sources)


def tune_inputs(
    inputs: Sequence[str],
    *,
    ingest: IngestSettings,
    masks: MaskSettings,
    segmenter: SegmenterSettings,
    num_images: int = 6,
    seed: int = 0,
    predicted_ious: Sequence[float] | None = None,
    stabilities: Sequence[float] | None = None,
    progress: Callable[[int, int], None] | None = None,
    verdicts: VerdictSettings | None = None,
    load: Callable[[SegmenterSettings], Segmenter] = load_segmenter,
) -> TuneReport:
    """Runs a sample of the inputs once and judges every pair of thresholds on it.

    Args:
        inputs: folders, globs, manifests, tars or prefixes, as `generate` takes them.
        ingest, masks, segmenter: the run's settings; the thresholds in `masks` are those to compare with.
        num_images: images to run, drawn evenly from all inputs.
        seed: draws which.
        predicted_ious, stabilities: thresholds to try, each in [0, 1]; left out, the usual ones, or those
            that fit the model's scores on the first image. Those of `masks` are added.
        progress: called with (images done, images to do).
        verdicts: the verifier that is asked about every row's masks; None, or one that is off, asks none.
        load: loads the segmenter.

    Raises:
        ValueError: a count below 1 or a threshold out of range.
        maskmill.storage.errors.InputError: an input that cannot be listed or read, or no image to run.
        WeightsError: the weights are missing or damaged.
    """
    if num_images < 1:
        raise ValueError(f"num_images={num_images} must be at least 1")

    sample = sample_inputs(inputs, num_images, seed=seed, ingest=ingest)
    shared = SharedEmbeddings(GuardedSegmenter(load(segmenter)))
    stage = AutomaticMasks(shared, masks)
    verifier = verifier_of(verdicts, segmenter) if verdicts and verdicts.verifier else None
    pairs: tuple[MaskSettings, ...] = ()
    judged: list[JudgedImage] = []
    skipped: list[str] = []

    # The model once an image; every pair of thresholds selects from what it found
    for number, (source, pixels) in enumerate(_decoded(sample, ingest, skipped)):
        shared.keep(pixels, None)
        try:
            candidates = stage.candidates(pixels)
        except UnfitPicture as error:
            skipped.append(f"{source}: {error.reason}")
            continue
        pairs = pairs or threshold_pairs(
            masks,
            fitting(candidates.predicted_iou_N, PREDICTED_IOUS) if predicted_ious is None else predicted_ious,
            fitting(candidates.stability_N, STABILITIES) if stabilities is None else stabilities,
        )
        ask = None if verifier is None else PictureJudge(verifier, pixels, shared.embed([pixels])[0])
        judged.append(judge(stage, source, pixels, candidates, pairs, ask))
        shared.hold(())
        if progress is not None:
            progress(number + 1, len(sample.images))

    if not judged:
        raise InputError(f"no image to run: {'; '.join(skipped) or 'the inputs hold none'}")
    found = report(judged, masks, tuple(skipped))
    return found if verifier is None else replace(found, is_calibrated=verifier.is_calibrated)


def _decoded(
    sample: InputSample, ingest: IngestSettings, skipped: list[str]
) -> list[tuple[str, NDArray[np.uint8]]]:
    decoded = []
    for image in sample.images:
        try:
            decoded.append((image.source, normalise(image.data, ingest).pixels_HWC))
        except DecodeError as error:
            skipped.append(f"{image.source}: {error.reason}")
    return decoded


def fitting(scores_N: NDArray[np.float32], usual: Sequence[float]) -> tuple[float, ...]:
    """The usual thresholds, or others where too few of the scores reach them.

    Args:
        scores_N: of one image's candidates.
        usual: rising, each in [0, 1].

    Returns:
        The usual thresholds below the highest score; if fewer than four are, the scores' upper quantiles too.
    """
    if len(scores_N) == 0:
        return tuple(usual)
    reached = {threshold for threshold in usual if threshold < scores_N.max()}
    if len(reached) < ENOUGH_THRESHOLDS:
        reached |= {round(float(q), 2) for q in np.clip(np.quantile(scores_N, UPPER_QUANTILES), 0, 1)}
    return tuple(sorted(reached))


def threshold_pairs(
    masks: MaskSettings, predicted_ious: Sequence[float], stabilities: Sequence[float]
) -> tuple[MaskSettings, ...]:
    """The settings under every pair of thresholds, loosest first; their own thresholds are among them.

    Raises:
        ValueError: a threshold out of range.
    """
    return tuple(
        dataclasses.replace(masks, predicted_iou=predicted_iou, stability=stability)
        for predicted_iou in sorted({*predicted_ious, masks.predicted_iou})
        for stability in sorted({*stabilities, masks.stability})
    )


@dataclass(frozen=True, eq=False)
class JudgedImage:
    """One image under every pair of thresholds: `kept[i]` and `verdicts[i]` belong to `pairs[i]`."""

    source: str
    image_HW3: NDArray[np.uint8]
    pairs: tuple[MaskSettings, ...]
    kept: tuple[AnnotatedImage, ...]
    coverage: tuple[float, ...]
    verdicts: tuple[Verdicts, ...] = ()


def judge(
    stage: AutomaticMasks,
    source: str,
    image_HW3: NDArray[np.uint8],
    candidates: MaskBatch,
    pairs: tuple[MaskSettings, ...],
    ask: Callable[[AnnotatedImage], Verdicts] | None = None,
) -> JudgedImage:
    """Applies every pair to an image's candidates, as `stage` makes them; `ask` judges what each keeps."""
    height, width = image_HW3.shape[:2]
    survivors = _encode_survivors(candidates, pairs, height * width)
    kept = tuple(stage.select(survivors, height=height, width=width, settings=pair) for pair in pairs)
    coarse = _Coarse(height, width)
    coverage = tuple(coarse.coverage(image) for image in kept)
    said = (
        ()
        if ask is None
        else tuple(ask(voted(image, candidates, pair)) for image, pair in zip(kept, pairs, strict=True))
    )
    return JudgedImage(source, image_HW3, pairs, kept, coverage, said)


def _encode_survivors(candidates: MaskBatch, pairs: Sequence[MaskSettings], image_area_px: int) -> MaskBatch:
    """Run lengths, once, for every mask that some pair lets through NMS in its crop; the rest is left out.

    What no pair keeps never suppressed another mask, so `select` gives the same without it.
    """
    survives_N = np.zeros(len(candidates), dtype=bool)
    for pair in pairs:
        passes_N = mask_columns.passes_thresholds(
            candidates, predicted_iou=pair.predicted_iou, stability=pair.stability
        )
        if pair.max_coverage is not None:
            passes_N &= candidates.area_px_N < pair.max_coverage * image_area_px
        for crop in np.unique(candidates.crop_N[passes_N]):
            rows = np.flatnonzero(passes_N & (candidates.crop_N == crop))
            kept = mask_columns.suppress(
                candidates.box_xyxy_N4[rows], candidates.predicted_iou_N[rows], max_iou=pair.box_nms
            )
            survives_N[rows[kept]] = True
    return mask_columns.encode_pending(candidates[survives_N])


class _Coarse:
    """Which cells of a coarse grid masks cover; each mask is decoded once however many pairs keep it."""

    def __init__(self, height: int, width: int) -> None:
        step = max(1, max(height, width) // GRID_CELLS)
        self._rows = slice(step // 2, None, step)
        self._columns = slice(step // 2, None, step)
        self._cells: dict[Rle, Bools] = {}
        self._empty = np.zeros((height, width), dtype=bool)[self._rows, self._columns]

    def coverage(self, image: AnnotatedImage) -> float:
        """The share of cells under at least one mask."""
        covered = self._empty.copy()
        for annotation in image.annotations:
            covered |= self._of(annotation.segmentation)
        return float(covered.mean())

    def _of(self, rle: Rle) -> Bools:
        if rle not in self._cells:
            self._cells[rle] = decode(rle)[self._rows, self._columns].copy()
        return self._cells[rle]


def report(judged: Sequence[JudgedImage], masks: MaskSettings, skipped: tuple[str, ...] = ()) -> TuneReport:
    """Rows, suggestion and picture from judged images."""
    pairs = judged[0].pairs
    rows = tuple(_row(judged, i) for i in range(len(pairs)))
    now = (masks.predicted_iou, masks.stability)
    place = next(i for i, row in enumerate(rows) if (row.predicted_iou, row.stability) == now)
    current = rows[place]
    said = [image.verdicts[place] for image in judged if image.verdicts]
    suggestion = suggest(rows)
    return TuneReport(
        rows=rows,
        suggestion=suggestion,
        current=current,
        picture_png=_picture(judged, suggestion, current),
        sources=tuple(image.source for image in judged),
        skipped=skipped,
        verdicts=verdict_rows(said) if said else (),
    )


def _row(judged: Sequence[JudgedImage], pair: int) -> TuneRow:
    counts = [len(image.kept[pair].annotations) for image in judged]
    settings = judged[0].pairs[pair]
    return TuneRow(
        predicted_iou=settings.predicted_iou,
        stability=settings.stability,
        masks_per_image=float(np.mean(counts)),
        masks_min=min(counts),
        masks_max=max(counts),
        coverage=float(np.mean([image.coverage[pair] for image in judged])),
        right=right_share([image.verdicts[pair] for image in judged]) if judged[0].verdicts else None,
    )


def suggest(rows: Sequence[TuneRow]) -> TuneSuggestion:
    """The pair with the fewest masks that still covers `KEPT_COVERAGE` of what the best pair covers.

    Among equals the stricter pair wins. Where nothing is covered at all the loosest pair is named, and why.
    """
    best = max(row.coverage for row in rows)
    if best == 0:
        loosest = min(rows, key=lambda row: (row.predicted_iou, row.stability))
        why = "no pair keeps any mask: these weights do not fit these images, or all thresholds are too high"
        return TuneSuggestion(predicted_iou=loosest.predicted_iou, stability=loosest.stability, why=why)
    enough = [row for row in rows if row.coverage >= KEPT_COVERAGE * best]
    chosen = min(enough, key=lambda row: (row.masks_per_image, -row.predicted_iou, -row.stability))
    why = (
        f"the fewest masks ({chosen.masks_per_image:.1f} an image) that still cover {chosen.coverage:.0%} of "
        f"the image area; the most any pair covers is {best:.0%}"
    )
    return TuneSuggestion(predicted_iou=chosen.predicted_iou, stability=chosen.stability, why=why)


def _picture(judged: Sequence[JudgedImage], suggestion: TuneSuggestion, current: TuneRow) -> bytes:
    """The image of median mask count under up to 3 x 3 pairs, the current and suggested among them."""
    pairs = judged[0].pairs
    now = (current.predicted_iou, current.stability)
    wanted = (suggestion.predicted_iou, suggestion.stability)
    place = next(i for i, pair in enumerate(pairs) if (pair.predicted_iou, pair.stability) == now)
    image = sorted(judged, key=lambda image: len(image.kept[place].annotations))[len(judged) // 2]
    ious = _three(sorted({pair.predicted_iou for pair in pairs}), {now[0], wanted[0]})
    stabilities = _three(sorted({pair.stability for pair in pairs}), {now[1], wanted[1]})
    cells = []
    for i, pair in enumerate(pairs):
        thresholds = (pair.predicted_iou, pair.stability)
        if pair.predicted_iou in ious and pair.stability in stabilities:
            marks = [name for name, at in (("current", now), ("suggested", wanted)) if at == thresholds]
            heading = f"IoU > {thresholds[0]:g}, stability >= {thresholds[1]:g}"
            note = f"{len(image.kept[i].annotations)} masks, {image.coverage[i]:.0%} covered"
            picture = thumbnail(image.image_HW3, image.kept[i], 400, 400)
            cells.append(Cell((picture,), " - ".join([heading, *marks]), note))
    title = f"{image.source.rsplit('/', 1)[-1]}   stricter to the right and down"
    return png_bytes(draw_sheet(title, cells, len(stabilities), 400))


def _three(values: Sequence[float], wanted: set[float]) -> set[float]:
    """Up to three of the values: the wanted ones, then the ends and the middle."""
    chosen = set(wanted)
    for value in (values[0], values[-1], values[len(values) // 2]):
        if len(chosen) < 3:
            chosen.add(value)
    return chosen
