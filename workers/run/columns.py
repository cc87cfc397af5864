"""Which columns a run makes, in what order, and what each one's fingerprint is made of.

    images -> candidates (where they are kept) -> masks -> captions -> labels -> names

A column is made from `images` and from the columns it names in `reads`; a fingerprint covers those of all
that it reads, so a change goes on to what was derived and to nothing else. `masks` come from the grid, or
from given boxes where a run has them. Drivers read this: no torch.

To add a column: its name in `COLUMNS`, its facts here and in `make_spec` (spec.py), its stage in
`build_stages` (workers/stages/build.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maskmill.pipeline.settings import MASKS_REVISION, output_settings
from maskmill.pipeline.settings.words import (
    BOXES_REVISION,
    CAPTIONS_REVISION,
    LABELS_REVISION,
    NAMES_REVISION,
    BoxSettings,
    CaptionSettings,
    LabelSettings,
    NameSettings,
)
from maskmill.storage.dataset.columns import fingerprint
from maskmill.workers.run.ingest_settings import INGEST_REVISION, IngestSettings

if TYPE_CHECKING:
    from maskmill.pipeline.settings import MaskSettings, SegmenterSettings

IMAGES = "images"
CANDIDATES = "candidates"
MASKS = "masks"
CAPTIONS = "captions"
LABELS = "labels"
NAMES = "names"

COLUMNS = (IMAGES, CANDIDATES, MASKS, CAPTIONS, LABELS, NAMES)
"""In the order they are made."""

SELECTING = (
    "predicted_iou",
    "stability",
    "box_nms",
    "crop_nms",
    "min_area_px",
    "max_coverage",
    "drop_small",
)
"""Settings of [masks] that select from candidates; the others make them."""


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """What decides a column's content.

    Attributes:
        settings: those that change it; JSON values.
        revision: of its stage's code.
        reads: columns it is made from, beside `images`.
        models: sha256 of each model's weights, by role.
    """

    settings: Mapping[str, object]
    revision: int
    reads: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)


def fingerprints(facts: Mapping[str, ColumnFacts]) -> dict[str, str]:
    """The fingerprint of each column.

    Args:
        facts: by column; those that a column reads come before it.
    """
    digits: dict[str, str] = {}
    for column, fact in facts.items():
        reads = () if column == IMAGES else (IMAGES, *fact.reads)
        digits[column] = fingerprint(
            fact.settings,
            weights=weights_digits(fact.models),
            revision=fact.revision,
            inputs={name: digits[name] for name in reads},
        )
    return digits


def weights_digits(models: Mapping[str, str]) -> str | None:
    """One model's sha256 as it is; of several, each with its role."""
    if len(models) == 1:
        return next(iter(models.values()))
    return ",".join(f"{role}:{sha256}" for role, sha256 in sorted(models.items())) or None


def image_facts(ingest: IngestSettings) -> ColumnFacts:
    """Of `images`."""
    return ColumnFacts(settings=dataclasses.asdict(ingest), revision=INGEST_REVISION)


def mask_facts(masks: MaskSettings, segmenter: SegmenterSettings) -> ColumnFacts:
    """Of `masks` from the grid. Raises WeightsError."""
    from maskmill.pipeline.segmenters import weights_identity

    return ColumnFacts(
        settings={**output_settings(masks), **output_settings(segmenter)},
        revision=MASKS_REVISION,
        models={"segmenter": weights_identity(segmenter)},
    )


def box_facts(boxes: BoxSettings, segmenter: SegmenterSettings) -> ColumnFacts:
    """Of `masks` from given boxes. Raises WeightsError, maskmill.storage.errors.InputError."""
    from maskmill.pipeline.segmenters import weights_identity
    from maskmill.workers.foreign.boxes import sha256_of

    assert boxes.file is not None, "without a file masks come from the grid"
    return ColumnFacts(
        settings={**output_settings(boxes), "file": sha256_of(boxes.file), **output_settings(segmenter)},
        revision=BOXES_REVISION,
        models={"segmenter": weights_identity(segmenter)},
    )


def segmenter_name(segmenter: SegmenterSettings) -> str:
    """A segmenter as records name it: model and sha256 of its weights. Raises WeightsError."""
    from maskmill.pipeline.segmenters import weights_identity

    return f"{segmenter.model} sha256:{weights_identity(segmenter)}"


def candidate_facts(masks: MaskSettings, segmenter: SegmenterSettings) -> ColumnFacts:
    """Of `candidates`: what thresholds, NMS, coverage and clean-up select from. Raises WeightsError."""
    facts = mask_facts(masks, segmenter)
    made_by = {name: value for name, value in facts.settings.items() if name not in SELECTING}
    floors = {"candidate_iou": masks.candidate_iou, "candidate_stability": masks.candidate_stability}
    return dataclasses.replace(facts, settings={**made_by, **floors})


def caption_facts(captions: CaptionSettings) -> ColumnFacts:
    """Of `captions`. Raises WeightsError."""
    from maskmill.pipeline.weights.weights import identity

    roles = {"captioner": captions.model, "filter": captions.filter}
    return ColumnFacts(
        settings=output_settings(captions),
        revision=CAPTIONS_REVISION,
        reads=caption_reads(captions),
        models={role: identity(model, role=role) for role, model in roles.items() if model is not None},
    )


def caption_reads(captions: CaptionSettings) -> tuple[str, ...]:
    """What captions are made from beside images: masks, where their crops are captioned too."""
    return () if captions.min_crop_share is None else (MASKS,)


def label_facts(labels: LabelSettings, segmenter: SegmenterSettings) -> ColumnFacts:
    """Of `labels`. Raises WeightsError, and ValueError for a vocabulary without phrases."""
    from maskmill.pipeline.segmenters import weights_identity
    from maskmill.pipeline.weights.weights import identity

    assert labels.model is not None, "labels that are off have no facts"
    return ColumnFacts(
        settings={
            **output_settings(labels),
            "phrases": list(looked_for(labels)),
            "segmenter": output_settings(segmenter),
        },
        revision=LABELS_REVISION,
        reads=label_reads(labels),
        models={
            "detector": identity(labels.model, role="detector"),
            "segmenter": weights_identity(segmenter),
        },
    )


def looked_for(labels: LabelSettings) -> tuple[str, ...]:
    """The phrases of the labels' vocabulary, none where captions alone are grounded. Raises ValueError."""
    from maskmill.pipeline.words.vocabulary import load_vocabulary

    if labels.text == "captions" or labels.vocabulary is None:
        return ()
    return load_vocabulary(labels.vocabulary)


def label_reads(labels: LabelSettings) -> tuple[str, ...]:
    """What labels are made from beside images: grid masks to link to, and captions to look for."""
    return (MASKS,) if labels.text == "vocabulary" else (MASKS, CAPTIONS)


def name_facts(names: NameSettings) -> ColumnFacts:
    """Of `names`. Raises WeightsError, and ValueError for a vocabulary without words."""
    from maskmill.pipeline.weights.weights import identity
    from maskmill.pipeline.words.vocabulary import load_vocabulary

    assert names.model is not None, "names that are off have no facts"
    return ColumnFacts(
        settings={**output_settings(names), "words": list(load_vocabulary(names.vocabulary))},
        revision=NAMES_REVISION,
        reads=(MASKS,),
        models={"namer": identity(names.model, role="namer")},
    )
