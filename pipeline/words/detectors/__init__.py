"""The detectors: `load_detector` builds the one whose folder or hub id the settings name.

Grounding DINO reads a text and marks the words that a box shows; OWLv2 and OWL-ViT judge each box by each
phrase. A new one is a file of its own with the protocol `Detector` and a line here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskmill.pipeline.words.detectors.base import Detector
    from maskmill.pipeline.words.settings import LabelSettings

MODEL_TYPES = ("grounding-dino", "owlv2", "owlvit")


def load_detector(settings: LabelSettings) -> Detector:
    """The detector with its weights, on its device.

    Raises:
        WeightsError: weights that are missing, damaged or another model's.
        ValueError: a device that this machine lacks.
    """
    from maskmill.pipeline.weights import pretrained

    assert settings.model is not None, "labels that are off load nothing"
    found = pretrained.find(settings.model, role="detector", model_types=MODEL_TYPES)
    if found.model_type == "grounding-dino":
        from maskmill.pipeline.words.detectors.grounding_dino import load_grounding_dino

        return load_grounding_dino(found, settings)
    from maskmill.pipeline.words.detectors.owl import load_owl

    return load_owl(found, settings)
