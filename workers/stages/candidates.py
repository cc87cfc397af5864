"""The candidates column: every mask of the grid above two low thresholds (`masks.keep_candidates`).

    images -> candidates (the model) -> masks (thresholds, NMS, clean-up; see masks/selected.py)

The fingerprint covers the model, the grid and the two low thresholds alone. So where only the thresholds,
NMS, coverage or clean-up of `[masks]` change, the candidates are there already, the masks are made from them,
and no model is loaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.storage.shards.shards import Sample
from maskmill.workers.run.columns import Column, ColumnFacts, Sections, segmenter_name
from maskmill.workers.stages.base import EncodedSample, Picture, Stage, StageResult
from maskmill.workers.stages.embeddings import embedding_reads, reading
from maskmill.workers.stages.masks.grid import grid_facts, load_and_warm_up

if TYPE_CHECKING:
    from maskmill.pipeline.masks.automask import AutomaticMasks
    from maskmill.pipeline.masks.candidates import Candidates
    from maskmill.workers.stages.base import Bench

CANDIDATES = "candidates"
ENDING = "candidates"

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


class CandidateMasks(Stage):
    """See `Stage`.

    Args:
        automatic: the grid stage, whose model is loaded by `prepare`.
        settings: [masks]; its candidates' thresholds count.
        fingerprint, models: of the column version.
        prepare: loads what `automatic` needs.
    """

    column = CANDIDATES

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
        """See `Stage.decode`. Raises ValueError, KeyError."""
        from maskmill.pipeline.masks.candidates import from_bytes  # imports numba

        return from_bytes(files[ENDING])

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        return [self._run_one(picture) for picture in pictures]

    def _run_one(self, picture: Picture) -> StageResult:
        from maskmill.pipeline.machine.clock import StepClock
        from maskmill.pipeline.masks.candidates import Candidates
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


def _encode(key: str, candidates: Candidates) -> EncodedSample:
    from maskmill.pipeline.masks.candidates import to_bytes  # imports numba

    return EncodedSample(Sample(key, {ENDING: to_bytes(candidates)}))


def candidate_facts(masks: MaskSettings, segmenter: SegmenterSettings) -> ColumnFacts:
    """What the fingerprint is made of: what thresholds, NMS, coverage and clean-up select from.

    Raises:
        WeightsError: the segmenter's weights are missing or damaged.
    """
    facts = grid_facts(masks, segmenter)
    made_by = {name: value for name, value in facts.settings.items() if name not in SELECTING}
    floors = {"candidate_iou": masks.candidate_iou, "candidate_stability": masks.candidate_stability}
    return dataclasses.replace(facts, settings={**made_by, **floors})


def _facts(settings: Sections) -> ColumnFacts:
    facts = candidate_facts(settings.of(MaskSettings), settings.of(SegmenterSettings))
    return dataclasses.replace(facts, reads=embedding_reads(settings))


def _stage(bench: Bench) -> Stage:
    from maskmill.pipeline.masks.automask import AutomaticMasks  # imports torch

    masks = bench.settings.of(MaskSettings)
    stage = CandidateMasks(
        AutomaticMasks(bench.segmenter, masks),
        masks,
        fingerprint=bench.fingerprint,
        models={"segmenter": segmenter_name(bench.settings.of(SegmenterSettings))},
        prepare=partial(load_and_warm_up, bench.segmenter),
    )
    return reading(stage, bench.settings)


COLUMN = Column(
    name=CANDIDATES,
    is_made=lambda settings: settings.of(MaskSettings).keep_candidates,
    facts=_facts,
    stage=_stage,
)
