"""Cutting texts for detectors: in parts that fit, and captions into phrases."""

from __future__ import annotations

import pytest

from maskmill.pipeline.words.detectors.base import CAPTION_WORDS, caption_phrases, in_parts


def test_neighbours_go_together_as_long_as_they_fit() -> None:
    assert in_parts(["aaa", "bb", "c", "dddd", "e"], len, 5) == [["aaa", "bb"], ["c", "dddd"], ["e"]]
    assert in_parts([], len, 5) == []
    assert in_parts(["aaaaa"], len, 5) == [["aaaaa"]]


def test_a_piece_that_fits_nowhere_is_named() -> None:
    with pytest.raises(ValueError, match=r"'bbbbbb' takes 6 tokens, the detector reads 5: shorten it"):
        in_parts(["a", "bbbbbb"], len, 5)


def test_phrases_lie_between_the_small_words_and_come_once() -> None:
    caption = "A brown dog lies on the red sofa, next to the brown dog lies; it's raining"
    assert caption_phrases(caption) == ("brown dog lies", "red sofa", "it's raining")
    assert caption_phrases("the of and") == ()


def test_a_phrase_has_an_end() -> None:
    (phrase,) = caption_phrases(" ".join(f"word{i}" for i in range(CAPTION_WORDS + 5)))
    assert len(phrase.split()) == CAPTION_WORDS
