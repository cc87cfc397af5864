"""Reviews by an oracle that clicks as people would, and people's masks as a file gives them: saves like all.

Each picture is a save of its own (workers/reviews/), put as soon as it is done, so a run that was stopped
goes on with the next one; the `review` column is built at the end, and published. Pictures that were reviewed
before, by whomever, are left alone, but for corrections: masks of a person's file that differ from what came
in before. Where a person worked on such a picture since, the file's masks stand beside theirs.

    assisted    an empty picture; every true object by clicks
    semi        the automatic masks are kept, unconfirmed; what they miss is clicked
    given       no oracle: the file's masks as they are, by a person

`complete` says that everything to be found is labelled; `ignore` is a mask of pixels that count nowhere
(crowds); a label is the category's name, where the file has one.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from maskmill.pipeline.evaluate.oracle import Corrected, correct, missing_from
from maskmill.pipeline.rle import Rle, area_px, encode_mask
from maskmill.pipeline.train.prompts import centre_point
from maskmill.storage.dataset.images import stored_image
from maskmill.storage.dataset.join import join
from maskmill.storage.dataset.saves import saved_numbers
from maskmill.storage.errors import InputError
from maskmill.storage.shards.shards import Sample
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.foreign.known_truth import known_truth
from maskmill.workers.foreign.truth import truth_of
from maskmill.workers.reading.samples import upright_jpeg
from maskmill.workers.reviews.column import publish_saves
from maskmill.workers.reviews.keep import Work, begin, keep
from maskmill.workers.reviews.rows import ADDED, KEPT, ORACLE, PERSON, MaskWork, is_hand_made
from maskmill.workers.reviews.whole import BESIDE, CORRECTED, GIVEN, take_whole
from maskmill.workers.run.columns import IMAGES, MASKS
from maskmill.workers.stages.review import REVIEW
from maskmill.workers.stages.shared import SharedEmbeddings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from maskmill.pipeline.evaluate.truth import Truth
    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.join import JoinedSample
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.foreign.known_truth import KnownTruth
    from maskmill.workers.foreign.truth import TruthSet
    from maskmill.workers.reading.kept_embeddings import KeptEmbeddings
    from maskmill.workers.run.loop_settings import LoopSettings

SEMI = "semi"

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class ReviewReport:
    """What a review cost and gave.

    Attributes:
        generation: that has it.
        images: reviewed in all; `new` of them by this call first, `corrected` anew.
        beside: kept beside what a person saved since: to be looked at together.
        objects: worked on by clicks, or by hand.
        kept: automatic masks left as they were.
        clicks: given in all.
        drawn: objects finished by hand.
        mean_iou: of the clicked masks, before drawing.
        finished: pictures in which everything is said to be found.
        seconds: of work, as far as it was counted.
        matched, ambiguous, not_in_dataset, left_out: of the file; see `Audit`.
    """

    generation: int
    images: int
    new: int
    corrected: int = 0
    beside: int = 0
    objects: int
    kept: int
    clicks: int
    drawn: int
    mean_iou: float
    finished: int = 0
    seconds: float = 0.0
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
    who: str = ORACLE,
    note: str = "",
    embeddings: KeptEmbeddings | None = None,
    only: Collection[str] | None = None,
    created_utc: str,
    progress: Progress = lambda done, total: None,
) -> ReviewReport:
    """Reviews `settings.reviewed` images of a generation and publishes the next one with the reviews.

    Images reviewed before count and stay as they are, but for corrections by a file (`review_mode` given):
    those are taken of every reviewed image that the file says otherwise of. The same call gives the same
    review.

    Args:
        store: the dataset.
        generation: the latest.
        truth: annotations whose file names are the dataset's sources' (see foreign/matching.py).
        segmenter: answers the oracle's clicks. None for masks that are given.
        settings: how many images, how they are worked.
        who: gave the masks; the oracle's own name where it clicks.
        note: kept with each save, such as which model answered.
        embeddings: of that model, where they are kept: then no picture is encoded.
        only: the keys that images are drawn from; None for all.
        created_utc: ISO 8601.
        progress: told images done and to do.

    Raises:
        InputError: fewer images with truth than are to be reviewed, or a file that cannot be used.
    """
    known = known_truth(store, truth)
    oracle = _Oracle(segmenter, known, settings, who, note, embeddings)

    # Which images, drawn among those that the file has
    annotated, before = _look_through(store, generation, only)
    found = sorted(key for key in annotated if known.image_of(key) is not None)
    if len(found) < settings.reviewed:
        raise InputError(
            f"{truth.coco}: has {len(found)} of the dataset's images, but {settings.reviewed} are to be "
            f"reviewed; lower loop.reviewed, or check the file names: {known.explain()}"
        )
    drawn = random.Random(settings.seed).sample(found, len(found))
    new = {key for key in drawn[: settings.reviewed] if key not in before}
    chosen = new | (before & set(found) if oracle.is_given else set())

    # A save each, then the column
    outcomes = Counter[str]()
    shards = sorted({annotated[key] for key in chosen})
    for sample in join(store, generation, (IMAGES, MASKS, REVIEW), shards=shards) if chosen else ():
        if sample.key in chosen:
            outcomes[oracle.review(store, generation, sample, created_utc)] += 1
            progress(outcomes.total(), len(chosen))
    made = publish_saves(store, created_utc=created_utc)
    assert made is not None
    report = summary(store, made, new=len(new))
    facts = {"corrected": outcomes[CORRECTED], "beside": outcomes[BESIDE], **known.facts()}
    return replace(report, **facts)


def summary(store: ObjectStore, generation: Generation, *, new: int = 0) -> ReviewReport:
    """What a generation's reviews cost and gave, from what is stored."""
    rows: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    for sample in join(store, generation, (REVIEW,)):
        record = json.loads(sample.files[REVIEW]["json"])
        if record is not None:
            facts.append(record["review"])
            rows += record["annotations"]
    worked = [row for row in rows if is_hand_made(row)]
    ious = [float(row["clicked_iou"]) for row in worked if "clicked_iou" in row]
    return ReviewReport(
        generation=generation.number,
        images=len(facts),
        new=new,
        objects=len(worked),
        kept=len(rows) - len(worked),
        clicks=sum(int(row.get("clicks", 0)) for row in worked),
        drawn=sum(bool(row.get("drawn")) for row in worked),
        mean_iou=sum(ious) / len(ious) if ious else 0.0,
        finished=sum(bool(one.get("complete")) for one in facts),
        seconds=sum(float(one.get("seconds", 0.0)) for one in facts),
    )


def _look_through(
    store: ObjectStore, generation: Generation, only: Collection[str] | None
) -> tuple[dict[str, int], set[str]]:
    """Keys with masks, with their shards, those of `only` alone; and keys that anybody reviewed."""
    annotated, reviewed = dict[str, int](), set(saved_numbers(store))
    for sample in join(store, generation, (MASKS, REVIEW)):
        annotated[sample.key] = sample.shard
        if sample.files.get(REVIEW, {}).get("json", b"null") != b"null":
            reviewed.add(sample.key)
    if only is not None:
        wanted = set(only)
        annotated = {key: shard for key, shard in annotated.items() if key in wanted}
    return annotated, reviewed


class _Oracle:
    """Works on images, or takes what a person made of them."""

    def __init__(
        self,
        segmenter: Segmenter | None,
        known: KnownTruth,
        settings: LoopSettings,
        who: str,
        note: str,
        embeddings: KeptEmbeddings | None,
    ) -> None:
        self._segmenter = SharedEmbeddings(segmenter) if segmenter is not None else None
        self.known, self._settings = known, settings
        self._who, self._note, self._kept = who, note, embeddings

    @property
    def is_given(self) -> bool:
        """Whether a person's own masks are taken as they are."""
        return self._settings.review_mode == GIVEN

    def review(
        self, store: ObjectStore, generation: Generation, sample: JoinedSample, created_utc: str
    ) -> str:
        """Works on a picture that the truth has, and keeps the save; gives one of `OUTCOMES`."""
        masks = json.loads(sample.files[MASKS]["json"])
        info = masks["image"]
        image_id, left_out = self.known.image_of(sample.key), self.known.index.left_out
        assert image_id is not None
        bad_before = left_out.num
        truth = truth_of(self.known.index, image_id, self._pixels(sample, info))
        ignore = encode_mask(truth.crowd_HW).to_coco() if truth.crowd_HW is not None else None
        complete = left_out.num == bad_before

        if self.is_given:
            work = self._work(self._as_given(truth), complete, ignore)
            old = json.loads(sample.files.get(REVIEW, {}).get("json", b"null"))
            return take_whole(
                store,
                sample.key,
                work,
                image=info,
                generation=generation.number,
                reviewed=old,
                created_utc=created_utc,
            )

        semi = self._settings.review_mode == SEMI
        start = begin(store, sample.key, record=masks, generation=generation.number, blank=not semi)
        kept = [MaskWork(how=KEPT, sources=(int(row["id"]),)) for row in start.rows]
        wanted = missing_from(truth, [Rle.from_coco(row["segmentation"]) for row in start.rows])
        work = self._work(kept + self._clicked(wanted if semi else truth), complete, ignore)
        return BESIDE if keep(store, start, work, created_utc=created_utc).is_beside else "new"

    def _pixels(self, sample: JoinedSample, info: Mapping[str, Any]) -> NDArray[np.uint8]:
        """The picture; black where masks are given."""
        if self.is_given:
            return np.zeros((int(info["height"]), int(info["width"]), 3), np.uint8)
        image = stored_image(Sample(sample.key, sample.files[IMAGES]))
        size = int(info["width"]), int(info["height"])
        pixels_HWC = decode_image(upright_jpeg(image.jpeg, *size, image.source))
        embedding = self._kept.get(sample.key) if self._kept is not None else None
        if embedding is not None and self._segmenter is not None:
            self._segmenter.hold(())
            self._segmenter.keep(pixels_HWC, embedding)
        return pixels_HWC

    def _work(self, masks: Sequence[MaskWork], finished: bool, ignore: Mapping[str, Any] | None) -> Work:
        return Work(
            who=self._who,
            tool=self._settings.review_mode,
            made_by=PERSON if self.is_given else ORACLE,
            masks=masks,
            clicks=sum(mask.clicks for mask in masks),
            finished=finished,
            ignore=ignore,
            note=self._note,
        )

    def _as_given(self, truth: Truth) -> list[MaskWork]:
        """A person's masks, one for each true mask, in order."""
        points = [centre_point(mask) for mask in truth.masks_NHW]
        done = [
            Corrected(encode_mask(mask), 0, 1.0, True, (float(x), float(y)))
            for mask, (x, y) in zip(truth.masks_NHW, points, strict=True)
        ]
        return self._masks(done, truth)

    def _clicked(self, truth: Truth) -> list[MaskWork]:
        """By the oracle's clicks, one for each true mask of which any pixel came, in order."""
        settings = self._settings
        assert self._segmenter is not None
        done = correct(
            self._segmenter,
            truth,
            wanted_iou=settings.wanted_iou,
            most_clicks=settings.most_clicks,
            draw_rest=settings.draw_rest,
        )
        return self._masks(done, truth)

    def _masks(self, done: Sequence[Corrected], truth: Truth) -> list[MaskWork]:
        names = self.known.index.names
        return [
            MaskWork(
                how=ADDED,
                segmentation=one.mask.to_coco(),
                label=names.get(category),
                clicks=one.clicks,
                drawn=one.drawn,
                points_xy=(one.point_xy,),
                facts={"clicked_iou": one.iou},
            )
            for one, category in zip(done, truth.categories(), strict=True)
            if area_px(one.mask)
        ]
