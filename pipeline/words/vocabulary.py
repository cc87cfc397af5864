"""Vocabularies: the words that detectors look for and masks are named from.

A vocabulary is a list of phrases, the name of a shipped list ("coco": COCO's 80 classes, "lvis": LVIS v1's
1,203, both in their own order, with spaces for LVIS's underscores), or a text file with a phrase a line
(# begins a comment line). Phrases are data from outside: NFC, one line, no control characters, bounded;
doubles are dropped, the first kept.

Imports no torch: drivers read the phrases for fingerprints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskmill.pipeline.words.text import clean_text

SHIPPED = ("coco", "lvis")
MAX_PHRASES = 100_000
MAX_PHRASE_CHARS = 200

_FOLDER = Path(__file__).parent / "vocabularies"


def load_vocabulary(source: str | Sequence[str]) -> tuple[str, ...]:
    """The phrases of a vocabulary, in order, each once.

    Args:
        source: "coco", "lvis", the path of a text file, or phrases.

    Raises:
        ValueError: a file that is missing or no UTF-8 text, no phrase at all, a phrase that is too long, or
            too many phrases.
    """
    if isinstance(source, str):
        lines, title = _read(source), f"vocabulary {source!r}"
    else:
        lines, title = [str(line) for line in source], "the vocabulary given as a list"

    for line in lines:
        if len(line) > MAX_PHRASE_CHARS:
            raise ValueError(
                f"{title}: a phrase of {len(line)} characters ({line[:40]!r}...): use at most "
                f"{MAX_PHRASE_CHARS}"
            )

    phrases = dict.fromkeys(
        phrase for line in lines if (phrase := clean_text(line, max_chars=MAX_PHRASE_CHARS))
    )
    if not phrases:
        raise ValueError(
            f'{title} has no phrases: give at least one, a phrase a line, or use "coco" or "lvis"'
        )
    if len(phrases) > MAX_PHRASES:
        raise ValueError(f"{title} has {len(phrases)} phrases: use at most {MAX_PHRASES}")
    return tuple(phrases)


def _read(source: str) -> list[str]:
    path = _FOLDER / f"{source}.txt" if source in SHIPPED else Path(source).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f'vocabulary {source!r} cannot be read ({error}): name a UTF-8 text file, "coco" or "lvis"'
        ) from error
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]
