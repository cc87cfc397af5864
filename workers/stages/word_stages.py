"""The word stages of a run, in the columns' order; their models load when first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskmill.workers.run.columns import (
    CAPTIONS,
    LABELS,
    NAMES,
    caption_facts,
    label_facts,
    looked_for,
    name_facts,
)
from maskmill.workers.run.spec import RunSpec

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import Segmenter
    from maskmill.pipeline.settings.words import CaptionSettings, LabelSettings, NameSettings
    from maskmill.pipeline.words.caption import CapFilt
    from maskmill.pipeline.words.ground import Grounder
    from maskmill.pipeline.words.name import MaskNamer
    from maskmill.workers.run.columns import ColumnFacts
    from maskmill.workers.stages.build import Stage


def word_stages(spec: RunSpec, segmenter: Segmenter) -> list[Stage]:
    """The stages of the word columns that the run makes.

    Args:
        spec: of the run.
        segmenter: makes masks of boxes, on the embeddings that the masks stage shares.

    Raises:
        WeightsError: weights that are missing.
    """
    stages: list[Stage] = []
    if spec.captions is not None:
        from maskmill.workers.stages.captions import CaptionStage

        captions = spec.captions
        sources = {"captioner": captions.model, "filter": captions.filter}
        stages.append(
            CaptionStage(
                captions,
                lambda: _capfilt(captions),
                fingerprint=spec.fingerprints[CAPTIONS],
                models=named(sources, caption_facts(captions)),
            )
        )
    if spec.labels is not None:
        from maskmill.workers.stages.labels import LabelStage

        labels = spec.labels
        sources = {"detector": labels.model, "segmenter": spec.segmenter.model}
        stages.append(
            LabelStage(
                labels,
                lambda: _grounder(labels, segmenter),
                fingerprint=spec.fingerprints[LABELS],
                models=named(sources, label_facts(labels, spec.segmenter)),
            )
        )
    if spec.names is not None:
        from maskmill.workers.stages.names import NameStage

        names = spec.names
        stages.append(
            NameStage(
                lambda: _mask_namer(names),
                fingerprint=spec.fingerprints[NAMES],
                models=named({"namer": names.model}, name_facts(names)),
            )
        )
    return stages


def named(sources: dict[str, str | None], facts: ColumnFacts) -> dict[str, str]:
    """What records say of each model: its source and sha256, by role."""
    return {role: f"{sources[role]} sha256:{sha256}" for role, sha256 in facts.models.items()}


def _capfilt(settings: CaptionSettings) -> CapFilt:
    from maskmill.pipeline.words.blip import load_blip
    from maskmill.pipeline.words.caption import CapFilt

    captioner, text_filter = load_blip(settings)
    return CapFilt(captioner, text_filter, settings)


def _grounder(settings: LabelSettings, segmenter: Segmenter) -> Grounder:
    from maskmill.pipeline.words.detectors import load_detector
    from maskmill.pipeline.words.ground import Grounder

    _ = segmenter.image_size  # loads it now
    return Grounder(load_detector(settings), segmenter, looked_for(settings), settings)


def _mask_namer(settings: NameSettings) -> MaskNamer:
    from maskmill.pipeline.words.clip import load_namer
    from maskmill.pipeline.words.name import MaskNamer
    from maskmill.pipeline.words.vocabulary import load_vocabulary

    assert settings.model is not None
    namer = load_namer(settings.model, device=settings.device, dtype=settings.dtype)
    return MaskNamer(namer, load_vocabulary(settings.vocabulary), settings)
