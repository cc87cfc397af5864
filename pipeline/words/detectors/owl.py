"""OWLv2 and OWL-ViT by transformers: each box is called after the phrase that it fits best.

A phrase is cut at the model's text limit (16 tokens), and that is said. Captions are cut into rough noun
phrases first. Boxes and scores are the processor's own. Phrases of one query go through together, with every
image that has the same query.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from transformers import Owlv2ForObjectDetection, OwlViTForObjectDetection

from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.words.detectors.base import Detections, Query, by_query, caption_phrases

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import LabelSettings

PHRASES_PER_QUERY = 256

NETWORKS = {"owlv2": Owlv2ForObjectDetection, "owlvit": OwlViTForObjectDetection}
"""What a folder's config.json calls its model -> the class that loads it."""

log = logging.getLogger(__name__)


class Owl:
    """The detector role; see `maskmill.pipeline.words.detectors.base.Detector`.

    Args:
        model, processor: of one checkpoint; the model is taken over.
        settings: threshold and device.

    Raises:
        ValueError: a device that this machine lacks.
    """

    def __init__(self, model: Any, processor: Any, settings: LabelSettings) -> None:
        self._device = choose_device(settings.device)
        self._model = model.to(self._device)
        self._processor = processor
        self._settings = settings
        self.max_tokens = int(self._model.config.text_config.max_position_embeddings)

    def caption_queries(self, caption: str) -> tuple[Query, ...]:
        """See `Detector.caption_queries`."""
        return self.phrase_queries(caption_phrases(caption))

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
        parts = [phrases[i : i + PHRASES_PER_QUERY] for i in range(0, len(phrases), PHRASES_PER_QUERY)]
        if len(parts) > 1:
            log.warning(
                "%d phrases are read in parts of %d: each image is read %d times for them",
                len(phrases),
                PHRASES_PER_QUERY,
                len(parts),
            )
        return tuple(Query("; ".join(part), tuple(part)) for part in parts)

    def detect(self, jobs: Sequence[tuple[Pixels, Query]]) -> list[Detections]:
        """See `Detector.detect`."""
        return by_query(jobs, self._detect)

    @torch.inference_mode()
    def _detect(self, images: Sequence[Pixels], query: Query) -> Iterator[Detections]:
        texts = [list(query.phrases)] * len(images)
        inputs = self._processor(
            images=[Image.fromarray(image) for image in images],
            text=texts,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).to(self._device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)

        outputs = self._model(**inputs)
        outputs.logits, outputs.pred_boxes = outputs.logits.float(), outputs.pred_boxes.float()
        results = self._processor.post_process_grounded_object_detection(
            outputs,
            threshold=self._settings.box_threshold,
            target_sizes=[image.shape[:2] for image in images],
            text_labels=texts,
        )

        for result in results:
            labels = tuple(result["text_labels"])
            yield Detections(
                boxes_xyxy_N4=result["boxes"].cpu().numpy().astype(np.float64),
                scores_N=result["scores"].cpu().numpy().astype(np.float64),
                labels=labels,
                phrases=labels,
            )

    def _num_tokens(self, phrase: str) -> int:
        return len(self._processor.tokenizer(phrase)["input_ids"])
