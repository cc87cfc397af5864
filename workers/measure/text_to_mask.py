"""Text to mask: a generation's labels held against ground truth whose kinds have names.

A label whose name is a kind's (whatever its case) answers for that kind with its mask and score; others are
counted and set aside. AP is COCO's, over the images that have labels; `text_miou` is the mean, over images
and kinds that are there, of the IoU of all masks of that name together with all true masks of that kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from maskmill.pipeline.evaluate.coco import MaskLedger
from maskmill.pipeline.rle import Rle, decode
from maskmill.storage.dataset.join import join
from maskmill.storage.errors import InputError
from maskmill.workers.foreign.known_truth import known_truth
from maskmill.workers.foreign.truth import TruthSet
from maskmill.workers.reading.words import with_words
from maskmill.workers.run.columns import MASKS
from maskmill.workers.stages.labels import LABELS

if TYPE_CHECKING:
    from maskmill.pipeline.evaluate.truth import Truth
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore


@dataclass(frozen=True, kw_only=True)
class TextFigures:
    """How well words find masks.

    Attributes:
        generation: looked at.
        images: with labels and truth.
        labels: with a mask and a kind's name; `other_labels` name no kind.
        text_miou: 0 to 1.
        ap, ap_50: COCO's, of masks.
        matched, ambiguous, not_in_dataset, left_out: see `Audit`.
    """

    generation: int
    images: int
    labels: int
    other_labels: int
    text_miou: float
    ap: float
    ap_50: float
    matched: int = 0
    ambiguous: int = 0
    not_in_dataset: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


def text_to_mask(store: ObjectStore, generation: Generation, source: TruthSet) -> TextFigures:
    """Measures a generation's labels.

    Raises:
        InputError: truth that cannot be used, is of no picture of the dataset or has no names of kinds, or
            no image with labels and truth.
    """
    known = known_truth(store, source)
    kinds = {name.lower(): kind for kind, name in known.index.names.items()}
    if not kinds:
        raise InputError(f"{source.coco}: its categories have no names; text has nothing to be held against")

    # Every labelled image that truth knows
    ledger, ious, counts = MaskLedger(), list[float](), [0, 0, 0]
    for sample in join(store, generation, (MASKS, LABELS)):
        image_id = known.image_of(sample.key)
        if LABELS not in sample.files or MASKS not in sample.files or image_id is None:
            continue
        masks, labels = (json.loads(sample.files[name]["json"]) for name in (MASKS, LABELS))
        info = masks["image"]
        truth = known.truth_of(image_id, height=int(info["height"]), width=int(info["width"]))
        found = _answers(with_words(masks, {LABELS: labels}), kinds)
        ledger.add(truth, [one[0] for one in found], [one[1] for one in found], [one[2] for one in found])
        ious += _union_ious(truth, found)
        counts = [counts[0] + 1, counts[1] + len(found), counts[2] + len(labels["labels"]) - len(found)]

    if not counts[0]:
        raise InputError(
            f"{store.root}: no image of generation {generation.number} has labels, and truth in "
            f"{source.coco}: label it first ([labels]); {known.explain()}"
        )

    precision = ledger.average_precision()
    return TextFigures(
        generation=generation.number,
        images=counts[0],
        labels=counts[1],
        other_labels=counts[2],
        text_miou=float(np.mean(ious)) if ious else 0.0,
        ap=precision["ap"],
        ap_50=precision["ap_50"],
        **known.facts(),
    )


def _answers(record: dict[str, Any], kinds: dict[str, int]) -> list[tuple[Rle, float, int]]:
    """Mask, score and kind of each label that names a kind and has a mask."""
    return [
        (Rle.from_coco(row["segmentation"]), float(label["score"]), kinds[label["label"].lower()])
        for row in record["annotations"]
        for label in row.get("labels", ())
        if label["label"].lower() in kinds
    ]


def _union_ious(truth: Truth, found: list[tuple[Rle, float, int]]) -> list[float]:
    """IoU of all answers of a kind with all its true masks, for each kind that is there."""
    ious = []
    for kind in sorted(set(truth.categories())):
        rows = [i for i, one in enumerate(truth.categories()) if one == kind]
        wanted = truth.masks_NHW[rows].any(axis=0)
        given = np.zeros_like(wanted)
        for rle, _, answered in found:
            if answered == kind:
                given |= decode(rle)
        ious.append(float((wanted & given).sum() / max(1, (wanted | given).sum())))
    return ious
