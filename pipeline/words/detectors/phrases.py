"""What detectors share that read phrases, each a class of its own: a vocabulary in parts, boxes of classes.

Phrases of one query go through together, with every image that has the same query. Captions are cut into
rough noun phrases first.

It does not know a model: that is each detector's own file.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.words.detectors.base import Detections, Query, by_query, caption_phrases

if TYPE_CHECKING:
    from maskmill.pipeline.settings.words import LabelSettings

log = logging.getLogger(__name__)


class PhraseDetector(ABC):
    """The detector role but for what one model does; see `maskmill.pipeline.words.detectors.base.Detector`.

    Args:
        model, processor: of one checkpoint; the model is taken over.
        settings: thresholds and device.

    Raises:
        ValueError: a device that this machine lacks.
    """

    phrases_per_query: int
    """The most that one pass reads."""

    def __init__(self, model: Any, processor: Any, settings: LabelSettings) -> None:
        self._model = model.to(choose_device(settings.device))
        self._processor = processor
        self._settings = settings

    def caption_queries(self, caption: str) -> tuple[Query, ...]:
        """See `Detector.caption_queries`."""
        return self.phrase_queries(caption_phrases(caption))

    def phrase_queries(self, phrases: Sequence[str]) -> tuple[Query, ...]:
        """See `Detector.phrase_queries`; none is refused."""
        most = self.phrases_per_query
        parts = [phrases[i : i + most] for i in range(0, len(phrases), most)]
        if len(parts) > 1:
            log.warning(
                "%d phrases are read in parts of %d: each image is read %d times for them",
                len(phrases),
                most,
                len(parts),
            )
        return tuple(Query(self.spelled(part), tuple(part)) for part in parts)

    def detect(self, jobs: Sequence[tuple[Pixels, Query]]) -> list[Detections]:
        """See `Detector.detect`."""
        return by_query(jobs, self.boxes)

    @abstractmethod
    def spelled(self, phrases: Sequence[str]) -> str:
        """A query's text: what the model reads beside the phrases, or what people do."""

    @abstractmethod
    def boxes(self, images: Sequence[Pixels], query: Query) -> Iterator[Detections]:
        """What one query finds in each image."""


def as_detections(results: Iterable[Mapping[str, Any]]) -> Iterator[Detections]:
    """What a processor's `post_process_grounded_object_detection` says of each image, labels being texts."""
    for result in results:
        labels = tuple(result["text_labels"])
        yield Detections(
            boxes_xyxy_N4=result["boxes"].cpu().numpy().astype(np.float64),
            scores_N=result["scores"].cpu().numpy().astype(np.float64),
            labels=labels,
            phrases=labels,
        )
