"""Texts for people: a name gives the terminal no orders, is no markup and shows no secret."""

from __future__ import annotations

import pytest
from rich.text import Text

from maskmill.flows.report.console import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0m.jpg", r"a\x1b[31mred\x1b[0m.jpg"),
        ("bell\x07\x08\r.jpg", r"bell\x07\x08\r.jpg"),
        ("\x9b2J c1", r"\x9b2J c1"),
        ("gpj.\u202etxt", r"gpj.\u202etxt"),
        ("\udc80.jpg", r"\udc80.jpg"),
        ("Zoë 写真 [x].jpg\n\tnext", "Zoë 写真 [x].jpg\n\tnext"),
        ("https://me:pa55@host/x", "https://me:***@host/x"),
    ],
)
def test_what_is_shown_is_text_alone(text: str, shown: str) -> None:
    assert Text.from_markup(plain(text)).plain == shown
