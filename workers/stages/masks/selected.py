"""Masks selected from kept candidates: the very ones that the grid stage gives, with its fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from maskmill.pipeline.masks.candidates import Candidates
from maskmill.pipeline.masks.select import select_masks
from maskmill.storage.shards.index import MASK_INDEX
from maskmill.workers.run.columns import MASKS
from maskmill.workers.stages.base import Picture, Stage, StageResult
from maskmill.workers.stages.candidates import CANDIDATES
from maskmill.workers.stages.masks.records import decode_masks, encode_masks

if TYPE_CHECKING:
    from maskmill.pipeline.annotation import AnnotatedImage
    from maskmill.pipeline.settings import MaskSettings


class SelectedMasks(Stage):
    """See `Stage`.

    Its commits name no candidates: masks are the grid's, whichever candidates they were selected from.

    Args:
        settings: [masks].
        fingerprint: of the column version.
        models: those that made the candidates.
    """

    column = MASKS
    index = MASK_INDEX
    needs_pixels = False
    reads = (CANDIDATES,)
    recorded = ()

    def __init__(self, settings: MaskSettings, *, fingerprint: str, models: Mapping[str, str]) -> None:
        self._settings = settings
        self.fingerprint = fingerprint
        self.models = models

    def prepare(self) -> None:
        """See `Stage.prepare`: there is no model."""

    def decode(self, files: Mapping[str, bytes]) -> AnnotatedImage:
        """See `Stage.decode`. Raises ValueError, KeyError."""
        return decode_masks(files)

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        results = []
        for picture in pictures:
            found = picture.given[CANDIDATES]
            assert isinstance(found, Candidates), "the candidates column comes before"
            image = select_masks(found.batch, self._settings, height=found.height, width=found.width)
            results.append(StageResult(partial(encode_masks, picture, image), image.seconds_by_step, image))
        return results
