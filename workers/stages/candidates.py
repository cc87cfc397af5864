"""The candidates column, and masks selected from it: `masks.keep_candidates`.

    images -> candidates (the model: every mask above two low thresholds) -> masks (thresholds, NMS, clean-up)

The candidates' fingerprint covers the model, the grid and the two low thresholds alone. So where only the
thresholds, NMS, coverage or clean-up of `[masks]` change, the candidates are there already, the masks are
made from them, and no model is loaded. Masks selected so are the very ones that the grid stage gives, and
have its fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from maskmill.pipeline.masks.candidates import Candidates, from_bytes, to_bytes
from maskmill.storage.shards.shards import Sample
from maskmill.workers.run.columns import CANDIDATES, MASKS
from maskmill.workers.stages.build import EncodedSample, Picture, StageResult, decode_masks, encode_masks

if TYPE_CHECKING:
    from maskmill.pipeline.annotation import AnnotatedImage
    from maskmill.pipeline.masks.automask import AutomaticMasks
    from maskmill.pipeline.settings import MaskSettings

ENDING = "candidates"


class CandidateMasks:
    """The candidates column.

    Args:
        automatic: the grid stage, whose model is loaded by `prepare`.
        settings: [masks]; its candidates' thresholds count.
    """

    column = CANDIDATES
    has_index = False
    reads: tuple[str, ...] = ()

    def __init__(
        self,
        automatic: AutomaticMasks,
        settings: MaskSettings,
        *,
        fingerprint: str,
        models: Mapping[str, str],
        prepare: Callable[[], object],
    ) -> None:
        self._automatic = automatic
        self._settings = settings
        self._prepare = prepare
        self.fingerprint = fingerprint
        self.models = models

    def prepare(self) -> None:
        """See `Stage.prepare`."""
        self._prepare()

    def decode(self, files: Mapping[str, bytes]) -> Candidates:
        """See `Stage.decode`."""
        return from_bytes(files[ENDING])

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        return [self._run_one(picture) for picture in pictures]

    def _run_one(self, picture: Picture) -> StageResult:
        from maskmill.pipeline.machine.clock import StepClock
        from maskmill.pipeline.masks.measure import encode_pending

        clock = StepClock()
        height, width = picture.pixels_HWC.shape[:2]
        batch = self._automatic.candidates(
            picture.pixels_HWC,
            predicted_iou=self._settings.candidate_iou,
            stability=self._settings.candidate_stability,
            clock=clock,
        )
        with clock.step("encode"):
            found = Candidates(height, width, encode_pending(batch))
        return StageResult(partial(_encode, picture.key, found), clock.seconds, found)


class SelectedMasks:
    """The masks column, made from candidates; `models` are those that made these."""

    column = MASKS
    has_index = True
    needs_pixels = False
    reads: tuple[str, ...] = (CANDIDATES,)

    def __init__(self, settings: MaskSettings, *, fingerprint: str, models: Mapping[str, str]) -> None:
        self._settings = settings
        self.fingerprint = fingerprint
        self.models = models

    def prepare(self) -> None:
        """See `Stage.prepare`: there is no model."""

    def decode(self, files: Mapping[str, bytes]) -> AnnotatedImage:
        """See `Stage.decode`."""
        return decode_masks(files)

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        from maskmill.pipeline.masks.select import select_masks

        results = []
        for picture in pictures:
            given = picture.given[CANDIDATES]
            assert isinstance(given, Candidates), "the candidates column comes before"
            image = select_masks(given.batch, self._settings, height=given.height, width=given.width)
            results.append(StageResult(partial(encode_masks, picture, image), image.seconds_by_step, image))
        return results


def _encode(key: str, candidates: Candidates) -> EncodedSample:
    return EncodedSample(Sample(key, {ENDING: to_bytes(candidates)}))
