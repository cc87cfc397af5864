"""Grounding DINO's boxes, scores and phrases are transformers' own; long vocabularies are read in parts."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from maskmill.pipeline.settings.words import LabelSettings
from maskmill.pipeline.weights.errors import WrongWeights
from maskmill.pipeline.words.detectors import load_detector
from maskmill.pipeline.words.detectors.base import Detections, Query
from maskmill.pipeline.words.detectors.grounding_dino import GroundingDino
from tests.tiny_models import save_blip, save_grounding_dino

PHRASES = ("red cat", "Dog", "St. Bird", "big green ball")
IMAGES = [np.random.default_rng(i).integers(0, 255, (40 + 10 * (i == 2), 60, 3), np.uint8) for i in range(3)]


@pytest.fixture(scope="module", params=["GroundingDino", "MMGroundingDino"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LabelSettings:
    folder = save_grounding_dino(tmp_path_factory.mktemp("detector"), kind=request.param)
    return LabelSettings(
        model=str(folder), text="vocabulary", vocabulary=PHRASES, box_threshold=0.3, text_threshold=0.25
    )


@pytest.fixture(scope="module")
def detector(settings: LabelSettings) -> GroundingDino:
    found = load_detector(settings)
    assert isinstance(found, GroundingDino)
    return found


def transformers_own(settings: LabelSettings, image: Any, text: str) -> dict[str, Any]:
    """One image, by transformers' classes and post-processing alone."""
    kinds: tuple[Any, Any] = (AutoModelForZeroShotObjectDetection, AutoProcessor)
    model, processor = (kind.from_pretrained(settings.model) for kind in kinds)
    inputs = processor(images=Image.fromarray(image), text=text, return_tensors="pt")
    outputs = model.eval().requires_grad_(False)(**inputs)
    (result,) = processor.post_process_grounded_object_detection(
        outputs,
        inputs["input_ids"],
        threshold=settings.box_threshold,
        text_threshold=settings.text_threshold,
        target_sizes=[image.shape[:2]],
    )
    return dict(result)


def test_images_and_texts_are_encoded_once(settings: LabelSettings) -> None:
    """Queries of one image are one pass of its encoder, also of the next batch; a known text is none."""
    fresh = load_detector(settings)
    assert isinstance(fresh, GroundingDino)
    inner = fresh._model.model
    rows: dict[str, list[int]] = {"images": [], "texts": []}
    inner.backbone.conv_encoder.encoder.register_forward_pre_hook(
        lambda _, given: rows["images"].append(len(given[0]))
    )
    inner.text_backbone.encoder.register_forward_pre_hook(
        lambda _, given: rows["texts"].append(len(given[0]))
    )
    first, second = Query("red cat. dog.", ("red cat", "dog")), Query("a big ball.")
    jobs = [(IMAGES[0], first), (IMAGES[0], second), (IMAGES[1], first)]
    together = fresh.detect(jobs)
    again = fresh.detect([(IMAGES[1], second), (IMAGES[1], first)])
    assert rows == {"images": [2], "texts": [2]}
    fresh.detect([(IMAGES[0].copy(), first), (IMAGES[1], second)])
    assert rows == {"images": [2, 1], "texts": [2]}
    assert_equal(again[0], transformers_own(settings, IMAGES[1], second.text))
    for found, (image, query) in zip(together, jobs, strict=True):
        assert_equal(found, transformers_own(settings, image, query.text))


def spoken(text: str) -> str:
    return " ".join(text.replace("[SEP]", " ").split()).strip(" .")


def assert_equal(found: Detections, own: dict[str, Any]) -> None:
    assert len(found.scores_N) == len(own["scores"]) > 0
    assert np.abs(found.boxes_xyxy_N4 - own["boxes"].numpy()).max() < 1e-3
    assert np.abs(found.scores_N - own["scores"].numpy()).max() < 1e-5
    assert found.phrases == tuple(spoken(text) for text in own["text_labels"])


def test_boxes_scores_and_phrases_are_transformers_own(
    settings: LabelSettings, detector: GroundingDino
) -> None:
    (phrases,) = detector.phrase_queries(PHRASES)
    (caption,) = detector.caption_queries("Two dogs on a red box.")
    assert phrases.text == "red cat. dog. st bird. big green ball."
    assert caption == Query("two dogs on a red box.")
    jobs = [(image, query) for image in IMAGES for query in (phrases, caption)]
    found = detector.detect(jobs)
    for (image, query), detections in zip(jobs, found, strict=True):
        assert_equal(detections, transformers_own(settings, image, query.text))
        assert detections.labels == detections.phrases or query is phrases
    assert len({label for detections in found for label in detections.labels} & set(PHRASES)) > 1


def test_a_box_is_called_by_the_phrase_of_its_best_token(
    settings: LabelSettings, detector: GroundingDino
) -> None:
    """Where the text threshold leaves one token, the phrase is a part of the label."""
    best_only = GroundingDino(
        detector._model, detector._processor, dataclasses.replace(settings, text_threshold=0.999)
    )
    (query,) = detector.phrase_queries(PHRASES)
    (found,) = best_only.detect([(IMAGES[0], query)])
    named = [(label, phrase) for label, phrase in zip(found.labels, found.phrases, strict=True) if phrase]
    assert set(found.labels) <= set(PHRASES)
    single = [(label, phrase) for label, phrase in named if phrase in "red cat dog st bird big green ball"]
    assert all(phrase in label.lower().replace(".", "") for label, phrase in single if " " not in phrase)


def test_results_do_not_depend_on_the_batch(detector: GroundingDino) -> None:
    queries = (*detector.phrase_queries(PHRASES), *detector.caption_queries("a dog"))
    jobs = [(image, query) for image in IMAGES for query in queries]
    for job, together in zip(jobs, detector.detect(jobs), strict=True):
        (alone,) = detector.detect([job])
        assert alone.labels == together.labels
        assert np.abs(alone.boxes_xyxy_N4 - together.boxes_xyxy_N4).max(initial=0) < 1e-3


def test_long_vocabularies_are_read_in_parts_and_that_is_said(
    detector: GroundingDino, caplog: pytest.LogCaptureFixture
) -> None:
    vocabulary = [
        f"{colour} {thing}" for colour in ("red", "blue") for thing in ("cat", "dog", "ball", "tree")
    ]
    with caplog.at_level(logging.WARNING):
        parts = detector.phrase_queries(vocabulary * 5)
    assert [phrase for part in parts for phrase in part.phrases] == vocabulary * 5
    tokens = [len(detector._processor.tokenizer(part.text)["input_ids"]) for part in parts]
    assert len(parts) == 4 and max(tokens) <= detector.max_tokens
    assert caplog.messages == [
        "40 phrases pass Grounding DINO's 32 tokens: each image is read 4 times for them"
    ]


def test_ten_thousand_words_are_read_whole(detector: GroundingDino) -> None:
    vocabulary = [f"{first}{second} ball" for first in "abcdefghij" for second in map(str, range(1000))]
    parts = detector.phrase_queries(vocabulary)
    assert sum(len(part.phrases) for part in parts) == 10_000


def test_long_captions_are_read_in_parts(detector: GroundingDino) -> None:
    caption = "a red cat and " * 60
    parts = detector.caption_queries(caption)
    assert " ".join(part.text.rstrip(".") for part in parts).split() == caption.split()
    assert len(parts) > 1 and not any(part.phrases for part in parts)
    assert detector.caption_queries("  ") == ()


def test_a_phrase_beyond_the_limit_is_refused(detector: GroundingDino) -> None:
    with pytest.raises(ValueError, match="the detector reads 30: shorten it"):
        detector.phrase_queries(["cat " * 40])


def test_another_model_is_refused(settings: LabelSettings, tmp_path: Any) -> None:
    folder = save_blip(tmp_path / "blip", retrieval=False)
    with pytest.raises(WrongWeights, match=r"detector.*'blip'"):
        load_detector(dataclasses.replace(settings, model=str(folder)))
