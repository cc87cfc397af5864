"""The embeddings column: what the segmenter's encoder saw of each whole picture, kept (`embeddings.keep`).

    images -> embeddings (the encoder) -> masks, where `embeddings.reuse` says so

A sample is one file, `<key>.safetensors` (pipeline/decoder/kept.py). Made in the turn that makes the masks it
costs no second encoding; where masks are there already it is made alone. Review and the page decode clicks
from it at once. With `reuse`, masks are made from what is kept, the first time too: then they are the same
whether the embedding is fresh or read back, and other settings of masks, new boxes or another threshold need
no encoder. Crops of a picture are never kept.

The fingerprint covers the model, its number format and the form that is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from maskmill.pipeline.segmenters import weights_identity
from maskmill.pipeline.settings import SegmenterSettings, output_settings
from maskmill.pipeline.settings.embeddings import EMBEDDINGS_REVISION, OFF, EmbeddingSettings
from maskmill.storage.dataset.records import fingerprint
from maskmill.storage.shards.shards import Sample
from maskmill.workers.run.columns import (
    IMAGES,
    Column,
    ColumnFacts,
    Sections,
    segmenter_name,
    weights_digits,
)
from maskmill.workers.stages.base import EncodedSample, Picture, Stage, StageResult

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from maskmill.pipeline.segmenters.base import ImageEmbedding, Segmenter
    from maskmill.workers.stages.base import Bench

EMBEDDINGS = "embeddings"
ENDING = "safetensors"


class EmbeddingStage(Stage):
    """See `Stage`.

    Args:
        segmenter: shared with the other stages, so that a picture is encoded once.
        settings: in which form.
        keep: told each picture's embedding as it is kept, for later stages to use.
        fingerprint, models: of the column version.
    """

    column = EMBEDDINGS

    def __init__(
        self,
        segmenter: Segmenter,
        settings: EmbeddingSettings,
        keep: Callable[[npt.NDArray[np.uint8], ImageEmbedding], None],
        *,
        fingerprint: str,
        models: Mapping[str, str],
    ) -> None:
        self._segmenter, self._settings, self._keep = segmenter, settings, keep
        self.fingerprint = fingerprint
        self.models = models

    def prepare(self) -> None:
        """See `Stage.prepare`."""
        self._segmenter.image_size  # noqa: B018  (asking loads it)

    def decode(self, files: Mapping[str, bytes]) -> ImageEmbedding:
        """See `Stage.decode`. Raises ValueError, KeyError."""
        from maskmill.pipeline.decoder.kept import from_bytes  # imports torch

        return from_bytes(files[ENDING])

    def run(self, pictures: Sequence[Picture]) -> list[StageResult]:
        """See `Stage.run`."""
        from maskmill.pipeline.decoder.kept import from_bytes, to_bytes  # imports torch
        from maskmill.pipeline.machine.clock import StepClock

        clock = StepClock()
        with clock.step("encode"):
            made = self._segmenter.embed([picture.pixels_HWC for picture in pictures])
        share = {name: seconds / len(pictures) for name, seconds in clock.seconds.items()}

        results = []
        for picture, embedding in zip(pictures, made, strict=True):
            data = to_bytes(embedding, self._settings.keep)
            kept = from_bytes(data)
            if self._settings.reuse:
                self._keep(picture.pixels_HWC, kept)
            results.append(StageResult(partial(_encode, picture.key, data), share, kept))
        return results


def _encode(key: str, data: bytes) -> EncodedSample:
    return EncodedSample(Sample(key, {ENDING: data}))


def embedding_reads(settings: Sections) -> tuple[str, ...]:
    """What masks are made from beside images: kept embeddings, where they are to be reused."""
    return (EMBEDDINGS,) if settings.of(EmbeddingSettings).reuse else ()


def reading(stage: Stage, settings: Sections) -> Stage:
    """The stage, reading kept embeddings where they are to be reused."""
    stage.reads = (*embedding_reads(settings), *stage.reads)
    return stage


def embedding_facts(settings: EmbeddingSettings, segmenter: SegmenterSettings) -> ColumnFacts:
    """What the fingerprint is made of.

    Raises:
        WeightsError: the segmenter's weights are missing or damaged.
    """
    return ColumnFacts(
        settings={**output_settings(settings), **output_settings(segmenter)},
        revision=EMBEDDINGS_REVISION,
        models={"segmenter": weights_identity(segmenter)},
    )


def embedding_digits(form: str, segmenter: SegmenterSettings, images: str) -> str:
    """The fingerprint of embeddings that a segmenter made, kept in a form.

    Args:
        form: one of `pipeline.settings.embeddings.FORMS`.
        segmenter: the model, with resolved weights.
        images: fingerprint of the images column.

    Raises:
        WeightsError: the segmenter's weights are missing or damaged.
    """
    facts = embedding_facts(EmbeddingSettings(keep=form), segmenter)
    return fingerprint(
        facts.settings,
        weights=weights_digits(facts.models),
        revision=facts.revision,
        inputs={IMAGES: images},
    )


def _facts(settings: Sections) -> ColumnFacts:
    return embedding_facts(settings.of(EmbeddingSettings), settings.of(SegmenterSettings))


def _stage(bench: Bench) -> Stage:
    return EmbeddingStage(
        bench.segmenter,
        bench.settings.of(EmbeddingSettings),
        bench.keep_embedding,
        fingerprint=bench.fingerprint,
        models={"segmenter": segmenter_name(bench.settings.of(SegmenterSettings))},
    )


COLUMN = Column(
    name=EMBEDDINGS,
    sections={"embeddings": EmbeddingSettings},
    is_made=lambda settings: settings.of(EmbeddingSettings).keep != OFF,
    resolved=lambda settings: {"embeddings": settings.of(EmbeddingSettings)},
    facts=_facts,
    stage=_stage,
)
