"""OmDet-Turbo by transformers: boxes, scores and labels are its processor's own.

It reads classes, each a phrase, and a task that lists them; captions are cut into rough noun phrases first.
Texts are cut at the model's 77 tokens, as its processor has it. The features of a class are kept by the model
from image to image. Images of one query go through together: every one is scaled to the model's own square.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.words.detectors.base import Detections, Query, by_query, caption_phrases

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import LabelSettings

PHRASES_PER_QUERY = 100
KEPT_CLASSES = 4096
"""Classes whose features the model keeps; of 100, its own, a long vocabulary has more."""

log = logging.getLogger(__name__)


class OmDetTurbo:
    """The detector role; see `maskmill.pipeline.words.detectors.base.Detector`.

    Args:
        model, processor: of one checkpoint; the model is taken over.
        settings: threshold, suppression and device.

    Raises:
        ValueError: a device that this machine lacks.
    """

    def __init__(self, model: Any, processor: Any, settings: LabelSettings) -> None:
        self._device = choose_device(settings.device)
        self._model = model.to(self._device)
        self._model.language_cache_class.capacity = KEPT_CLASSES
        self._processor = processor
        self._settings = settings

    def caption_queries(self, caption: str) -> tuple[Query, ...]:
        """See `Detector.caption_queries`."""
        return self.phrase_queries(caption_phrases(caption))

    def phrase_queries(self, phrases: Sequence[str]) -> tuple[Query, ...]:
        """See `Detector.phrase_queries`; none is refused."""
        parts = [phrases[i : i + PHRASES_PER_QUERY] for i in range(0, len(phrases), PHRASES_PER_QUERY)]
        if len(parts) > 1:
            log.warning(
                "%d phrases are read in parts of %d: each image is read %d times for them",
                len(phrases),
                PHRASES_PER_QUERY,
                len(parts),
            )
        return tuple(Query(f"Detect {', '.join(part)}.", tuple(part)) for part in parts)

    def detect(self, jobs: Sequence[tuple[Pixels, Query]]) -> list[Detections]:
        """See `Detector.detect`."""
        return by_query(jobs, self._detect)

    @torch.inference_mode()
    def _detect(self, images: Sequence[Pixels], query: Query) -> Iterator[Detections]:
        texts = [list(query.phrases)] * len(images)
        inputs = self._processor(
            images=[Image.fromarray(image) for image in images],
            text=texts,
            task=[query.text] * len(images),
            return_tensors="pt",
        ).to(self._device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)

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

        for result in results:
            labels = tuple(result["text_labels"])
            yield Detections(
                boxes_xyxy_N4=result["boxes"].cpu().numpy().astype(np.float64),
                scores_N=result["scores"].cpu().numpy().astype(np.float64),
                labels=labels,
                phrases=labels,
            )
