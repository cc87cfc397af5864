"""The detectors: `load_detector` builds the one whose folder or hub id the settings name.

Grounding DINO and MM-Grounding-DINO read a text and mark the words that a box shows; OWLv2, OWL-ViT and
OmDet-Turbo judge each box by each phrase. A new one is a file of its own with the protocol `Detector`, its
family in settings/families.py, and a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskmill.pipeline.settings.families import model_types_of
from maskmill.pipeline.weights import pretrained

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import LabelSettings
    from maskmill.pipeline.words.detectors.base import Detector


def load_detector(settings: LabelSettings) -> Detector:
    """The detector with its weights, on its device.

    Args:
        settings: `model` names its folder or hub id.

    Raises:
        WeightsError: weights that are missing, damaged or another model's.
        ValueError: a device that this machine lacks.
    """
    assert settings.model is not None, "labels that are off load nothing"
    found = pretrained.find(settings.model, role="detector", model_types=model_types_of("detector"))

    # transformers and the network, only now that a folder is there
    from transformers import AutoProcessor

    if found.model_type.endswith("grounding-dino"):
        from maskmill.pipeline.words.detectors import grounding_dino

        network = grounding_dino.NETWORKS[found.model_type]
        return grounding_dino.GroundingDino(
            *pretrained.load(network, AutoProcessor, found, dtype=settings.dtype), settings
        )
    if found.model_type == "omdet-turbo":
        from transformers import OmDetTurboForObjectDetection

        from maskmill.pipeline.words.detectors.omdet_turbo import OmDetTurbo

        made = pretrained.load(OmDetTurboForObjectDetection, AutoProcessor, found, dtype=settings.dtype)
        return OmDetTurbo(*made, settings)
    from maskmill.pipeline.words.detectors import owl

    kind: Any = owl.NETWORKS[found.model_type]
    return owl.Owl(*pretrained.load(kind, AutoProcessor, found, dtype=settings.dtype), settings)
