"""The names column: `maskmill.pipeline.words.name` over the pictures and their masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.settings import output_settings
from maskmill.pipeline.settings.words import NAMES_REVISION, NameSettings
from maskmill.pipeline.weights.weights import identity
from maskmill.pipeline.words.vocabulary import load_vocabulary
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
    from maskmill.pipeline.words.name import MaskNamer, NamedImage
    from maskmill.workers.stages.base import Bench

NAMES = "names"


class NameStage(WordStage["MaskNamer"]):
    """See `WordStage`; the model names masks."""

    column = NAMES
    reads = (MASKS,)

    def from_record(self, record: Any) -> NamedImage:
        """See `WordStage.from_record`."""
        from maskmill.pipeline.words.name import names_from_record  # imports torch

        return names_from_record(record)

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        results = []
        for picture in pictures:
            masks = picture.given[MASKS]
            assert isinstance(masks, AnnotatedImage)
            named = self.model(picture.pixels_HWC, masks)
            results.append(StageResult(partial(encode_names, picture, named), named.seconds_by_step, named))
        return results


def encode_names(picture: Picture, named: NamedImage) -> EncodedSample:
    """The record of a picture's names."""
    from maskmill.pipeline.words.name import names_to_record  # imports torch

    height, width = picture.pixels_HWC.shape[:2]
    record = names_to_record(
        named, image_id=picture.image_id, width=width, height=height, file_name=f"{picture.key}.jpg"
    )
    return encode_record(picture.key, record, ascii_only=False)


def _resolved(settings: Sections) -> dict[str, Any]:
    """With the words themselves: workers elsewhere have no such file."""
    names = with_pinned(settings.of(NameSettings), "model")
    return {"names": dataclasses.replace(names, vocabulary=load_vocabulary(names.vocabulary))}


def _facts(settings: Sections) -> ColumnFacts:
    names = settings.of(NameSettings)
    assert names.model is not None, "names that are off have no facts"
    return ColumnFacts(
        settings={**output_settings(names), "words": list(load_vocabulary(names.vocabulary))},
        revision=NAMES_REVISION,
        reads=(MASKS,),
        models={"namer": identity(names.model, role="namer")},
    )


def _stage(bench: Bench) -> Stage:
    names = bench.settings.of(NameSettings)
    return NameStage(
        partial(_mask_namer, names),
        fingerprint=bench.fingerprint,
        models=named_models({"namer": names.model}, _facts(bench.settings)),
    )


def _mask_namer(settings: NameSettings) -> MaskNamer:
    from maskmill.pipeline.words.clip import load_namer  # imports torch
    from maskmill.pipeline.words.name import MaskNamer
    from maskmill.workers.stages.guarded import GuardedNamer

    assert settings.model is not None
    namer = load_namer(settings.model, device=settings.device, dtype=settings.dtype)
    return MaskNamer(GuardedNamer(namer), load_vocabulary(settings.vocabulary), settings)


def _put(info: Record, by_id: Mapping[int, Record], names: Mapping[str, Any]) -> None:
    """Its names to each mask, best first."""
    for row in names["names"]:
        by_id[row["id"]]["names"] = row["names"]


COLUMN = Column(
    name=NAMES,
    sections={"names": NameSettings},
    is_made=lambda settings: settings.of(NameSettings).model is not None,
    resolved=_resolved,
    facts=_facts,
    stage=_stage,
    join=Join(put=_put, mask_fields=("names",), word=("names", "name")),
)
