"""How good a generation's masks are, and how much two generations agree.

An audit holds sampled masks against corrected ones: ground truth, or what people made of the picture (the
`review` column). Of a review only those count that a person, or an oracle, drew or confirmed singly; masks
that meet an automatic one which was merely kept are judged by nobody: left out, and counted. A mask's partner
is the corrected mask of highest IoU; the share above 0.9 and 0.75 IoU is put on the generation's card. A mask
that ground truth merely leaves out counts as wrong, so with incomplete truth the shares are lower bounds;
`found` looks the other way, from truth to masks.

Source: Kirillov et al., Segment Anything (2023), section 5: 94 % of masks above 0.9, 97 % above 0.75.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from maskmill.pipeline.annotation import from_sa1b
from maskmill.pipeline.evaluate.agreement import best_partners, share_above
from maskmill.pipeline.evaluate.panoptic import panoptic_quality
from maskmill.pipeline.rle import Rle, encode_mask
from maskmill.storage.dataset.join import join
from maskmill.storage.errors import DatasetError, InputError
from maskmill.workers.foreign.known_truth import KnownTruth, known_truth
from maskmill.workers.foreign.truth import TruthSet
from maskmill.workers.reading.samples import AnnotatedSample, read_annotated
from maskmill.workers.reading.survey import mask_rows, spread
from maskmill.workers.reviews.rows import is_hand_made
from maskmill.workers.run.columns import IMAGES, MASKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore

REVIEW = "review"
FOLDER = "audits"
MET_IOU = 0.5


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        generation: audited.
        against: "truth" or "review".
        images, masks: sampled.
        above_90, above_75: share of the masks whose best partner has a higher IoU.
        mean_iou: of masks with their partners.
        found_50: share of the corrected masks that some mask meets with an IoU above 0.5.
        pq, sq, rq: panoptic quality, of the masks as one map of segments, and its two factors: how well
            matched segments fit, how many are.
        unjudged: masks that nobody drew or confirmed; in no share. 0 against truth.
        matched, ambiguous, not_in_dataset: images that the truth names, by whether the dataset has them:
            once, nobody can say which, not at all. 0 against reviews.
        left_out: reason -> annotations of the truth that are no true masks.
    """

    generation: int
    against: str
    images: int
    masks: int
    above_90: float
    above_75: float
    mean_iou: float
    found_50: float
    pq: float = 0.0
    sq: float = 0.0
    rq: float = 0.0
    unjudged: int = 0
    matched: int = 0
    ambiguous: int = 0
    not_in_dataset: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How much two generations say the same, over the images both annotated.

    Attributes:
        first, second: generations.
        images: compared.
        masks_first, masks_second: in them.
        mean_iou: of each mask with its best partner in the other generation, both ways.
        above_50, above_75, above_90: share of masks, of both, with a partner of higher IoU.
    """

    first: int
    second: int
    images: int
    masks_first: int
    masks_second: int
    mean_iou: float
    above_50: float
    above_75: float
    above_90: float


def audit(
    store: ObjectStore,
    generation: Generation,
    truth: TruthSet | None = None,
    *,
    max_images: int = 500,
    seed: int = 0,
    only: Collection[str] | None = None,
) -> Audit:
    """Audits a generation against ground truth, or against its review column.

    Args:
        store: the dataset.
        generation: of it.
        truth: annotations whose file names are the dataset's sources' (see foreign/matching.py); None takes
            the review column.
        max_images: drawn by the seed among those with corrected masks.
        only: keys that images are drawn from; None for all. People who review the hardest first make an audit
            of their reviews too dark: give it pictures that were drawn at random.

    Raises:
        DatasetError: the generation has no masks.
        InputError: no image of the generation has corrected masks, or none of its masks was judged.
    """
    known = known_truth(store, truth) if truth else None
    mask_rows(store, generation)

    # Images that both have
    found = _reviewed(store, generation) if known is None else _annotated(store, generation, known)
    pairs = [held for key, held in found if only is None or key in only]
    if not pairs:
        where = "the review column" if known is None else f"{known.index.source.coco}: {known.explain()}"
        raise InputError(
            f"{store.root}: no annotated image of generation {generation.number}"
            f"{'' if only is None else ', of those asked for,'} has masks in {where}"
        )

    # Each mask's best partner in the other
    drawn = [pairs[i] for i in spread(len(pairs), max_images, seed)]
    partners = [best_partners(one.ours, one.theirs) for one in drawn]
    ours = np.concatenate([of[one.judged_N] for one, (of, _) in zip(drawn, partners, strict=True)])
    theirs = np.concatenate([one for _, one in partners])
    panoptic = panoptic_quality((_judged(one), one.theirs) for one in drawn)
    unjudged = sum(int((~one.judged_N).sum()) for one in drawn)
    if unjudged and not len(ours):
        raise InputError(
            f"{store.root}: the {len(drawn)} reviews of generation {generation.number} keep automatic masks "
            "that nobody confirmed: held against themselves they would all be right. Confirm masks one by "
            "one, draw them, or audit against --coco"
        )

    return Audit(
        generation=generation.number,
        against="truth" if truth else REVIEW,
        images=len(drawn),
        masks=len(ours),
        above_90=_number(share_above(ours, 0.9)),
        above_75=_number(share_above(ours, 0.75)),
        mean_iou=float(ours.mean()) if len(ours) else 0.0,
        found_50=_number(share_above(theirs, 0.5)),
        pq=_number(panoptic.pq),
        sq=_number(panoptic.sq),
        rq=_number(panoptic.rq),
        unjudged=unjudged,
        **(known.facts() if known is not None else {}),
    )


def _judged(pair: _Held) -> list[Rle]:
    """Our masks of an image that count: somebody said something of them, or truth does."""
    return [mask for mask, judged in zip(pair.ours, pair.judged_N, strict=True) if judged]


def put_on_card(store: ObjectStore, found: Audit, *, created_utc: str) -> str:
    """Keeps an audit with its generation, put-if-absent under the next number; gives the object's name."""
    facts = {**asdict(found), "created_utc": created_utc}
    prefix = f"generations/{found.generation:06d}/{FOLDER}/"
    number = sum(1 for _ in store.list(prefix)) + 1
    data = (json.dumps(facts, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()
    while not store.put_if_absent(f"{prefix}{number:06d}.json", data):
        number += 1
    return f"{prefix}{number:06d}.json"


def audits(store: ObjectStore, generation: int) -> list[dict[str, Any]]:
    """The audits on a generation's card, oldest first."""
    prefix = f"generations/{generation:06d}/{FOLDER}/"
    return [json.loads(store.read(info.name)) for info in store.list(prefix)]


def agreement(store: ObjectStore, first: Generation, second: Generation) -> Agreement:
    """Compares two generations image by image.

    Raises:
        DatasetError: they share no annotated image.
    """
    others = {sample.key: _masks_of(sample) for sample in read_annotated(store, second, pictures=False)}
    images = masks_first = masks_second = 0
    ious = [np.zeros(0)]

    # Each mask's best partner in the other
    for sample in read_annotated(store, first, pictures=False):
        if sample.key in others:
            ours, theirs = _masks_of(sample), others[sample.key]
            ious += best_partners(ours, theirs)
            images, masks_first, masks_second = (
                images + 1,
                masks_first + len(ours),
                masks_second + len(theirs),
            )

    if not images:
        raise DatasetError(
            f"{store.root}: generations {first.number} and {second.number} share no annotated image"
        )

    both = np.concatenate(ious)
    return Agreement(
        first=first.number,
        second=second.number,
        images=images,
        masks_first=masks_first,
        masks_second=masks_second,
        mean_iou=float(both.mean()) if len(both) else 1.0,
        above_50=_number(share_above(both, 0.5)),
        above_75=_number(share_above(both, 0.75)),
        above_90=_number(share_above(both, 0.9)),
    )


@dataclass(frozen=True, eq=False)
class _Held:
    """Masks of an image, whether each is judged, and those that they are held against."""

    ours: list[Rle]
    judged_N: NDArray[np.bool_]
    theirs: list[Rle]


def _reviewed(store: ObjectStore, generation: Generation) -> Iterator[tuple[str, _Held]]:
    """Masks and people's masks of each image that has both, by key."""
    for sample in join(store, generation, (IMAGES, MASKS, REVIEW)):
        if REVIEW in sample.files and MASKS in sample.files:
            record, reviewed = (json.loads(sample.files[name]["json"]) for name in (MASKS, REVIEW))
            if reviewed is not None:
                yield sample.key, _against_review(_of_record(record), reviewed)


def _against_review(ours: list[Rle], reviewed: dict[str, Any]) -> _Held:
    """Which masks a review judges: all but those that meet one which was kept, and no better one."""
    by_hand = [is_hand_made(row) for row in reviewed["annotations"]]
    masks = _of_record(reviewed)
    theirs = [mask for mask, hand in zip(masks, by_hand, strict=True) if hand]
    kept = [mask for mask, hand in zip(masks, by_hand, strict=True) if not hand]
    if not kept:
        return _Held(ours, np.ones(len(ours), np.bool_), theirs)
    met_N, better_N = best_partners(ours, kept)[0], best_partners(ours, theirs)[0]
    return _Held(ours, (met_N <= MET_IOU) | (better_N > met_N), theirs)


def _annotated(store: ObjectStore, generation: Generation, known: KnownTruth) -> Iterator[tuple[str, _Held]]:
    """Masks and true masks of each image that has both, by key."""
    for annotated in read_annotated(store, generation, pictures=False):
        image_id = known.image_of(annotated.key)
        if image_id is not None:
            info = annotated.record["image"]
            truth = known.truth_of(image_id, height=int(info["height"]), width=int(info["width"]))
            ours = _masks_of(annotated)
            theirs = [encode_mask(mask) for mask in truth.masks_NHW]
            yield annotated.key, _Held(ours, np.ones(len(ours), np.bool_), theirs)


def _masks_of(sample: AnnotatedSample) -> list[Rle]:
    return _of_record(sample.record)


def _of_record(record: dict[str, Any]) -> list[Rle]:
    return [one.segmentation for one in from_sa1b(record).annotations]


def _number(value: float) -> float:
    """JSON has no NaN: a share of nothing is 0."""
    return 0.0 if np.isnan(value) else value
