"""OWLv2 and OWL-ViT by transformers: each box is called after the phrase that it fits best.

A phrase is cut at the model's text limit (16 tokens), and that is said. Boxes and scores are the processor's
own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import Owlv2ForObjectDetection, OwlViTForObjectDetection

from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.words.detectors.base import Detections, Query
from maskmill.pipeline.words.detectors.phrases import PhraseDetector, as_detections
from maskmill.pipeline.words.inputs import prepare

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import LabelSettings

PHRASES_PER_QUERY = 256

NETWORKS = {"owlv2": Owlv2ForObjectDetection, "owlvit": OwlViTForObjectDetection}
"""What a folder's config.json calls its model -> the class that loads it."""

log = logging.getLogger(__name__)


class Owl(PhraseDetector):
    """The detector role; see `maskmill.pipeline.words.detectors.phrases.PhraseDetector`."""

    phrases_per_query = PHRASES_PER_QUERY

    def __init__(self, model: Any, processor: Any, settings: LabelSettings) -> None:
        super().__init__(model, processor, settings)
        self.max_tokens = int(self._model.config.text_config.max_position_embeddings)

    def phrase_queries(self, phrases: Sequence[str]) -> tuple[Query, ...]:
        """See `Detector.phrase_queries`; long phrases are cut, none is refused."""
        cut = [phrase for phrase in phrases if self._num_tokens(phrase) > self.max_tokens]
        if cut:
            log.warning(
                "%d of %d phrases are longer than the detector's %d tokens and are cut there, such as %r",
                len(cut),
                len(phrases),
                self.max_tokens,
                cut[0][:60],
            )
        return super().phrase_queries(phrases)

    def spelled(self, phrases: Sequence[str]) -> str:
        """For people: the model reads the phrases one by one."""
        return "; ".join(phrases)

    @torch.inference_mode()
    def boxes(self, images: Sequence[Pixels], query: Query) -> Iterator[Detections]:
        """See `PhraseDetector.boxes`."""
        texts = [list(query.phrases)] * len(images)
        cut = {"truncation": True, "max_length": self.max_tokens}
        inputs = prepare(self._model, self._processor, images, text=texts, **cut)

        outputs = self._model(**inputs)
        outputs.logits, outputs.pred_boxes = outputs.logits.float(), outputs.pred_boxes.float()
        results = self._processor.post_process_grounded_object_detection(
            outputs,
            threshold=self._settings.box_threshold,
            target_sizes=[image.shape[:2] for image in images],
            text_labels=texts,
        )
        yield from as_detections(results)

    def _num_tokens(self, phrase: str) -> int:
        return len(self._processor.tokenizer(phrase)["input_ids"])
