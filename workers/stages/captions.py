"""The captions column: pipeline/words/caption.py over pictures, and over the crops of large masks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.settings import output_settings
from maskmill.pipeline.settings.words import CAPTIONS_REVISION, CaptionSettings
from maskmill.pipeline.weights.weights import identity
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
from maskmill.workers.stages.word_stage import WordStage

if TYPE_CHECKING:
    from maskmill.pipeline.words.caption import BoxXyxy, CapFilt, ImageCaptions, Subject
    from maskmill.workers.stages.base import Bench

CAPTIONS = "captions"


class CaptionStage(WordStage["CapFilt"]):
    """See `Stage`.

    Args:
        settings: which crops are captioned.
        load: gives what captions; called once.
        fingerprint, models: of the column version.
    """

    column = CAPTIONS

    def __init__(
        self,
        settings: CaptionSettings,
        load: Callable[[], CapFilt],
        *,
        fingerprint: str,
        models: Mapping[str, str],
    ) -> None:
        super().__init__(load, fingerprint=fingerprint, models=models)
        self._settings = settings
        self.reads = caption_reads(settings)

    def from_record(self, record: Any) -> ImageCaptions:
        """See `WordStage.from_record`."""
        from maskmill.pipeline.words.caption import captions_from_record  # imports numpy

        return captions_from_record(record)

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        began = time.perf_counter()

        # All pictures and all their crops in one batch
        crops = [self._crops(picture) for picture in pictures]
        subjects = [
            subject
            for picture, picture_crops in zip(pictures, crops, strict=True)
            for subject in _subjects(picture, picture_crops)
        ]
        texts = iter(self.model(subjects))

        # Captions back to their pictures
        outputs = [
            _captions_of(picture, picture_crops, texts)
            for picture, picture_crops in zip(pictures, crops, strict=True)
        ]
        share_s = (time.perf_counter() - began) / len(pictures) if pictures else 0.0
        return [
            StageResult(partial(encode_captions, picture, output), {"model": share_s}, output)
            for picture, output in zip(pictures, outputs, strict=True)
        ]

    def _crops(self, picture: Picture) -> list[tuple[int, BoxXyxy]]:
        from maskmill.pipeline.words.caption import large_masks  # imports numpy

        if self._settings.min_crop_share is None:
            return []
        masks = picture.given[MASKS]
        assert isinstance(masks, AnnotatedImage)
        return large_masks(masks, min_share=self._settings.min_crop_share, max_masks=self._settings.max_crops)


def _subjects(picture: Picture, crops: Sequence[tuple[int, BoxXyxy]]) -> list[Subject]:
    from maskmill.pipeline.words.caption import Subject  # imports numpy

    whole = Subject(picture.key, picture.pixels_HWC, picture.caption)
    return [
        whole,
        *(
            Subject(f"{picture.key}/{place}", picture.pixels_HWC[top:bottom, left:right])
            for place, (left, top, right, bottom) in crops
        ),
    ]


def _captions_of(picture: Picture, crops: Sequence[tuple[int, BoxXyxy]], texts: Any) -> ImageCaptions:
    """A picture's captions, taken from those of the batch: the whole's, then its crops'."""
    from maskmill.pipeline.words.caption import CropCaptions, ImageCaptions  # imports numpy

    height, width = picture.pixels_HWC.shape[:2]
    whole, *of_crops = islice(texts, 1 + len(crops))
    found = tuple(CropCaptions(place, box, text) for (place, box), text in zip(crops, of_crops, strict=True))
    return ImageCaptions(width, height, whole, found)


def encode_captions(picture: Picture, captions: ImageCaptions) -> EncodedSample:
    """The record of a picture's captions."""
    from maskmill.pipeline.words.caption import captions_to_record  # imports numpy

    record = captions_to_record(captions, image_id=picture.image_id, file_name=f"{picture.key}.jpg")
    return encode_record(picture.key, record)


def caption_reads(captions: CaptionSettings) -> tuple[str, ...]:
    """What captions are made from beside images: masks, where their crops are captioned too."""
    return () if captions.min_crop_share is None else (MASKS,)


def _facts(settings: Sections) -> ColumnFacts:
    captions = settings.of(CaptionSettings)
    roles = {"captioner": captions.model, "filter": captions.filter}
    return ColumnFacts(
        settings=output_settings(captions),
        revision=CAPTIONS_REVISION,
        reads=caption_reads(captions),
        models={role: identity(model, role=role) for role, model in roles.items() if model is not None},
    )


def _stage(bench: Bench) -> Stage:
    captions = bench.settings.of(CaptionSettings)
    sources = {"captioner": captions.model, "filter": captions.filter}
    return CaptionStage(
        captions,
        partial(_capfilt, captions),
        fingerprint=bench.fingerprint,
        models=named_models(sources, _facts(bench.settings)),
    )


def _capfilt(settings: CaptionSettings) -> CapFilt:
    from maskmill.pipeline.words.caption import CapFilt
    from maskmill.pipeline.words.captioners import load_captioner  # imports torch
    from maskmill.workers.stages.guarded import GuardedCaptioner, GuardedFilter

    captioner, text_filter = load_captioner(settings)
    guarded = GuardedFilter(text_filter) if text_filter is not None else None
    return CapFilt(GuardedCaptioner(captioner), guarded, settings)


def _put(info: Record, by_id: Mapping[int, Record], captions: Mapping[str, Any]) -> None:
    """The best text and all texts to the image, a crop's text to its mask."""
    info["captions"] = captions["texts"]
    if captions["caption"] is not None:
        info["caption"] = captions["caption"]
    for crop in captions["crops"]:
        if crop["caption"] is not None:
            by_id[crop["mask"]]["caption"] = crop["caption"]


COLUMN = Column(
    name=CAPTIONS,
    sections={"captions": CaptionSettings},
    is_made=lambda settings: settings.of(CaptionSettings).model is not None,
    resolved=lambda settings: {"captions": with_pinned(settings.of(CaptionSettings), "model", "filter")},
    facts=_facts,
    stage=_stage,
    join=Join(put=_put, image_fields=("caption", "captions"), mask_fields=("caption",)),
)
