"""The verdicts column: `maskmill.pipeline.verify` over the pictures, their masks and their embeddings.

Made in the turn that makes the masks it costs no second encoding; alone, from masks that are there, it
reads kept embeddings where `embeddings.reuse` says so, and else encodes pictures anew
(`verdicts.embedding=false`: never).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.segmenters import weights_identity
from maskmill.pipeline.settings import SegmenterSettings, output_settings
from maskmill.pipeline.settings.verdicts import SHIPPED, VERDICTS_REVISION, VerdictSettings
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
from maskmill.workers.stages.base import Picture, Stage, StageResult
from maskmill.workers.stages.embeddings import embedding_reads, reading
from maskmill.workers.stages.verdicts.record import INDEX, VERDICTS, encode_verdicts

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.pipeline.verify.verifier import Verifier
    from maskmill.workers.stages.base import Bench

SHIPPED_FILE = Path(__file__).parents[3] / "pipeline" / "segmenters" / "nano_verifier.safetensors"


class VerdictStage(Stage):
    """See `Stage`.

    Args:
        load: gives the verifier; called once.
        segmenter: shared with the other stages; None looks at no embedding.
        fingerprint, models: of the column version.
    """

    column = VERDICTS
    index = INDEX
    reads = (MASKS,)

    def __init__(
        self,
        load: Callable[[], Verifier],
        segmenter: Segmenter | None,
        *,
        fingerprint: str,
        models: Mapping[str, str],
    ) -> None:
        self._load, self._segmenter = load, segmenter
        self.fingerprint = fingerprint
        self.models = models

    @cached_property
    def _verifier(self) -> Verifier:
        return self._load()

    def prepare(self) -> None:
        """See `Stage.prepare`; the segmenter loads when a picture has no embedding."""
        _ = self._verifier

    def decode(self, files: Mapping[str, bytes]) -> object:
        """See `Stage.decode`."""
        return json.loads(files["json"])

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        from maskmill.pipeline.machine.clock import StepClock

        clock = StepClock()
        pixels = [picture.pixels_HWC for picture in pictures]
        with clock.step("embed"):
            embeddings = [None] * len(pixels) if self._segmenter is None else self._segmenter.embed(pixels)
        results = []
        for picture, embedding in zip(pictures, embeddings, strict=True):
            masks = picture.given[MASKS]
            assert isinstance(masks, AnnotatedImage)
            own = StepClock()
            own.add("embed", clock.seconds["embed"] / len(pixels))
            with own.step("judge"):
                found = self._verifier(masks, pixels_HWC=picture.pixels_HWC, embedding=embedding)
            results.append(StageResult(partial(encode_verdicts, picture, found), own.seconds))
        return results


def verifier_of(settings: VerdictSettings, segmenter: SegmenterSettings) -> Verifier:
    """The verifier that settings name, which is on, for the masks of a model.

    Raises:
        ValueError: no such file, or none of this version's verifiers.
        WeightsError: the model's weights are missing.
    """
    from maskmill.pipeline.verify.verifier import load_verifier  # imports torch

    return load_verifier(Path(_file(settings)), weights_identity(segmenter))


def _file(settings: VerdictSettings) -> str:
    assert settings.verifier is not None, "verdicts that are off have no verifier"
    return str(SHIPPED_FILE) if settings.verifier == SHIPPED else settings.verifier


def _resolved(settings: Sections) -> dict[str, Any]:
    verdicts = settings.of(VerdictSettings)
    return {"verdicts": verdicts if verdicts.verifier == SHIPPED else with_pinned(verdicts, "verifier")}


def _facts(settings: Sections) -> ColumnFacts:
    verdicts, segmenter = settings.of(VerdictSettings), settings.of(SegmenterSettings)
    return ColumnFacts(
        settings={**output_settings(verdicts), "segmenter": output_settings(segmenter)},
        revision=VERDICTS_REVISION,
        reads=(MASKS, *(embedding_reads(settings) if verdicts.embedding else ())),
        models={
            "verifier": identity(_file(verdicts), role="verifier"),
            "segmenter": weights_identity(segmenter),
        },
    )


def _stage(bench: Bench) -> Stage:
    verdicts, segmenter = bench.settings.of(VerdictSettings), bench.settings.of(SegmenterSettings)
    stage = VerdictStage(
        partial(verifier_of, verdicts, segmenter),
        bench.segmenter if verdicts.embedding else None,
        fingerprint=bench.fingerprint,
        models=named_models(
            {"verifier": verdicts.verifier, "segmenter": segmenter.model}, _facts(bench.settings)
        ),
    )
    return reading(stage, bench.settings) if verdicts.embedding else stage


def _put(info: Record, by_id: Mapping[int, Record], found: Mapping[str, Any]) -> None:
    """Its verdict to each mask; the picture's to the image."""
    info["share_found"] = found["share_found"]
    for row in found[VERDICTS]:
        by_id[row["id"]] |= {name: row[name] for name in ("expected_iou", "p_right")}


COLUMN = Column(
    name=VERDICTS,
    sections={"verdicts": VerdictSettings},
    is_made=lambda settings: settings.of(VerdictSettings).verifier is not None,
    resolved=_resolved,
    facts=_facts,
    stage=_stage,
    join=Join(put=_put, image_fields=("share_found",), mask_fields=("expected_iou", "p_right")),
)
"""Off unless `verdicts.verifier` names one."""
