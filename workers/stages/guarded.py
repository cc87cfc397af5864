"""The model roles as stages ask them: an error that one picture alone causes names itself as such.

Each class here is a role's protocol over a model of that role. Calls go through unchanged; what is raised
goes by the one rule of pipeline/unfit.py. Errors in the stages' own code, between the calls, are ours and
never pass here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.unfit import asked, plain_picture

if TYPE_CHECKING:
    import torch

    from maskmill.pipeline.segmenters.base import (
        GridParts,
        ImageEmbedding,
        Prediction,
        PromptableImage,
        Prompts,
        Segmenter,
    )
    from maskmill.pipeline.words.caption import Captioner, Subject, TextFilter
    from maskmill.pipeline.words.detectors.base import Detections, Detector, Query
    from maskmill.pipeline.words.name import NamerModel

Pixels = npt.NDArray[np.uint8]

SEGMENTER, CAPTIONER, FILTER, DETECTOR, NAMER = "segmenter", "captioner", "filter", "detector", "namer"


class GuardedSegmenter:
    """See `Segmenter`; `model` is one."""

    def __init__(self, model: Segmenter) -> None:
        self._model = model

    @property
    def image_size(self) -> int:
        """See `Segmenter`."""
        return self._model.image_size

    @property
    def mask_threshold(self) -> float:
        """See `Segmenter`."""
        return self._model.mask_threshold

    @property
    def images_per_batch(self) -> int:
        """See `Segmenter`."""
        return self._model.images_per_batch

    def grid_parts(self) -> GridParts | None:
        """See `HasGridParts`."""
        from maskmill.pipeline.segmenters.base import grid_parts_of

        return grid_parts_of(self._model)

    def embed(self, images: Sequence[Pixels]) -> list[ImageEmbedding]:
        """See `Segmenter.embed`. Raises UnfitPicture."""
        with asked(SEGMENTER, lambda: self._model.embed([plain_picture()])):
            return self._model.embed(images)

    def prompt(self, embedding: ImageEmbedding) -> PromptableImage:
        """See `Segmenter.prompt`. Raises UnfitPicture."""
        with asked(SEGMENTER, self._prompt_plain):
            return GuardedImage(self._model.prompt(embedding), self._prompt_plain)

    def _prompt_plain(self) -> Prediction:
        """A point in the middle of the plain picture."""
        from maskmill.pipeline.segmenters.base import point_prompts  # imports torch's neighbours

        (embedding,) = self._model.embed([plain_picture()])
        return self._model.prompt(embedding).predict(point_prompts(np.array([[128.0, 96.0]])))


class GuardedImage:
    """See `PromptableImage`."""

    def __init__(self, image: PromptableImage, plain: Callable[[], object]) -> None:
        self._image = image
        self._plain = plain
        self.embedding = image.embedding

    def predict(self, prompts: Prompts, *, multimask: bool = True) -> Prediction:
        """See `PromptableImage.predict`. Raises UnfitPicture."""
        with asked(SEGMENTER, self._plain):
            return GuardedPrediction(self._image.predict(prompts, multimask=multimask), self._plain)


class GuardedPrediction:
    """See `Prediction`."""

    def __init__(self, prediction: Prediction, plain: Callable[[], object]) -> None:
        self._prediction = prediction
        self._plain = plain

    @property
    def predicted_iou_PM(self) -> torch.Tensor:
        """See `Prediction`. Raises UnfitPicture."""
        with asked(SEGMENTER, self._plain):
            return self._prediction.predicted_iou_PM

    def masks(self, keep_PM: torch.Tensor) -> torch.Tensor:
        """See `Prediction.masks`. Raises UnfitPicture."""
        with asked(SEGMENTER, self._plain):
            return self._prediction.masks(keep_PM)


class GuardedCaptioner:
    """See `Captioner`; `model` is one."""

    def __init__(self, model: Captioner) -> None:
        self._model = model

    def captions(self, subjects: Sequence[Subject]) -> list[tuple[str, ...]]:
        """See `Captioner.captions`. Raises UnfitPicture."""
        with asked(CAPTIONER, self._plain):
            return self._model.captions(subjects)

    def _plain(self) -> object:
        from maskmill.pipeline.words.caption import Subject  # imports numpy's neighbours

        return self._model.captions([Subject("plain", plain_picture())])


class GuardedFilter:
    """See `TextFilter`; `model` is one."""

    def __init__(self, model: TextFilter) -> None:
        self._model = model

    def scores(self, images: Sequence[Pixels], texts: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """See `TextFilter.scores`. Raises UnfitPicture."""
        with asked(FILTER, lambda: self._model.scores([plain_picture()], [["a picture"]])):
            return self._model.scores(images, texts)


class GuardedDetector:
    """See `Detector`; `model` is one. A caption is its picture's, a vocabulary is not."""

    def __init__(self, model: Detector) -> None:
        self._model = model

    def caption_queries(self, caption: str) -> tuple[Query, ...]:
        """See `Detector.caption_queries`. Raises UnfitPicture."""
        with asked(DETECTOR, lambda: self._model.caption_queries("a thing")):
            return self._model.caption_queries(caption)

    def phrase_queries(self, phrases: Sequence[str]) -> tuple[Query, ...]:
        """See `Detector.phrase_queries`."""
        return self._model.phrase_queries(phrases)

    def detect(self, jobs: Sequence[tuple[Pixels, Query]]) -> list[Detections]:
        """See `Detector.detect`. Raises UnfitPicture."""
        with asked(DETECTOR, self._plain):
            return self._model.detect(jobs)

    def _plain(self) -> object:
        return self._model.detect([(plain_picture(), self._model.phrase_queries(("thing",))[0])])


class GuardedNamer:
    """See `NamerModel`; `model` is one. What it makes of words and features alone is no picture's."""

    def __init__(self, model: NamerModel) -> None:
        self._model = model
        self.image_size = model.image_size
        self.pixel_mean = model.pixel_mean
        self.grid_of = model.grid_of
        self.text_features = model.text_features
        self.scores = model.scores

    def image_features(self, images: Sequence[Pixels]) -> torch.Tensor:
        """See `Namer.image_features`. Raises UnfitPicture."""
        with asked(NAMER, lambda: self._model.image_features([plain_picture()])):
            return self._model.image_features(images)

    def dense_features(self, image: Pixels, longer_side: int) -> torch.Tensor:
        """See `Namer.dense_features`. Raises UnfitPicture."""
        with asked(NAMER, lambda: self._model.dense_features(plain_picture(), longer_side)):
            return self._model.dense_features(image, longer_side)
