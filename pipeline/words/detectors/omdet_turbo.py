"""OmDet-Turbo by transformers: boxes, scores and labels are its processor's own.

It reads classes, each a phrase, and a task that lists them. Texts are cut at the model's 77 tokens, as its
processor has it. The features of a class are kept by the model from image to image. Images of one query go
through together: every one is scaled to the model's own square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.words.detectors.base import Detections, Query
from maskmill.pipeline.words.detectors.phrases import PhraseDetector, as_detections
from maskmill.pipeline.words.inputs import prepare

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import LabelSettings

PHRASES_PER_QUERY = 100
KEPT_CLASSES = 4096
"""Classes whose features the model keeps; of 100, its own, a long vocabulary has more."""


class OmDetTurbo(PhraseDetector):
    """The detector role; see `maskmill.pipeline.words.detectors.phrases.PhraseDetector`."""

    phrases_per_query = PHRASES_PER_QUERY

    def __init__(self, model: Any, processor: Any, settings: LabelSettings) -> None:
        super().__init__(model, processor, settings)
        self._model.language_cache_class.capacity = KEPT_CLASSES

    def spelled(self, phrases: Sequence[str]) -> str:
        """The model's task."""
        return f"Detect {', '.join(phrases)}."

    @torch.inference_mode()
    def boxes(self, images: Sequence[Pixels], query: Query) -> Iterator[Detections]:
        """See `PhraseDetector.boxes`."""
        texts = [list(query.phrases)] * len(images)
        tasks = [query.text] * len(images)
        inputs = prepare(self._model, self._processor, images, text=texts, task=tasks)

        outputs = self._model(**inputs)
        outputs.decoder_class_logits = outputs.decoder_class_logits.float()
        outputs.decoder_coord_logits = outputs.decoder_coord_logits.float()
        results = self._processor.post_process_grounded_object_detection(
            outputs,
            text_labels=texts,
            threshold=self._settings.box_threshold,
            nms_threshold=self._settings.box_nms,
            target_sizes=[image.shape[:2] for image in images],
        )
        yield from as_detections(results)
