"""The names column: `maskmill.pipeline.words.name` over the pictures and their masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.words.name import NamedImage, names_from_record, names_to_record
from maskmill.storage.shards.shards import Sample
from maskmill.workers.run.columns import MASKS, NAMES
from maskmill.workers.stages.build import EncodedSample, Picture, StageResult

if TYPE_CHECKING:
    from maskmill.pipeline.words.name import MaskNamer


class NameStage:
    """See `maskmill.workers.stages.build.Stage`.

    Args:
        load: gives what names masks; called once.
        fingerprint, models: of the column version.
    """

    column = NAMES
    has_index = False
    reads: tuple[str, ...] = (MASKS,)

    def __init__(self, load: Callable[[], MaskNamer], *, fingerprint: str, models: Mapping[str, str]) -> None:
        self._load = load
        self.fingerprint = fingerprint
        self.models = models

    @cached_property
    def _name(self) -> MaskNamer:
        return self._load()

    def prepare(self) -> None:
        """See `Stage.prepare`."""
        _ = self._name

    def decode(self, files: Mapping[str, bytes]) -> NamedImage:
        """See `Stage.decode`."""
        return names_from_record(json.loads(files["json"]))

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        results = []
        for picture in pictures:
            masks = picture.given[MASKS]
            assert isinstance(masks, AnnotatedImage)
            named = self._name(picture.pixels_HWC, masks)
            results.append(StageResult(partial(encode_names, picture, named), named.seconds_by_step, named))
        return results


def encode_names(picture: Picture, named: NamedImage) -> EncodedSample:
    """The record of a picture's names."""
    height, width = picture.pixels_HWC.shape[:2]
    record = names_to_record(
        named, image_id=picture.image_id, width=width, height=height, file_name=f"{picture.key}.jpg"
    )
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return EncodedSample(Sample(picture.key, {"json": text.encode()}))
