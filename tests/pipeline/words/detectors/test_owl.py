"""OWLv2's boxes, scores and labels are transformers' own."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor, Owlv2ForObjectDetection

from maskmill.pipeline.settings.words import LabelSettings
from maskmill.pipeline.words.detectors import load_detector
from maskmill.pipeline.words.detectors.base import caption_phrases
from maskmill.pipeline.words.detectors.owl import PHRASES_PER_QUERY, Owl
from tests.tiny_models import save_owl

PHRASES = ("a cat", "dog", "ball")
IMAGES = [np.random.default_rng(i).integers(0, 255, (40 + 20 * i, 60, 3), np.uint8) for i in range(2)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> LabelSettings:
    folder = save_owl(tmp_path_factory.mktemp("owl"))
    return LabelSettings(model=str(folder), text="vocabulary", vocabulary=PHRASES, box_threshold=0.2)


@pytest.fixture(scope="module")
def owl(settings: LabelSettings) -> Owl:
    found = load_detector(settings)
    assert isinstance(found, Owl)
    return found


def own(kind: Any, settings: LabelSettings) -> Any:
    return kind.from_pretrained(settings.model)


def test_boxes_scores_and_labels_are_transformers_own(settings: LabelSettings, owl: Owl) -> None:
    (query,) = owl.phrase_queries(PHRASES)
    model, processor = own(Owlv2ForObjectDetection, settings), own(AutoProcessor, settings)
    found = owl.detect([(image, query) for image in IMAGES])
    for image, detections in zip(IMAGES, found, strict=True):
        inputs = processor(
            images=Image.fromarray(image), text=[list(PHRASES)], max_length=8, return_tensors="pt"
        )
        outputs = model.eval().requires_grad_(False)(**inputs)
        (result,) = processor.post_process_grounded_object_detection(
            outputs, threshold=0.2, target_sizes=[image.shape[:2]], text_labels=[list(PHRASES)]
        )
        assert detections.labels == tuple(result["text_labels"]) and len(detections.labels) > 0
        assert np.abs(detections.boxes_xyxy_N4 - result["boxes"].numpy()).max() < 1e-3
        assert np.abs(detections.scores_N - result["scores"].numpy()).max() < 1e-5


def test_queries_of_different_lengths_do_not_mix(owl: Owl) -> None:
    (long,), (short,) = owl.phrase_queries(PHRASES), owl.phrase_queries(["dog"])
    jobs = [(IMAGES[0], short), (IMAGES[1], long), (IMAGES[1], short)]
    together = owl.detect(jobs)
    for job, found in zip(jobs, together, strict=True):
        (alone,) = owl.detect([job])
        assert np.allclose(alone.boxes_xyxy_N4, found.boxes_xyxy_N4) and alone.labels == found.labels
    assert set(together[0].labels) <= {"dog"}


def test_long_phrases_are_cut_and_that_is_said(owl: Owl, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (query,) = owl.phrase_queries(["dog", "a very long phrase about a cat"])
        owl.detect([(IMAGES[0], query)])
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        "1 of 2 phrases are longer than the detector's 8 tokens and are cut there"
    )


def test_many_phrases_are_read_in_parts(owl: Owl) -> None:
    phrases = [f"{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(PHRASES_PER_QUERY + 1)]
    parts = owl.phrase_queries(phrases)
    assert [len(part.phrases) for part in parts] == [PHRASES_PER_QUERY, 1]
    assert owl.phrase_queries([]) == ()


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("A red cat sitting on the grass, and two dogs.", ("red cat", "grass", "two dogs")),
        ("a man in a white t-shirt is riding his horse", ("man", "white t-shirt", "horse")),
        ("the the the", ()),
        ("", ()),
        ("dog. Dog! DOG", ("dog",)),
    ],
)
def test_captions_are_cut_into_phrases(caption: str, phrases: tuple[str, ...]) -> None:
    assert caption_phrases(caption) == phrases
