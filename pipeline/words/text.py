"""Text from outside (captions, phrases, labels) made safe to store and show: one line, NFC, bounded.

Escaping is for whoever writes HTML: a caption may well hold "<b>".
"""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"
"""Invisible, and part of words in Persian and of emoji."""


def clean_text(text: str, *, max_chars: int) -> str:
    """The text in NFC without control, bidirectional-override, private or broken characters, on one line.

    Args:
        text: any.
        max_chars: longer text is cut, at the end of a word where there is one.

    Returns:
        Perhaps nothing.
    """
    normal = unicodedata.normalize("NFC", "".join(_shown(char) for char in text))
    line = " ".join(normal.split())
    if len(line) <= max_chars:
        return line
    words = line[: max_chars + 1].rpartition(" ")[0]
    return words or line[:max_chars]


def _shown(char: str) -> str:
    """The character, a space for what separates, or nothing."""
    category, code = unicodedata.category(char), ord(char)
    is_no_character = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    if category[0] == "Z" or char in "\t\n\v\f\r\x85":
        return " "
    if category in ("Cc", "Cs", "Co") or (category == "Cf" and char not in _JOINERS) or is_no_character:
        return ""
    return char
