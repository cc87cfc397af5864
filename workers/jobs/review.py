"""The `review` column: what people (or the oracle that stands in for them) made of images.

A sample holds null for an image that nobody reviewed, else an SA-1B record like that of `masks`, with more:

    {"image": ..., "annotations": [{..., "made_by": "person" | "automatic", "clicks": 3,
                                    "clicked_iou": 0.93, "drawn": false, "label": "dog"}],
     "review": {"by": "oracle", "mode": "assisted", "complete": true, "ignore": null}}

No stage writes this column and none overwrites it: a further review is a new version that holds all earlier
ones as they were, new masks versions leave it alone, and training weighs it most. Of people's own masks, a
file that says otherwise of an image that was reviewed is a correction: the new version has it, earlier
generations keep what was there. `complete` says that everything to be found is labelled; `ignore` is a mask
of pixels that count nowhere (crowds); `label` is the category's name, where the file has one.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from maskmill.pipeline.annotation import ANNOTATION_IDS_PER_IMAGE
from maskmill.pipeline.evaluate.oracle import Corrected, correct, missing_from
from maskmill.pipeline.rle import Rle, area_px, box_xyxy, encode_mask
from maskmill.pipeline.train.prompts import centre_point
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import Publication, publish_over
from maskmill.storage.dataset.images import stored_image
from maskmill.storage.dataset.join import join, read_record
from maskmill.storage.dataset.manifest import row_of
from maskmill.storage.dataset.records import CommitRecord, fingerprint, new_attempt
from maskmill.storage.errors import InputError
from maskmill.storage.shards.shards import Sample, write_shard
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.foreign.known_truth import known_truth
from maskmill.workers.foreign.truth import truth_of
from maskmill.workers.reading.samples import upright_jpeg
from maskmill.workers.run.columns import IMAGES, MASKS
from maskmill.workers.stages.review import BY_PERSON, REVIEW

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from maskmill.pipeline.evaluate.truth import Truth
    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.join import JoinedSample
    from maskmill.storage.dataset.manifest import GenerationRow
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.foreign.known_truth import KnownTruth
    from maskmill.workers.foreign.truth import TruthSet
    from maskmill.workers.run.loop_settings import LoopSettings

AUTOMATIC = "automatic"
REVISION = 2

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class ReviewReport:
    """What a review cost and gave.

    Attributes:
        generation: that has it.
        images: reviewed in all; `new` of them by this call first, `corrected` anew.
        objects: worked on by clicks.
        kept: automatic masks left as they were.
        clicks: given in all.
        drawn: objects finished by hand.
        mean_iou: of the clicked masks, before drawing.
        matched, ambiguous, not_in_dataset, left_out: of the file; see `Audit`.
    """

    generation: int
    images: int
    new: int
    corrected: int = 0
    objects: int
    kept: int
    clicks: int
    drawn: int
    mean_iou: float
    matched: int = 0
    ambiguous: int = 0
    not_in_dataset: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


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

    Images reviewed before count and stay as they are, but for corrections by a person (`review_mode` given):
    those are taken of every reviewed image that the file says otherwise of. The same call gives the same
    review.

    Args:
        store: the dataset.
        generation: the latest.
        truth: annotations whose file names are the dataset's sources' (see foreign/matching.py).
        segmenter: answers the oracle's clicks; `weights` is its sha256. None for masks that are given.
        settings: how many images, how they are worked.
        created_utc: ISO 8601.
        progress: told images done and to do.

    Raises:
        InputError: fewer images with truth than are to be reviewed, or a file that cannot be used.
    """
    known = known_truth(store, truth)
    oracle = _Oracle(segmenter, known, settings)
    annotated, before, corrections = _look_through(store, generation, oracle)
    found = sorted(key for key in annotated if known.image_of(key) is not None)
    if len(found) < settings.reviewed:
        raise InputError(
            f"{truth.coco}: has {len(found)} of the dataset's images, but {settings.reviewed} are to be "
            f"reviewed; lower loop.reviewed, or check the file names: {known.explain()}"
        )

    drawn = random.Random(settings.seed).sample(found, len(found))
    new = {key for key in drawn[: settings.reviewed] if key not in before}
    chosen = new | corrections.keys()
    made = generation
    if chosen:
        version = ColumnVersion(store, REVIEW, _digits(generation, known, settings, weights, chosen))
        work = _Work(oracle, version, new, corrections, progress, created_utc)
        shards = sorted({row.shard for row in generation.rows() if row.column == IMAGES})
        rows = tuple(_review_shard(store, generation, shard, work) for shard in shards)
        made = _publish(store, version, rows, created_utc)
    report = summary(store, made, new=len(new))
    return replace(report, corrected=len(corrections), **known.facts())


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
    """Works on images, or takes what a person made of them."""

    def __init__(self, segmenter: Segmenter | None, known: KnownTruth, settings: LoopSettings) -> None:
        self._segmenter, self.known, self._settings = segmenter, known, settings

    @property
    def is_given(self) -> bool:
        """Whether a person's own masks are taken as they are."""
        return self._settings.review_mode == "given"

    def record(
        self, key: str, masks: Mapping[str, Any], pixels_HWC: NDArray[np.uint8] | None
    ) -> dict[str, Any]:
        """The review of an image.

        Args:
            key: of the image, which the truth has.
            masks: the record of its automatic masks.
            pixels_HWC: of the picture; None where masks are given.
        """
        info = masks["image"]
        size = int(info["height"]), int(info["width"])
        if pixels_HWC is None:
            pixels_HWC = np.zeros((*size, 3), np.uint8)
        image_id, left_out = self.known.image_of(key), self.known.index.left_out
        assert image_id is not None
        bad_before = left_out.num
        truth = truth_of(self.known.index, image_id, pixels_HWC)

        # what is kept, and what is worked on
        kept: list[dict[str, Any]] = []
        wanted = truth
        if self._settings.review_mode == "semi":
            kept = [
                {**row, "made_by": AUTOMATIC, "clicks": 0, "drawn": False} for row in masks["annotations"]
            ]
            wanted = missing_from(truth, [Rle.from_coco(row["segmentation"]) for row in kept])
        worked = zip(self._worked(wanted), wanted.categories(), strict=True)
        rows = kept + [self._annotation(one, kind, size) for one, kind in worked if area_px(one.mask)]

        first_id = int(info["image_id"]) * ANNOTATION_IDS_PER_IMAGE
        for place, row in enumerate(rows):
            row["id"], row["parent"] = first_id + place, None
        facts = {
            "by": BY_PERSON if self.is_given else "oracle",
            "mode": self._settings.review_mode,
            "complete": left_out.num == bad_before,
            "ignore": encode_mask(truth.crowd_HW).to_coco() if truth.crowd_HW is not None else None,
        }
        return {"image": info, "annotations": rows, "review": facts}

    def _worked(self, truth: Truth) -> list[Corrected]:
        """By the oracle's clicks, or as a person gave them: one for each true mask, in order."""
        settings = self._settings
        if self.is_given:
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

    def _annotation(self, one: Corrected, category: int, size_hw: tuple[int, int]) -> dict[str, Any]:
        left, top, right, bottom = (float(side) for side in box_xyxy(one.mask))
        label = self.known.index.names.get(category)
        return {
            "segmentation": one.mask.to_coco(),
            "bbox": [left, top, right - left, bottom - top],
            "area": area_px(one.mask),
            "predicted_iou": 1.0,
            "stability_score": 1.0,
            "crop_box": [0.0, 0.0, float(size_hw[1]), float(size_hw[0])],
            "point_coords": [list(one.point_xy)],
            "output_token": None,
            "made_by": BY_PERSON,
            "clicks": one.clicks,
            "clicked_iou": one.iou,
            "drawn": one.drawn,
            **({"label": label} if label is not None else {}),
        }


@dataclass(frozen=True, eq=False)
class _Work:
    """What is written into a version of the column: `new` images are worked, `corrections` are there."""

    oracle: _Oracle
    version: ColumnVersion
    new: Set[str]
    corrections: Mapping[str, bytes]
    progress: Progress
    created_utc: str
    done: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def review_of(self, sample: JoinedSample) -> bytes:
        """A chosen image's new review, another's as it is, null for one without."""
        if sample.key in self.corrections:
            self._count()
            return self.corrections[sample.key]
        if sample.key not in self.new:
            return sample.files.get(REVIEW, {}).get("json", b"null")
        masks = json.loads(sample.files[MASKS]["json"])
        pixels_HWC = None
        if not self.oracle.is_given:
            image = stored_image(Sample(sample.key, sample.files[IMAGES]))
            size = int(masks["image"]["width"]), int(masks["image"]["height"])
            pixels_HWC = decode_image(upright_jpeg(image.jpeg, *size, image.source))
        review = _bytes(self.oracle.record(sample.key, masks, pixels_HWC))
        self._count()
        return review

    def _count(self) -> None:
        self.progress(next(self.done), len(self.new) + len(self.corrections))


def _look_through(
    store: ObjectStore, generation: Generation, oracle: _Oracle
) -> tuple[set[str], set[str], dict[str, bytes]]:
    """Keys with masks, keys with a review, and the reviews that a person's file says otherwise of."""
    annotated, reviewed = set[str](), set[str]()
    corrections: dict[str, bytes] = {}
    for sample in join(store, generation, (MASKS, REVIEW)):
        annotated.add(sample.key)
        before = sample.files.get(REVIEW, {}).get("json", b"null")
        if before == b"null":
            continue
        reviewed.add(sample.key)
        if oracle.is_given and oracle.known.image_of(sample.key) is not None:
            masks = json.loads(sample.files[MASKS]["json"])
            now = _bytes(oracle.record(sample.key, masks, None))
            if now != before:
                corrections[sample.key] = now
    return annotated, reviewed, corrections


def _bytes(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _digits(
    generation: Generation, known: KnownTruth, settings: LoopSettings, weights: str, chosen: Set[str]
) -> str:
    inputs = {name: digits for name, digits in generation.columns.items() if name in (IMAGES, MASKS, REVIEW)}
    index = known.index
    facts = {
        **asdict(settings),
        "keys": sorted(chosen),
        "truth": index.source.coco.name,
        "truth_sha256": index.sha256,
        "matched": known.matching.digest,
    }
    return fingerprint(facts, weights=weights, revision=REVISION, inputs=inputs)


def _review_shard(store: ObjectStore, generation: Generation, shard: int, work: _Work) -> GenerationRow:
    """Commits a shard of the column: earlier reviews as they are, the chosen images' new ones, null."""
    images = next(row for row in generation.rows() if (row.shard, row.column) == (shard, IMAGES))
    version = work.version
    done = version.record(shard)
    if done is not None:
        return row_of(version, done)

    samples = [
        Sample(sample.key, {"json": work.review_of(sample)})
        for sample in join(store, generation, (IMAGES, MASKS, REVIEW), shards=[shard])
    ]
    attempt = new_attempt()
    data = write_shard(store, version.data_name(shard, attempt), samples)
    record = CommitRecord(
        column=REVIEW,
        fingerprint=version.fingerprint,
        shard=shard,
        attempt=attempt,
        data=data,
        num_read=data.num_samples,
        num_written=data.num_samples,
        inputs={IMAGES: read_record(store, images).sha256},
        models={"annotator": BY_PERSON if work.oracle.is_given else "oracle"},
        created_utc=work.created_utc,
    )
    return row_of(version, version.commit(record))


def _publish(
    store: ObjectStore, version: ColumnVersion, rows: tuple[GenerationRow, ...], created_utc: str
) -> Generation:
    """The latest generation with this review column in it."""

    def make(parent: Generation | None) -> Publication:
        """The latest generation, its review rows replaced."""
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
