"""The labels column: pipeline/words/ground.py over the pictures, their grid masks and their captions.

Its index has a row for each mask that boxes brought, as the masks column has for the grid's; they pass the
same filters, unless `labels` has other ones. Filters that are 0 stay out of the fingerprint: so labels that
were made before there were any keep theirs where a run has none either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.segmenters import weights_identity
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings, output_settings
from maskmill.pipeline.settings.words import LABELS_REVISION, CaptionSettings, LabelSettings
from maskmill.pipeline.weights.weights import identity
from maskmill.pipeline.words.vocabulary import load_vocabulary
from maskmill.storage.shards.index import MASK_INDEX
from maskmill.workers.run.columns import (
    MASKS,
    Column,
    ColumnFacts,
    Join,
    Record,
    Sections,
    named_models,
    with_pinned,
)
from maskmill.workers.stages.base import EncodedSample, Picture, Stage, StageResult, encode_record
from maskmill.workers.stages.captions import CAPTIONS
from maskmill.workers.stages.embeddings import embedding_reads, reading
from maskmill.workers.stages.masks.records import mask_rows
from maskmill.workers.stages.word_stage import WordStage

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.pipeline.words.ground import Grounder, GroundInput, ImageLabels
    from maskmill.workers.stages.base import Bench

LABELS = "labels"
FILTERS = ("predicted_iou", "stability", "min_area_px")


class LabelStage(WordStage["Grounder"]):
    """See `Stage`.

    Args:
        settings: what is looked for.
        load: gives what finds it; called once.
        fingerprint, models: of the column version.
    """

    column = LABELS
    index = MASK_INDEX

    def __init__(
        self,
        settings: LabelSettings,
        load: Callable[[], Grounder],
        *,
        fingerprint: str,
        models: Mapping[str, str],
    ) -> None:
        super().__init__(load, fingerprint=fingerprint, models=models)
        self.reads = label_reads(settings)

    def from_record(self, record: Any) -> ImageLabels:
        """See `WordStage.from_record`."""
        from maskmill.pipeline.words.ground import labels_from_record  # imports torch

        return labels_from_record(record)

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        found = self.model([self._input(picture) for picture in pictures])
        return [
            StageResult(partial(encode_labels, picture, labels), labels.seconds_by_step, labels)
            for picture, labels in zip(pictures, found, strict=True)
        ]

    def _input(self, picture: Picture) -> GroundInput:
        from maskmill.pipeline.words.caption import ImageCaptions
        from maskmill.pipeline.words.ground import GroundInput  # imports torch

        masks, captions = picture.given[MASKS], picture.given.get(CAPTIONS)
        assert isinstance(masks, AnnotatedImage)
        if CAPTIONS not in self.reads:
            return GroundInput(picture.pixels_HWC, masks)
        assert isinstance(captions, ImageCaptions)
        return GroundInput(picture.pixels_HWC, masks, captions.whole.caption)


def encode_labels(picture: Picture, labels: ImageLabels) -> EncodedSample:
    """The record of a picture's labels."""
    from maskmill.pipeline.words.ground import labels_to_record  # imports torch

    record = labels_to_record(labels, image_id=picture.image_id, file_name=f"{picture.key}.jpg")
    return dataclasses.replace(encode_record(picture.key, record), rows=mask_rows(picture, record))


def looked_for(labels: LabelSettings) -> tuple[str, ...]:
    """The phrases of the labels' vocabulary, none where captions alone are grounded.

    Raises:
        ValueError: the vocabulary has no phrases, or is not there.
    """
    if labels.text == "captions" or labels.vocabulary is None:
        return ()
    return load_vocabulary(labels.vocabulary)


def label_reads(labels: LabelSettings) -> tuple[str, ...]:
    """What labels are made from beside images: grid masks to link to, and captions to look for."""
    return (MASKS,) if labels.text == "vocabulary" else (MASKS, CAPTIONS)


def _resolved(settings: Sections) -> dict[str, Any]:
    """With the phrases themselves, workers elsewhere have no such file, and with the filters in force."""
    labels, masks = with_pinned(settings.of(LabelSettings), "model"), settings.of(MaskSettings)
    filters = {
        name: own if (own := getattr(labels, name)) is not None else getattr(masks, name) for name in FILTERS
    }
    return {"labels": dataclasses.replace(labels, vocabulary=looked_for(labels) or None, **filters)}


def _check(settings: Sections) -> None:
    labels = settings.of(LabelSettings)
    if CAPTIONS in label_reads(labels) and settings.of(CaptionSettings).model is None:
        raise ValueError(
            f"labels.text={labels.text!r} looks for the captions' phrases, but captions are off: name "
            'captions.model, or use labels.text="vocabulary"'
        )


def _facts(settings: Sections) -> ColumnFacts:
    labels, segmenter = settings.of(LabelSettings), settings.of(SegmenterSettings)
    assert labels.model is not None, "labels that are off have no facts"
    return ColumnFacts(
        settings={
            **output_settings(labels),
            **{name: value for name in FILTERS if (value := getattr(labels, name))},
            "phrases": list(looked_for(labels)),
            "segmenter": output_settings(segmenter),
        },
        revision=LABELS_REVISION,
        reads=(*label_reads(labels), *embedding_reads(settings)),
        models={
            "detector": identity(labels.model, role="detector"),
            "segmenter": weights_identity(segmenter),
        },
    )


def _stage(bench: Bench) -> Stage:
    labels = bench.settings.of(LabelSettings)
    sources = {"detector": labels.model, "segmenter": bench.settings.of(SegmenterSettings).model}
    stage = LabelStage(
        labels,
        partial(_grounder, labels, bench.segmenter),
        fingerprint=bench.fingerprint,
        models=named_models(sources, _facts(bench.settings)),
    )
    return reading(stage, bench.settings)


def _grounder(settings: LabelSettings, segmenter: Segmenter) -> Grounder:
    from maskmill.pipeline.words.detectors import load_detector  # imports torch
    from maskmill.pipeline.words.ground import Grounder
    from maskmill.workers.stages.guarded import GuardedDetector

    _ = segmenter.image_size  # loads it now
    return Grounder(GuardedDetector(load_detector(settings)), segmenter, looked_for(settings), settings)


def _put(info: Record, by_id: Mapping[int, Record], labels: Mapping[str, Any]) -> None:
    """A label to its mask, best first; labels without a mask to the image, as boxes."""
    for row in by_id.values():
        row["labels"] = []

    boxes = []
    for label in labels["labels"]:  # best first
        told = {name: label[name] for name in ("label", "phrase", "score", "box")}
        if label["mask"] is None:
            boxes.append(told)
        else:
            by_id[label["mask"]]["labels"].append(told)
    if boxes:
        info["boxes"] = boxes


def _brings(labels: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Masks of boxes that fit none of the grid's."""
    found: Sequence[Mapping[str, Any]] = labels["annotations"]
    return found


COLUMN = Column(
    name=LABELS,
    sections={"labels": LabelSettings},
    is_made=lambda settings: settings.of(LabelSettings).model is not None,
    resolved=_resolved,
    check=_check,
    facts=_facts,
    stage=_stage,
    join=Join(
        put=_put, image_fields=("boxes",), mask_fields=("labels",), brings=_brings, word=("labels", "label")
    ),
)
