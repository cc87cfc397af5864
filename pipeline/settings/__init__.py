"""What may be set, and what models there are: the room of this layer that every layer above may read.

One file a subject, each of frozen dataclasses that check their own ranges (`maskmill.pipeline.checks`); all
names are importable from here. Nothing in this room imports torch, numpy or a model, so command lines and
drivers read it at once, and no layer needs a copy.
"""

from maskmill.pipeline.settings.embeddings import EmbeddingSettings
from maskmill.pipeline.settings.evaluate import EvaluateSettings, GateSettings
from maskmill.pipeline.settings.families import FAMILIES, ROLES, SEGMENTERS, Family, families_of, family_of
from maskmill.pipeline.settings.masks import FAST, MASKS_REVISION, NANO, SA1B, MaskSettings
from maskmill.pipeline.settings.roles import DTYPES, output_settings
from maskmill.pipeline.settings.segmenter import SegmenterSettings
from maskmill.pipeline.settings.train import DistillSettings, TrainSettings
from maskmill.pipeline.settings.verdicts import VerdictSettings
from maskmill.pipeline.settings.words import BoxSettings, CaptionSettings, LabelSettings, NameSettings

__all__ = [
    "DTYPES",
    "FAMILIES",
    "FAST",
    "MASKS_REVISION",
    "NANO",
    "ROLES",
    "SA1B",
    "SEGMENTERS",
    "BoxSettings",
    "CaptionSettings",
    "DistillSettings",
    "EmbeddingSettings",
    "EvaluateSettings",
    "Family",
    "GateSettings",
    "LabelSettings",
    "MaskSettings",
    "NameSettings",
    "SegmenterSettings",
    "TrainSettings",
    "VerdictSettings",
    "families_of",
    "family_of",
    "output_settings",
]
