"""OmDet-Turbo's boxes, scores and labels are transformers' own."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor, OmDetTurboForObjectDetection

from maskmill.pipeline.settings.words import LabelSettings
from maskmill.pipeline.words.detectors import load_detector
from maskmill.pipeline.words.detectors.omdet_turbo import PHRASES_PER_QUERY, OmDetTurbo
from tests.tiny_models import save_omdet_turbo

PHRASES = ("a cat", "dog", "big ball")
IMAGES = [np.random.default_rng(i).integers(0, 255, (40 + 20 * i, 60, 3), np.uint8) for i in range(2)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> LabelSettings:
    folder = save_omdet_turbo(tmp_path_factory.mktemp("omdet"))
    return LabelSettings(model=str(folder), text="vocabulary", vocabulary=PHRASES, box_threshold=0.3)


@pytest.fixture(scope="module")
def detector(settings: LabelSettings) -> OmDetTurbo:
    found = load_detector(settings)
    assert isinstance(found, OmDetTurbo)
    return found


def test_boxes_scores_and_labels_are_transformers_own(settings: LabelSettings, detector: OmDetTurbo) -> None:
    """Of a caption and of a vocabulary, in one call."""
    (words,), (caption,) = detector.phrase_queries(PHRASES), detector.caption_queries("A big ball on the sky")
    assert caption.phrases == ("big ball", "sky")
    kinds: tuple[Any, Any] = (OmDetTurboForObjectDetection, AutoProcessor)
    model, processor = (kind.from_pretrained(settings.model) for kind in kinds)
    jobs = [(image, query) for image in IMAGES for query in (words, caption)]
    for (image, query), found in zip(jobs, detector.detect(jobs), strict=True):
        classes = list(query.phrases)
        inputs = processor(
            images=Image.fromarray(image),
            text=classes,
            task=f"Detect {', '.join(classes)}.",
            return_tensors="pt",
        )
        outputs = model.eval().requires_grad_(False)(**inputs)
        (result,) = processor.post_process_grounded_object_detection(
            outputs, text_labels=classes, threshold=0.3, nms_threshold=0.5, target_sizes=[image.shape[:2]]
        )
        assert found.labels == tuple(result["text_labels"]) and len(found.labels) > 0
        assert np.abs(found.boxes_xyxy_N4 - result["boxes"].numpy()).max() < 1e-3
        assert np.abs(found.scores_N - result["scores"].numpy()).max() < 1e-5


def test_results_do_not_depend_on_the_batch(detector: OmDetTurbo) -> None:
    (long,), (short,) = detector.phrase_queries(PHRASES), detector.phrase_queries(["dog"])
    jobs = [(IMAGES[0], short), (IMAGES[1], long), (IMAGES[1], short)]
    for job, together in zip(jobs, detector.detect(jobs), strict=True):
        (alone,) = detector.detect([job])
        assert alone.labels == together.labels
        assert np.allclose(alone.boxes_xyxy_N4, together.boxes_xyxy_N4, atol=1e-3)


def test_many_phrases_are_read_in_parts_and_that_is_said(
    detector: OmDetTurbo, caplog: pytest.LogCaptureFixture
) -> None:
    phrases = [f"{first}{second}" for first in "abcdefghijk" for second in "abcdefghij"]
    with caplog.at_level(logging.WARNING):
        parts = detector.phrase_queries(phrases)
    assert [len(part.phrases) for part in parts] == [PHRASES_PER_QUERY, 10]
    assert caplog.messages == ["110 phrases are read in parts of 100: each image is read 2 times for them"]
    assert detector.phrase_queries([]) == ()
    assert len(detector.detect([(IMAGES[0], part) for part in parts])) == 2
