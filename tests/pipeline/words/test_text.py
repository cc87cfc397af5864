"""Text from outside, made safe."""

from __future__ import annotations

import unicodedata

import pytest

from maskmill.pipeline.words.text import clean_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a\tdog\r\n and\u2028a cat ", "a dog and a cat"),
        ("nul\x00 bell\x07 escape\x1b[31m", "nul bell escape[31m"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("right \u202eto left\u202c", "right to left"),
        ("half a pair \ud800 and private \ue000", "half a pair and private"),
        ("no character \uffff\ufdd0", "no character"),
        ("family \U0001f468\u200d\U0001f469", "family \U0001f468\u200d\U0001f469"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("\x00\u200b\t", ""),
    ],
)
def test_text_is_one_clean_line(text: str, expected: str) -> None:
    cleaned = clean_text(text, max_chars=100)
    assert cleaned == expected and unicodedata.is_normalized("NFC", cleaned)
    assert clean_text(cleaned, max_chars=100) == cleaned


def test_long_text_is_cut_at_a_word() -> None:
    assert clean_text("a dog and a cat", max_chars=9) == "a dog and"
    assert clean_text("a dog and a cat", max_chars=8) == "a dog"
    assert clean_text("x" * 10_000, max_chars=1000) == "x" * 1000
    assert len(clean_text("word " * 2000, max_chars=1000)) == 999
