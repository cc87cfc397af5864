"""Grounding DINO and MM-Grounding-DINO by transformers: boxes, scores and phrases are their processor's own.

Phrases of a vocabulary are joined as the model was trained to read them ("cat. red ball."); a box is called
after the phrase that holds its best token. A caption is read as it is, and a box is called by the words that
it marks above the text threshold. Texts beyond the model's 256 tokens are read in parts, each a pass of its
own over the image.

An image's encoder runs once for all its queries of a batch, a text's once a run (once.py).

Images of one size go together; what padding does to other sizes would make results depend on the batch.

Shape suffixes: B images, N boxes, L tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GroundingDinoForObjectDetection, MMGroundingDinoForObjectDetection

from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.words.detectors.base import Detections, Query, in_parts
from maskmill.pipeline.words.detectors.once import EachImageOnce, EachTextOnce
from maskmill.pipeline.words.inputs import prepare
from maskmill.pipeline.words.text import clean_text

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import LabelSettings

SPECIAL_TOKENS = 2
MAX_PHRASE_CHARS = 200

NETWORKS: dict[str, Any] = {
    "grounding-dino": GroundingDinoForObjectDetection,
    "mm-grounding-dino": MMGroundingDinoForObjectDetection,
}
"""What a folder's config.json calls its model -> the class that loads it."""

log = logging.getLogger(__name__)


class GroundingDino:
    """The detector role; see `maskmill.pipeline.words.detectors.base.Detector`.

    Args:
        model, processor: of one checkpoint; the model is taken over.
        settings: thresholds and device.

    Raises:
        ValueError: a device that this machine lacks.
    """

    def __init__(self, model: Any, processor: Any, settings: LabelSettings) -> None:
        self._device = choose_device(settings.device)
        self._model = model.to(self._device)
        inner = self._model.model
        self._images = inner.backbone.conv_encoder = EachImageOnce(inner.backbone.conv_encoder)
        inner.text_backbone = EachTextOnce(inner.text_backbone)
        self._processor = processor
        self._settings = settings
        self.max_tokens = int(self._model.config.max_text_len)

    def caption_queries(self, caption: str) -> tuple[Query, ...]:
        """See `Detector.caption_queries`."""
        parts = in_parts(caption.lower().split(), self._num_tokens, self._room - 1)
        return tuple(Query(f"{' '.join(words).rstrip('.')}.") for words in parts)

    def phrase_queries(self, phrases: Sequence[str]) -> tuple[Query, ...]:
        """See `Detector.phrase_queries`."""
        parts = in_parts(phrases, lambda phrase: self._num_tokens(_spelled(phrase)) + 1, self._room)
        if len(parts) > 1:
            log.warning(
                "%d phrases pass Grounding DINO's %d tokens: each image is read %d times for them",
                len(phrases),
                self.max_tokens,
                len(parts),
            )
        return tuple(
            Query(". ".join(_spelled(phrase) for phrase in part) + ".", tuple(part)) for part in parts
        )

    def detect(self, jobs: Sequence[tuple[Pixels, Query]]) -> list[Detections]:
        """See `Detector.detect`."""
        found: dict[int, Detections] = {}
        for size in dict.fromkeys(image.shape for image, _ in jobs):
            places = [place for place, (image, _) in enumerate(jobs) if image.shape == size]
            found |= zip(places, self._detect([jobs[place] for place in places]), strict=True)
        return [found[place] for place in range(len(jobs))]

    @torch.inference_mode()
    def _detect(self, jobs: Sequence[tuple[Pixels, Query]]) -> Iterator[Detections]:
        # Each image is resized once for all its queries
        images = {id(image): image for image, _ in jobs}
        place = {key: number for number, key in enumerate(images)}
        rows = torch.tensor([place[id(image)] for image, _ in jobs], device=self._device)
        texts = [query.text for _, query in jobs]
        inputs = prepare(self._model, self._processor, [*images.values()], text=texts, padding=True)
        inputs["pixel_values"] = inputs["pixel_values"][rows]
        inputs["pixel_mask"] = inputs["pixel_mask"][rows]

        self._images.expect([image for image, _ in jobs])
        outputs = self._model(**inputs)
        outputs.logits, outputs.pred_boxes = outputs.logits.float(), outputs.pred_boxes.float()
        results = self._processor.post_process_grounded_object_detection(
            outputs,
            inputs["input_ids"],
            threshold=self._settings.box_threshold,
            text_threshold=self._settings.text_threshold,
            target_sizes=[image.shape[:2] for image, _ in jobs],
        )

        # By the phrase of its best token, or the words marked
        for (_, query), result, logits in zip(jobs, results, outputs.logits, strict=True):
            scores_NL = logits.sigmoid()
            kept_NL = scores_NL[scores_NL.amax(dim=-1) > self._settings.box_threshold].cpu()
            phrases = tuple(self._phrase(text) for text in result["text_labels"])
            yield Detections(
                boxes_xyxy_N4=result["boxes"].cpu().numpy().astype(np.float64),
                scores_N=result["scores"].cpu().numpy().astype(np.float64),
                labels=self._labels(query, kept_NL) if query.phrases else phrases,
                phrases=phrases,
            )

    def _labels(self, query: Query, scores_NL: torch.Tensor) -> tuple[str, ...]:
        """For each box the phrase with the best token."""
        offsets = self._processor.tokenizer(query.text, return_offsets_mapping=True)["offset_mapping"]
        spans: list[list[int]] = [[] for _ in query.phrases]
        ends, end = [], 0
        for phrase in query.phrases:
            end += len(_spelled(phrase)) + 2
            ends.append(end)
        for token, (start, stop) in enumerate(offsets):
            if stop > start and query.text[start:stop] != ".":
                spans[int(np.searchsorted(ends, start, side="right"))].append(token)
        best_NP = torch.stack([scores_NL[:, span].amax(dim=-1) for span in spans], dim=-1)
        return tuple(query.phrases[place] for place in best_NP.argmax(dim=-1).tolist())

    def _phrase(self, text: str) -> str:
        """A phrase as the processor spells it, without its marks for the text's ends."""
        for token in self._processor.tokenizer.all_special_tokens:
            text = text.replace(token, " ")
        return clean_text(text, max_chars=MAX_PHRASE_CHARS).strip(" .")

    @property
    def _room(self) -> int:
        return self.max_tokens - SPECIAL_TOKENS

    def _num_tokens(self, text: str) -> int:
        return len(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _spelled(phrase: str) -> str:
    """A phrase as it stands in the joined text: lower case, no full stop, which would end it."""
    return " ".join(phrase.lower().replace(".", " ").split()) or "?"
