"""The captions column: pipeline/words/caption.py over pictures, and over the crops of large masks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.words.caption import (
    CropCaptions,
    ImageCaptions,
    Subject,
    captions_from_record,
    captions_to_record,
    large_masks,
)
from maskmill.storage.shards.shards import Sample
from maskmill.workers.run.columns import CAPTIONS, MASKS, caption_reads
from maskmill.workers.stages.build import EncodedSample, Picture, StageResult

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import CaptionSettings
    from maskmill.pipeline.words.caption import BoxXyxy, CapFilt


class CaptionStage:
    """See `maskmill.workers.stages.build.Stage`.

    Args:
        settings: which crops are captioned.
        load: gives what captions; called once.
        fingerprint, models: of the column version.
    """

    column = CAPTIONS
    has_index = False

    def __init__(
        self,
        settings: CaptionSettings,
        load: Callable[[], CapFilt],
        *,
        fingerprint: str,
        models: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._load = load
        self.fingerprint = fingerprint
        self.models = models
        self.reads = caption_reads(settings)

    @cached_property
    def _captioned(self) -> CapFilt:
        return self._load()

    def prepare(self) -> None:
        """See `Stage.prepare`."""
        _ = self._captioned

    def decode(self, files: Mapping[str, bytes]) -> ImageCaptions:
        """See `Stage.decode`."""
        return captions_from_record(json.loads(files["json"]))

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        began = time.perf_counter()
        crops = [self._crops(picture) for picture in pictures]
        subjects = [
            subject
            for picture, picture_crops in zip(pictures, crops, strict=True)
            for subject in _subjects(picture, picture_crops)
        ]
        captions = iter(self._captioned(subjects))
        results = []
        for picture, picture_crops in zip(pictures, crops, strict=True):
            height, width = picture.pixels_HWC.shape[:2]
            whole, *of_crops = islice(captions, 1 + len(picture_crops))
            output = ImageCaptions(
                width,
                height,
                whole,
                tuple(
                    CropCaptions(place, box, found)
                    for (place, box), found in zip(picture_crops, of_crops, strict=True)
                ),
            )
            results.append(StageResult(partial(encode_captions, picture, output), output=output))
        share_s = (time.perf_counter() - began) / len(pictures) if pictures else 0.0
        return [StageResult(found.encode, {"model": share_s}, found.output) for found in results]

    def _crops(self, picture: Picture) -> list[tuple[int, BoxXyxy]]:
        if self._settings.min_crop_share is None:
            return []
        masks = picture.given[MASKS]
        assert isinstance(masks, AnnotatedImage)
        return large_masks(masks, min_share=self._settings.min_crop_share, max_masks=self._settings.max_crops)


def _subjects(picture: Picture, crops: Sequence[tuple[int, BoxXyxy]]) -> list[Subject]:
    whole = Subject(picture.key, picture.pixels_HWC, picture.caption)
    return [
        whole,
        *(
            Subject(f"{picture.key}/{place}", picture.pixels_HWC[top:bottom, left:right])
            for place, (left, top, right, bottom) in crops
        ),
    ]


def encode_captions(picture: Picture, captions: ImageCaptions) -> EncodedSample:
    """The record of a picture's captions."""
    record = captions_to_record(captions, image_id=picture.image_id, file_name=f"{picture.key}.jpg")
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return EncodedSample(Sample(picture.key, {"json": text.encode()}))
