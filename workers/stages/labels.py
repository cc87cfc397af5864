"""The labels column: pipeline/words/ground.py over the pictures, their grid masks and their captions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.words.caption import ImageCaptions
from maskmill.pipeline.words.ground import GroundInput, ImageLabels, labels_from_record, labels_to_record
from maskmill.storage.shards.shards import Sample
from maskmill.workers.run.columns import CAPTIONS, LABELS, MASKS, label_reads
from maskmill.workers.stages.build import EncodedSample, Picture, StageResult

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import LabelSettings
    from maskmill.pipeline.words.ground import Grounder


class LabelStage:
    """See `maskmill.workers.stages.build.Stage`.

    Args:
        settings: what is looked for.
        load: gives what finds it; called once.
        fingerprint, models: of the column version.
    """

    column = LABELS
    has_index = False

    def __init__(
        self,
        settings: LabelSettings,
        load: Callable[[], Grounder],
        *,
        fingerprint: str,
        models: Mapping[str, str],
    ) -> None:
        self._load = load
        self.fingerprint = fingerprint
        self.models = models
        self.reads = label_reads(settings)

    @cached_property
    def _ground(self) -> Grounder:
        return self._load()

    def prepare(self) -> None:
        """See `Stage.prepare`."""
        _ = self._ground

    def decode(self, files: Mapping[str, bytes]) -> ImageLabels:
        """See `Stage.decode`."""
        return labels_from_record(json.loads(files["json"]))

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        found = self._ground([self._input(picture) for picture in pictures])
        return [
            StageResult(partial(encode_labels, picture, labels), labels.seconds_by_step, labels)
            for picture, labels in zip(pictures, found, strict=True)
        ]

    def _input(self, picture: Picture) -> GroundInput:
        masks, captions = picture.given[MASKS], picture.given.get(CAPTIONS)
        assert isinstance(masks, AnnotatedImage)
        if CAPTIONS not in self.reads:
            return GroundInput(picture.pixels_HWC, masks)
        assert isinstance(captions, ImageCaptions)
        return GroundInput(picture.pixels_HWC, masks, captions.whole.caption)


def encode_labels(picture: Picture, labels: ImageLabels) -> EncodedSample:
    """The record of a picture's labels."""
    record = labels_to_record(labels, image_id=picture.image_id, file_name=f"{picture.key}.jpg")
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return EncodedSample(Sample(picture.key, {"json": text.encode()}))
