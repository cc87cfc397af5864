"""CapFilt over hand-made captioners: what is kept, dropped, called best, and stored."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.settings.words import CaptionSettings
from maskmill.pipeline.words.caption import (
    CapFilt,
    Captions,
    CaptionText,
    CropCaptions,
    ImageCaptions,
    Subject,
    captions_from_record,
    captions_to_record,
    large_masks,
)
from tests.masks import mask

BLACK = np.zeros((8, 8, 3), np.uint8)


class Says:
    """A captioner that says the same of all, in batches of at most `fits`."""

    def __init__(self, *texts: str, fits: int = 100) -> None:
        self.texts, self.fits = texts, fits
        self.asked: list[list[str]] = []

    def captions(self, subjects: Sequence[Subject]) -> list[tuple[str, ...]]:
        if len(subjects) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.asked.append([subject.key for subject in subjects])
        return [self.texts for _ in subjects]


class ScoresByLength:
    """A filter to which a text of n characters is n % true."""

    def scores(self, images: Sequence[Any], texts: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        return [tuple(len(text) / 100 for text in image_texts) for image_texts in texts]


def settings(**changes: Any) -> CaptionSettings:
    return CaptionSettings(model="m", filter="f", **changes)


def test_every_text_that_passes_is_kept_with_score_and_origin() -> None:
    stage = CapFilt(Says("x" * 60, "y" * 30), ScoresByLength(), settings())
    (captions,) = stage([Subject("1", BLACK, "z" * 50)])
    assert captions.texts == (
        CaptionText("z" * 50, 0.5, "source"),
        CaptionText("x" * 60, 0.6, "model"),
    )
    assert captions.dropped == (CaptionText("y" * 30, 0.3, "model"),)
    assert captions.caption == "x" * 60


def test_the_sources_text_may_be_left_out_or_win() -> None:
    subject = Subject(
        "1", BLACK, "a very long and true text about all that is in this small black image, really"
    )
    (won,) = CapFilt(
        Says("short but above half of a hundred letters, somehow"), ScoresByLength(), settings()
    )([subject])
    assert won.caption == subject.source_text and won.texts[0].origin == "source"
    (left_out,) = CapFilt(Says("x" * 60), ScoresByLength(), settings(source_text=False))([subject])
    assert [text.origin for text in left_out.texts] == ["model"]


def test_without_a_filter_all_is_kept_unscored_and_the_models_first_is_best() -> None:
    (captions,) = CapFilt(Says("one", "two", "one"), None, settings())([Subject("1", BLACK, "source")])
    assert [(text.text, text.score, text.origin) for text in captions.texts] == [
        ("source", None, "source"),
        ("one", None, "model"),
        ("two", None, "model"),
    ]
    assert captions.caption == "one"


def test_nothing_that_passes_is_no_caption() -> None:
    (captions,) = CapFilt(Says("no"), ScoresByLength(), settings())([Subject("1", BLACK)])
    assert captions == Captions((), (CaptionText("no", 0.02, "model"),)) and captions.caption is None


def test_texts_are_cleaned_bounded_and_never_empty() -> None:
    stage = CapFilt(Says("a\x00 dog\u202e\n", " \t"), None, settings(max_chars=100))
    (captions,) = stage([Subject("1", BLACK, "word " * 2000)])  # 10,000 characters
    assert [text.text for text in captions.texts] == [("word " * 20).strip(), "a dog"]
    assert len(captions.texts[0].text) == 99


def test_a_captioner_short_of_memory_halves_its_batch_says_so_and_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    captioner = Says("text", fits=2)
    with caplog.at_level(logging.WARNING):
        found = CapFilt(captioner, None, settings(batch_size=8))([Subject(str(i), BLACK) for i in range(5)])
    assert len(found) == 5 and captioner.asked == [["0", "1"], ["2", "3"], ["4"]]
    assert caplog.messages == ["captioner: out of memory with 5 together; going on with 2"]


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), float), BLACK[:0]],
)
def test_crops_that_are_not_rgb_are_refused(pixels: Any) -> None:
    with pytest.raises(ValueError, match=r"must be uint8\[height, width, 3\] RGB"):
        CapFilt(Says("text"), None, settings())([Subject("1", pixels)])


def test_large_masks_come_largest_first_with_boxes_of_whole_pixels() -> None:
    image = AnnotatedImage(20, 10, (mask((3, 4, 4, 5)), mask((0, 0, 10, 10)), mask((5, 5, 20, 10))))
    found = large_masks(image, min_share=0.2, max_masks=5)
    assert found == [(1, (0, 0, 10, 10)), (2, (5, 5, 20, 10))]
    assert large_masks(image, min_share=0.2, max_masks=1) == found[:1]
    assert large_masks(image, min_share=1e-6, max_masks=5)[-1] == (0, (3, 4, 4, 5))  # one pixel is a crop


def test_records_come_back_equal() -> None:
    crop = CropCaptions(3, (1, 2, 5, 9), Captions((CaptionText("a <b>", 0.75, "model"),)))
    captions = ImageCaptions(20, 10, Captions((), (CaptionText("no", 0.1, "source"),)), (crop,))
    record = captions_to_record(captions, image_id=7, file_name="000000007.jpg")
    assert record["caption"] is None and record["crops"][0]["mask"] == 700_003
    assert record["crops"][0]["box"] == [1, 2, 4, 7] and record["crops"][0]["caption"] == "a <b>"
    assert captions_from_record(json.loads(json.dumps(record))) == captions
    with pytest.raises(ValueError, match="not a captions record"):
        captions_from_record({"image": {}})
