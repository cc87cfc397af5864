"""The `review` column: what people (or the oracle that stands in for them) made of images.

A sample holds null for an image that nobody reviewed, else an SA-1B record like that of `masks`, with more:

    {"image": ..., "annotations": [{..., "made_by": "person" | "automatic", "clicks": 3,
                                    "clicked_iou": 0.93, "drawn": false}],
     "review": {"by": "oracle", "mode": "assisted", "complete": true, "ignore": null}}

No stage writes this column and none overwrites it: a further review is a new version that holds all earlier
ones as they were, new masks versions leave it alone, and training weighs it most. `complete` says that
everything to be found is labelled; `ignore` is a mask of pixels that count nowhere (crowds).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.annotation import ANNOTATION_IDS_PER_IMAGE
from maskmill.pipeline.evaluate.oracle import Corrected, correct, missing_from
from maskmill.pipeline.rle import Rle, area_px, box_xyxy, encode_mask
from maskmill.pipeline.train.prompts import centre_point
from maskmill.storage.dataset.columns import ColumnVersion, CommitRecord, fingerprint, new_attempt
from maskmill.storage.dataset.generations import Publication, publish_over, row_of
from maskmill.storage.dataset.images import stored_image
from maskmill.storage.dataset.join import join, read_record
from maskmill.storage.errors import InputError
from maskmill.storage.shards.shards import Sample, write_shard
from maskmill.workers.foreign.codec import decode_image
from maskmill.workers.foreign.truth import TruthSet, index_truth, truth_of
from maskmill.workers.measure.audit import by_stem, stem_of
from maskmill.workers.reading.samples import upright_jpeg
from maskmill.workers.run.columns import IMAGES, MASKS
from maskmill.workers.train.stream import BY_PERSON, REVIEW

if TYPE_CHECKING:
    from maskmill.pipeline.evaluate.truth import Truth
    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.storage.dataset.generations import Generation, GenerationRow
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.foreign.truth import TruthIndex
    from maskmill.workers.run.loop_settings import LoopSettings

AUTOMATIC = "automatic"
REVISION = 1

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class ReviewReport:
    """What a review cost and gave.

    Attributes:
        generation: that has it.
        images: reviewed in all; `new` of them by this call.
        objects: worked on by clicks.
        kept: automatic masks left as they were.
        clicks: given in all.
        drawn: objects finished by hand.
        mean_iou: of the clicked masks, before drawing.
    """

    generation: int
    images: int
    new: int
    objects: int
    kept: int
    clicks: int
    drawn: int
    mean_iou: float


def review_by_oracle(
    store: ObjectStore,
    generation: Generation,
    truth: TruthSet,
    segmenter: Segmenter | None,
    settings: LoopSettings,
    *,
    weights: str,
    created_utc: str,
    progress: Progress = lambda done, total: None,
) -> ReviewReport:
    """Reviews `settings.reviewed` images of a generation and publishes the next one with the reviews.

    Images reviewed before count and stay as they are. The same call gives the same review.

    Args:
        store: the dataset.
        generation: the latest.
        truth: annotations whose file names are the dataset's sources'.
        segmenter: answers the oracle's clicks; `weights` is its sha256. None for masks that are given.
        settings: how many images, how they are worked.
        created_utc: ISO 8601.
        progress: told images done and to do.

    Raises:
        InputError: fewer images with truth than are to be reviewed.
    """
    index = index_truth(truth)
    ids = by_stem(index)
    sources, before = _images_of(store, generation)
    known = sorted(key for key, stem in sources.items() if stem in ids)
    if len(known) < settings.reviewed:
        raise InputError(
            f"{truth.coco}: has {len(known)} of the dataset's images, but {settings.reviewed} are to be "
            "reviewed; lower loop.reviewed, or check that file names are those of the sources"
        )
    drawn = random.Random(settings.seed).sample(known, len(known))
    chosen = {key for key in drawn[: settings.reviewed] if key not in before}
    version = ColumnVersion(store, REVIEW, _digits(generation, truth, settings, weights, chosen))
    oracle = _Oracle(segmenter, index, ids, settings, progress, len(chosen))
    shards = sorted({row.shard for row in generation.rows() if row.column == IMAGES})
    rows = tuple(
        _review_shard(store, generation, shard, version, oracle, chosen, created_utc) for shard in shards
    )
    made = _publish(store, version, rows, created_utc) if chosen else generation
    return summary(store, made, new=len(chosen))


def summary(store: ObjectStore, generation: Generation, *, new: int = 0) -> ReviewReport:
    """What a generation's reviews cost and gave, from what is stored."""
    images = 0
    rows: list[dict[str, Any]] = []
    for sample in join(store, generation, (REVIEW,)):
        record = json.loads(sample.files[REVIEW]["json"])
        if record is not None:
            images += 1
            rows += record["annotations"]
    worked = [row for row in rows if row["made_by"] == BY_PERSON]
    ious = [float(row["clicked_iou"]) for row in worked]
    return ReviewReport(
        generation=generation.number,
        images=images,
        new=new,
        objects=len(worked),
        kept=len(rows) - len(worked),
        clicks=sum(int(row["clicks"]) for row in worked),
        drawn=sum(bool(row["drawn"]) for row in worked),
        mean_iou=sum(ious) / len(ious) if ious else 0.0,
    )


class _Oracle:
    """Works on images."""

    def __init__(
        self,
        segmenter: Segmenter | None,
        index: TruthIndex,
        ids: Mapping[str, int],
        settings: LoopSettings,
        progress: Progress,
        total: int,
    ) -> None:
        self._segmenter, self._index, self._ids, self._settings = segmenter, index, ids, settings
        self._progress, self._total = progress, total
        self._done = 0

    def record(self, sample_key: str, source: str, jpeg: bytes, masks: dict[str, Any]) -> dict[str, Any]:
        """The review of an image."""
        settings = self._settings
        truth = truth_of(self._index, self._ids[stem_of(source)], decode_image(jpeg))
        kept: list[dict[str, Any]] = []
        wanted = truth
        if settings.review_mode == "semi":
            kept = [
                {**row, "made_by": AUTOMATIC, "clicks": 0, "drawn": False} for row in masks["annotations"]
            ]
            wanted = missing_from(truth, [Rle.from_coco(row["segmentation"]) for row in kept])
        found = [one for one in self._worked(wanted) if area_px(one.mask)]
        self._done += 1
        self._progress(self._done, self._total)
        first_id = int(masks["image"]["image_id"]) * ANNOTATION_IDS_PER_IMAGE
        size = float(masks["image"]["width"]), float(masks["image"]["height"])
        rows = kept + [_annotation(one, size) for one in found]
        for place, row in enumerate(rows):
            row["id"], row["parent"] = first_id + place, None
        crowd = encode_mask(truth.crowd_HW).to_coco() if truth.crowd_HW is not None else None
        facts = {
            "by": "person" if settings.review_mode == "given" else "oracle",
            "mode": settings.review_mode,
            "complete": True,
            "ignore": crowd,
        }
        return {"image": masks["image"], "annotations": rows, "review": facts}

    def _worked(self, truth: Truth) -> list[Corrected]:
        """By the oracle's clicks, or as a person gave them."""
        settings = self._settings
        if settings.review_mode == "given":
            points = [centre_point(mask) for mask in truth.masks_NHW]
            return [
                Corrected(encode_mask(mask), 0, 1.0, True, (float(x), float(y)))
                for mask, (x, y) in zip(truth.masks_NHW, points, strict=True)
            ]
        assert self._segmenter is not None
        return correct(
            self._segmenter,
            truth,
            wanted_iou=settings.wanted_iou,
            most_clicks=settings.most_clicks,
            draw_rest=settings.draw_rest,
        )


def _annotation(one: Corrected, size: tuple[float, float]) -> dict[str, Any]:
    left, top, right, bottom = (float(side) for side in box_xyxy(one.mask))
    return {
        "segmentation": one.mask.to_coco(),
        "bbox": [left, top, right - left, bottom - top],
        "area": area_px(one.mask),
        "predicted_iou": 1.0,
        "stability_score": 1.0,
        "crop_box": [0.0, 0.0, *size],
        "point_coords": [list(one.point_xy)],
        "output_token": None,
        "made_by": BY_PERSON,
        "clicks": one.clicks,
        "clicked_iou": one.iou,
        "drawn": one.drawn,
    }


def _images_of(store: ObjectStore, generation: Generation) -> tuple[dict[str, str], set[str]]:
    """The name of each annotated image's source by key, and the keys that have a review."""
    sources, reviewed = {}, set()
    for sample in join(store, generation, (IMAGES, MASKS, REVIEW)):
        if MASKS in sample.files:
            sources[sample.key] = stem_of(stored_image(Sample(sample.key, sample.files[IMAGES])).source)
        if REVIEW in sample.files and sample.files[REVIEW]["json"] != b"null":
            reviewed.add(sample.key)
    return sources, reviewed


def _digits(
    generation: Generation, truth: TruthSet, settings: LoopSettings, weights: str, chosen: set[str]
) -> str:
    inputs = {name: digits for name, digits in generation.columns.items() if name in (IMAGES, MASKS, REVIEW)}
    facts = {**asdict(settings), "keys": sorted(chosen), "truth": truth.coco.name}
    return fingerprint(facts, weights=weights, revision=REVISION, inputs=inputs)


def _review_shard(
    store: ObjectStore,
    generation: Generation,
    shard: int,
    version: ColumnVersion,
    oracle: _Oracle,
    chosen: set[str],
    created_utc: str,
) -> GenerationRow:
    """Commits a shard of the column: earlier reviews as they are, the chosen images' new ones, null."""
    images = next(row for row in generation.rows() if (row.shard, row.column) == (shard, IMAGES))
    done = version.record(shard)
    if done is not None:
        return row_of(version, done)

    def samples() -> Sequence[Sample]:
        found = []
        for sample in join(store, generation, (IMAGES, MASKS, REVIEW), shards=[shard]):
            before = sample.files.get(REVIEW, {}).get("json", b"null")
            if sample.key in chosen and before == b"null":
                masks = json.loads(sample.files[MASKS]["json"])
                image = stored_image(Sample(sample.key, sample.files[IMAGES]))
                size = int(masks["image"]["width"]), int(masks["image"]["height"])
                jpeg = upright_jpeg(image.jpeg, *size, image.source)
                record = oracle.record(sample.key, image.source, jpeg, masks)
                before = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
            found.append(Sample(sample.key, {"json": before}))
        return found

    attempt = new_attempt()
    data = write_shard(store, version.data_name(shard, attempt), samples())
    record = CommitRecord(
        column=REVIEW,
        fingerprint=version.fingerprint,
        shard=shard,
        attempt=attempt,
        data=data,
        num_read=data.num_samples,
        num_written=data.num_samples,
        inputs={IMAGES: read_record(store, images).sha256},
        models={"annotator": "oracle"},
        created_utc=created_utc,
    )
    return row_of(version, version.commit(record))


def _publish(
    store: ObjectStore, version: ColumnVersion, rows: tuple[GenerationRow, ...], created_utc: str
) -> Generation:
    """The latest generation with this review column in it."""

    def make(parent: Generation | None) -> Publication:
        assert parent is not None
        others = [row for row in parent.rows() if row.column != REVIEW]
        facts = {
            "columns": {**parent.columns, REVIEW: version.fingerprint},
            "settings": parent.settings,
            "models": parent.models,
            "totals": parent.totals,
        }
        merged = sorted((*others, *rows), key=lambda row: (row.shard, row.column))
        return Publication(tuple(merged), facts)

    return publish_over(store, make, created_utc, made_by="review")
